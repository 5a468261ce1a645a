"""The rasteriser: strokes -> label map, by its properties and against plain loops."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseg.config import UNLABELLED
from sparseg.data import strokes
from sparseg.data.strokes import Stroke, draw, mask_stroke, pixels, stored

HEIGHT, WIDTH = 13, 17
SHAPE = (HEIGHT, WIDTH)
NUM_CLASSES = 4

coordinate = st.one_of(
    st.floats(-8, 25), st.integers(-8, 25).map(float), st.sampled_from([-1e6, 1e6, 0.0, 13.0, 17.0, -0.0001])
)
vertices = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6)
a_class = st.integers(0, NUM_CLASSES - 1)


def stroke(kind: Any, points: list[tuple[float, float]], k: int = 1, width_px: float = 1.0) -> Stroke:
    y, x = zip(*points, strict=True)
    return Stroke(k, kind, y, x, width_px)


lines = st.builds(stroke, st.just("line"), vertices, a_class, st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.7, 5.0]))
points = st.builds(lambda at, k, w: stroke("point", [at], k, w), st.tuples(coordinate, coordinate), a_class,
                   st.sampled_from([1.0, 3.0]))  # fmt: skip
polygons = st.builds(
    stroke, st.just("polygon"), st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=6), a_class
)


def covered(strokes: Stroke, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for part in pixels(strokes, shape):
        assert not mask[part].any(), "no pixel in two parts"
        mask[part] = True
    return mask


def inside(y: float, x: float, shape: tuple[int, int] = SHAPE) -> bool:
    return 0 <= y < shape[0] and 0 <= x < shape[1]


# ------------------------------------------------------------------------------------------------- properties


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(lines, points, polygons), max_size=6))
def test_every_vertex_inside_has_its_class_unless_drawn_over(strokes: list[Stroke]) -> None:
    count: Counter[str] = Counter()
    label, drawn = draw(strokes, SHAPE, count)
    shapes, kept = ([s for s in found if s.kind != "point"] for found in (strokes, drawn))
    assert kept == [s for s in shapes if covered(s).any()], "shapes keep the order of the file"
    assert sorted(drawn, key=repr) == sorted((s for s in strokes if covered(s).any()), key=repr)
    later = np.full(SHAPE, UNLABELLED)
    taken = Counter({"points_overdrawn": 0, "strokes_overdrawn": 0})
    for s in drawn:
        mask = covered(s)
        unit = "points" if s.kind == "point" else "strokes"
        taken[f"{unit}_overdrawn"] += int((mask & (later != UNLABELLED) & (later != s.class_id)).sum())
        if s.kind != "polygon":
            assert all(
                mask[math.floor(y), math.floor(x)] for y, x in zip(s.y, s.x, strict=True) if inside(y, x)
            )
        later[mask] = s.class_id
    np.testing.assert_array_equal(label, later)
    assert label.dtype == np.uint8 and set(np.unique(label)) <= {*range(NUM_CLASSES), UNLABELLED}
    for name, number in taken.items():
        assert count[name] == number
    assert count["points"] + count["points_outside"] == sum(s.kind == "point" for s in strokes)
    assert count["strokes"] + count["strokes_outside"] == sum(s.kind != "point" for s in strokes)
    assert count["points_outside"] == sum(s.kind == "point" and not inside(s.y[0], s.x[0]) for s in strokes)


@settings(max_examples=80, deadline=None)
@given(vertices)
def test_a_line_is_8_connected_and_near_its_segments(points: list[tuple[float, float]]) -> None:
    shape = (60, 60)
    points = [(y % 40 + 10, x % 40 + 10) for y, x in points]
    ((rows, columns),) = pixels(stroke("line", points), shape)
    steps = np.maximum(abs(np.diff(rows)), abs(np.diff(columns)))
    assert (steps <= 1).all(), "consecutive pixels touch"
    centres = [(math.floor(y) + 0.5, math.floor(x) + 0.5) for y, x in points]
    for row, column in zip(rows, columns, strict=True):
        segments = zip(centres, centres[1:] or centres, strict=False)
        assert min(distance(row + 0.5, column + 0.5, *a, *b) for a, b in segments) <= 0.5 + 1e-9


def distance(y: float, x: float, y0: float, x0: float, y1: float, x1: float) -> float:
    length = (y1 - y0) ** 2 + (x1 - x0) ** 2
    share = 0.0 if not length else min(1.0, max(0.0, ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length))
    return math.hypot(y - y0 - share * (y1 - y0), x - x0 - share * (x1 - x0))


@settings(max_examples=80, deadline=None)
@given(vertices, st.sampled_from([1.0, 2.0, 3.0, 4.5]))
def test_clipping_to_the_image_is_drawing_on_a_larger_one(
    points: list[tuple[float, float]], w: float
) -> None:
    points = [(y % 40 - 15, x % 40 - 15) for y, x in points]
    moved = stroke("line", [(y + 20, x + 20) for y, x in points])
    large = np.zeros((60, 60), dtype=bool)
    large = covered(moved, large.shape)
    window = np.zeros_like(large)
    window[20 : 20 + HEIGHT, 20 : 20 + WIDTH] = large[20 : 20 + HEIGHT, 20 : 20 + WIDTH]
    wanted = np.zeros_like(large)
    reach = range(-3, 4)
    pen = [(dy, dx) for dy in reach for dx in reach if (dy + 1e-6) ** 2 + (dx + 1e-6) ** 2 <= w * w / 4]
    for row, column in np.argwhere(window):
        for dy, dx in pen if w > 1 else [(0, 0)]:
            wanted[row + dy, column + dx] = True
    found = covered(stroke("line", points, width_px=w))
    np.testing.assert_array_equal(found, wanted[20 : 20 + HEIGHT, 20 : 20 + WIDTH])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7))
def test_a_polygon_holds_the_pixels_whose_centre_is_inside(points: list[tuple[float, float]]) -> None:
    points = [(min(max(y, -30), 40), min(max(x, -30), 40)) for y, x in points]
    wanted = np.zeros(SHAPE, dtype=bool)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            crossings = 0
            for (y0, x0), (y1, x1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                    crossings += x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0) <= column + 0.5
            wanted[row, column] = crossings % 2
    found = covered(stroke("polygon", points))
    if wanted.any():
        assert (found != wanted).sum() <= 1  # a centre on an edge may fall to either side
    else:  # too thin to hold a centre: its outline, so that nothing drawn in the image is lost
        assert all(found[math.floor(y), math.floor(x)] for y, x in points if inside(y, x))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 5), st.integers(0, 5), st.integers(1, 9), st.integers(1, 9))
def test_a_mask_comes_back(seed: int, top: int, left: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    found = covered(mask_stroke(2, mask, top, left), (20, 20))
    wanted = np.zeros((20, 20), dtype=bool)
    wanted[top : top + height, left : left + width] = mask
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(covered(mask_stroke(2, mask, top, left), (7, 7)), wanted[:7, :7])


@settings(max_examples=80, deadline=None)
@given(st.one_of(lines, points, polygons), st.integers(1, 60))
def test_parts_of_any_size_hold_the_same_pixels(drawn: Stroke, cells: int) -> None:
    whole = covered(drawn)
    masked = mask_stroke(1, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strokes, "CELLS_AT_ONCE", cells)
        np.testing.assert_array_equal(covered(drawn), whole)
        np.testing.assert_array_equal(covered(masked), whole)


@pytest.mark.parametrize("kind", ["polygon", "line", "mask"])
def test_what_fills_a_scene_needs_little_more_than_its_label_map(kind: str) -> None:
    side = 3000
    corners = [(0.0, 0.0), (0.0, float(side)), (float(side), float(side)), (float(side), 0.0)]
    large = {
        "polygon": stroke("polygon", corners),
        "line": stroke("line", corners[::2], width_px=9.0),
        "mask": mask_stroke(1, np.ones((side, side), dtype=bool)),
    }[kind]
    tracemalloc.start()
    label, _ = draw([large], (side, side), Counter())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (label == 1).sum() > side and peak_bytes < 10 * label.nbytes


# --------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("width_px", range(1, 8))
@pytest.mark.parametrize("turned", [False, True])
def test_a_straight_line_is_exactly_its_width_across(width_px: int, turned: bool) -> None:
    line = [(10.9, 5.0), (10.1, 25.0)]
    mask = covered(stroke("line", [p[::-1] for p in line] if turned else line, width_px=width_px), (30, 30))
    mask = mask.T if turned else mask
    across = mask[:, 10:20]
    assert (across.sum(0) == width_px).all()
    first = 10 - width_px // 2
    assert across[first : first + width_px].all()


def test_width_1_is_bresenhams_line() -> None:
    mask = covered(stroke("line", [(1.2, 1.9), (4.0, 8.0)]))
    rows, columns = np.nonzero(mask.T)[::-1]
    assert list(zip(columns.tolist(), rows.tolist(), strict=True)) == [
        *((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 4), (8, 4))
    ]


def test_a_point_is_its_pixel_or_a_disc() -> None:
    assert np.argwhere(covered(stroke("point", [(3.999, 5.0)]))).tolist() == [[3, 5]]
    disc = covered(stroke("point", [(6.0, 8.9)], width_px=5))
    wanted = [".###.", "#####", "#####", "#####", ".###."]
    assert ["".join(".#"[v] for v in row) for row in disc[4:9, 6:11].astype(int)] == wanted
    assert disc.sum() == 21
    # at the border it is cut, and a point outside does not reach in
    assert covered(stroke("point", [(0.0, 0.0)], width_px=5)).sum() == 8
    assert not covered(stroke("point", [(-0.1, 3.0)], width_px=5)).any()


def test_of_clicks_those_of_class_0_are_drawn_first_and_the_last_listed_wins() -> None:
    at = [(2.0, 3.0)]
    count: Counter[str] = Counter()
    label, drawn = draw([stroke("point", at, k) for k in (2, 1, 0, 1)], SHAPE, count)
    assert label[2, 3] == 1 and [s.class_id for s in drawn] == [0, 2, 1, 1]
    assert count == {"points": 4, "points_overdrawn": 2}


SQUARE = [(2.0, 2.0), (2.0, 8.0), (8.0, 8.0), (8.0, 2.0)]


@pytest.mark.parametrize("kind", ["polygon", "line", "mask"])
def test_a_background_drawn_over_an_object_stays_on_top(kind: str) -> None:
    def shape(k: int) -> Stroke:
        return (
            mask_stroke(k, np.ones((6, 6), dtype=bool), 2, 2) if kind == "mask" else stroke(kind, SQUARE, k)
        )

    for first, second in ((1, 0), (0, 1), (2, 1)):
        label, drawn = draw([shape(first), shape(second)], SHAPE, Counter())
        assert [s.class_id for s in drawn] == [first, second]
        assert set(np.unique(label)) == {second, UNLABELLED}


def test_a_click_and_a_shape_keep_the_order_of_the_file() -> None:
    click, around = stroke("point", [(4.0, 4.0)], 0), stroke("polygon", SQUARE, 1)
    assert draw([around, click], SHAPE, Counter())[0][4, 4] == 0  # a correction, set on the finished object
    assert draw([click, around], SHAPE, Counter())[0][4, 4] == 1
    object_click = stroke("point", [(4.0, 4.0)], 2)
    label, drawn = draw([object_click, around, object_click, click], SHAPE, Counter())
    assert label[4, 4] == 2 and drawn == [object_click, around, click, object_click]


def test_vertices_outside_are_counted() -> None:
    count: Counter[str] = Counter()
    line = stroke("line", [(2.0, -1e6), (2.0, 1e6)])
    frame = stroke("polygon", [(0.0, 0.0), (0.0, WIDTH), (HEIGHT, WIDTH), (HEIGHT, 0.0)], 0)
    gone = stroke("line", [(-5.0, 3.0), (-2.0, 3.0)])
    label, drawn = draw([line, frame, gone], SHAPE, count)
    assert (label == 0).all()
    assert drawn == [line, frame]
    assert count == {"strokes": 2, "strokes_outside": 1, "vertices_outside": 2, "strokes_overdrawn": WIDTH}


def test_adjacent_polygons_share_no_pixel_and_leave_none() -> None:
    cut = [(-1.0, 6.3), (14.0, 9.9)]
    left, right = (
        covered(stroke("polygon", [*cut, (14.0, side), (-1.0, side)])) for side in (-2.0, WIDTH + 2.0)
    )
    assert (left ^ right).all()


def test_a_polygon_of_very_many_vertices() -> None:
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    circle = Stroke(1, "polygon", tuple(50 + 40 * np.sin(angle)), tuple(50 + 40 * np.cos(angle)))
    y, x = np.indices((100, 100)) + 0.5
    near = np.hypot(y - 50, x - 50)
    mask = covered(circle, (100, 100))
    assert mask[near < 39.9].all() and not mask[near > 40.1].any()


def test_what_is_stored() -> None:
    strokes = [
        stroke("point", [(1.5, 2.5)], 3),
        stroke("line", [(0.0, 1.0), (2.0, 3.0)], 1, 3.0),
        stroke("polygon", [(0.0, 0.0), (0.0, 4.0), (4.0, 4.0)], 2),
        mask_stroke(0, np.ones((2, 2), dtype=bool)),
    ]
    assert stored(strokes) == [
        {"class": 3, "width": 1.0, "y": [1.5], "x": [2.5]},
        {"class": 1, "width": 3.0, "y": [0.0, 2.0], "x": [1.0, 3.0]},
        {"class": 2, "width": 0.0, "y": [0.0, 0.0, 4.0], "x": [0.0, 4.0, 4.0]},
    ]


def test_an_empty_mask_is_dropped() -> None:
    count: Counter[str] = Counter()
    label, drawn = draw([mask_stroke(1, np.zeros((3, 3), dtype=bool))], SHAPE, count)
    assert (label == UNLABELLED).all() and drawn == [] and count == {"strokes_outside": 1}
