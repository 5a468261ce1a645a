"""A label map of another size: labels travel as coordinates, and none is lost.

Label pixel (y, x) of a window of H x W source pixels that becomes h x w goes to its place, the crop's pixel
in which its centre lies: ((2y + 1) h // 2H, (2x + 1) w // 2W), in whole numbers.  Every labelled pixel of
the window arrives:
- its place shows its class, or, where labels of several classes have one place (when shrinking), a pixel
  next to it;
- a label of which neither would be true is moved to the nearest pixel of the crop that nobody has labelled.
Labels of one class that meet in one pixel share it: moved apart, they would widen a stroke beyond what was
drawn. Only a crop without any unlabelled pixel left can lose one: then there are more labels than pixels.
Enlarged, a labelled pixel covers its own area (nearest neighbour); the codes of the rest are sampled
likewise.
"""

from __future__ import annotations

import numpy as np

from sparseg.config import UNLABELLED

Array = np.ndarray


def resized_label(label_HW: Array, size: tuple[int, int], *, dense: bool) -> Array:
    """The label map at (height, width) `size`: nearest neighbour -> (h, w) uint8, contiguous.

    Unless `dense`, every labelled pixel arrives as the head of this file says.
    """
    height, width = label_HW.shape
    resized_hw = label_HW[_centres(size[0], height)].take(_centres(size[1], width), axis=1)
    if not dense:
        _paint(resized_hw, label_HW)
    return resized_hw


def _centres(count: int, other: int) -> Array:
    """Pixel of `other` in which the centre of each of `count` pixels lies, both over the same extent."""
    return (2 * np.arange(count) + 1) * other // (2 * count)


def _paint(crop_hw: Array, part_HW: Array) -> None:
    """Write every labelled pixel of the window into the crop, in place."""
    (high, wide), (height, width) = part_HW.shape, crop_hw.shape
    labelled = np.flatnonzero(part_HW < UNLABELLED)
    y, x = np.divmod(labelled, wide)
    class_of = part_HW[y, x]
    place = _centres(high, height)[y] * width + _centres(wide, width)[x]
    flat = crop_hw.reshape(-1)  # a view: `take` gives a contiguous array
    assert flat.base is crop_hw
    flat[place] = class_of
    lost = flat[place] != class_of
    if lost.any():
        contested = np.zeros(flat.size, bool)
        contested[place[lost]] = True
        meet = contested[place]
        counts = np.bincount(class_of, minlength=UNLABELLED)
        _settle(crop_hw, place[meet], class_of[meet], counts)


def _settle(crop_hw: Array, place: Array, class_of: Array, count_of_class: Array) -> None:
    """Labels of several classes at one place: the rarest class of the window has it, the others go next to
    it.

    The rarest, because a frequent one is likely to have a pixel next door anyhow (at a block's border it
    has).
    """
    height, width = crop_hw.shape
    pairs = np.unique(np.stack([place, count_of_class[class_of], class_of], 1), axis=0)
    first = np.diff(pairs[:, 0], prepend=-1) > 0
    crop_hw.reshape(-1)[pairs[first, 0]] = pairs[first, 2]
    y, x = np.divmod(pairs[~first, 0], width)
    class_of = pairs[~first, 2]
    shown = np.zeros(len(y), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near = crop_hw[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]
            shown |= near == class_of
    for one_y, one_x, k in zip(y[~shown], x[~shown], class_of[~shown], strict=True):
        place_yx = _nearest_free(crop_hw, int(one_y), int(one_x))
        if place_yx is None:
            return
        crop_hw[place_yx] = k


def _nearest_free(crop_hw: Array, y: int, x: int) -> tuple[int, int] | None:
    """The unlabelled pixel nearest to (y, x), the uppermost and leftmost of equals; None if none is left."""
    reach = 2
    while True:
        top, left = max(y - reach, 0), max(x - reach, 0)
        near_yx = np.argwhere(crop_hw[top : y + reach + 1, left : x + reach + 1] >= UNLABELLED)
        squared = ((near_yx + np.array([top - y, left - x])) ** 2).sum(1)
        if len(squared) and squared.min() <= reach**2:  # beyond, one outside the square could be nearer
            found_y, found_x = near_yx[squared.argmin()]
            return int(found_y) + top, int(found_x) + left
        if reach > sum(crop_hw.shape):
            return None
        reach *= 4
