"""Pictures and label maps as bytes, and back: which kinds are taken, how each becomes 8-bit RGB.

Taken as they are: 8-bit RGB.  Converted: grey, 1-bit and palette (three equal channels, or the palette's
colours); RGBA, grey + alpha and transparent palettes if every pixel is opaque; 16-bit grey (value / 257,
rounded, so that 0..65535 becomes 0..255); 16-bit RGB (its high byte, which is what Pillow reads).  Of a
file with several frames, the first.  Refused, with the remedy: see-through pixels, CMYK, 32-bit and
floating-point values, TIFFs of other bands, no pixels, more than MAX_PIXELS.  The name's ending counts for
nothing, the content decides.  EXIF orientation is not applied: the image stays as it is stored, for its
labels were drawn on some reader's idea of it; the importer compares the sizes and says when a rotation may
be the reason.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from sparseg.config import MAX_CLASSES, UNLABELLED

UNLABELLED_COLOUR, IGNORED_COLOUR = (40, 40, 40), (224, 224, 192)
MAX_PIXELS = 2**26
"""Largest width x height that is decoded (8192 x 8192): a file of a few kB can ask for gigabytes."""
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000")
LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Colour = tuple[int, int, int]


def default_palette(count: int) -> list[Colour]:
    """`count` distinct (r, g, b), 0..255: VOC's colours, whose bits are those of the class id."""
    colours = []
    for k in range(count):
        r, g, b = (sum((k >> (3 * j + channel) & 1) << (7 - j) for j in range(3)) for channel in range(3))
        colours.append((r, g, b))
    return colours


# ----------------------------------------------------------------------------------------------------- labels


def encode_label(array: np.ndarray, palette: list[Colour] | None = None) -> bytes:
    """(H, W) uint8 with codes -> palette PNG that an image viewer shows in colours; values stay exact."""
    image = Image.fromarray(array)
    colours = (palette or default_palette(MAX_CLASSES))[:MAX_CLASSES]
    table = colours + [(0, 0, 0)] * (UNLABELLED - len(colours)) + [UNLABELLED_COLOUR, IGNORED_COLOUR]
    image.putpalette([value for colour in table for value in colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)  # 3x faster than 6, 30 % larger
    return buffer.getvalue()


def decode_label(data: bytes) -> np.ndarray:
    """PNG (or TIFF, BMP, GIF) bytes -> (H, W) uint8 with codes, not writable.

    Raises ValueError unless of one 8-bit channel or a palette, and if the data are damaged.
    """
    plain = _plain_png(data)
    if plain is not None:
        return plain
    image = load(data, "label", LABEL_FORMATS)
    if image.mode not in ("P", "L"):
        raise ValueError(f"a label must be an 8-bit palette or grey PNG, got mode {image.mode}")
    return np.asarray(image)


def _plain_png(data: bytes) -> np.ndarray | None:
    """The values of an 8-bit, one-channel PNG whose rows are unfiltered, as `encode_label` writes them;
    else None.

    Half the time of the general way: inflated straight into the array, of which the first column is the
    filter.
    """
    if data[:8] != PNG_SIGNATURE or data[12:16] != b"IHDR" or data[24:25] != b"\x08" or len(data) < 33:
        return None
    width, height, colour_type, interlaced = *struct.unpack(">II", data[16:24]), data[25], data[28]
    if colour_type not in (0, 3) or interlaced or not 0 < width * height <= MAX_PIXELS:
        return None
    parts, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        if kind == b"IDAT":
            parts.append(data[at + 8 : end - 4])
        at = end
    inflate = zlib.decompressobj()
    try:
        values = inflate.decompress(b"".join(parts), height * (width + 1) + 1)
    except zlib.error:
        return None
    if not inflate.eof or len(values) != height * (width + 1):
        return None
    rows = np.frombuffer(values, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


# ----------------------------------------------------------------------------------------------------- images


def load(data: bytes, what: str = "image", formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Encoded bytes -> decoded Pillow image of any mode.

    Raises ValueError if the bytes are none of `formats`, are damaged, hold no pixels or more than MAX_PIXELS.
    """
    Image.init()  # registers the formats, once; a Pillow built without one of them lacks it
    formats = tuple(name for name in formats if name in Image.OPEN)
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
        width, height = image.size
        too_large = width * height > MAX_PIXELS
        if not too_large:
            image.load()
    except Image.UnidentifiedImageError as error:
        reason = f"{len(data)} bytes that begin with {bytes(data[:8])!r}: none of {', '.join(formats)}"
        if data[:4] in (b"II*\0", b"MM\0*"):
            reason = (
                "a TIFF of a kind that Pillow does not read; convert it, choosing three bands: "
                "gdal_translate -of PNG -ot Byte -scale -b 1 -b 2 -b 3 IN OUT"
            )
        raise ValueError(f"unreadable or truncated {what} ({reason})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(_too_large(what, "more")) from error
    except Exception as error:  # damaged bytes make Pillow's readers raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"unreadable or truncated {what} ({reason})") from error
    if too_large:
        raise ValueError(_too_large(what, f"{width}x{height}"))
    if not width * height:
        raise ValueError(f"{what} of {width}x{height} pixels is empty; leave it out or export it again")
    return image


def _too_large(what: str, found: str) -> str:
    return (
        f"{what} is taken for a decompression bomb: {found} pixels, at most {MAX_PIXELS} (8192x8192) are "
        "decoded; cut it into tiles"
    )


def as_rgb(image: Image.Image) -> Image.Image:
    """A decoded image by the rules above as 8-bit RGB.  Raises ValueError for the kinds that are refused."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        wide_HW = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise ValueError(
                f"image of mode {image.mode} has see-through pixels, what lies behind them is not known; "
                "flatten it and convert it to 8-bit RGB"
            )
        return image.convert("RGBA").convert("RGB")
    if image.mode not in ("L", "P", "1"):
        raise ValueError(
            f"image of mode {image.mode} cannot be taken as RGB without loss; convert it to 8-bit RGB"
        )
    return image.convert("RGB")


def decode_image(data: bytes) -> np.ndarray:
    """Encoded bytes -> (H, W, 3) uint8 RGB by the rules at the head of this file, not writable.

    Raises ValueError for the kinds that are refused, and if the data are damaged.
    """
    return np.asarray(as_rgb(load(data)))
