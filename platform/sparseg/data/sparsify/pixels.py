"""Single pixels of a dense mask, drawn uniformly: an image's, or a class's."""

from __future__ import annotations

import numpy as np

from sparseg.config import UNLABELLED
from sparseg.data.sparsify.order import blank_like, classes_in, random_order, smallest


def random_pixels(mask_HW: np.ndarray, count: int, *, seed: int, key: str) -> np.ndarray:
    """`count` pixels drawn uniformly among the annotated ones of a dense mask.

    mask_HW (H, W) uint8 with codes -> label (H, W) uint8: the class at the drawn pixels, IGNORED at void,
    UNLABELLED elsewhere.  A function of (seed, key = row id); 20 pixels are a subset of 50.  All annotated
    pixels if there are fewer.
    """
    label_HW = blank_like(mask_HW)
    pixels = np.flatnonzero(mask_HW < UNLABELLED)
    order = random_order(mask_HW.size, seed, key, "pixels")[pixels]
    chosen = pixels[smallest(order, count)]
    label_HW.flat[chosen] = mask_HW.ravel()[chosen]
    return label_HW


def clicks_per_class(mask_HW: np.ndarray, count: int, *, seed: int, key: str) -> np.ndarray:
    """`count` pixels drawn uniformly in every class present (all of its pixels, if it has fewer).

    Shapes, codes and nesting as `random_pixels`.
    """
    label_HW = blank_like(mask_HW)
    order_N = random_order(mask_HW.size, seed, key, "clicks")
    for k in classes_in(mask_HW):
        pixels = np.flatnonzero(mask_HW == k)
        label_HW.flat[pixels[smallest(order_N[pixels], count)]] = k
    return label_HW
