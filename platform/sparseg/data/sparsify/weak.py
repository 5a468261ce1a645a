"""What says which classes an image has, and of no pixel that it is an object's: tags, and bounding boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseg.config import UNLABELLED
from sparseg.data.sparsify.components import MIN_SHARE, components
from sparseg.data.sparsify.order import blank_like


def tags(mask_HW: np.ndarray, *, min_share: float = MIN_SHARE) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The classes that cover at least `min_share` of an image's pixels, and the largest in any case.

    Fewer pixels are a slip of the mask's maker more often than something that a person would tag.
    mask_HW (H, W) uint8 with codes -> label (H, W) uint8 without a labelled pixel, codes as `random_pixels`;
    a stroke without positions for every class.
    """
    count_K = np.bincount(mask_HW.ravel(), minlength=256)[:UNLABELLED]
    least = max(1, min(min_share * mask_HW.size, count_K.max()))
    found = np.flatnonzero(count_K >= least).tolist()
    return blank_like(mask_HW), [{"class": k, "width": 0.0, "y": [], "x": []} for k in found]


def boxes(
    mask_HW: np.ndarray, count: int, *, min_share: float = MIN_SHARE
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The bounding boxes of the `count` largest components of every class but 0 (0: of all of them).

    Outside of the boxes is class 0, as an import of the same boxes has it: an object without a box is taught
    to be background, so a budget costs more than what it leaves out.  `min_share` as in `components`.

    mask_HW (H, W) uint8 with codes -> label (H, W) uint8: 0 outside of all boxes, UNLABELLED inside; what the
    mask itself does not know keeps its code.  An outline for every box, class by class, the largest component
    first: of a smaller budget the outlines are some of a larger one's.
    """
    label_HW = np.where(mask_HW < UNLABELLED, 0, mask_HW).astype(np.uint8)
    objects_HW = np.where(mask_HW == 0, UNLABELLED, mask_HW)
    outlines = []
    for component in components(objects_HW, most=count, min_share=min_share):
        height, width = (side - 2 for side in component.inside_hw.shape)  # without its border
        top, left = component.top + 1, component.left + 1
        inside = label_HW[top : top + height, left : left + width]
        inside[inside == 0] = UNLABELLED
        y, x = (float(top), float(top + height)), (float(left), float(left + width))
        corners = {"y": [y[0], y[0], y[1], y[1]], "x": [x[0], x[1], x[1], x[0]]}
        outlines.append({"class": component.class_id, "width": 0.0, **corners})
    return label_HW, outlines
