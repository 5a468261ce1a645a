"""Strokes: points, lines, polygons and masks with a class, and how they become a label map.

A box is a polygon, and a tag of a whole image a stroke without positions: importers/tags_and_boxes.py makes
labels of these.

One rule of position: pixel (row, column) covers [row, row + 1) x [column, column + 1), so a position belongs
to the pixel of its floor, and the centre of a pixel is at + 0.5.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from sparseg.config import IGNORED, UNLABELLED

Pixels = tuple[np.ndarray, np.ndarray]
"""Rows and columns of pixels inside the image, int64, possibly repeated."""

EDGES_AT_ONCE = 1024  # of a polygon; bounds the memory of one with very many vertices
CELLS_AT_ONCE = 2**20  # of the box of a polygon, mask or broad line; bounds that of one that fills a scene


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One annotation of one class; positions in pixels, sub-pixel, y and x of equal length."""

    class_id: int
    """A class, or the code IGNORED."""
    kind: Literal["point", "line", "polygon", "mask", "tag"]
    y: tuple[float, ...]
    """A mask has two: top and bottom of its box, whole numbers, bottom exclusive."""
    x: tuple[float, ...]
    """A mask has two: left and right of its box."""
    width_px: float = 1.0
    """Of points (diameter) and lines; polygons and masks are filled and have none."""
    bits: bytes = b""
    """A mask's pixels: its box row by row, eight to a byte (numpy.packbits)."""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a reader found in its files."""

    strokes: dict[str, list[Stroke]]
    """Image id -> its strokes as listed; an image without any has an empty list."""
    sizes: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Image id -> (height, width), where the file states them."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What was left out and counted."""


