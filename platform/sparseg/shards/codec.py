"""Pictures and label maps as bytes, and back."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sparseg.config import MAX_CLASSES, UNLABELLED

UNLABELLED_COLOUR, IGNORED_COLOUR = (40, 40, 40), (224, 224, 192)

Colour = tuple[int, int, int]


def default_palette(count: int) -> list[Colour]:
    """`count` distinct (r, g, b), 0..255: VOC's colours, whose bits are those of the class id."""
    colours = []
    for k in range(count):
        r, g, b = (sum((k >> (3 * j + channel) & 1) << (7 - j) for j in range(3)) for channel in range(3))
        colours.append((r, g, b))
    return colours


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
    """PNG bytes -> (H, W) uint8 with codes.  Raises ValueError unless of one 8-bit channel or a palette."""
    image = Image.open(io.BytesIO(data))
    if image.mode not in ("P", "L"):
        raise ValueError(f"a label must be an 8-bit palette or grey PNG, got mode {image.mode}")
    return np.asarray(image)


def decode_image(data: bytes) -> np.ndarray:
    """Encoded bytes -> (H, W, 3) uint8 RGB; grey, palette and opaque RGBA are converted.

    Raises ValueError for other kinds (16 bit, CMYK, see-through), and if the data are damaged.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"unreadable or truncated image ({error})".replace("\n", " ")) from error
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() == np.iinfo(np.uint8).max:
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L", "P", "1"):
        raise ValueError(
            f"image of mode {image.mode} cannot be taken as RGB without loss; convert it to 8-bit RGB"
        )
    return np.asarray(image.convert("RGB"))
