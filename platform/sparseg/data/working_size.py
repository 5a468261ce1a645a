"""A working resolution (`data.long_side_px`): larger images are resized once, with their annotation.

An import resizes images and labels; whoever predicts with a network trained so resizes photographs by the
same function, and brings the probabilities back to full size.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from sparseg.data.strokes import Stroke, mask_stroke, pixels

Size = tuple[int, int]
"""(height, width)."""


def working_size(size: Size, long_side_px: int) -> Size:
    """The size at which an image is worked on: with a long side of `long_side_px`, if it is larger than that.

    With 0 it is the image's own.
    """
    long_side = max(size)
    if not long_side_px or long_side <= long_side_px:
        return size
    height, width = (max((2 * side * long_side_px + long_side) // (2 * long_side), 1) for side in size)
    return height, width


def resized_image(image_HW3: np.ndarray, size: Size) -> np.ndarray:
    """The image at (height, width) `size`, bilinear and antialiased -> (h, w, 3) uint8; itself if it has that
    size."""
    if image_HW3.shape[:2] == size:
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize(size[::-1], Image.Resampling.BILINEAR))


def scaled(stroke: Stroke, before: Size, after: Size) -> Stroke:
    """The stroke of an image of size `before` on the image of size `after`, which is not larger.

    Positions and widths are scaled; a line stays at least one pixel wide.  A pixel of a mask goes to the
    pixel in which its centre lies.
    """
    if before == after:
        return stroke
    if stroke.kind == "mask":
        mask_hw = np.zeros(after, bool)
        for rows, columns in pixels(stroke, before):
            mask_hw[_places(rows, before[0], after[0]), _places(columns, before[1], after[1])] = True
        return mask_stroke(stroke.class_id, mask_hw)
    y, x = (
        tuple(_scaled(value, old, new) for value in values)
        for values, old, new in zip((stroke.y, stroke.x), before, after, strict=True)
    )
    width_px = max(1.0, stroke.width_px * max(after) / max(before))
    return dataclasses.replace(stroke, y=y, x=x, width_px=width_px)


def _scaled(value: float, before: int, after: int) -> float:
    """A position along a side; what lies on the image stays on it whatever rounding does."""
    moved = value * after / before
    return min(moved, math.nextafter(after, 0.0)) if value < before else moved


def _places(positions: np.ndarray, before: int, after: int) -> np.ndarray:
    return (2 * positions + 1) * after // (2 * before)
