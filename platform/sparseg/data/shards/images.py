"""Pictures and label maps as bytes, and back: which kinds are taken, how each becomes 8-bit RGB.

One rule for each kind of picture, the same at import, in training, prediction, evaluation and on pages:

| kind | becomes |
|---|---|
| 8-bit RGB | itself; colour profiles are not applied |
| 8-bit grey, 1-bit, palette | three equal channels (black 0, white 255); the palette's colours |
| RGBA, grey + alpha, transparent palette | its colours if every pixel is opaque, else refused |
| 16-bit grey (PNG, TIFF, PGM, JPEG 2000) | value / 257, rounded, in every file: 0..65535 -> 0..255 |
| 16-bit RGB (PNG, PPM, JPEG 2000) | the high byte of each channel |
| several frames or pages | the first |
| CMYK, YCbCr or Lab TIFF, 32-bit, floating-point | refused: no one conversion is right |
| TIFF of several bands | 8-bit red, green, blue (and alpha) only |
| no pixels, more than MAX_PIXELS | refused |

Where a file is met first (`is_new`: at import and prediction), 16-bit pictures that reach less than a
sixteenth of their range are refused as well: 8-, 10- or 12-bit data in 16 bits would become black, and a
scale of each file's own would show one scene in several brightnesses.  Every refusal names the remedy.  The
name's ending counts for nothing, the content decides.  A picture is taken upright, as its EXIF orientation
says (orientation.py); TIFFs are turned by Pillow itself.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import (  # noqa: F401  each registers its format; Image.init() would load 40 more
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)
from PIL.TiffImagePlugin import BITSPERSAMPLE, EXTRASAMPLES, PHOTOMETRIC_INTERPRETATION

from sparseg.common.process import one_line
from sparseg.config import MAX_CLASSES, UNLABELLED
from sparseg.data.shards.orientation import TIFF_STARTS, orientation_of, upright
from sparseg.data.shards.palette import IGNORED_COLOUR, UNLABELLED_COLOUR, Colour, default_palette

MAX_PIXELS = 2**26
"""Largest width x height that is decoded (8192 x 8192): a file of a few kB can ask for gigabytes."""
MAX_SCENE_PIXELS = 2**28
"""The same for an image that an import cuts into tiles (16384 x 16384): 3 bytes a pixel, and 4 in Pillow."""
THREE_BANDS = "gdal_translate -of PNG -ot Byte -scale -b 1 -b 2 -b 3 IN OUT"
NARROW = 2**12
"""A 16-bit picture whose values all lie below becomes 16 shades of black."""
ALPHA = (1, 2)  # in a TIFF's ExtraSamples: the band beyond red, green and blue is one
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000")
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2"),
)
"""File names that count as images where a folder is given, in lower case; of IMAGE_FORMATS."""
LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class UnreadableError(ValueError):
    """Bytes that are no image of a known format, are damaged, empty or too many pixels."""


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


def decode_label_file(data: bytes, max_pixels: int = MAX_SCENE_PIXELS) -> np.ndarray:
    """A user's label map (PNG, TIFF, BMP or GIF bytes) -> its ids (H, W) uint8, upright, as they were saved.

    One channel of 1 to 32 bits or whole floating-point numbers, a palette's indices, or RGB whose channels
    are equal, opaque if there is alpha.  What Pillow scales (grey of 2 and 4 bits) or inverts is undone.
    Raises UnreadableError for bytes that do not decode, ValueError for what is no map of ids 0..255.
    """
    image = load(data, "label", LABEL_FORMATS, max_pixels)
    array = np.asarray(image)
    if image.mode in ("RGB", "RGBA", "LA"):
        colours = array[..., :3] if image.mode != "LA" else array[..., :1]
        opaque = image.mode == "RGB" or image.getchannel("A").getextrema() == (255, 255)
        if is_wide_png(data) or not opaque or (colours != colours[..., :1]).any():
            raise ValueError(
                f"a label must hold class ids in one channel, this one is {image.mode} with channels that "
                "differ; convert its colours to ids"
            )
        array = colours[..., 0]
    elif image.mode not in ("P", "L", "1", "F") and image.mode[0] != "I":
        raise ValueError(f"a label must hold class ids in one channel, this one is {image.mode}")
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        if not (0 <= low and high <= np.iinfo(np.uint8).max) or (array != np.floor(array)).any():
            raise ValueError(f"label values {low}..{high} are no whole numbers 0..255; it is no class map")
        array = array.astype(np.uint8)
    return upright(_unscaled(array, data, image), turn_left(data))


def _unscaled(array_HW: np.ndarray, data: bytes, image: Image.Image) -> np.ndarray:
    """The values that were saved in a grey image of 8 bits or fewer."""
    if image.mode not in ("L", "1"):
        return array_HW
    bits = data[24] if data[:8] == PNG_SIGNATURE else _tiff_tag(image, BITSPERSAMPLE, (8,))[0]
    top = 2**bits - 1
    scale = 1 if image.mode == "1" else np.iinfo(np.uint8).max // top
    values_HW = array_HW if scale == 1 else array_HW // scale
    return top - values_HW if _tiff_tag(image, PHOTOMETRIC_INTERPRETATION, 1) == 0 else values_HW


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


@contextlib.contextmanager
def pillow_takes(max_pixels: int) -> Iterator[None]:
    """Within, in the whole process: Pillow neither warns of nor refuses images of up to `max_pixels`."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None if before is None else max(before, max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def load(
    data: bytes,
    what: str = "image",
    formats: tuple[str, ...] = IMAGE_FORMATS,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Encoded bytes -> decoded Pillow image of any mode.

    Raises UnreadableError if the bytes are none of `formats`, are damaged, hold no pixels or more than
    max_pixels, ValueError for a TIFF of other bands than those at the head of this file.
    """
    if max_pixels > MAX_PIXELS:
        with pillow_takes(max_pixels):
            image = _load(data, what, formats, max_pixels)
    else:  # Pillow's own limit is higher, and threads that load would undo each other's
        image = _load(data, what, formats, max_pixels)
    if formats is IMAGE_FORMATS:
        image = _as_meant(image)
    if not image.width * image.height:
        size = f"{image.width}x{image.height}"
        raise UnreadableError(f"{what} of {size} pixels is empty; leave it out or export it again")
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        _refuse_bands(image, what)
    return image


def _load(data: bytes, what: str, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    formats = tuple(name for name in formats if name in Image.OPEN)  # a Pillow may be built without one
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
        width, height = image.size
        too_large = width * height > max_pixels
        if not too_large:
            image.load()
    except Image.UnidentifiedImageError as error:
        reason = f"{len(data)} bytes that begin with {bytes(data[:8])!r}: none of {', '.join(formats)}"
        if data[:4] in (b"II*\0", b"MM\0*"):
            reason = (
                f"a TIFF of a kind that Pillow does not read; convert it, choosing three bands: {THREE_BANDS}"
            )
        raise UnreadableError(f"unreadable or truncated {what} ({reason})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(_too_large(what, "more", max_pixels)) from error
    except Exception as error:  # damaged bytes make Pillow's readers raise almost anything
        raise UnreadableError(f"unreadable or truncated {what} ({one_line(error)})") from error
    if too_large:
        raise UnreadableError(_too_large(what, f"{width}x{height}", max_pixels))
    return image


def _as_meant(image: Image.Image) -> Image.Image:
    """16-bit grey of two kinds that Pillow leaves otherwise: a PGM as 32 bits, a TIFF of which 0 is white."""
    if image.format == "PPM" and image.mode == "I":
        return Image.fromarray(np.asarray(image).astype(np.uint16))  # scaled by the header's largest value
    if image.mode.startswith("I;16") and _tiff_tag(image, PHOTOMETRIC_INTERPRETATION, 1) == 0:
        return Image.fromarray(~np.asarray(image))
    return image


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if image.format == "TIFF" else default  # type: ignore[attr-defined]


def _too_large(what: str, found: str, max_pixels: int) -> str:
    side = math.isqrt(max_pixels)
    remedy = "" if max_pixels > MAX_PIXELS else ": import it with `sparseg import --tile-px 1024`"
    return (
        f"{what} is taken for a decompression bomb: {found} pixels, at most {max_pixels} ({side}x{side}) are "
        f"decoded; cut it into tiles{remedy}"
    )


def _refuse_bands(image: Image.Image, what: str) -> None:
    """Pillow takes the first three of several bands, and their high bytes, without a word."""
    bits, extra = _tiff_tag(image, BITSPERSAMPLE, (1,)), _tiff_tag(image, EXTRASAMPLES, ())
    wide = len(bits) > 1 and max(bits) > 8
    if wide or (len(bits) > 3 and (len(bits) > 4 or not set(extra) & set(ALPHA))):
        raise ValueError(
            f"{what} is a TIFF of {len(bits)} bands of {max(bits)} bits; of TIFFs with several bands only "
            f"8-bit red, green, blue are taken; choose three bands: {THREE_BANDS}"
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


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, *, is_new: bool = False) -> np.ndarray:
    """Encoded bytes -> (H, W, 3) uint8 RGB, upright, by the rules at the head of this file, not writable.

    is_new: the file comes from a user and not from a dataset, whose import judged it.
    Raises ValueError for the kinds that are refused, and if the data are damaged.
    """
    image = load(data, max_pixels=max_pixels)
    if is_new:
        _refuse_narrow(data, image)
    image_HW3 = upright(np.asarray(as_rgb(image)), turn_left(data))
    image_HW3.flags.writeable = False
    return image_HW3


def turn_left(data: bytes) -> int:
    """The orientation in which Pillow's decoder leaves this image: it turns TIFFs, and nothing else."""
    return 1 if data[:4] in TIFF_STARTS else orientation_of(data)


