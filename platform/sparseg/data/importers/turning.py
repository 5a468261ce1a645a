"""Images with an EXIF orientation and their annotation: which fit each other, what is said of the others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparseg.config import FieldError, flag
from sparseg.data import shards
from sparseg.data.working_size import working_size

Size = tuple[int, int]
"""(height, width)."""


class Frame(NamedTuple):
    """The frame of an image in which its annotation must lie."""

    size: Size
    """Of the image as it is taken."""
    orientation: int = 1
    """By which viewers turn what is stored, 1..8; 1 as well where the import takes the stored pixels."""
    long_side_px: int = 0
    """Working resolution of the import; 0 = the images' own."""

    @property
    def stored(self) -> Size:
        """The size of the stored pixels."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    @property
    def working(self) -> Size:
        """The size at which the dataset keeps image and labels."""
        return working_size(self.size, self.long_side_px)


def fitted(label_HW: np.ndarray, frame: Frame, count: Counter[str]) -> np.ndarray:
    """Turn a label map with its image if its size says that it was made on the stored pixels.

    `count` receives `labels_turned`.
    """
    fitted_HW = shards.turned_with(label_HW, frame.size, frame.orientation)
    if fitted_HW is not label_HW:
        count["labels_turned"] += 1
    return fitted_HW


def remedy(found: Size, frame: Frame, otherwise: str) -> str:
    """Say for the end of a message what helps against an annotation of the size `found`."""
    if found != frame.size[::-1] or found == frame.size:
        return otherwise
    if frame.orientation != 1:
        return (
            f"the image carries an EXIF rotation and is taken upright; if it was annotated on the stored "
            f"pixels, say {flag('data.orientation')} stored"
        )
    return (
        f"height and width are exchanged: if the image carries an EXIF rotation, say "
        f"{flag('data.orientation')} upright where it was annotated as viewers show it, stored where on the "
        f"stored pixels; else {otherwise}"
    )


def refuse_other_size(size: Size, frame: Frame, file: Path | None, image: Path) -> None:
    """Raise ValueError unless a label map of this size is of the image's, as it is taken."""
    if size != frame.size:
        must = "they must be of one size (width x height)"
        raise FieldError(
            f"{file}: label is {size[1]}x{size[0]} pixels but its image {image} is "
            f"{frame.size[1]}x{frame.size[0]}; {remedy(size, frame, must)}"
        )
