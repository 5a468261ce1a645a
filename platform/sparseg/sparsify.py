"""Dense masks -> a few labelled pixels. Pure functions of (mask, seed, row id): the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np

from sparseg.config import IGNORED, UNLABELLED


def _random_order(count: int, seed: int, key: str, purpose: str) -> np.ndarray:
    """`count` random uint64: who wants n of some pixels takes the n smallest, so less is part of more.

    Raw bits of PCG64, since numpy promises that stream for ever but not those of its distributions.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:16], "big")).random_raw(count)


def _smallest(order_N: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` smallest entries (all, if there are fewer)."""
    if count >= len(order_N):
        return np.arange(len(order_N))
    return np.argpartition(order_N, count)[:count]


def _blank_like(mask_HW: np.ndarray) -> np.ndarray:
    """UNLABELLED everywhere but at void, which stays IGNORED: no term takes a loss there."""
    return np.where(mask_HW == IGNORED, IGNORED, UNLABELLED).astype(np.uint8)


def random_pixels(mask_HW: np.ndarray, count: int, *, seed: int, key: str) -> np.ndarray:
    """`count` pixels drawn uniformly among the annotated ones of a dense mask.

    mask_HW (H, W) uint8 with codes -> label (H, W) uint8: the class at the drawn pixels, IGNORED at void,
    UNLABELLED elsewhere.  A function of (seed, key = row id); 20 pixels are a subset of 50.  All annotated
    pixels if there are fewer.
    """
    label_HW = _blank_like(mask_HW)
    pixels = np.flatnonzero(mask_HW < UNLABELLED)
    order = _random_order(mask_HW.size, seed, key, "pixels")[pixels]
    chosen = pixels[_smallest(order, count)]
    label_HW.flat[chosen] = mask_HW.ravel()[chosen]
    return label_HW


def clicks_per_class(mask_HW: np.ndarray, count: int, *, seed: int, key: str) -> np.ndarray:
    """`count` pixels drawn uniformly in every class present (all of its pixels, if it has fewer).

    Shapes, codes and nesting as `random_pixels`.
    """
    label_HW = _blank_like(mask_HW)
    order_N = _random_order(mask_HW.size, seed, key, "clicks")
    for k in np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=256)[:UNLABELLED]):
        pixels = np.flatnonzero(mask_HW == k)
        label_HW.flat[pixels[_smallest(order_N[pixels], count)]] = k
    return label_HW


def keep_labels(label_HW: np.ndarray, share: float, *, seed: int, key: str) -> np.ndarray:
    """A random `share` (0..1] of the labelled pixels, at least one if there was any.

    The others become UNLABELLED, IGNORED stays.  Nested: 0.1 is a subset of 0.5.
    label_HW (H, W) uint8 with codes -> the same shape.
    """
    if share >= 1:
        return label_HW
    kept_HW = _blank_like(label_HW)
    pixels = np.flatnonzero(label_HW < UNLABELLED)
    order = _random_order(len(pixels), seed, key, "keep")
    chosen = pixels[_smallest(order, max(1, round(share * len(pixels))))]
    kept_HW.flat[chosen] = label_HW.ravel()[chosen]
    return kept_HW
