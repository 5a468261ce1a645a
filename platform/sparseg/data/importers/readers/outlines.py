"""Outlines of the shapes that tools store by a few numbers: boxes, ellipses, what a cuboid covers."""

from __future__ import annotations

import math
from collections.abc import Iterable

Outline = tuple[tuple[float, ...], tuple[float, ...]]
"""y and x of the corners, in pixels, not closed."""

ELLIPSE_CORNERS = 256


def box(top: float, left: float, bottom: float, right: float) -> Outline:
    """A box with upright sides."""
    return (top, top, bottom, bottom), (left, right, right, left)


def ellipse(y: float, x: float, radius_y: float, radius_x: float) -> Outline:
    """An ellipse with upright axes, as a polygon that is too small by less than 0.01 % of its radius."""
    angles = [2 * math.pi * corner / ELLIPSE_CORNERS for corner in range(ELLIPSE_CORNERS)]
    return (
        tuple(y + radius_y * math.sin(angle) for angle in angles),
        tuple(x + radius_x * math.cos(angle) for angle in angles),
    )


def turned(outline: Outline, degrees: float, y: float, x: float) -> Outline:
    """The outline turned clockwise, as seen with y downward, about (y, x)."""
    if not degrees:
        return outline
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    offsets = [(a - y, b - x) for a, b in zip(*outline, strict=True)]
    return (
        tuple(y + dx * sine + dy * cosine for dy, dx in offsets),
        tuple(x + dx * cosine - dy * sine for dy, dx in offsets),
    )


def hull(points: Iterable[tuple[float, float]]) -> Outline:
    """The convex hull of points (y, x); fewer than three corners if they lie on a line (monotone chain)."""
    ordered = sorted(set(points))
    corners: list[tuple[float, float]] = []
    for way in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for point in way:
            while len(chain) > 1 and not _turns(chain[-2], chain[-1], point):
                chain.pop()
            chain.append(point)
        corners += chain[:-1]
    corners = corners or ordered
    return tuple(y for y, _ in corners), tuple(x for _, x in corners)


def _turns(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0
