"""Scribbles: in one piece, inside their class, in the middle, partial, hand-drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import check_drawn, check_nested, classes_in, masks, parts
from scipy import ndimage

from sparseg.config import UNLABELLED
from sparseg.data import sparsify


def drawn(
    mask: np.ndarray, percent: int = 100, width_px: int = 3, key: str = "x", seed: int = 0
) -> np.ndarray:
    return sparsify.scribbles(mask, percent, seed=seed, key=key, width_px=width_px)[0]


def bar(height: int = 60, width: int = 200, margin: int = 10) -> np.ndarray:
    mask = np.full((height, width), UNLABELLED, np.uint8)
    mask[margin:-margin, margin:-margin] = 4
    return mask


@settings(max_examples=50, deadline=None)
@given(masks, st.integers(1, 100), st.integers(1, 100), st.integers(1, 6), st.integers(0, 3))
def test_scribbles_are_nested_in_one_piece_and_inside(
    mask: np.ndarray, a: int, b: int, width_px: int, most: int
) -> None:
    few, many = sorted((a, b))
    options = {"seed": 3, "key": "x", "width_px": width_px, "most": most}
    small, large = (sparsify.scribbles(mask, n, **options)[0] for n in (few, many))
    check_nested(small, large)
    for label in (small, large):
        check_drawn(label, mask)
        for k in classes_in(mask):
            number, count = parts(mask, k)
            _, strokes = parts(label, k)
            touched = set(number[label == k].tolist())
            assert strokes == len(touched) == (min(most, count) if most else count)


@settings(max_examples=30, deadline=None)
@given(masks, st.integers(1, 100))
def test_the_vertices_of_strokes_lie_on_the_label(mask: np.ndarray, n: int) -> None:
    label, strokes = sparsify.scribbles(mask, n, seed=3, key="x", width_px=2)
    for stroke in strokes:
        assert stroke["width"] == 2 and len(stroke["y"]) == len(stroke["x"]) >= 1
        at = np.array(stroke["y"]).astype(int), np.array(stroke["x"]).astype(int)
        assert (label[at] == stroke["class"]).all()
    assert sorted({stroke["class"] for stroke in strokes}) == classes_in(mask)


def test_a_long_region_is_followed_in_its_middle_and_not_to_its_ends() -> None:
    mask = bar()
    clearance = ndimage.distance_transform_edt(mask == 4)  # 20 in the middle
    for key in "abcdef":
        label = drawn(mask, key=key)
        y, x = np.nonzero(label == 4)
        assert 100 < np.ptp(x) < 178 and np.ptp(y) < 20
        assert clearance[label == 4].min() >= 6
        assert np.ptp([y[x == column].mean() for column in np.unique(x)]) > 1  # no ruler


@pytest.mark.parametrize("percent", [1, 10, 50, 80])
def test_the_budget_is_the_share_of_the_length(percent: int) -> None:
    whole, part = (np.ptp(np.nonzero(drawn(bar(), n) == 4)[1]) for n in (100, percent))
    assert part == pytest.approx(whole * percent / 100, abs=5)  # width 3, and the wobble


@pytest.mark.parametrize("width_px", [1, 2, 3, 4, 5, 8])
def test_strokes_have_their_width(width_px: int) -> None:
    label = drawn(bar(), width_px=width_px) == 4
    columns = label.sum(0)
    assert np.median(columns[columns > 0]) == pytest.approx(width_px, abs=1)


def test_compact_thin_and_tiny_regions() -> None:
    mask = np.full((80, 80), UNLABELLED, np.uint8)
    y, x = np.mgrid[:80, :80]
    mask[(y - 30) ** 2 + (x - 30) ** 2 <= 400] = 0  # a disc of radius 20
    mask[70, 5:75] = 1  # one pixel high
    mask[5, 75] = 2  # one pixel
    mask[60:62, 60:62] = 3
    label = drawn(mask)
    y, x = np.nonzero(label == 0)
    assert 12 <= np.hypot(np.ptp(y), np.ptp(x)) <= 45 and np.hypot(y - 30, x - 30).max() < 20
    assert (label == 1).sum() > 40
    assert (label == 2).sum() == 1 and 1 <= (label == 3).sum() <= 4


def test_strokes_go_round_corners_and_holes() -> None:
    ring = np.full((90, 90), UNLABELLED, np.uint8)
    y, x = np.mgrid[:90, :90]
    distance = np.hypot(y - 45, x - 45)
    ring[(distance > 25) & (distance < 40)] = 1
    label = drawn(ring, width_px=1)
    assert (label == 1).sum() > 50 and parts(label, 1)[1] == 1
    spiral = np.full((60, 60), UNLABELLED, np.uint8)
    for turn in range(4):  # an L-shaped corridor, three pixels wide with walls of one pixel
        spiral[4 * turn : 4 * turn + 3, 4 * turn : 60 - 4 * turn] = 1
        spiral[4 * turn : 60 - 4 * turn, 57 - 4 * turn : 60 - 4 * turn] = 1
    label = drawn(spiral, width_px=5)
    for number in range(1, parts(spiral, 1)[1] + 1):
        inside = (parts(spiral, 1)[0] == number) & (label == 1)
        assert ndimage.label(inside, np.ones((3, 3)))[1] <= 1


def test_every_hand_is_another() -> None:
    labels = [drawn(bar(), key=key, seed=seed) for key, seed in (("a", 0), ("b", 0), ("a", 1))]
    assert all((labels[i] != labels[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
