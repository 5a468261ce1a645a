"""A synthetic segmentation set worth looking at: a forest floor with leaves, stones, berries, water.

Every scene is a pure function of (seed, index).  Classes share colours (wet stone and water, berry and petal,
ground and bark) and every image shifts them, so that neither colour alone nor texture alone names a pixel.
Lengths are fractions of the image side; y and x grids run from 0 to 1.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sparseg.config import IGNORED
from sparseg.data.synthetic.painting import Canvas, empty_canvas, expose, local, noise, paint, window

NAMES: list[str] = ["ground", "leaf", "stone", "berry", "bark", "petal", "water"]
"""Class names by id; 0 is the background."""
PALETTE: list[tuple[int, int, int]] = [
    (74, 64, 56),
    (94, 176, 92),
    (168, 172, 182),
    (214, 52, 70),
    (196, 132, 66),
    (242, 168, 206),
    (66, 142, 214),
]
"""Display colour (R, G, B in 0..255) of each class."""

# Per class: the mean colours between which an image mixes its own.  They overlap across classes on purpose.
_COLOURS: dict[int, tuple[tuple[float, float, float], ...]] = {
    0: ((0.40, 0.32, 0.22), (0.33, 0.36, 0.20), (0.46, 0.41, 0.30), (0.27, 0.25, 0.20)),
    1: ((0.27, 0.44, 0.15), (0.46, 0.52, 0.19), (0.60, 0.42, 0.15), (0.22, 0.36, 0.22)),
    2: ((0.54, 0.53, 0.50), (0.42, 0.40, 0.36), (0.58, 0.52, 0.43), (0.40, 0.45, 0.50)),
    3: ((0.68, 0.10, 0.14), (0.40, 0.12, 0.32), (0.22, 0.22, 0.44), (0.78, 0.34, 0.12)),
    4: ((0.40, 0.28, 0.19), (0.50, 0.41, 0.32), (0.31, 0.26, 0.23), (0.56, 0.50, 0.42)),
    5: ((0.86, 0.72, 0.80), (0.88, 0.80, 0.52), (0.78, 0.36, 0.52), (0.64, 0.52, 0.80), (0.82, 0.34, 0.24)),
    6: ((0.28, 0.42, 0.50), (0.26, 0.37, 0.30), (0.45, 0.51, 0.54), (0.24, 0.29, 0.38)),
}
_FREQUENCY = np.array([0.21, 0.18, 0.16, 0.17, 0.15, 0.13])
# Per class: how many objects, and the range of their sizes (radius, half length or half width).
_COUNTS: dict[int, tuple[int, int]] = {1: (3, 9), 2: (2, 7), 3: (1, 4), 4: (1, 3), 5: (2, 5), 6: (1, 1)}
_SIZES: dict[int, tuple[float, float]] = {
    1: (0.09, 0.32),
    2: (0.04, 0.24),
    3: (0.028, 0.062),
    4: (0.025, 0.095),
    5: (0.07, 0.22),
    6: (0.22, 0.44),
}


def scene(
    seed: int, index: int, size_px: int = 128, *, void_border_px: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image ``index`` of set ``seed`` -> (image (H, W, 3) uint8, mask (H, W) uint8), H = W = size_px.

    The mask holds 3 to 5 of the classes of `NAMES`, ground included; with ``void_border_px`` > 0, pixels so
    near to another class are `IGNORED`.  Other sizes show the same scene in more or less detail.
    Raises ValueError if size_px is below 32 or a number is negative.
    """
    if size_px < 32 or min(seed, index, void_border_px) < 0:
        raise ValueError(
            f"a synthetic scene needs size_px >= 32 and seed, index, void_border_px >= 0; "
            f"got size_px={size_px}, seed={seed}, index={index}, void_border_px={void_border_px}"
        )
    canvas = empty_canvas(np.random.default_rng([seed, index]), size_px, _COLOURS)
    _paint_ground(canvas)
    rng, painters = canvas.rng, {1: _leaf, 2: _stone, 3: _berries, 4: _bark, 5: _flower, 6: _water}
    chosen = rng.choice(6, size=rng.choice([2, 3, 4], p=[0.2, 0.4, 0.4]), replace=False, p=_FREQUENCY) + 1
    jobs = [(klass, size) for klass in chosen for size in _sizes(rng, int(klass))]
    # Water lies low and stones on it; what grows and falls comes later, in an order that differs per image.
    jobs.sort(key=lambda job: (0.0 if job[0] == 6 else 1.0 if job[0] == 2 else 1.7) + rng.random())
    for klass, size in jobs:
        painters[int(klass)](canvas, size)
    for _ in range(20):  # a class that others covered is painted again, on top
        hidden = [int(k) for k in chosen if (canvas.mask == k).mean() < 0.006]
        for klass in hidden:
            painters[klass](canvas, float(np.mean(_SIZES[klass])))
        if not hidden:
            break
    image = expose(canvas, np.random.default_rng([seed, index, 1]))
    return image, _with_void(canvas.mask, void_border_px)


