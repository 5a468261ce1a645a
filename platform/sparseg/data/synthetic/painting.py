"""Painting tools of the synthetic scenes: a canvas, smooth noise, objects with shadows, light, sensor.

Lengths are fractions of the image side; y and x grids run from 0 to 1.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


@dataclasses.dataclass
class Canvas:
    """The picture being painted."""

    rng: np.random.Generator
    image: Floats  # (3, H, W), 0..1; channels first, so that products with an (H, W) map run along rows
    mask: NDArray[np.uint8]  # (H, W)
    y: Floats  # (H, W)
    x: Floats
    light: Floats  # (2,) unit vector towards the light, (y, x)
    colour: dict[int, Floats]  # class -> this image's mean colour


def empty_canvas(
    rng: np.random.Generator, size_px: int, colours: dict[int, tuple[tuple[float, float, float], ...]]
) -> Canvas:
    """A blank square; each class mixes its colour in this image from its ``colours`` (R, G, B in 0..1)."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    angle = rng.uniform(0, 2 * np.pi)
    colour = {}
    for klass, means in colours.items():
        share = rng.dirichlet([0.35] * len(means))
        mean = share @ np.array(means) * rng.normal(1, 0.12) + rng.normal(0, 0.018, 3)
        colour[klass] = np.asarray(np.clip(mean, 0.05, 0.95), dtype=np.float32)
    return Canvas(
        rng=rng,
        image=np.zeros((3, size_px, size_px), np.float32),
        mask=np.zeros((size_px, size_px), np.uint8),
        y=np.repeat(axis[:, None], size_px, 1),
        x=np.repeat(axis[None, :], size_px, 0),
        light=np.array([np.sin(angle), np.cos(angle)], np.float32),
        colour=colour,
    )


@functools.cache
def _noise_table() -> Floats:
    """(1024 * 1024,) smooth noise in 0..1, 16 x 16 cells of 64 samples, periodic in both directions."""
    grid = np.pad(np.random.default_rng(0).random((16, 16), dtype=np.float32), 4, mode="wrap")
    smooth = Image.fromarray(grid).resize((1536, 1536), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(smooth, dtype=np.float32)[256:-256, 256:-256]).ravel()


def noise(canvas: Canvas, y: Floats, x: Floats, octaves: int = 1) -> Floats:
    """Smooth noise in about 0..1 at positions given in cells; every call looks elsewhere in one table."""
    total, weight, table = np.zeros_like(y), 0.0, _noise_table()
    for octave in range(octaves):
        offset_y, offset_x = canvas.rng.integers(1024, 2048, 2)
        scale = np.float32(64 * 2**octave)
        row, column = (y * scale + offset_y).astype(np.int64), (x * scale + offset_x).astype(np.int64)
        row &= 1023
        column &= 1023
        row <<= 10
        row |= column
        total += table.take(row) * np.float32(0.5**octave)
        weight += 0.5**octave
    return total / np.float32(weight)


def window(canvas: Canvas, cy: float, cx: float, reach: float) -> tuple[slice, slice]:
    """The part of the picture within ``reach`` of a centre (at least one pixel)."""
    size = len(canvas.mask)
    spans = []
    for centre in (cy, cx):
        first = int(np.clip((centre - reach) * size, 0, size - 1))
        spans.append(slice(first, max(first + 1, int(np.clip((centre + reach) * size + 1, 1, size)))))
    return spans[0], spans[1]


def local(
    canvas: Canvas, at: tuple[slice, slice], cy: float, cx: float, angle: float
) -> tuple[Floats, Floats]:
    """Coordinates along and across an axis through a centre, in fractions of the image side."""
    dy, dx = canvas.y[at] - np.float32(cy), canvas.x[at] - np.float32(cx)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def paint(
    canvas: Canvas,
    at: tuple[slice, slice],
    klass: int,
    depth: Floats,
    tone: Floats,
    *,
    relief: float,
    shadow: float = 0.4,
    tint: tuple[Floats, Floats] | None = None,
) -> None:
    """Put an object on the canvas.

    ``depth`` (h, w) is its height in fractions of the image side, > 0 inside; ``tone`` multiplies the class
    colour; ``relief`` scales the shading; ``tint`` is (colour (3,), share (h, w)) of a second colour.
    """
    rng, size, below = canvas.rng, len(canvas.mask), canvas.image[:, at[0], at[1]]
    colour = canvas.colour[klass] + rng.normal(0, 0.025, 3).astype(np.float32)
    if min(depth.shape) > 1:
        slope_y, slope_x = np.gradient(depth * size)
        lit = -(slope_y * canvas.light[0] + slope_x * canvas.light[1])
        tone = tone * (1 + np.clip(relief * lit, -0.45, 0.45))
    alpha = np.clip(depth * size * 0.9 + 0.5, 0, 1)
    if shadow:
        step = np.rint(-canvas.light * max(1.0, 0.018 * size)).astype(int)
        (to_y, from_y), (to_x, from_x) = _shift(int(step[0])), _shift(int(step[1]))
        # the object itself, painted next, hides the rest of its shadow
        below[:, to_y, to_x] *= 1 - np.float32(shadow) * alpha[from_y, from_x]
    body = colour[:, None, None]
    if tint is not None:
        body = body + (tint[0] - colour)[:, None, None] * tint[1]
    body = body * tone
    body -= below
    body *= alpha
    below += body
    canvas.mask[at][depth > 0] = klass


def _shift(step: int) -> tuple[slice, slice]:
    """(destination, source) slices that move an axis by ``step`` cells."""
    if step >= 0:
        return slice(step, None), slice(0, -step or None)
    return slice(0, step), slice(-step, None)


def expose(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light gradient, dapples, colour cast, exposure and sensor noise -> uint8."""
    ramp = canvas.y * canvas.light[0] + canvas.x * canvas.light[1]
    ramp = 1 + rng.uniform(0.1, 0.5) * (ramp - ramp.mean())
    dapple = 1 + rng.uniform(0.1, 0.55) * (noise(canvas, canvas.y * 3, canvas.x * 3, 2) - 0.5)
    cast = rng.normal(1, 0.05, 3) * rng.uniform(0.95, 1.4)
    image = canvas.image * (ramp * dapple)
    image *= cast.astype(np.float32)[:, None, None]
    image += np.float32(rng.uniform(0.01, 0.035)) * rng.standard_normal(image.shape, dtype=np.float32)
    curve = np.linspace(0, 1, 1024) ** rng.uniform(0.8, 1.05) * 255
    exposed = curve.astype(np.uint8).take((np.clip(image, 0, 1) * np.float32(1023)).astype(np.intp))
    return np.ascontiguousarray(exposed.transpose(1, 2, 0))
