"""Class probabilities of images of any size: whole, by windows, at several scales, mirrored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg.common.tiling import window_starts
from sparseg.data import shards

SMALLEST_PX = (
    64  # whoever takes images of any size pads smaller ones: the deepest map keeps at least two cells
)


Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function on every part, anywhere, and gives the results as they come."""


TILES = {"cuda": 8, "cpu": 1}
"""Windows at a time; on a CPU a batch gains nothing."""


def class_probabilities(
    model: nn.Module,
    image_B3HW: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window_px: int | None = None,
    stride_px: int | None = None,
) -> Tensor:
    """Class probabilities of whole images of any size -> (B, K, H, W) float32.

    Softmax is taken once per view, at image size; views (scales, mirrored) are averaged.  window_px: a
    view larger than this is covered by square windows, `stride_px` (default: two thirds of their size)
    apart and the last flush with the edge, whose probabilities are averaged where they overlap; None
    feeds the whole view. Every window goes through the network once, several in a batch."""
    H, W = image_B3HW.shape[2:]
    total: Tensor | None = None
    top = 0
    for p in probability_strips(
        model, image_B3HW, scales=scales, flip=flip, window_px=window_px, stride_px=stride_px
    ):
        if p.shape[2] == H:
            return p
        if total is None:
            total = p.new_empty(*p.shape[:2], H, W)
        total[:, :, top : top + p.shape[2]] = p
        top += p.shape[2]
    assert total is not None and top == H
    return total


def probability_strips(
    model: nn.Module,
    image_B3HW: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window_px: int | None = None,
    stride_px: int | None = None,
) -> Iterator[Tensor]:
    """`class_probabilities` from the top down, (B, K, some rows, W) at a time.

    Of a scene about three rows of windows are held, six with flip; with other scales than 1 everything, and
    it comes at once.  Raises ValueError for windows that would leave gaps.
    """
    check_views(window_px, stride_px, scales)
    H, W = image_B3HW.shape[2:]
    views = list(itertools.product(scales, (False, True) if flip else (False,)))
    if all(scale == 1 for scale in scales):
        of_views = [
            _view(model, image_B3HW.flip(3) if mirrored else image_B3HW, window_px, stride_px)
            for _, mirrored in views
        ]
        for total_BKrW, *others in zip(*of_views, strict=True):
            for (_, mirrored), p_BKrW in zip(views[1:], others, strict=True):
                total_BKrW.add_(p_BKrW.flip(3) if mirrored else p_BKrW)
            yield total_BKrW.div_(len(views)) if others else total_BKrW
        return
    total: Tensor | None = None
    for scale, mirrored in views:
        size = (max(round(H * scale), 1), max(round(W * scale), 1))
        view = image_B3HW
        if scale != 1.0:
            view = F.interpolate(image_B3HW.float(), size=size, mode="bilinear", align_corners=False)
        p = class_probabilities(
            model, view.flip(3) if mirrored else view, window_px=window_px, stride_px=stride_px
        )
        p = p.flip(3) if mirrored else p
        if size != (H, W):
            p = F.interpolate(p, size=(H, W), mode="bilinear", align_corners=False)
        total = p if total is None else total.add_(p)
    assert total is not None
    yield total.div_(len(views))


def _view(
    model: nn.Module, image_B3HW: Tensor, window_px: int | None, stride_px: int | None
) -> Iterator[Tensor]:
    """Strips of one view: all rows that no window to come will touch."""
    B, _, H, W = image_B3HW.shape
    if window_px is None or (window_px >= H and window_px >= W):
        yield _softmax_at_image_size(model, image_B3HW)
        return
    height, width = min(window_px, H), min(window_px, W)
    stride = stride_px or max(window_px * 2 // 3, 1)
    corners = [
        (top, left) for top in window_starts(H, height, stride) for left in window_starts(W, width, stride)
    ]
    at_once = max(TILES.get(image_B3HW.device.type, 1) // B, 1)
    first = 0  # the row that `sum_BKrW` and `count_rW` begin with
    sum_BKrW, count_rW = image_B3HW.new_zeros(2, 0, W, dtype=torch.float32).unbind()
    for start in range(0, len(corners), at_once):
        part = corners[start : start + at_once]
        windows = torch.cat([image_B3HW[:, :, y : y + height, x : x + width] for y, x in part])
        p_windows = _softmax_at_image_size(model, windows)
        if not start:
            sum_BKrW = sum_BKrW.expand(B, p_windows.shape[1], 0, W)
        if missing := part[-1][0] + height - first - len(count_rW):
            sum_BKrW, count_rW = (F.pad(value, (0, 0, 0, missing)) for value in (sum_BKrW, count_rW))
        for (y, x), p_window in zip(part, p_windows.split(B), strict=True):
            area = slice(y - first, y - first + height), slice(x, x + width)
            sum_BKrW[(..., *area)] += p_window
            count_rW[area] += 1
        after = corners[start + at_once][0] if start + at_once < len(corners) else H
        if done := after - first:
            yield sum_BKrW[:, :, :done].div_(count_rW[:done])
            # copies, so that what was yielded can go
            sum_BKrW, count_rW, first = sum_BKrW[:, :, done:].clone(), count_rW[done:].clone(), after


def check_views(window_px: int | None, stride_px: int | None, scales: Sequence[float]) -> None:
    """Raise ValueError naming the flag if windows would leave gaps, or a scale is none."""
    if window_px is not None and window_px < 1:
        raise ValueError(f"--window must be at least 1 pixel, got {window_px}")
    if stride_px is not None:
        if window_px is None:
            raise ValueError(f"--stride {stride_px} needs --window, the size of the windows that it moves")
        if not 1 <= stride_px <= window_px:
            raise ValueError(f"--stride must be between 1 and --window ({window_px}), got {stride_px}")
    if not scales or min(scales) <= 0:
        raise ValueError(f"--scales must be above 0, got {' '.join(f'{scale:g}' for scale in scales)}")


def check_scene(where: str, shape: tuple[int, int], window_px: int | None) -> None:
    """Raise ValueError for what no memory takes through a network at once, and would end the process."""
    H, W = shape
    if min(window_px or H, H) * min(window_px or W, W) > shards.MAX_PIXELS:
        raise ValueError(
            f"{where}: {W} x {H} pixels, more than the {shards.MAX_PIXELS} that a network takes at once; "
            "predict it by smaller windows, as --window 1024"
        )


def _softmax_at_image_size(model: nn.Module, image_B3HW: Tensor) -> Tensor:
    logits = model(image_B3HW)[1].float()
    if logits.shape[2:] != image_B3HW.shape[2:]:
        logits = F.interpolate(logits, size=image_B3HW.shape[2:], mode="bilinear", align_corners=False)
    return logits.softmax(1)
