"""A region of an encoded image, without decoding all of it; a lossless form of storage made for that.

What a window of rows top..bottom costs, next to the whole image:
- JPEG (baseline) and PNG (not interlaced): the rows down to its bottom.  The header's height is lowered, so
  that Pillow's own decoder ends there; the pixels are the same as those of the whole image.
- what `encode_fast` writes, a TIFF of compressed tiles: the tiles that it touches.  They are wrapped,
  compressed as they are, into a small TIFF that Pillow decodes.
- what `encode_raw` writes, an uncompressed TIFF: a copy of the window's pixels.
- everything else: the whole image.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from sparseg.data.shards.images import PNG_SIGNATURE, as_rgb, decode_image, load, turn_left
from sparseg.data.shards.orientation import stored_box, upright, upright_size

TILE_PX = 128  # smaller tiles compress worse, larger ones reach further over the window's edge
CHROMA_ROWS = 16  # rows below the window that JPEG's chroma upsampling may look at; it looks at two
ZSTD = 50000  # TIFF's number for it
ZSTD_LEVEL = 3

HEAD_BYTES = 8 + 2 + 12 * 12 + 4 + 8  # of a TIFF with up to twelve entries

Box = tuple[int, int, int, int]
Entry = tuple[int, int, int, int]
"""(tag, type 3 = 16 bit or 4 = 32 bit, count, value or where the values are); a TIFF has them by tag."""


def decode_window(data: bytes, box: Box, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of box (left, top, right, bottom) -> (bottom - top, right - left, 3) uint8 RGB, writable.

    Equal to decode_image(data)[top:bottom, left:right]: the box lies in the upright image.  `shape`: the
    (height, width) that this must have.  Raises ValueError as decode_image does, and if the box or the shape
    is not the image's.
    """
    if (raw_HW3 := _raw_pixels(data)) is not None:
        _check(raw_HW3.shape[:2], box, shape)
        return raw_HW3[box[1] : box[3], box[0] : box[2]].copy()
    if (orientation := turn_left(data)) != 1:
        return _turned_window(data, box, shape, orientation)
    part, part_box, whole = _shortened(data, box)
    image = load(part)
    _check(whole or (image.height, image.width), box, shape)
    return np.array(as_rgb(image.crop(part_box)))


def _turned_window(data: bytes, box: Box, shape: tuple[int, int] | None, orientation: int) -> np.ndarray:
    """The same of an image that its bytes hold turned: the window is cut where it lies there, then turned."""
    size = _size_in_header(data)
    if size is None:  # of the kinds that are decoded whole anyway
        image_HW3 = decode_image(data)
        _check(image_HW3.shape[:2], box, shape)
        return image_HW3[box[1] : box[3], box[0] : box[2]].copy()
    _check(upright_size(size, orientation), box, shape)
    part, part_box, _ = _shortened(data, stored_box(box, size, orientation))
    return upright(np.array(as_rgb(load(part).crop(part_box))), orientation)


def _check(size: tuple[int, ...], box: Box, shape: tuple[int, int] | None) -> None:
    height, width = size
    if shape is not None and shape != (height, width):
        raise ValueError(
            f"image is {width}x{height} pixels but {shape[1]}x{shape[0]} are expected (width x height)"
        )
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box {box} does not lie in the image of {width}x{height} pixels (width x height)")


def _shortened(data: bytes, box: Box) -> tuple[bytes, Box, tuple[int, int] | None]:
    """(bytes that decode to enough of the image, the box in them, the whole's (height, width) or None)."""
    bottom = box[3]
    if data[:2] == b"\xff\xd8" and (at := _baseline_height_at(data)) is not None:
        height, width = struct.unpack(">HH", data[at : at + 4])
        if 0 < bottom < height - CHROMA_ROWS:
            lowered = struct.pack(">H", bottom + CHROMA_ROWS)
            return data[:at] + lowered + data[at + 2 :], box, (height, width)
    elif data[:8] == PNG_SIGNATURE and data[12:16] == b"IHDR" and len(data) > 33 and data[28] == 0:
        width, height = struct.unpack(">II", data[16:24])
        if 0 < bottom < height and zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big"):
            header = data[12:20] + struct.pack(">I", bottom) + data[24:29]
            check = struct.pack(">I", zlib.crc32(header))
            return data[:12] + header + check + data[33:], box, (height, width)
    elif data[:4] == b"II*\0":
        return _fewer_tiles(data, box)
    return data, box, None


def _size_in_header(data: bytes) -> tuple[int, int] | None:
    """(height, width) as stored, of the JPEGs and PNGs that `_shortened` cuts short; None for all else."""
    if data[:2] == b"\xff\xd8" and (at := _baseline_height_at(data)) is not None:
        height, width = struct.unpack(">HH", data[at : at + 4])
    elif data[:8] == PNG_SIGNATURE and data[12:16] == b"IHDR" and len(data) > 33:
        width, height = struct.unpack(">II", data[16:24])
    else:
        return None
    return height, width


def _baseline_height_at(data: bytes) -> int | None:
    """Where a baseline JPEG of 1 or 3 channels holds its height; None for other kinds and damaged ones."""
    at = 2
    while at + 10 <= len(data) and data[at : at + 1] == b"\xff":
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1):
            return at + 5 if data[at + 4] == 8 and data[at + 9] in (1, 3) else None
        if not (0xE0 <= marker <= 0xEF or marker in (0xC4, 0xDB, 0xDD, 0xFE)):
            return None
        at += 2 + length
    return None


# --------------------------------------------------------------------------------------------- tiled TIFF


