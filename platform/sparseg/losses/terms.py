"""The objective: cross-entropy on labelled pixels, the absent-class term, the terms of the mixture, and those
of the methods that look at the image.

Every term is a sum over pixels divided by a count over the GLOBAL batch (all ranks, all accumulation passes).
On several ranks each returns its share times the number of ranks, so the mean over ranks, which DDP takes of
the gradients too, is the value and the gradient of the whole batch, however unequal the shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from sparseg.common import distributed
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.losses import agmm, mixture, pairwise, tree_energy
from sparseg.losses.mixture import Memory

TERMS = ("seg", "mix", "label", "sep", "absent", "only", "tree", "pairwise")


def pixel_counts(label_BHW: Tensor, num_classes: int) -> Tensor:
    """Labelled and valid (all but ignored) pixels, summed over the ranks -> (2,) float64; no device wait."""
    labelled, valid = (label_BHW < num_classes).sum(), (label_BHW != IGNORED).sum()
    counts = torch.stack([labelled, valid]).double()
    if distributed.world_size() > 1:
        dist.all_reduce(counts)
    return counts


def class_weights(pixels_K: Sequence[int], balance: float) -> Tensor:
    """Weights of the classes in L_seg by their labelled pixels: share ** -balance, of mean 1 over the pixels.

    A class without a pixel gets 1.  balance 0 gives ones; 1 makes every class weigh the same -> (K,) float32.
    """
    count_K = torch.tensor(pixels_K, dtype=torch.float64)
    power_K = count_K.clamp(min=1) ** -balance
    scale = count_K.sum().clamp(min=1) / (count_K * power_K).sum().clamp(min=1e-300)
    return torch.where(count_K > 0, power_K * scale, 1.0).float()


def objective(
    feature_BDhw: Tensor,
    logits_BKhw: Tensor,
    label_BHW: Tensor,
    present_BK: Tensor,
    config: LossConfig,
    *,
    counts: Tensor | None = None,
    num_slots: int | None = None,
    passes: int = 1,
    mixture: bool = True,
    class_weight_K: Tensor | None = None,
    memory: Memory | None = None,
    image_B3HW: Tensor | None = None,
) -> dict[str, Tensor]:
    """All loss terms (Wu et al., CVPR 2023; tree.py; pairwise.py) -> unweighted scalars seg mix label sep
    absent only tree pairwise, and their weighted total.

    feature_BDhw (B, D, h, w) at the decoder's stride; logits_BKhw (B, K, any, any), resized once to the
    label's size; label_BHW uint8 codes; present_BK bool, classes annotated anywhere in the whole image.
    counts: `pixel_counts` of the global batch (default: of this call's labels).  num_slots: most classes
    labelled in any crop of the batch (default: looked up, which waits for the device).  passes: accumulation
    passes that share `counts`; sep, tree and pairwise, which are taken per pass, are divided by it.
    mixture=False: warm-up, no terms but seg, absent and only.  class_weight_K: factors on the pixels of a
    class in seg (`class_weights`).  memory: the running class means (`keeps_memory`), changed in place;
    num_slots is then the most classes annotated in any image.  image_B3HW: 0..255, for tree and pairwise.
    Terms that are off are 0 and cost nothing.  Sums are in fp32 whatever the autocast.
    """
    with torch.autocast(logits_BKhw.device.type, enabled=False):
        return _objective(
            _at_least_fp32(feature_BDhw),
            _at_least_fp32(logits_BKhw),
            label_BHW,
            present_BK,
            config,
            counts,
            num_slots,
            passes,
            mixture,
            class_weight_K,
            memory,
            image_B3HW,
        )


def _at_least_fp32(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _objective(
    feature_BDhw: Tensor,
    logits_BKhw: Tensor,
    label_BHW: Tensor,
    present_BK: Tensor,
    config: LossConfig,
    counts: Tensor | None,
    num_slots: int | None,
    passes: int,
    mixture_on: bool,
    class_weight_K: Tensor | None,
    memory: Memory | None,
    image_B3HW: Tensor | None,
) -> dict[str, Tensor]:
    num_classes = logits_BKhw.shape[1]
    if counts is None:
        counts = pixel_counts(label_BHW, num_classes)
    labelled, valid = (distributed.world_size() / counts.clamp(min=1)).to(logits_BKhw.dtype).unbind()
    terms = {name: logits_BKhw.new_zeros(()) for name in TERMS}

    if mixture_on:
        terms |= image_terms(feature_BDhw, logits_BKhw, label_BHW, image_B3HW, config, passes)
    if logits_BKhw.shape[2:] != label_BHW.shape[1:]:
        logits_BKhw = F.interpolate(
            logits_BKhw, size=label_BHW.shape[1:], mode="bilinear", align_corners=False
        )
    log_p_BKHW = F.log_softmax(logits_BKhw, 1)
    if config.seg_weight:
        target_BHW = label_BHW.where(label_BHW < num_classes, label_BHW.new_tensor(IGNORED)).long()
        weight_K = None if class_weight_K is None else class_weight_K.to(log_p_BKHW.dtype)
        loss = F.nll_loss(log_p_BKHW, target_BHW, weight_K, ignore_index=IGNORED, reduction="sum")
        terms["seg"] = loss * labelled
    with_mixture = mixture_on and config.has_mixture
    with_pixels = with_mixture and bool(config.mix_weight or config.label_weight)
    p_BKHW = log_p_BKHW.exp() if config.with_absent or with_pixels else log_p_BKHW
    if config.with_absent:
        terms["absent"] = absent_class(p_BKHW, label_BHW, present_BK) * valid
    if config.only_weight and config.knows_absent:
        terms["only"] = only_class(log_p_BKHW, label_BHW, present_BK) * valid
    if with_mixture and (with_pixels or config.sep_weight):
        class_BK = mixture.crop_classes(label_BHW, num_classes)
        if memory is not None:
            class_BK = class_BK | (present_BK & memory.seen_K)
        slots = mixture.slots_of(class_BK, num_slots)
        terms |= agmm.terms(
            feature_BDhw, p_BKHW, label_BHW, present_BK, slots, config, labelled, valid, memory
        )
    terms["sep"] = terms["sep"] / passes
    terms["total"] = sum(getattr(config, f"{name}_weight") * terms[name] for name in TERMS)
    return terms


def image_terms(
    feature_BDhw: Tensor,
    logits_BKhw: Tensor,
    label_BHW: Tensor,
    image_B3HW: Tensor | None,
    config: LossConfig,
    passes: int,
) -> dict[str, Tensor]:
    """Tree energy over the unlabelled cells of the decoder's grid, pairwise energy over the valid ones: means
    over the pass's global batch, divided by the passes."""
    parts = config.parts
    terms: dict[str, Tensor] = {}
    size = (feature_BDhw.shape[2], feature_BDhw.shape[3])
    with_tree = "tel" in parts and bool(config.tree_weight)
    with_pairs = not parts.isdisjoint(("gated-crf", "dense-pairwise")) and bool(config.pairwise_weight)
    if not (with_tree or with_pairs):
        return terms
    if image_B3HW is None:
        raise ValueError(f"loss.method={config.method} looks at the image; give image_B3HW")
    if logits_BKhw.shape[2:] != size:
        logits_BKhw = F.interpolate(logits_BKhw, size=size, mode="bilinear", align_corners=False)
    p_BKhw = logits_BKhw.softmax(1)
    if with_tree:
        unlabelled = (label_BHW == UNLABELLED)[:, None].to(p_BKhw.dtype)
        unlabelled_B1hw = F.interpolate(unlabelled, size=size, mode="nearest")
        energy = tree_energy.energy(feature_BDhw, p_BKhw, image_B3HW, unlabelled_B1hw)
        terms["tree"] = energy * _share(unlabelled_B1hw, passes)
    if with_pairs:
        valid_B1hw = mixture.valid_cells(label_BHW, size)
        pairs = pairwise.gated_crf if "gated-crf" in parts else pairwise.dense
        terms["pairwise"] = pairs(p_BKhw, image_B3HW, valid_B1hw) * _share(valid_B1hw, passes)
    return terms


def _share(cells_B1hw: Tensor, passes: int) -> Tensor:
    """Factor on a sum over these cells, so that the mean over ranks and the sum over passes is a mean over
    cells."""
    count = cells_B1hw.double().sum()
    if distributed.world_size() > 1:
        dist.all_reduce(count)
    return (distributed.world_size() / count.clamp(min=1) / passes).to(cells_B1hw.dtype)


def absent_class(p_BKHW: Tensor, label_BHW: Tensor, present_BK: Tensor) -> Tensor:
    """Sum over valid pixels of sum_k -(1 - y_k) log(1 - P_k + EPS) -> scalar."""
    absent_BK = (~present_BK).to(p_BKHW.dtype)
    cost_BKHW = torch.log(1 - p_BKHW + mixture.EPS)
    return -torch.einsum("BKHW,BK,BHW->", cost_BKHW, absent_BK, (label_BHW != IGNORED).to(p_BKHW.dtype))


def only_class(log_p_BKHW: Tensor, label_BHW: Tensor, present_BK: Tensor) -> Tensor:
    """Sum over valid pixels of images in which one class alone is annotated of -log P of that class (the
    penalty of DBFNet, Wu et al., TIP 2022)."""
    alone_BK = (present_BK & (present_BK.sum(1, keepdim=True) == 1)).to(log_p_BKHW.dtype)
    return -torch.einsum("BKHW,BK,BHW->", log_p_BKHW, alone_BK, (label_BHW != IGNORED).to(log_p_BKHW.dtype))
