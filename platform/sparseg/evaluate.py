"""The prediction for images of any size, whole, by windows, at several scales, mirrored; and a split's
counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg import loader, metrics
from sparseg.metrics import Counts
from sparseg.mixture import world_size
from sparseg.windows import window_starts

SMALLEST_PX = (
    64  # whoever takes images of any size pads smaller ones: the deepest map keeps at least two cells
)
Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function on every part, anywhere, and gives the results as they come."""
OnBatch = Callable[[Sequence[int], Tensor, Tensor, Tensor], None]
TILES = {"cuda": 8, "cpu": 1}
"""Windows at a time; on a CPU a batch gains nothing."""


def probabilities(
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
    for scale in scales:
        view = image_B3HW
        if scale != 1.0:
            size = (max(round(H * scale), 1), max(round(W * scale), 1))
            view = F.interpolate(image_B3HW.float(), size=size, mode="bilinear", align_corners=False)
        for mirrored in (False, True) if flip else (False,):
            p = _view(model, view.flip(3) if mirrored else view, window_px, stride_px)
            p = p.flip(3) if mirrored else p
            if p.shape[2:] != (H, W):
                p = F.interpolate(p, size=(H, W), mode="bilinear", align_corners=False)
            total = p if total is None else total.add_(p)
    assert total is not None
    return total.div_(len(scales) * (2 if flip else 1))


def _view(model: nn.Module, image_B3HW: Tensor, window_px: int | None, stride_px: int | None) -> Tensor:
    B, _, H, W = image_B3HW.shape
    if window_px is None or (window_px >= H and window_px >= W):
        return _softmax_at_image_size(model, image_B3HW)
    height, width = min(window_px, H), min(window_px, W)
    stride = stride_px or max(window_px * 2 // 3, 1)
    areas = [
        (slice(top, top + height), slice(left, left + width))
        for top in window_starts(H, height, stride)
        for left in window_starts(W, width, stride)
    ]
    total: Tensor | None = None
    count_HW = image_B3HW.new_zeros(H, W, dtype=torch.float32)
    at_once = max(TILES.get(image_B3HW.device.type, 1) // B, 1)
    for start in range(0, len(areas), at_once):
        part = areas[start : start + at_once]
        tiles = torch.cat([image_B3HW[:, :, rows, columns] for rows, columns in part])
        for (rows, columns), p in zip(part, _softmax_at_image_size(model, tiles).split(B), strict=True):
            if total is None:
                total = p.new_zeros(B, p.shape[1], H, W)
            total[:, :, rows, columns] += p
            count_HW[rows, columns] += 1
    assert total is not None
    return total.div_(count_HW)


def check_views(window_px: int | None, stride_px: int | None, scales: Sequence[float]) -> None:
    """Raise ValueError naming the flag if windows would leave gaps, or a scale is none."""
    if window_px is not None and window_px < 1:
        raise ValueError(f"--window must be at least 1 pixel, got {window_px}")
    if stride_px is not None and (window_px is None or not 1 <= stride_px <= window_px):
        raise ValueError(f"--stride must be between 1 and --window ({window_px}), got {stride_px}")
    if not scales or min(scales) <= 0:
        raise ValueError(f"--scales must be above 0, got {' '.join(f'{scale:g}' for scale in scales)}")


def _softmax_at_image_size(model: nn.Module, image_B3HW: Tensor) -> Tensor:
    logits = model(image_B3HW)[1].float()
    if logits.shape[2:] != image_B3HW.shape[2:]:
        logits = F.interpolate(logits, size=image_B3HW.shape[2:], mode="bilinear", align_corners=False)
    return logits.softmax(1)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Any,
    num_classes: int,
    *,
    device: torch.device,
    rank: int = 0,
    batches: Sequence[Sequence[int]] | None = None,
    details: bool = False,
    autocast: torch.dtype | None = None,
    on_batch: OnBatch = lambda rows, image_B3HW, p_BKHW, truth_BHW: None,
    **views: Any,
) -> Counts:
    """Counts of a split, every image exactly once, summed over the ranks of the process group, on the CPU.

    batches: rows to take instead of this rank's share of `loader.validation_rows`.  Ranks may hold unequal
    numbers of images, or none.  details: boundary and calibration counts, too.  `views` go to
    `probabilities`; `on_batch` hears of every batch: its rows, images, probabilities and truth."""
    model.eval()
    counts = Counts.zeros(num_classes, device)
    if batches is None:
        # rank 0, which shows pictures, takes from the end, where shares that are larger lie
        batches = loader.share(loader.validation_rows(split), world_size() - 1 - rank, world_size())
    for rows, image, label in loader.validation_batches(split, batches):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            p_BKHW = probabilities(model, image.to(device, non_blocking=True), **views)
        truth_BHW = label.to(device, non_blocking=True)
        counts += metrics.count(p_BKHW, truth_BHW, details=details)
        on_batch(rows, image, p_BKHW, truth_BHW)
    return counts.over_ranks()