def encode_fast(image_HW3: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> a lossless form of which a window decodes alone: TIFF, zstd tiles of 128 px.

    About a PNG's size.  An image that fits one tile becomes a PNG.  Any reader with libtiff and zstd opens
    it.
    """
    height, width, _ = image_HW3.shape
    if max(height, width) <= TILE_PX:
        buffer = io.BytesIO()
        Image.fromarray(image_HW3).save(buffer, format="PNG")
        return buffer.getvalue()
    import pyarrow

    zstd = pyarrow.Codec("zstd", compression_level=ZSTD_LEVEL)
    rows, columns = _tile_counts(height, width)
    rest = ((0, rows * TILE_PX - height), (0, columns * TILE_PX - width), (0, 0))
    padded = np.pad(image_HW3, rest, mode="edge").reshape(rows, TILE_PX, columns, TILE_PX, 3)
    differences = padded.copy()  # TIFF's predictor 2: each pixel less its left neighbour in the tile
    differences[:, :, :, 1:] -= padded[:, :, :, :-1]
    tiles = differences.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    return _tiff(height, width, [zstd.compress(tile.tobytes(), asbytes=True) for tile in tiles])


def encode_raw(image_HW3: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> an uncompressed TIFF, 3 bytes a pixel: the fastest to cut from, the largest."""
    height, width, _ = image_HW3.shape
    return _raw_head(height, width) + image_HW3.tobytes()


def _raw_pixels(data: bytes) -> np.ndarray | None:
    """(H, W, 3) on the memory of what `encode_raw` wrote, whole; None for all else."""
    if data[:4] != b"II*\0" or len(data) <= HEAD_BYTES:
        return None
    width, height = struct.unpack("<I", data[18:22])[0], struct.unpack("<I", data[30:34])[0]
    too_long = 3 * height * width != len(data) - HEAD_BYTES
    if too_long or data[:HEAD_BYTES] != _raw_head(height, width):
        return None
    return np.frombuffer(data, np.uint8, offset=HEAD_BYTES).reshape(height, width, 3)


def _tile_counts(height: int, width: int) -> tuple[int, int]:
    return -(-height // TILE_PX), -(-width // TILE_PX)


def _tiff_head(height: int, width: int) -> bytes:
    """All that precedes the tables of the tiles' places and sizes; two tiles at least, as the tables are
    apart.
    """
    rows, columns = _tile_counts(height, width)
    count = rows * columns
    places_at = HEAD_BYTES
    sizes_at = places_at + 4 * count
    assert count >= 2
    tiles = [
        (322, 4, 1, TILE_PX),
        (323, 4, 1, TILE_PX),
        (324, 4, count, places_at),
        (325, 4, count, sizes_at),
    ]
    return _head([*_common(height, width, compression=ZSTD, predictor=2), *tiles])


def _raw_head(height: int, width: int) -> bytes:
    """All that precedes the pixels: one strip of all the rows."""
    strip = [(273, 4, 1, HEAD_BYTES), (278, 4, 1, height), (279, 4, 1, 3 * height * width)]
    return _head(sorted([*_common(height, width, compression=1, predictor=1), *strip]))


def _common(height: int, width: int, *, compression: int, predictor: int) -> list[Entry]:
    """What both kinds of TIFF say: three interleaved 8-bit channels, RGB."""
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, HEAD_BYTES - 8),  # where the bits of each channel stand
        (259, 3, 1, compression),
        (262, 3, 1, 2),  # RGB
        (277, 3, 1, 3),  # channels
        (284, 3, 1, 1),  # that lie together
        (317, 3, 1, predictor),
    ]


def _head(entries: list[Entry]) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
    return head + bytes(HEAD_BYTES - 8 - len(head)) + struct.pack("<4H", 8, 8, 8, 0)


def _tiff(height: int, width: int, tiles: list[bytes]) -> bytes:
    head = _tiff_head(height, width)
    sizes = np.array([len(tile) for tile in tiles])
    places = len(head) + 8 * len(tiles) + np.cumsum(sizes) - sizes
    return b"".join([head, places.astype("<u4").tobytes(), sizes.astype("<u4").tobytes(), *tiles])


def _fewer_tiles(data: bytes, box: Box) -> tuple[bytes, Box, tuple[int, int] | None]:
    """The tiles under the box as a TIFF of their own, if the data are what `encode_fast` writes."""
    whole = data, box, None
    if len(data) < 34:
        return whole
    width, height = struct.unpack("<I", data[18:22])[0], struct.unpack("<I", data[30:34])[0]
    left, top, right, bottom = box
    rows, columns = _tile_counts(height, width)
    tables = 8 * rows * columns
    if not (0 <= left < right <= width and 0 <= top < bottom <= height) or not 2 <= rows * columns:
        return whole
    head = _tiff_head(height, width) if tables < len(data) else b"other"
    if data[: len(head)] != head or len(data) < len(head) + tables:
        return whole
    row, column = top // TILE_PX, left // TILE_PX
    row_end, column_end = -(-bottom // TILE_PX), -(-right // TILE_PX)
    if (row_end - row) * (column_end - column) == 1:  # a TIFF of one tile is laid out otherwise
        if columns > 1:
            column = min(column, columns - 2)
            column_end = column + 2
        else:
            row = min(row, rows - 2)
            row_end = row + 2
    places, sizes = np.frombuffer(data, "<u4", 2 * rows * columns, len(head)).reshape(2, rows, columns)
    area = np.s_[row:row_end, column:column_end]
    if (places[area].astype(np.int64) + sizes[area] > len(data)).any():
        return whole
    tiles = [data[p : p + n] for p, n in zip(places[area].flat, sizes[area].flat, strict=True)]
    part = _tiff((row_end - row) * TILE_PX, (column_end - column) * TILE_PX, tiles)
    x, y = column * TILE_PX, row * TILE_PX
    return part, (left - x, top - y, right - x, bottom - y), (height, width)