def rows(
    seed: int,
    indices: Iterable[int],
    clicks_per_class: int | None,
    *,
    size_px: int = 128,
    void_border_px: int = 0,
    label_seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Rows as `shards.write` takes them, one per index.

    ``label`` has ``clicks_per_class`` labelled pixels per class present; with None (a val split) it is the
    dense mask.
    """
    from sparseg.data import sparsify

    for index in indices:
        image_HW3, mask_HW = scene(seed, index, size_px, void_border_px=void_border_px)
        name = f"scene_{seed}_{index:05d}"
        label_HW = mask_HW
        if clicks_per_class is not None:
            label_HW = sparsify.clicks_per_class(mask_HW, clicks_per_class, seed=label_seed, key=name)
        buffer = io.BytesIO()
        Image.fromarray(image_HW3).save(buffer, format="JPEG", quality=94, subsampling=0)
        yield {
            "id": name,
            "image": buffer.getvalue(),
            "label": label_HW,
            "mask": mask_HW,
            "height": size_px,
            "width": size_px,
        }


def _sizes(rng: np.random.Generator, klass: int) -> list[float]:
    low, high = _SIZES[klass]
    count = int(rng.integers(_COUNTS[klass][0], _COUNTS[klass][1], endpoint=True))
    many_small = rng.random(count) ** 1.8
    return (low + (high - low) * many_small).tolist()  # Python floats: they keep the grids in float32


def _with_void(mask_HW: NDArray[np.uint8], border_px: int) -> NDArray[np.uint8]:
    size, edge = len(mask_HW), np.zeros(mask_HW.shape, bool)
    padded = np.pad(mask_HW, border_px, mode="edge")
    for dy in range(2 * border_px + 1):
        for dx in range(2 * border_px + 1):
            edge |= padded[dy : dy + size, dx : dx + size] != mask_HW
    return np.where(edge, np.uint8(IGNORED), mask_HW)


# ---------------------------------------------------------------------------------------- the seven materials


def _paint_ground(canvas: Canvas) -> None:
    """Soil with patches of two colours, crumbs, and blades and needles lying about."""
    rng, y, x = canvas.rng, canvas.y, canvas.x
    other = canvas.colour[0] * np.float32(rng.uniform(0.6, 1.4)) + rng.normal(0, 0.03, 3).astype(np.float32)
    patch = np.clip(3 * noise(canvas, y * 5, x * 5, 2) - 1, 0, 1)
    crumbs = 0.45 + 1.1 * noise(canvas, y * 26, x * 26, 2)
    canvas.image[:] = (other[:, None, None] + (canvas.colour[0] - other)[:, None, None] * patch) * crumbs
    heading, size, count = rng.uniform(0, np.pi), len(canvas.mask), int(rng.integers(50, 140))
    litter = Image.new("L", (size, size))
    draw = ImageDraw.Draw(litter)
    centre = rng.random((count, 2, 1)) * size
    bend = np.linspace(-1, 1, 5) * rng.normal(0, 0.7, (count, 1)) + heading + rng.normal(0, 0.9, (count, 1))
    reach = np.linspace(-1, 1, 5) * rng.uniform(0.008, 0.05, (count, 1)) * size
    strokes = (
        (centre + np.stack([reach * np.cos(bend), reach * np.sin(bend)], 1))
        .transpose(0, 2, 1)
        .reshape(count, 10)
    )
    widths = np.maximum(1, np.rint(rng.uniform(0.004, 0.02, count) * size)).astype(int)
    for number in range(1, count):
        draw.line(strokes[number].tolist(), fill=number, width=int(widths[number]))
    shades = np.ones((3, 256), np.float32)
    shades[:, 1:count] = rng.normal(1, 0.09, (3, count - 1)) * rng.choice([0.6, 0.8, 1.2, 1.35], count - 1)
    canvas.image *= shades.take(np.asarray(litter), axis=1)


def _leaf(canvas: Canvas, half_length: float) -> None:
    """A pointed, bent blade with a midrib and side veins."""
    rng = canvas.rng
    cy, cx = rng.uniform(0, 1, 2)
    at = window(canvas, cy, cx, half_length * 1.12)
    along, across = local(canvas, at, cy, cx, rng.uniform(0, 2 * np.pi))
    s, t = along / np.float32(half_length), across / np.float32(half_length)
    t = t - rng.normal(0, 0.22) * s**2
    width = (
        rng.uniform(0.28, 0.55)
        * np.clip(1 - s**2, 0, 1) ** rng.uniform(0.6, 1.1)
        * (1 - rng.uniform(0, 0.4) * s)
    )
    width = width * (0.85 + 0.3 * noise(canvas, t * 2.5, s * 2.5, 2))
    depth = np.where(np.abs(s) < 1, width - np.abs(t), -1) * np.float32(half_length)
    veins = np.abs(((s - 0.7 * np.abs(t)) * rng.uniform(3.5, 5.5)) % 1 - 0.5) < 0.11
    tone = (
        0.8
        + 0.4 * noise(canvas, s * 3, t * 3, 2)
        + np.float32(0.24) * veins
        + np.float32(0.4) * (np.abs(t) < 0.035)
    )
    tone = tone * (1 - 0.22 * np.sign(t) * rng.uniform(0, 1))  # the two halves catch the light differently
    paint(canvas, at, 1, depth, tone, relief=0.12)


def _stone(canvas: Canvas, radius: float) -> None:
    """A rough dome with mineral speckle and a few cracks."""
    rng = canvas.rng
    cy, cx = rng.uniform(0, 1, 2)
    at = window(canvas, cy, cx, radius * 1.7)
    along, across = local(canvas, at, cy, cx, rng.uniform(0, 2 * np.pi))
    u, v = along / np.float32(radius), across / np.float32(radius * rng.uniform(0.6, 1.0))
    rho = np.sqrt(np.sqrt(u**4 + v**4))
    depth = (1 - rho + 0.75 * (noise(canvas, u * 1.1, v * 1.1, 3) - 0.5)) * np.float32(radius)
    y, x = canvas.y[at], canvas.x[at]
    tone = 0.62 + 0.4 * noise(canvas, y * 40, x * 40) + 0.4 * noise(canvas, y * 7, x * 7)
    tone = tone - np.float32(0.4) * (np.abs(noise(canvas, y * 6, x * 6, 2) - 0.5) < 0.018)
    paint(canvas, at, 2, depth, tone, relief=0.45, shadow=0.5)


def _berries(canvas: Canvas, radius: float) -> None:
    """A loose cluster of glossy balls."""
    rng = canvas.rng
    centre = rng.uniform(0.08, 0.92, 2)
    for _ in range(int(rng.integers(3, 10))):
        cy, cx = centre + rng.normal(0, 2.3 * radius, 2)
        r = np.float32(radius * rng.uniform(0.75, 1.25))
        at = window(canvas, cy, cx, float(r) * 1.6)
        dx, dy = local(canvas, at, cy, cx, 0.0)
        rho = np.sqrt(dx**2 + dy**2) / r
        shine = np.hypot(dy - 0.4 * r * canvas.light[0], dx - 0.4 * r * canvas.light[1]) / r
        tone = 1.12 - 0.45 * np.clip(rho, 0, 1) ** 2
        white = 0.75 * np.clip(1 - shine / 0.33, 0, 1)
        paint(canvas, at, 3, (1 - rho) * r, tone, relief=0.22, tint=(np.ones(3, np.float32), white))


def _bark(canvas: Canvas, half_width: float) -> None:
    """A branch across the picture, with furrows along it, and a twig leaving it."""
    rng, everywhere = canvas.rng, (slice(None), slice(None))
    cy, cx = rng.uniform(0.15, 0.85, 2)
    along, across = local(canvas, everywhere, cy, cx, rng.uniform(0, np.pi))
    bend = rng.normal(0, 0.35) * along**2 + 0.09 * (noise(canvas, along * 3, along * 0) - 0.5)
    across = across - bend
    start, side = rng.uniform(-0.25, 0.2), float(rng.choice([-1.0, 1.0]))
    width = (
        half_width
        * (1 - rng.uniform(-0.5, 0.5) * along)
        * (0.75 + 0.5 * noise(canvas, along * 6, across * 6))
    )
    stem = 1 - np.abs(across) / width
    twig_across = across - side * rng.uniform(0.5, 1.1) * (along - start)
    length = rng.uniform(0.2, 0.5)
    twig_width = half_width * 0.6 * np.clip(1 - (along - start) / length, 0.2, 1)
    on_twig = (along > start) & (along < start + length)
    twig = np.where(on_twig, 1 - np.abs(twig_across) / twig_width, -np.float32(9))
    depth = np.maximum(stem * width, twig * twig_width)
    furrow = np.where(stem > twig, across, twig_across)
    tone = (
        0.42 + 0.75 * noise(canvas, furrow * 48, along * 9, 2) + 0.4 * noise(canvas, furrow * 14, along * 4)
    )
    paint(canvas, everywhere, 4, depth, tone, relief=0.3, shadow=0.5)


def _flower(canvas: Canvas, radius: float) -> None:
    """Petals around a disc, streaked outwards."""
    rng = canvas.rng
    cy, cx = rng.uniform(0.03, 0.97, 2)
    at = window(canvas, cy, cx, radius * 1.35)
    along, across = local(canvas, at, cy, cx, rng.uniform(0, 2 * np.pi))
    u, v = along / np.float32(radius), across / np.float32(radius * rng.uniform(0.6, 1.0))  # seen at a slant
    rho, theta = np.hypot(u, v), np.arctan2(v, u)
    petals = int(rng.integers(4, 9))
    lobe = np.abs(np.cos(theta * petals / 2))
    edge = 0.42 + 0.58 * lobe ** rng.uniform(0.4, 0.9) + 0.25 * (noise(canvas, u * 2, v * 2, 2) - 0.5)
    depth = (edge - rho) * np.float32(radius)
    streaks = noise(canvas, theta * rng.uniform(5, 8), rho * 1.5)
    tone = 0.66 + 0.42 * streaks + 0.16 * lobe + 0.12 * rho
    disc = np.clip((0.24 - rho) * 9, 0, 1)
    paint(canvas, at, 5, depth, tone, relief=0.1, tint=(np.array([0.72, 0.55, 0.15], np.float32), disc))


def _water(canvas: Canvas, reach: float) -> None:
    """A puddle, or a stream across the picture: smooth, rippled, reflecting a bright sky in places."""
    rng, everywhere = canvas.rng, (slice(None), slice(None))
    cy, cx = rng.uniform(0.15, 0.85, 2)
    along, across = local(canvas, everywhere, cy, cx, rng.uniform(0, np.pi))
    if rng.random() < 0.45:
        middle = 0.35 * (noise(canvas, along * 2.2, along * 0) - 0.5)
        depth = reach * 0.62 * (0.6 + 0.8 * noise(canvas, along * 3, across * 3)) - np.abs(across - middle)
    else:
        rho = np.hypot(along / np.float32(1.25), across / np.float32(0.8))
        depth = reach - rho + 0.26 * (noise(canvas, along * 4, across * 4, 3) - 0.5)
    warp = noise(canvas, along * 4, across * 4)
    ripple = np.sin(across * rng.uniform(35, 60) + 14 * warp) * np.clip(2.4 * warp - 0.8, 0, 1)
    tone = 0.82 + 0.1 * ripple + 0.3 * noise(canvas, along * 2, across * 5)
    tone = tone * (1 - 0.3 * np.clip(1 - np.abs(depth) / 0.02, 0, 1))  # wet rim
    sky = 0.6 * np.clip(3 * noise(canvas, along * 2, across * 5, 2) - 1.6, 0, 1)
    paint(
        canvas, everywhere, 6, depth, tone, relief=0.0, shadow=0.0, tint=(np.full(3, 0.78, np.float32), sky)
    )