def _refuse_narrow(data: bytes, image: Image.Image) -> None:
    if image.mode.startswith("I;16"):
        top = int(np.asarray(image).max())
    elif is_wide_png(data) and image.mode == "RGB":
        top = 256 * (max(high for _, high in image.getextrema()) + 1) - 1  # type: ignore[misc]
    else:
        return
    if top < NARROW:
        white = next(white for white in (2**8 - 1, 2**10 - 1, 2**12 - 1) if top <= white)
        raise ValueError(
            f"image of 16 bits whose values end at {top} of 65535 would be black as 8 bits (value / 257); it "
            f"seems to hold fewer bits: scale all images of the set alike, as by gdal_translate -of PNG -ot "
            f"Byte -scale 0 {white} 0 255 IN OUT"
        )


def is_wide_png(data: bytes) -> bool:
    """Whether these are the bytes of a PNG of 16 bits a channel."""
    return data[:8] == PNG_SIGNATURE and data[24:25] == b"\x10"


def traits_of(data: bytes) -> list[str]:
    """What an import tells of an image that decodes, names of TRAITS: it is legal, but a user may not know.

    Only the header is read.
    """
    image: Image.Image = Image.open(io.BytesIO(data), formats=[f for f in IMAGE_FORMATS if f in Image.OPEN])
    found = {
        "turned": orientation_of(data) != 1,
        "wide": image.mode[0] == "I" or is_wide_png(data),
        "frames": image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
    }
    return [name for name, has in found.items() if has]


TRAITS = {
    "turned": "carry an EXIF orientation and are taken upright, as viewers show them",
    "wide": "hold 16 bits, taken as 8: grey values / 257 and rounded, colours by their high byte",
    "frames": "hold several frames or pages, of which the first is taken",
}
"""What is so with images that have the trait, to follow their number."""
