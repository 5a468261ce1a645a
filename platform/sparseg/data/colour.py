"""The colour changes of the VOC recipe, fused: one 3x4 matrix on RGB, then one blur.

Jitter (brightness, contrast, saturation x0.5-1.5, hue +-0.25 turns, in random order) with p .5, grey with p
.1, Gaussian blur (sigma 0.1-2 px) with p .5, brightness +-10 with p .5.  All but the blur are affine maps
of RGB, and an affine map commutes with a blur, so the fused form differs from the usual chain of
torchvision's steps in this only:
- values are rounded and clipped to 0..255 once, after the matrix, and not after every step: a colour that
  one step takes out of the range and a later one back keeps its detail;
- hue turns the chrominance plane of YIQ, which keeps the luma; torchvision turns the hue of HSV, which
  keeps the largest channel and is not linear.  Directions agree (red turns to green), amounts do roughly;
- contrast moves towards the exact mean of the luma, not the rounded one; over the image, not its padding;
- the blur is a Gaussian cut at 3 sigma, where Pillow's is three box filters; edges are repeated.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image

Array = np.ndarray

LUMA = np.array([0.299, 0.587, 0.114])
RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # FCC NTSC, 1953
JITTER_STEPS = ("brightness", "contrast", "saturation", "hue")


@dataclasses.dataclass(frozen=True)
class ColourChange:
    """One drawn change: steps (name, amount) in order, grey or not, blur_sigma in pixels (0 = none), shift
    -10..10.
    """

    steps: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    blur_sigma: float = 0.0
    shift: int = 0


def draw_colour(rng: np.random.Generator) -> ColourChange:
    """A change of the recipe; as many random numbers whatever it is."""
    amounts = [*rng.uniform(0.5, 1.5, 3), rng.uniform(-0.25, 0.25)]
    order = rng.permutation(len(JITTER_STEPS))
    jitter, grey, blur, shift = rng.random(4) < (0.5, 0.1, 0.5, 0.5)
    sigma, amount = rng.uniform(0.1, 2.0), int(rng.integers(-10, 11))
    return ColourChange(
        steps=tuple((JITTER_STEPS[index], float(amounts[index])) for index in order) if jitter else (),
        grey=bool(grey),
        blur_sigma=float(sigma) if blur else 0.0,
        shift=amount if shift else 0,
    )


def colour_matrix(change: ColourChange, mean_rgb: Array) -> Array:
    """The affine map of the steps, grey and shift -> (3, 4): new RGB = matrix @ (r, g, b, 1), in units of
    0..255.
    """
    total = np.eye(4)
    for name, amount in (*change.steps, *((("saturation", 0.0),) if change.grey else ())):
        step = np.eye(4)
        match name:
            case "brightness":
                step[:3, :3] *= amount
            case "contrast":
                step[:3, :3] *= amount
                step[:3, 3] = (1 - amount) * (LUMA @ (total @ [*mean_rgb, 1])[:3])
            case "saturation":
                step[:3, :3] = amount * np.eye(3) + (1 - amount) * LUMA
            case "hue":
                cosine, sine = np.cos(2 * np.pi * amount), np.sin(2 * np.pi * amount)
                turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
                step[:3, :3] = np.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ
        total = step @ total
    total[:3, 3] += change.shift
    return total[:3]


def change_colour(image_HW3: Array, change: ColourChange) -> Array:
    """The change applied to (H, W, 3) uint8 RGB -> the same shape, writable.  The input stays as it is."""
    height, width, _ = image_HW3.shape
    column_sums = image_HW3.sum(0, dtype=np.uint32)
    matrix = colour_matrix(change, column_sums.sum(0, dtype=np.int64) / (height * width))
    result_HW3 = image_HW3
    if not np.array_equal(matrix, np.eye(4)[:3]):
        changed = Image.fromarray(image_HW3).convert("RGB", tuple(float(value) for value in matrix.flat))
        result_HW3 = np.asarray(changed)
    if change.blur_sigma:
        return blur(result_HW3, change.blur_sigma)
    return np.array(result_HW3)


def blur(image_HW3: Array, sigma: float) -> Array:
    """Gaussian blur, standard deviation `sigma` pixels, cut at 3 sigma, edges repeated -> (H, W, 3) uint8.

    Sums of shifted planes, one axis after the other: 3x faster than a convolution of three channels on a CPU.
    """
    height, width, _ = image_HW3.shape
    reach = max(1, round(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    rows = torch.from_numpy(np.pad(image_HW3, ((reach, reach), (0, 0), (0, 0)), mode="edge"))
    blurred = _weighted(rows.reshape(-1, width * 3).float(), weights, 0, 1, height)
    pixels = blurred.view(height, width, 3)
    ends = [pixels[:, :1].expand(-1, reach, -1), pixels, pixels[:, -1:].expand(-1, reach, -1)]
    blurred = _weighted(torch.cat(ends, 1).view(height, -1), weights, 1, 3, width * 3)
    return blurred.add_(0.5).clamp_(0, 255).byte().view(height, width, 3).numpy()


def _weighted(padded: torch.Tensor, weights: Array, axis: int, stride: int, length: int) -> torch.Tensor:
    """Sum over offsets of weight x the plane shifted along the axis by offset x stride."""
    reach = len(weights) - 1
    total = padded.narrow(axis, reach * stride, length) * float(weights[0])
    for offset in range(1, reach + 1):
        before = padded.narrow(axis, (reach - offset) * stride, length)
        after = padded.narrow(axis, (reach + offset) * stride, length)
        total.add_(before + after, alpha=float(weights[offset]))
    return total