def mask_stroke(class_id: int, mask_HW: np.ndarray, top: int = 0, left: int = 0) -> Stroke:
    """A boolean mask whose corner lies at (top, left), cut to the box of its set pixels."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if not len(rows):
        return Stroke(class_id, "mask", (0.0, 0.0), (0.0, 0.0))
    box_hw = mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = ((float(start + at[0]), float(start + at[-1] + 1)) for start, at in ((top, rows), (left, columns)))
    return Stroke(class_id, "mask", y, x, bits=np.packbits(box_hw).tobytes())


def draw(
    strokes: Iterable[Stroke], shape: tuple[int, int], count: Counter[str]
) -> tuple[np.ndarray, list[Stroke]]:
    """Strokes -> label (H, W) uint8 with codes, and the strokes that left a pixel on it.

    They are drawn as listed, which is the order of the tool that made them, so that the later one wins.  Of
    clicks that follow each other, those of class 0 are drawn first: there is no order in which an annotator
    clicks, and an object's click on a pixel of the background wins.  A point outside the image is dropped,
    also where its disc would reach in; lines, polygons and masks are clipped to the image.
    `count` receives: points, strokes (drawn); points_outside, strokes_outside (dropped,
    no pixel of them lies in the image); vertices_outside (of
    lines and polygons that were drawn); points_overdrawn, strokes_overdrawn (pixels of another class that
    points and strokes took).
    """
    label_HW = np.full(shape, UNLABELLED, dtype=np.uint8)
    drawn = []
    for stroke in drawing_order(strokes):
        unit = "points" if stroke.kind == "point" else "strokes"
        is_there = False
        for rows, columns in pixels(stroke, shape):
            is_there = True
            before = label_HW[rows, columns]
            other = (before != UNLABELLED) & (before != stroke.class_id)
            if other.any():
                count[f"{unit}_overdrawn"] += len(np.unique((rows * shape[1] + columns)[other]))
            label_HW[rows, columns] = stroke.class_id
        if not is_there:
            count[f"{unit}_outside"] += 1
            continue
        count[unit] += 1
        if stroke.kind in ("line", "polygon"):
            outside = vertices_outside(stroke, shape)
            count.update({"vertices_outside": outside} if outside else {})
        drawn.append(stroke)
    return label_HW, drawn


def drawing_order(strokes: Iterable[Stroke]) -> list[Stroke]:
    """Strokes as listed, but in every row of points that stand together those of class 0 first."""
    ordered: list[Stroke] = []
    for _, together in itertools.groupby(strokes, key=lambda stroke: stroke.kind == "point"):
        ordered += sorted(together, key=lambda stroke: stroke.kind == "point" and stroke.class_id != 0)
    return ordered


def vertices_outside(stroke: Stroke, shape: tuple[int, int]) -> int:
    """How many vertices lie outside of an image (H, W).

    A polygon's vertex may lie on the image's right or lower edge, which belongs to no pixel.
    """
    y, x = np.array(stroke.y), np.array(stroke.x)
    beyond = (
        (y > shape[0]) | (x > shape[1]) if stroke.kind == "polygon" else (y >= shape[0]) | (x >= shape[1])
    )
    return int(((y < 0) | (x < 0) | beyond).sum())


def stored(strokes: Iterable[Stroke]) -> list[dict[str, Any]]:
    """The column `strokes` of the shards: {class, width, y[], x[]}.

    A polygon or box is its outline, not closed, with width 0 (a line has 1 or more), a tag a class without
    positions, with width 0.  Masks are left out, for they
    have no outline of their own, and so is what is IGNORED, for it has no class; the label image holds both.
    """
    return [
        {
            "class": stroke.class_id,
            "width": 0.0 if stroke.kind in ("polygon", "tag") else float(stroke.width_px),
            "y": list(stroke.y),
            "x": list(stroke.x),
        }
        for stroke in strokes
        if stroke.kind != "mask" and stroke.class_id != IGNORED
    ]


def restored(stroke: dict[str, Any]) -> Stroke:
    """The stroke of an entry of the column `strokes`."""
    kind: Literal["point", "line", "polygon"] = "point" if len(stroke["y"]) == 1 else "line"
    if not stroke["width"]:
        kind = "polygon"
    return Stroke(stroke["class"], kind, tuple(stroke["y"]), tuple(stroke["x"]), stroke["width"] or 1.0)


# ------------------------------------------------------------------------------------------------ rasterising


def pixels(stroke: Stroke, shape: tuple[int, int]) -> Iterator[Pixels]:
    """The pixels of an image (H, W) that a stroke covers, in parts that share none and are not empty.

    point: the pixel that holds it, or the pen of its width set there.  line: the 8-connected line through
    the pixels of its vertices (Bresenham), clipped to the image, the pen set on each of its pixels.
    polygon: pixels whose centre is inside (even-odd), or its outline if it is too thin to hold any.
    """
    if stroke.kind == "mask":
        parts = _mask_pixels(stroke, shape)
    elif stroke.kind == "polygon":
        parts = _filled(np.array(stroke.y), np.array(stroke.x), shape)
    else:
        parts = _line(stroke, shape)
    is_empty = True
    for rows, columns in parts:
        if len(rows):
            is_empty = False
            yield rows, columns
    if is_empty and stroke.kind == "polygon":
        yield from ((rows, columns) for rows, columns in _line(stroke, shape) if len(rows))


def _line(stroke: Stroke, shape: tuple[int, int]) -> Iterator[Pixels]:
    corners = [(math.floor(y), math.floor(x)) for y, x in zip(stroke.y, stroke.x, strict=True)]
    if stroke.kind == "polygon":
        corners.append(corners[0])
    if len(corners) == 1:
        corners *= 2
    parts = [_segment(start, end, shape) for start, end in itertools.pairwise(corners)]
    rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    if stroke.width_px <= 1:
        yield rows, columns
    elif len(rows):
        yield from _pen(rows, columns, stroke.width_px, shape)


def _strips(top: int, bottom: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows [top, bottom) of a box in parts of CELLS_AT_ONCE cells, or of one row."""
    height = max(CELLS_AT_ONCE // max(width, 1), 1)
    return ((start, min(start + height, bottom)) for start in range(top, bottom, height))


def _segment(start: tuple[int, int], end: tuple[int, int], shape: tuple[int, int]) -> Pixels:
    """Bresenham's line from pixel to pixel; only its part inside the image is ever formed."""
    major = 0 if abs(end[0] - start[0]) >= abs(end[1] - start[1]) else 1
    minor = 1 - major
    steps, rise = abs(end[major] - start[major]), end[minor] - start[minor]
    sign = 1 if end[major] >= start[major] else -1
    if sign > 0:
        first, last = max(0, -start[major]), min(steps, shape[major] - 1 - start[major])
    else:
        first, last = max(0, start[major] - shape[major] + 1), min(steps, start[major])
    k = np.arange(first, max(first, last + 1), dtype=np.int64)
    along = start[major] + sign * k
    across = start[minor] + (2 * k * rise + steps) // max(1, 2 * steps)
    inside = (across >= 0) & (across < shape[minor])
    rows, columns = (along, across) if major == 0 else (across, along)
    return rows[inside], columns[inside]


def _pen(rows: np.ndarray, columns: np.ndarray, width_px: float, shape: tuple[int, int]) -> Iterator[Pixels]:
    """Pixels at most width / 2 from the centre of a given one, ties to the upper left.

    So a horizontal or vertical line of a whole width w covers exactly w pixels across.
    """
    radius = width_px / 2
    reach = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    left, right = max(0, int(columns.min() + reach[0])), min(shape[1], int(columns.max() + reach[-1] + 1))
    first, last = max(0, int(rows.min() + reach[0])), min(shape[0], int(rows.max() + reach[-1] + 1))
    for top, bottom in _strips(first, last, right - left):
        # +1 where a run starts, -1 after its end
        steps_hw = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
        for dy in reach:
            run = reach[(dy + 1e-6) ** 2 + (reach + 1e-6) ** 2 <= radius**2]
            if dy == 0 and not len(run):
                run = np.zeros(1, dtype=int)
            inside = (rows + dy >= top) & (rows + dy < bottom)
            if not len(run) or not inside.any():
                continue
            row, column = rows[inside] + dy - top, columns[inside] - left
            np.add.at(steps_hw, (row, np.clip(column + run[0], 0, right - left)), 1)
            np.add.at(steps_hw, (row, np.clip(column + run[-1] + 1, 0, right - left)), -1)
        found = np.nonzero(np.cumsum(steps_hw, axis=1)[:, :-1] > 0)
        yield found[0] + top, found[1] + left


def _filled(y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> Iterator[Pixels]:
    """Pixels whose centre lies inside the closed polygon: parity of the edges crossed from the left."""
    (first, last), (left, right) = (
        (int(np.clip(np.floor(at.min()), 0, side)), int(np.clip(np.ceil(at.max()), 0, side)))
        for at, side in ((y, shape[0]), (x, shape[1]))
    )
    for top, bottom in _strips(first, last, right - left):
        found = np.nonzero(np.cumsum(_crossings(y, x, (top, bottom), (left, right)), axis=1)[:, :-1] & 1)
        yield found[0] + top, found[1] + left


def _crossings(y: np.ndarray, x: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """How many edges of a closed polygon pass between the centre of a pixel and that of its left neighbour,
    (h, w + 1) int32 of a box of pixels; the outer columns take what passes beside it."""
    (top, bottom), (left, right) = rows, columns
    crossings_hw = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    y_end, x_end = np.roll(y, -1), np.roll(x, -1)
    for at in range(0, len(y), EDGES_AT_ONCE):
        y0, x0, y1, x1 = (a[at : at + EDGES_AT_ONCE] for a in (y, x, y_end, x_end))
        first, last = (
            np.ceil(f(y0, y1) - 0.5).clip(top, bottom).astype(int) for f in (np.minimum, np.maximum)
        )
        edge = np.repeat(np.arange(len(y0)), last - first)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
        row += first[edge]
        share = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
        column = np.ceil(x0[edge] + share * (x1 - x0)[edge] - 0.5).clip(left, right).astype(int)
        np.add.at(crossings_hw, (row - top, column - left), 1)
    return crossings_hw


def _mask_pixels(stroke: Stroke, shape: tuple[int, int]) -> Iterator[Pixels]:
    (first, last), (left, right) = map(int, stroke.y), map(int, stroke.x)
    count = (last - first) * (right - left)
    flat = np.unpackbits(np.frombuffer(stroke.bits, dtype=np.uint8), count=count)
    box_hw = flat.reshape(last - first, right - left)[: max(shape[0] - first, 0), : max(shape[1] - left, 0)]
    for top, bottom in _strips(0, *box_hw.shape):
        rows, columns = np.nonzero(box_hw[top:bottom])
        yield rows + top + first, columns + left
