"""The tensors of one pass that the terms of the objective share."""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor

from sparseg.common import distributed
from sparseg.config import IGNORED
from sparseg.losses.mixture import Memory


@dataclasses.dataclass(frozen=True)
class LossInputs:
    """One pass's predictions and labels, with the factors that make sums over pixels means of the batch.

    Predictions are in fp32 or fp64.  Multiplied by a factor, a sum over this rank's pixels becomes its share
    of the mean over the GLOBAL batch, times the number of ranks: the mean over ranks is the batch's mean.
    """

    feature_BDhw: Tensor  # the decoder's feature, at its stride
    logits_BKhw: Tensor  # of any size
    label_BHW: Tensor  # codes
    present_BK: Tensor  # bool, classes annotated anywhere in the whole image
    per_labelled_pixel: Tensor  # scalar: number of ranks / labelled pixels of the global batch
    per_valid_pixel: Tensor  # scalar: number of ranks / pixels of the global batch that are not ignored
    num_slots: int | None = None  # most classes of an image that the mixture holds; None: looked up
    passes: int = 1  # accumulation passes of the step
    class_weight_K: Tensor | None = None  # factors on the pixels of a class in L_seg
    memory: Memory | None = None  # running class means, changed in place
    image_B3HW: Tensor | None = None  # 0..255

    @property
    def num_classes(self) -> int:
        """K."""
        return self.logits_BKhw.shape[1]

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the feature."""
        return self.feature_BDhw.shape[2], self.feature_BDhw.shape[3]

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the label."""
        return self.label_BHW.shape[1], self.label_BHW.shape[2]


def pixel_counts(label_BHW: Tensor, num_classes: int) -> Tensor:
    """Labelled and valid (all but ignored) pixels, summed over the ranks -> (2,) float64; no device wait."""
    labelled, valid = (label_BHW < num_classes).sum(), (label_BHW != IGNORED).sum()
    counts = torch.stack([labelled, valid]).double()
    if distributed.world_size() > 1:
        dist.all_reduce(counts)
    return counts


def per_pixel(counts: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Factors on sums over labelled and over valid pixels of this rank, of `pixel_counts` of the batch."""
    labelled, valid = (distributed.world_size() / counts.clamp(min=1)).to(dtype).unbind()
    return labelled, valid


def at_least_fp32(value: Tensor) -> Tensor:
    """Widen half precision to fp32; fp64 stays."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
