"""One sample: window first, only that decoded and resized, then colour.  Labels travel as coordinates
(label_places.py).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from sparseg.config import IGNORED, UNLABELLED, DataConfig
from sparseg.data import shards
from sparseg.data.colour import ColourChange, change_colour, draw_colour
from sparseg.data.label_places import resized_label

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Window:
    """Source box (left, top, right, bottom), whole pixels -> (height, width) at (0, 0), then mirrored."""

    box: tuple[int, int, int, int]
    height: int
    width: int
    flip: bool


def draw_window(
    height: int,
    width: int,
    data: DataConfig,
    rng: np.random.Generator,
    focus_yx: tuple[int, int] | None = None,
) -> Window:
    """Random resize by a factor in [scale_min, scale_max], then a random crop_px square of it, then a fair
    flip.

    The window holds the source pixel `focus_yx`, if one is given.  Its sides are whole source pixels, so
    the factor is that of the nearest such window.  Where the resized image is smaller than the crop the
    window covers all of it and the rest is padding.
    """
    scale = rng.uniform(data.scale_min, data.scale_max)
    starts, lengths, targets = [], [], []
    for axis, whole in enumerate((height, width)):
        length = min(max(round(data.crop_px / scale), 1), whole)
        first, last = 0, whole - length
        if focus_yx is not None:
            first, last = max(first, focus_yx[axis] - length + 1), min(last, focus_yx[axis])
        starts.append(int(rng.integers(first, last + 1)))
        lengths.append(length)
        fills = data.crop_px / scale <= whole
        targets.append(data.crop_px if fills else max(min(data.crop_px, round(whole * scale)), 1))
    (top, left), (high, wide) = starts, lengths
    box = (left, top, left + wide, top + high)
    return Window(box, height=targets[0], width=targets[1], flip=bool(rng.random() < 0.5))


def draw_focus(label_HW: Array, rng: np.random.Generator) -> tuple[int, int] | None:
    """(y, x) of a labelled pixel: its class drawn evenly among the label's, then the pixel; None if there
    is none.
    """
    labelled = np.flatnonzero(label_HW < UNLABELLED)
    if not len(labelled):
        return None
    class_of = label_HW.ravel()[labelled]
    classes = np.flatnonzero(np.bincount(class_of))
    of_class = labelled[class_of == classes[rng.integers(len(classes))]]
    y, x = divmod(int(of_class[rng.integers(len(of_class))]), label_HW.shape[1])
    return y, x


# ----------------------------------------------------------------------------------------------------- image


def cut_image(
    image: bytes | Array,
    window: Window,
    crop_px: int,
    colour: ColourChange | None = None,
    shape: tuple[int, int] | None = None,
) -> Array:
    """The window resized (bilinear, antialiased), its colours changed, padded with zeros below and right,
    mirrored.

    image: encoded bytes, of which only the window is decoded, or (H, W, 3) uint8 -> (crop_px, crop_px, 3)
    uint8. Nothing beyond the window enters.  Raises ValueError if the bytes are no image, or not of
    (height, width) `shape`.
    """
    if isinstance(image, bytes):
        region_HW3 = shards.decode_window(image, window.box, shape)
    else:
        left, top, right, bottom = window.box
        region_HW3 = image[top:bottom, left:right].copy()
    resized_HW3 = _resize(region_HW3, window.height, window.width)
    if colour is not None:
        resized_HW3 = change_colour(resized_HW3, colour)
    crop_HW3 = _pad(resized_HW3, crop_px, 0)
    # torch mirrors interleaved channels 9x faster than numpy
    return _interleaved(crop_HW3).flip(3)[0].permute(1, 2, 0).numpy() if window.flip else crop_HW3


def _resize(region_HW3: Array, height: int, width: int) -> Array:
    """Torch's uint8 kernel: Pillow's result (the same fixed-point weights) in a quarter of its time."""
    if region_HW3.shape[:2] == (height, width):
        return region_HW3
    pixels_13HW = _interleaved(region_HW3)
    resized_13HW = F.interpolate(pixels_13HW, size=(height, width), mode="bilinear", antialias=True)
    return resized_13HW[0].permute(1, 2, 0).contiguous().numpy()


def _interleaved(image_HW3: Array) -> torch.Tensor:
    """(1, 3, H, W) on the same memory; the batch axis is made first: its stride selects the fast kernels."""
    return torch.from_numpy(image_HW3)[None].permute(0, 3, 1, 2)


def _pad(part: Array, crop_px: int, padding: int) -> Array:
    height, width = part.shape[:2]
    if height == width == crop_px:
        return part
    canvas = np.full((crop_px, crop_px, *part.shape[2:]), padding, np.uint8)
    canvas[:height, :width] = part
    return canvas


# ----------------------------------------------------------------------------------------------------- label


def cut_label(label_HW: Array, window: Window, crop_px: int, *, dense: bool) -> Array:
    """The window of the label map, padded with IGNORED -> (crop_px, crop_px) uint8.

    Nearest neighbour; unless `dense`, every labelled pixel of the window arrives as label_places.py says.
    """
    left, top, right, bottom = window.box
    crop_hw = resized_label(label_HW[top:bottom, left:right], (window.height, window.width), dense=dense)
    padded = _pad(crop_hw, crop_px, IGNORED)
    return np.ascontiguousarray(padded[:, ::-1]) if window.flip else padded


# ----------------------------------------------------------------------------------------------------- sample


def augment(
    image: bytes | Array, label_HW: Array, data: DataConfig, key: tuple[int, int, int], *, dense: bool
) -> tuple[Array, Array]:
    """Image and label of one training sample -> crops (crop_px, crop_px, 3) and (crop_px, crop_px), uint8.

    image: encoded bytes (only the window is decoded) or (H, W, 3) uint8, of the label's size.  Every random
    number comes from key = (seed, epoch, row): the sample is the same on any worker.  With data.crop_choice
    = "labelled" the window holds a labelled pixel, if the label has one.  Raises ValueError as cut_image
    does.
    """
    rng = np.random.default_rng(key)
    focus_yx = draw_focus(label_HW, rng) if data.crop_choice == "labelled" else None
    height, width = label_HW.shape
    window = draw_window(height, width, data, rng, focus_yx)
    colour = draw_colour(rng) if data.colour else None
    crop_HW3 = cut_image(image, window, data.crop_px, colour, shape=(height, width))
    return crop_HW3, cut_label(label_HW, window, data.crop_px, dense=dense)
