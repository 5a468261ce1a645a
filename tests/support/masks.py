"""Dense masks for the tests of sparsify: noise, and regions with ragged edges, holes and void."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

from sparseg.config import IGNORED, UNLABELLED


def _noise(seed: int, height: int, width: int, classes: int) -> np.ndarray:
    values = np.array([*range(classes), UNLABELLED, IGNORED], np.uint8)
    return np.random.default_rng(seed).choice(values, size=(height, width))


def _regions(seed: int, height: int, width: int, classes: int) -> np.ndarray:
    """Smoothed noise cut into levels: winding regions, with a few pixels of anything strewn over them."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((height, width)), rng.uniform(1, 5), mode="nearest")
    levels = np.array([*range(classes), IGNORED], np.uint8)
    edges = np.quantile(field, np.linspace(0, 1, len(levels) + 1)[1:-1]) if classes else []
    mask = levels[np.digitize(field, edges)]
    strewn = rng.random(mask.shape) < rng.choice([0, 0.02])
    return np.where(strewn, _noise(seed + 1, height, width, classes), mask)


noise = st.builds(_noise, st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
regions = st.builds(
    _regions, st.integers(0, 10_000), st.integers(1, 48), st.integers(1, 48), st.integers(0, 4)
)
masks = st.one_of(noise, regions)


def check_drawn(label: np.ndarray, mask: np.ndarray) -> None:
    """Drawn pixels carry the mask's class, void stays void, nothing else is labelled."""
    assert label.dtype == np.uint8 and label.shape == mask.shape
    drawn = label < UNLABELLED
    np.testing.assert_array_equal(label[drawn], mask[drawn])
    np.testing.assert_array_equal(label == IGNORED, mask == IGNORED)


def check_nested(small: np.ndarray, large: np.ndarray) -> None:
    """What the smaller budget labels, the larger one labels too."""
    assert not ((small < UNLABELLED) & (large >= UNLABELLED)).any()


def classes_in(array: np.ndarray) -> list[int]:
    return np.unique(array[array < UNLABELLED]).tolist()


def parts(array: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """8-connected components of class k, numbered from 1."""
    return ndimage.label(array == k, np.ones((3, 3)))


def fixed_mask() -> np.ndarray:
    """60x80, never to be changed: the digests of published draws hang on it. Integers only."""
    y, x = np.mgrid[:60, :80]
    mask = np.full((60, 80), 0, np.uint8)
    mask[(y - 20) ** 2 + (x - 20) ** 2 < 225] = 1
    mask[(y > 40) & (y < 52)] = 2
    mask[abs(2 * x - y - 90) < 12] = 3
    mask[30:34, 5:9] = 4
    mask[46, 20:60:9] = 0  # holes, which a stroke must go round
    mask[20, 12:30:9] = 2
    mask[:, 76:] = IGNORED
    return mask
