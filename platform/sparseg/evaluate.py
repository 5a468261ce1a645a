"""Confusion counts, IoU, and the prediction that they are counted from: whole image, windows, scales,
flip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg import loader
from sparseg.mixture import world_size


def probabilities(
    model: nn.Module,
    image_B3HW: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window_px: int | None = None,
) -> Tensor:
    """Class probabilities of whole images of any size -> (B, K, H, W) float32.

    Softmax is taken once per view, at image size; views (scales, mirrored) are averaged.  window_px: a view
    larger than this is covered by square windows at two thirds of their size, whose probabilities are
    averaged where they overlap; None feeds the whole view.
    """
    H, W = image_B3HW.shape[2:]
    total: Tensor | None = None
    for scale in scales:
        view = image_B3HW
        if scale != 1.0:
            size = (max(round(H * scale), 1), max(round(W * scale), 1))
            view = F.interpolate(image_B3HW.float(), size=size, mode="bilinear", align_corners=False)
        for mirrored in (False, True) if flip else (False,):
            p = _view(model, view.flip(3) if mirrored else view, window_px)
            p = p.flip(3) if mirrored else p
            if p.shape[2:] != (H, W):
                p = F.interpolate(p, size=(H, W), mode="bilinear", align_corners=False)
            total = p if total is None else total.add_(p)
    assert total is not None
    return total.div_(len(scales) * (2 if flip else 1))


def _view(model: nn.Module, image_B3HW: Tensor, window_px: int | None) -> Tensor:
    H, W = image_B3HW.shape[2:]
    if window_px is None or (window_px >= H and window_px >= W):
        return _softmax_at_image_size(model, image_B3HW)
    height, width = min(window_px, H), min(window_px, W)
    tops, lefts = window_starts(H, height), window_starts(W, width)
    total: Tensor | None = None
    count_HW = image_B3HW.new_zeros(H, W, dtype=torch.float32)
    for top in tops:
        for left in lefts:
            area = (slice(top, top + height), slice(left, left + width))
            p = _softmax_at_image_size(model, image_B3HW[:, :, area[0], area[1]])
            if total is None:
                total = p.new_zeros(p.shape[0], p.shape[1], H, W)
            total[:, :, area[0], area[1]] += p
            count_HW[area] += 1
    assert total is not None
    return total.div_(count_HW)


def window_starts(length: int, window: int) -> list[int]:
    """Starts of windows that cover [0, length) at two thirds of their size, the last flush with the end."""
    step = max(window * 2 // 3, 1)
    return [*range(0, length - window, step), length - window]


def _softmax_at_image_size(model: nn.Module, image_B3HW: Tensor) -> Tensor:
    logits = model(image_B3HW)[1].float()
    if logits.shape[2:] != image_B3HW.shape[2:]:
        logits = F.interpolate(logits, size=image_B3HW.shape[2:], mode="bilinear", align_corners=False)
    return logits.softmax(1)


def confusion(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Counts of valid pixels, rows = truth, columns = prediction -> (K, K) int64."""
    valid = truth < num_classes
    pairs = truth[valid].long() * num_classes + prediction[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def scores(confusion_KK: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """{miou, pixel_accuracy, iou: {name: value}}; a class in neither truth nor prediction is None and not
    averaged."""
    counts = confusion_KK.double().cpu()
    hit_K = counts.diag()
    iou_K = hit_K / (counts.sum(0) + counts.sum(1) - hit_K)
    total = counts.sum().item()
    iou = {name: None if value.isnan() else value.item() for name, value in zip(names, iou_K, strict=True)}
    return {
        "miou": iou_K.nanmean().item(),
        "pixel_accuracy": hit_K.sum().item() / total if total else float("nan"),
        "iou": iou,
        "pixels": int(total),
    }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Any,
    num_classes: int,
    *,
    device: torch.device,
    rank: int = 0,
    autocast: torch.dtype | None = None,
    on_batch: Callable[[], None] = lambda: None,
    **views: Any,
) -> Tensor:
    """Confusion counts of a split over all ranks, every image exactly once -> (K, K) int64 on the CPU.

    `views` go to `probabilities`; `on_batch` is called after every batch.  Ranks may hold
    unequal numbers of images, or none.
    """
    model.eval()
    counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    rows = loader.share(range(len(split)), rank, world_size())
    for _, image, label in loader.validation_batches(split, rows):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            p_BKHW = probabilities(model, image.to(device, non_blocking=True), **views)
        counts_KK += confusion(p_BKHW.argmax(1), label.to(device, non_blocking=True), num_classes)
        on_batch()
    if world_size() > 1:
        dist.all_reduce(counts_KK)
    return counts_KK.cpu()
