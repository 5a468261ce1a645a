"""What a prediction is worth, as whole numbers: confusion, boundary and calibration counts, and the
scores that follow from them.  Counts add up over batches and ranks in any order to the same last bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from sparseg.common.distributed import world_size

CALIBRATION_BINS = 15
BOUNDARY_SHARE = 0.02
"""Width of the boundary band in image diagonals (Cheng et al., Boundary IoU, CVPR 2021)."""
CONFIDENCE_UNIT = 2**20  # sums of probabilities are kept in these units, exactly


@dataclasses.dataclass(frozen=True)
class Counts:
    """Whole numbers of a set of images.

    confusion_KK: valid pixels, rows = truth, columns = prediction.  boundary_K2: pixels of the boundary
    bands of truth and prediction that both have, that either has.  calibration_N3: by confidence, pixels,
    right ones, sum of the confidence in 1 / CONFIDENCE_UNIT.  The last two are zero where only the
    confusion was asked for."""

    confusion_KK: Tensor
    boundary_K2: Tensor
    calibration_N3: Tensor

    @classmethod
    def zeros(cls, num_classes: int, device: torch.device | str = "cpu") -> Counts:
        """Of no image."""
        shapes = (num_classes, num_classes), (num_classes, 2), (CALIBRATION_BINS, 3)
        return cls(*(torch.zeros(shape, dtype=torch.int64, device=device) for shape in shapes))

    def _tensors(self) -> list[Tensor]:
        return [self.confusion_KK, self.boundary_K2, self.calibration_N3]

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self._tensors(), other._tensors(), strict=True)))

    def over_ranks(self) -> Counts:
        """Summed over the ranks of the running process group, on the CPU."""
        if world_size() > 1:
            for tensor in self._tensors():
                dist.all_reduce(tensor)
        return Counts(*(tensor.cpu() for tensor in self._tensors()))


def count(p_BKHW: Tensor, truth_BHW: Tensor, *, details: bool = False) -> Counts:
    """Counts of a batch: probabilities (B, K, H, W) against codes (B, H, W).

    details: the boundary and calibration counts, too; they cost more than the confusion.
    """
    confidence_BHW, prediction_BHW = p_BKHW.max(1)
    num_classes = p_BKHW.shape[1]
    counts_KK = confusion(prediction_BHW, truth_BHW, num_classes)
    if not details:
        return dataclasses.replace(Counts.zeros(num_classes, p_BKHW.device), confusion_KK=counts_KK)
    return Counts(
        counts_KK,
        boundary_counts(prediction_BHW, truth_BHW, num_classes),
        calibration_counts(confidence_BHW, prediction_BHW, truth_BHW, num_classes),
    )


def confusion(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Counts of valid pixels, rows = truth, columns = prediction -> (K, K) int64."""
    valid = truth < num_classes
    pairs = truth[valid].long() * num_classes + prediction[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def boundary_counts(prediction_BHW: Tensor, truth_BHW: Tensor, num_classes: int) -> Tensor:
    """Per class the pixels of both boundary bands, and of either -> (K, 2) int64.

    A class's band is what a square erosion by 2 % of the image's diagonal takes from its mask; the
    image's edge is a boundary, the edge of a region that counts for nothing (void) is none."""
    H, W = truth_BHW.shape[1:]
    radius = max(round(BOUNDARY_SHARE * (H**2 + W**2) ** 0.5), 1)
    valid_BHW = truth_BHW < num_classes
    counts_K2 = torch.zeros(num_classes, 2, dtype=torch.int64, device=truth_BHW.device)
    for klass in range(num_classes):
        bands = []
        for map_BHW in (truth_BHW, prediction_BHW):
            mask_BHW = (map_BHW == klass) | ~valid_BHW
            bands.append(mask_BHW & ~_eroded(mask_BHW, radius) & valid_BHW)
        counts_K2[klass, 0] = (bands[0] & bands[1]).sum()
        counts_K2[klass, 1] = (bands[0] | bands[1]).sum()
    return counts_K2


def _eroded(mask_BHW: Tensor, radius: int) -> Tensor:
    """Pixels whose square of 2 radius + 1 lies within the mask and the image."""
    outside_B1HW = F.pad((~mask_BHW).float()[:, None], (radius,) * 4, value=1.0)
    size = 2 * radius + 1
    rows = F.max_pool2d(outside_B1HW, (size, 1), stride=1)
    return F.max_pool2d(rows, (1, size), stride=1)[:, 0] == 0


def calibration_counts(
    confidence_BHW: Tensor, prediction_BHW: Tensor, truth_BHW: Tensor, num_classes: int
) -> Tensor:
    """By bins of the confidence, lowest first: valid pixels, right ones, sum of the confidence -> (N, 3)
    int64."""
    valid = truth_BHW < num_classes
    confidence = confidence_BHW[valid].double().nan_to_num(0.0)
    index = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    columns = (
        torch.ones_like(index),
        (prediction_BHW[valid] == truth_BHW[valid]).long(),
        (confidence * CONFIDENCE_UNIT).round().long(),
    )
    counts_N3 = torch.zeros(CALIBRATION_BINS, 3, dtype=torch.int64, device=index.device)
    return counts_N3.index_add_(0, index, torch.stack(columns, 1))


def scores(confusion_KK: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """{miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou, iou: {name: value}, pixels}.

    A class in neither truth nor prediction has no IoU (None) and is not averaged; mean_accuracy is the
    mean over the classes in the truth of the share found."""
    counts = confusion_KK.double().cpu()
    hit_K, truth_K = counts.diag(), counts.sum(1)
    iou_K = hit_K / (counts.sum(0) + truth_K - hit_K)
    total = counts.sum().item()
    return {
        "miou": iou_K.nanmean().item(),
        "pixel_accuracy": hit_K.sum().item() / total if total else float("nan"),
        "mean_accuracy": (hit_K / truth_K).nanmean().item(),
        "frequency_weighted_iou": (iou_K.nan_to_num() * truth_K).sum().item() / total
        if total
        else float("nan"),
        "iou": _named(iou_K, names),
        "pixels": int(total),
    }


def detailed_scores(counts: Counts, names: Sequence[str]) -> dict[str, Any]:
    """`scores`, and {boundary_iou, boundary_iou_per_class, calibration_error, calibration, confusion}.

    calibration_error is the expected one (Guo et al., ICML 2017): the mean over pixels of the gap between
    confidence and share right of their bin.  calibration: [pixels, share right, mean confidence] of each bin.
    """
    both_K, either_K = counts.boundary_K2.double().cpu().unbind(1)
    boundary_K = both_K / either_K
    pixels_N, right_N, sum_N = counts.calibration_N3.double().cpu().unbind(1)
    sum_N = sum_N / CONFIDENCE_UNIT
    return {
        **scores(counts.confusion_KK, names),
        "boundary_iou": boundary_K.nanmean().item(),
        "boundary_iou_per_class": _named(boundary_K, names),
        "calibration_error": ((right_N - sum_N).abs().sum() / pixels_N.sum()).item(),
        "calibration": [
            [int(pixels), right / pixels if pixels else None, sum_ / pixels if pixels else None]
            for pixels, right, sum_ in zip(pixels_N.tolist(), right_N.tolist(), sum_N.tolist(), strict=True)
        ],
        "confusion": counts.confusion_KK.tolist(),
    }


def scores_of_labels(counts: Counts, unlabelled_pixels: int, names: Sequence[str]) -> dict[str, Any]:
    """`detailed_scores`, and "labels": sparse where more pixels are unlabelled than labelled, else dense.

    Sparse labels tell nothing of boundaries, and of calibration only at the clicks that somebody chose: these
    numbers are None then.
    """
    detailed = detailed_scores(counts, names)
    if unlabelled_pixels <= detailed["pixels"]:
        return {"labels": "dense", **detailed}
    nothing = {"boundary_iou": None, "calibration_error": None, "calibration": None}
    return {"labels": "sparse", **detailed, **nothing, "boundary_iou_per_class": dict.fromkeys(names)}


def _named(value_K: Tensor, names: Sequence[str]) -> dict[str, float | None]:
    return {name: None if value.isnan() else value.item() for name, value in zip(names, value_K, strict=True)}
