"""Drawn labels: right classes, nested, reproducible, void untouched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseg import sparsify
from sparseg.config import IGNORED, UNLABELLED

masks = st.builds(
    lambda seed, height, width, classes: np.random.default_rng(seed).choice(
        np.array([*range(classes), UNLABELLED, IGNORED], np.uint8), size=(height, width)
    ),
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 5),
)
counts = st.integers(1, 30)


def check_drawn(label: np.ndarray, mask: np.ndarray) -> None:
    """Drawn pixels carry the mask's class, void stays void, nothing else is labelled."""
    assert label.dtype == np.uint8 and label.shape == mask.shape
    drawn = label < UNLABELLED
    np.testing.assert_array_equal(label[drawn], mask[drawn])
    np.testing.assert_array_equal(label == IGNORED, mask == IGNORED)


@settings(max_examples=60, deadline=None)
@given(masks, counts, counts)
def test_random_pixels_are_counted_and_nested(mask: np.ndarray, a: int, b: int) -> None:
    few, many = sorted((a, b))
    small = sparsify.random_pixels(mask, few, seed=3, key="x")
    large = sparsify.random_pixels(mask, many, seed=3, key="x")
    for label, count in ((small, few), (large, many)):
        check_drawn(label, mask)
        assert (label < UNLABELLED).sum() == min(count, (mask < UNLABELLED).sum())
    assert not ((small < UNLABELLED) & (large >= UNLABELLED)).any()


@settings(max_examples=60, deadline=None)
@given(masks, counts, counts)
def test_clicks_per_class_are_counted_and_nested(mask: np.ndarray, a: int, b: int) -> None:
    few, many = sorted((a, b))
    small = sparsify.clicks_per_class(mask, few, seed=3, key="x")
    large = sparsify.clicks_per_class(mask, many, seed=3, key="x")
    for label, count in ((small, few), (large, many)):
        check_drawn(label, mask)
        for k in np.unique(mask[mask < UNLABELLED]):
            assert (label == k).sum() == min(count, (mask == k).sum())
    assert not ((small < UNLABELLED) & (large >= UNLABELLED)).any()


@settings(max_examples=60, deadline=None)
@given(masks, st.floats(0.01, 1), st.floats(0.01, 1))
def test_keep_labels_is_nested_and_keeps_one(label: np.ndarray, a: float, b: float) -> None:
    few, many = sorted((a, b))
    small = sparsify.keep_labels(label, few, seed=3, key="x")
    large = sparsify.keep_labels(label, many, seed=3, key="x")
    labelled = (label < UNLABELLED).sum()
    for kept, share in ((small, few), (large, many)):
        check_drawn(kept, label)
        assert (kept < UNLABELLED).sum() == (max(1, round(share * labelled)) if labelled else 0)
    assert not ((small < UNLABELLED) & (large >= UNLABELLED)).any()


def test_keep_labels_of_everything_changes_nothing() -> None:
    label = np.array([[0, UNLABELLED, IGNORED]], np.uint8)
    np.testing.assert_array_equal(sparsify.keep_labels(label, 1.0, seed=0, key="x"), label)


@pytest.mark.parametrize("draw", [sparsify.random_pixels, sparsify.clicks_per_class])
def test_draws_depend_on_seed_and_key_only(draw) -> None:  # type: ignore[no-untyped-def]
    mask = np.zeros((40, 50), np.uint8)
    first = draw(mask, 10, seed=0, key="a")
    np.testing.assert_array_equal(first, draw(mask.copy(order="F"), 10, seed=0, key="a"))
    assert (first != draw(mask, 10, seed=1, key="a")).any()
    assert (first != draw(mask, 10, seed=0, key="b")).any()


def test_draws_stay_the_same_for_ever() -> None:
    # Published results name a label seed; a numpy or a refactoring that moves the clicks must be seen here.
    label = sparsify.random_pixels(np.zeros((6, 7), np.uint8), 4, seed=0, key="frozen")
    assert np.flatnonzero(label.ravel() == 0).tolist() == [6, 9, 16, 36]


def test_draws_are_uniform() -> None:
    hits = np.zeros((4, 5))
    for number in range(2000):
        hits += sparsify.random_pixels(np.zeros((4, 5), np.uint8), 5, seed=0, key=str(number)) == 0
    # binomial(2000, 1/4): mean 500, standard deviation 19
    assert 410 < hits.min() and hits.max() < 590
