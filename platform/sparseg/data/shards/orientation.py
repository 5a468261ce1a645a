"""Which way up a picture is: the EXIF orientation in the bytes of an image, read, applied, set to upright.

A camera stores its sensor's rows and notes in a tag, 1 to 8, how a viewer must turn them.  Browsers,
annotation tools and `datasets` do so, hence we do: height, width, labels and windows are those of the upright
picture.  The tag is read where Pillow reads it, so that `datasets` and we agree: EXIF in JPEG, PNG and WebP,
a TIFF's own tag, an EXIF profile in a PNG's text; where these lack it, XMP.

A tag stands for (transpose, flip y, flip x): the stored rows are flipped, then rows and columns
change places.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),  # 180 degrees
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),  # 90 degrees clockwise: a phone held upright
    7: (True, True, True),
    8: (True, False, True),  # 90 degrees counter-clockwise
}
"""Orientation -> (transpose, flip y, flip x)."""

ORIENTATION, XMP = 0x0112, 700  # tags of a TIFF, which EXIF is
JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
EXIF_HEAD, XMP_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
MARKER = b"\xff"  # what every segment of a JPEG begins with
XMP_KEY, PROFILE_KEY = b"XML:com.adobe.xmp", b"Raw profile type exif"
TIFF_STARTS = (b"II*\0", b"MM\0*")
IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
VALUE_CODE = {1: "B", 3: "H", 4: "I"}  # types of a TIFF that a whole number may have

Box = tuple[int, int, int, int]


class Block(NamedTuple):
    """Metadata at data[start:stop]; kinds: exif (begins as a TIFF), xmp, and of a PNG's chunks profile and
    packed, which hold these compressed.
    """

    kind: str
    start: int
    stop: int


class Tag(NamedTuple):
    """An orientation, and where in the block's text it stands: packed as `code` of struct, or a digit if that
    is empty.
    """

    value: int
    at: int
    code: str


def orientation_of(data: bytes) -> int:
    """How a viewer turns this encoded image, 1 (as it is stored) to 8; 1 where nothing valid is said."""
    found: dict[bool, int] = {}
    for block in _blocks(data):
        text = _text(data, block)
        if (tag := _tag(text, block.kind)) is not None:
            found.setdefault(block.kind in ("exif", "profile"), tag.value)
    value = found.get(True, found.get(False, 1))  # EXIF goes before XMP
    return value if value in TURNS else 1


def upright(image_HW: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image (H, W, ...) as a viewer shows it; (W, H, ...) for orientations 5 to 8.

    The array itself for orientation 1, else a copy.
    """
    if orientation == 1:
        return image_HW
    transpose, flip_y, flip_x = TURNS[orientation]
    turned = image_HW[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(turned.swapaxes(0, 1) if transpose else turned)


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of a stored image -> of the upright one."""
    height, width = size
    return (width, height) if TURNS[orientation][0] else (height, width)


def turned_with(label_HW: np.ndarray, shape: tuple[int, int], orientation: int) -> np.ndarray:
    """A label map for the upright image of `shape` (H, W): turned with it if it was made on stored pixels.

    Only the size can tell: of orientations 5 to 8, a map that has the stored size and not the upright one.
    All else comes back as it is.
    """
    is_stored = label_HW.shape != shape and upright_size(label_HW.shape[:2], orientation) == shape
    return upright(label_HW, orientation) if is_stored else label_HW


def stored_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box (left, top, right, bottom) of the upright image -> the same pixels in the stored (H, W)."""
    transpose, flip_y, flip_x = TURNS[orientation]
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if transpose else box
    height, width = size
    if flip_x:
        left, right = width - right, width - left
    if flip_y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def with_orientation_1(data: bytes) -> bytes:
    """The same file, whose stored pixels every viewer shows as they are: the tags say 1, no pixel changes.

    The bytes themselves if they say so already.
    """
    if orientation_of(data) == 1:
        return data
    patched = bytearray(data)
    for block in reversed(
        list(_blocks(data))
    ):  # the last first: a chunk of another length moves what follows
        text = bytearray(_text(bytes(patched), block))
        if (tag := _tag(bytes(text), block.kind)) is None:
            continue
        if tag.code:
            struct.pack_into(tag.code, text, tag.at, 1)
        else:
            text[tag.at] = ord("1")
        if data[:8] == PNG_START:
            patched[block.start - 8 : block.stop + 4] = _chunk(block.kind, bytes(text), data, block)
        else:
            patched[block.start : block.stop] = text
    return bytes(patched)


# ------------------------------------------------------------------------------------------------- the blocks


def _blocks(data: bytes) -> Iterator[Block]:
    if data[:2] == JPEG_START:
        return _jpeg_blocks(data)
    if data[:8] == PNG_START:
        return _png_blocks(data)
    if data[:4] in TIFF_STARTS:
        return _tiff_blocks(data)
    return _webp_blocks(data) if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else iter(())


def _jpeg_blocks(data: bytes) -> Iterator[Block]:
    at, exif_seen = 2, False
    while at + 4 <= len(data) and data.startswith(MARKER, at):
        marker = data[at + 1]
        if data.startswith(MARKER, at + 1):  # the first is a fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length follows
            at += 2
            continue
        if marker in (0xD9, 0xDA):  # the end, the pixels
            return
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data.startswith(EXIF_HEAD, at + 4) and not exif_seen:
            exif_seen = True
            yield Block("exif", at + 4 + len(EXIF_HEAD), stop)
        elif marker == 0xE1 and data.startswith(XMP_HEAD, at + 4):
            yield Block("xmp", at + 4 + len(XMP_HEAD), stop)
        at = stop


def _png_blocks(data: bytes) -> Iterator[Block]:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start, stop = at + 8, at + 8 + length
        if kind == b"eXIf":
            yield Block("exif", start, stop)
        elif kind == b"iTXt" and data.startswith(XMP_KEY + b"\0", start):
            yield Block("packed", start, stop)
        elif kind in (b"zTXt", b"tEXt") and data.startswith(PROFILE_KEY + b"\0", start):
            yield Block("profile", start, stop)
        at = stop + 4


def _webp_blocks(data: bytes) -> Iterator[Block]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        start, stop = at + 8, at + 8 + length
        if kind == b"EXIF":
            yield Block("exif", start + len(EXIF_HEAD) * data.startswith(EXIF_HEAD, start), stop)
        elif kind == b"XMP ":
            yield Block("xmp", start, stop)
        at = stop + length % 2


def _tiff_blocks(data: bytes) -> Iterator[Block]:
    yield Block("exif", 0, len(data))
    order = "<" if data[:2] == b"II" else ">"
    for at, tag, _, count in _entries(data):
        if tag == XMP:
            (start,) = struct.unpack_from(f"{order}I", data, at + 8)
            yield Block("xmp", start, min(start + count, len(data)))


# --------------------------------------------------------------------------------------------- within a block


def _text(data: bytes, block: Block) -> bytes:
    """The block's bytes, unpacked: as a TIFF or as XMP; empty if they are damaged."""
    text = data[block.start : block.stop] if (block.start, block.stop) != (0, len(data)) else data
    try:
        if block.kind == "profile":
            compressed = data[block.start - 4 : block.start] == b"zTXt"
            text = text[len(PROFILE_KEY) + 1 :]
            lines = (_inflated(text[1:]) if compressed else text).split(b"\n")
            return bytes.fromhex(b"".join(lines[3:]).decode("latin-1")).removeprefix(EXIF_HEAD)
        if block.kind == "packed":  # key, 0, compressed?, method, language, 0, translated key, 0, text
            text = text[len(XMP_KEY) + 3 :].split(b"\0", 2)[2]
            return _inflated(text) if data[block.start + len(XMP_KEY) + 1] else text
    except (ValueError, zlib.error, IndexError):
        return b""
    return text


def _inflated(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, 2**24)  # a small file may ask for gigabytes


def _entries(tiff: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(place, tag, type, count) of the entries of a TIFF's first directory."""
    if tiff[:4] not in TIFF_STARTS or len(tiff) < 10:
        return
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    if first + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    for at in range(first + 2, min(first + 2 + 12 * count, len(tiff) - 11), 12):
        yield at, *struct.unpack_from(f"{order}HHI", tiff, at)


def _tag(text: bytes, kind: str) -> Tag | None:
    if kind in ("xmp", "packed"):
        found = IN_XMP.search(text)
        return Tag(int(found[1]), found.start(1), "") if found else None
    order = "<" if text[:2] == b"II" else ">"
    for at, tag, value_type, count in _entries(text):
        if tag == ORIENTATION and value_type in VALUE_CODE and count == 1:
            code = order + VALUE_CODE[value_type]
            return Tag(struct.unpack_from(code, text, at + 8)[0], at + 8, code)
    return None


def _chunk(kind: str, text: bytes, data: bytes, block: Block) -> bytes:
    """A PNG's chunk for the changed text; what was packed is written plainly."""
    match kind:
        case "exif" | "profile":
            body = b"eXIf" + text
        case _:
            body = b"iTXt" + XMP_KEY + b"\0\0\0\0\0" + text
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
