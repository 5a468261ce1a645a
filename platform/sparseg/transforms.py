"""One sample: decode, crop window first, resize only that window, flip, colour.  Labels travel as
coordinates."""

from __future__ import annotations

import dataclasses

import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter

from sparseg.config import IGNORED, UNLABELLED, DataConfig

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Window:
    """A crop in source pixels and where it lands: source box (x0, y0, x1, y1) -> (height, width) at (0,
    0)."""

    box: tuple[float, float, float, float]
    height: int
    width: int
    flip: bool


def draw_window(height: int, width: int, data: DataConfig, rng: np.random.Generator) -> Window:
    """Random resize by a factor in [scale_min, scale_max], then a random crop_px square of it, then a fair
    flip.

    Where the resized image is smaller than the crop the window covers all of it and the rest is padding.
    """
    scale = rng.uniform(data.scale_min, data.scale_max)
    fits_height, fits_width = min(data.crop_px / scale, height), min(data.crop_px / scale, width)
    top, left = rng.uniform(0, height - fits_height), rng.uniform(0, width - fits_width)
    return Window(
        box=(left, top, left + fits_width, top + fits_height),
        height=max(min(data.crop_px, round(fits_height * scale)), 1),
        width=max(min(data.crop_px, round(fits_width * scale)), 1),
        flip=bool(rng.random() < 0.5),
    )


def cut_image(image_HW3: Array, window: Window, crop_px: int) -> Array:
    """The window resized (bilinear, antialiased) and padded with zeros below and right -> (crop_px, crop_px,
    3)."""
    resized = Image.fromarray(image_HW3).resize(
        (window.width, window.height), Image.Resampling.BILINEAR, box=window.box
    )
    return _place(np.asarray(resized), window, crop_px, 0)


def cut_label(label_HW: Array, window: Window, crop_px: int, *, dense: bool) -> Array:
    """The window of the label map, padded with IGNORED -> (crop_px, crop_px) uint8.

    Nearest-neighbour, and on top of it, unless `dense`, every labelled pixel of the window painted at its own
    mapped coordinate, so that shrinking loses no click (where two meet in one pixel the later row wins).
    """
    left, top, right, bottom = window.box
    y_scale, x_scale = window.height / (bottom - top), window.width / (right - left)
    source_y = np.clip(
        ((np.arange(window.height) + 0.5) / y_scale + top).astype(int), 0, label_HW.shape[0] - 1
    )
    source_x = np.clip(
        ((np.arange(window.width) + 0.5) / x_scale + left).astype(int), 0, label_HW.shape[1] - 1
    )
    resized = label_HW[source_y[:, None], source_x[None]]
    if not dense:
        y, x = np.nonzero(label_HW < UNLABELLED)
        target_y, target_x = (y + 0.5 - top) * y_scale, (x + 0.5 - left) * x_scale
        inside = (target_y >= 0) & (target_y < window.height) & (target_x >= 0) & (target_x < window.width)
        y, x = y[inside], x[inside]
        resized[target_y[inside].astype(int), target_x[inside].astype(int)] = label_HW[y, x]
    return _place(resized, window, crop_px, IGNORED)


def _place(part: Array, window: Window, crop_px: int, padding: int) -> Array:
    canvas = np.full((crop_px, crop_px, *part.shape[2:]), padding, np.uint8)
    canvas[: window.height, : window.width] = part
    return np.ascontiguousarray(canvas[:, ::-1]) if window.flip else canvas


def change_colour(image_HW3: Array, rng: np.random.Generator) -> Array:
    """The VOC recipe: jitter (.5, .5, .5, .25) with p .5, grey p .1, blur sigma .1-2 p .5, brightness +-10 p
    .5."""
    image = Image.fromarray(image_HW3)
    if rng.random() < 0.5:
        brightness, contrast, saturation = rng.uniform(0.5, 1.5, 3)
        hue = rng.uniform(-0.25, 0.25)
        steps = [
            lambda picture: TF.adjust_brightness(picture, brightness),
            lambda picture: TF.adjust_contrast(picture, contrast),
            lambda picture: TF.adjust_saturation(picture, saturation),
            lambda picture: TF.adjust_hue(picture, hue),
        ]
        for index in rng.permutation(4):
            image = steps[index](image)
    if rng.random() < 0.1:
        image = TF.to_grayscale(image, num_output_channels=3)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    array = np.asarray(image)
    if rng.random() < 0.5:
        array = np.clip(array.astype(np.int16) + int(rng.integers(-10, 11)), 0, 255).astype(np.uint8)
    return array


def augment(
    image_HW3: Array, label_HW: Array, data: DataConfig, key: tuple[int, int, int], *, dense: bool
) -> tuple[Array, Array]:
    """Image and label of one training sample -> crops (crop_px, crop_px, 3) and (crop_px, crop_px), uint8.

    Every random number comes from key = (seed, epoch, row): the sample is the same on any worker.
    """
    rng = np.random.default_rng(key)
    window = draw_window(label_HW.shape[0], label_HW.shape[1], data, rng)
    image = cut_image(image_HW3, window, data.crop_px)
    if data.colour:
        image = change_colour(image, rng)
    return image, cut_label(label_HW, window, data.crop_px, dense=dense)
