"""Fewer of the clicks and strokes that are there: the sparsity knob of the sweeps, turned at load."""

from __future__ import annotations

import numpy as np

from sparseg.config import UNLABELLED
from sparseg.data.sparsify.order import random_order, smallest


def keep_labels(label_HW: np.ndarray, share: float, *, seed: int, key: str) -> np.ndarray:
    """A random `share` (0..1] of the clicks and strokes, at least one if there was any.

    A unit is an 8-connected component of one class: a single pixel is a click, a scribble or a block is kept
    or dropped as a whole, and clicks of one class that touch are one unit.  What is dropped becomes
    UNLABELLED, IGNORED stays.  Nested: 0.1 is a subset of 0.5.  label_HW (H, W) uint8 with codes -> the same
    shape.
    """
    if share >= 1:
        return label_HW
    pixel_N = np.flatnonzero(label_HW < UNLABELLED)
    unit_N, count = _units(label_HW, pixel_N)
    order = random_order(count, seed, key, "keep")
    dropped_U = np.ones(count, bool)
    dropped_U[smallest(order, max(1, round(share * count)))] = False
    kept_HW = label_HW.copy()
    kept_HW.flat[pixel_N[dropped_U[unit_N]]] = UNLABELLED
    return kept_HW


def _units(label_HW: np.ndarray, pixel_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Unit of every labelled pixel (N,), numbered by the units' first pixels in raster order; how many."""
    from skimage.measure import label as connected  # all classes in one pass; scipy's takes one at a time

    number_N = connected(label_HW, background=UNLABELLED, connectivity=2).ravel()[pixel_N]
    first_U = np.full(number_N.max(initial=0) + 1, len(number_N))
    first_U[number_N[::-1]] = np.arange(len(number_N))[::-1]  # of equal indices the last one counts
    found = np.argsort(first_U, kind="stable")[: int((first_U < len(number_N)).sum())]
    rank_U = np.zeros(len(first_U), np.int64)
    rank_U[found] = np.arange(len(found))
    return rank_U[number_N], len(found)
