"""Random order that is the same on every machine, and what every drawn label begins with."""

from __future__ import annotations

import hashlib

import numpy as np

from sparseg.config import IGNORED, UNLABELLED


def random_order(count: int, seed: int, key: str, purpose: str) -> np.ndarray:
    """`count` random uint64: who wants n of some pixels takes the n smallest, so less is part of more.

    Raw bits of PCG64, since numpy promises that stream for ever but not those of its distributions.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:16], "big")).random_raw(count)


def smallest(order_N: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` smallest entries (all, if there are fewer)."""
    if count >= len(order_N):
        return np.arange(len(order_N))
    return np.argpartition(order_N, count)[:count]


def blank_like(mask_HW: np.ndarray) -> np.ndarray:
    """UNLABELLED everywhere but at void, which stays IGNORED: no term takes a loss there."""
    return np.where(mask_HW == IGNORED, IGNORED, UNLABELLED).astype(np.uint8)


def classes_in(mask_HW: np.ndarray) -> list[int]:
    """Class ids that occur in a mask (H, W) uint8, in ascending order."""
    return np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=256)[:UNLABELLED]).tolist()
