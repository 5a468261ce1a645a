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

from sparseg import mixture, pairwise, tree
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.mixture import Memory

TERMS = ("seg", "mix", "label", "sep", "absent", "tree", "pairwise")


def pixel_counts(label_BHW: Tensor, num_classes: int) -> Tensor:
    """Labelled and valid (all but ignored) pixels, summed over the ranks -> (2,) float64; no device wait."""
    labelled, valid = (label_BHW < num_classes).sum(), (label_BHW != IGNORED).sum()
    counts = torch.stack([labelled, valid]).double()
    if mixture.world_size() > 1:
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
    absent tree pairwise, and their weighted total.

    feature_BDhw (B, D, h, w) at the decoder's stride; logits_BKhw (B, K, any, any), resized once to the
    label's size; label_BHW uint8 codes; present_BK bool, classes annotated anywhere in the whole image.
    counts: `pixel_counts` of the global batch (default: of this call's labels).  num_slots: most classes
    labelled in any crop of the batch (default: looked up, which waits for the device).  passes: accumulation
    passes that share `counts`; sep, tree and pairwise, which are taken per pass, are divided by it.
    mixture=False: warm-up, only seg and absent.  class_weight_K: factors on the pixels of a class in seg
    (`class_weights`).  memory: the running class means of centroids=memory, changed in place; num_slots is
    then the most classes annotated in any image.  image_B3HW: 0..255, for tree and pairwise.  Terms that are
    off are 0 and cost nothing.  Sums are in fp32 whatever the autocast.
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
    labelled, valid = (mixture.world_size() / counts.clamp(min=1)).to(logits_BKhw.dtype).unbind()
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
    with_mixture = mixture_on and "agmm" in config.parts
    with_pixels = with_mixture and bool(config.mix_weight or config.label_weight)
    p_BKHW = log_p_BKHW.exp() if config.with_absent or with_pixels else log_p_BKHW
    if config.with_absent:
        terms["absent"] = absent_class(p_BKHW, label_BHW, present_BK) * valid
    if with_mixture and (with_pixels or config.sep_weight):
        class_BK = mixture.crop_classes(label_BHW, num_classes)
        if memory is not None:
            class_BK = class_BK | (present_BK & memory.seen_K)
        slots = mixture.slots_of(class_BK, num_slots)
        terms |= mixture_terms(
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
        energy = tree.energy(feature_BDhw, p_BKhw, image_B3HW, unlabelled_B1hw)
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
    if mixture.world_size() > 1:
        dist.all_reduce(count)
    return (mixture.world_size() / count.clamp(min=1) / passes).to(cells_B1hw.dtype)


def absent_class(p_BKHW: Tensor, label_BHW: Tensor, present_BK: Tensor) -> Tensor:
    """Sum over valid pixels of sum_k -(1 - y_k) log(1 - P_k + EPS) -> scalar."""
    absent_BK = (~present_BK).to(p_BKHW.dtype)
    cost_BKHW = torch.log(1 - p_BKHW + mixture.EPS)
    return -torch.einsum("BKHW,BK,BHW->", cost_BKHW, absent_BK, (label_BHW != IGNORED).to(p_BKHW.dtype))


def mixture_terms(
    feature_BDhw: Tensor,
    p_BKHW: Tensor,
    label_BHW: Tensor,
    present_BK: Tensor,
    slots: mixture.Slots,
    config: LossConfig,
    labelled: Tensor,
    valid: Tensor,
    memory: Memory | None = None,
) -> dict[str, Tensor]:
    """L_mix, L_label, L_sep of the classes in `slots`; labelled and valid scale a sum over pixels to a
    mean."""
    terms = {}
    used_BS11 = slots.used_BS[:, :, None, None]
    labelled_BSHW = (label_BHW[:, None] == slots.class_BS[:, :, None, None]) & used_BS11
    mean_BSD = mixture.class_means(feature_BDhw, labelled_BSHW.to(feature_BDhw.dtype))
    if config.sep_weight or memory is not None:
        labelled_BS = labelled_BSHW.any(3).any(2)
        sum_KD, count_K = mixture.batch_sums(mean_BSD, slots, labelled_BS, p_BKHW.shape[1])
        reduction = config.centroid_reduction
        if reduction == "auto":
            reduction = "sum" if config.variance == "published" else "mean"
        if config.sep_weight:
            terms["sep"] = mixture.separation(sum_KD, count_K, distance=config.distance, reduction=reduction)
        if memory is not None:
            memory.update(sum_KD, count_K, config.centroid_momentum)
            mean_BSD = memory.centroid_KD[slots.class_BS]
    if not (config.mix_weight or config.label_weight):
        return terms

    if config.target == "posterior" and config.mix_weight:
        target_BSHW = class_posterior(feature_BDhw, mean_BSD, p_BKHW, label_BHW, slots, config)
        cost_BSHW = -torch.log(mixture.pick(p_BKHW, slots) + mixture.EPS) * target_BSHW * used_BS11
        terms["mix"] = (cost_BSHW * (label_BHW != IGNORED)[:, None]).sum() * valid
        if not config.label_weight:
            return terms
    similarity_BSHW = class_similarity(feature_BDhw, mean_BSD, p_BKHW, label_BHW, present_BK, slots, config)
    share_BS = slots.used_BS / (slots.used_BS.sum(1, keepdim=True) + mixture.EPS) / 2  # c / S_b * 1/2
    share_BS11 = share_BS[:, :, None, None]
    if config.mix_weight and config.target == "similarity":
        p_BSHW = mixture.pick(p_BKHW, slots)
        log_p, log_not_p = torch.log(p_BSHW + mixture.EPS), torch.log(1 - p_BSHW + mixture.EPS)
        cost_BSHW = torch.lerp(log_not_p, log_p, similarity_BSHW)  # G log p + (1 - G) log(1 - p)
        weight = share_BS11 * (label_BHW != IGNORED)[:, None]
        terms["mix"] = -(cost_BSHW * weight).sum() * valid
    if config.label_weight:
        probability_BSHW = torch.where(labelled_BSHW, similarity_BSHW, 1 - similarity_BSHW)
        weight = share_BS11 * (label_BHW < p_BKHW.shape[1])[:, None]
        terms["label"] = -(torch.log(probability_BSHW + mixture.EPS) * weight).sum() * labelled
    return terms


def class_posterior(
    feature_BDhw: Tensor,
    mean_BSD: Tensor,
    p_BKHW: Tensor,
    label_BHW: Tensor,
    slots: mixture.Slots,
    config: LossConfig,
) -> Tensor:
    """Responsibilities of the slots at image size, (B, S, H, W), without gradient (`mixture.posterior`)."""
    size = (feature_BDhw.shape[2], feature_BDhw.shape[3])
    d2_BShw = mixture.squared_distance(feature_BDhw.detach(), mean_BSD.detach(), config.distance)
    p_BSHW = mixture.pick(p_BKHW.detach(), slots)
    p_BShw = F.interpolate(p_BSHW, size=size, mode="bilinear", align_corners=False)
    valid_B1hw = mixture.valid_cells(label_BHW, size)
    r_BShw = mixture.posterior(d2_BShw, p_BShw, valid_B1hw, slots, config.bandwidth)
    return F.interpolate(r_BShw, size=label_BHW.shape[1:], mode="bilinear", align_corners=False)


def class_similarity(
    feature_BDhw: Tensor,
    mean_BSD: Tensor,
    p_BKHW: Tensor,
    label_BHW: Tensor,
    present_BK: Tensor,
    slots: mixture.Slots,
    config: LossConfig,
) -> Tensor:
    """G at image size, (B, S, H, W): the chosen variance, then the Gaussian of the distance, resized."""
    size = (feature_BDhw.shape[2], feature_BDhw.shape[3])
    valid_B1hw = mixture.valid_cells(label_BHW, size)
    d2_BShw = mixture.squared_distance(feature_BDhw, mean_BSD, config.distance) * valid_B1hw
    variance_BS11: Tensor | float = config.sigma**2
    if config.variance == "adaptive":
        present_BS = present_BK.gather(1, slots.class_BS)[:, :, None, None]
        p_BSHW = mixture.pick(p_BKHW.detach(), slots) * present_BS
        responsibility = F.interpolate(p_BSHW, size=size, mode="bilinear", align_corners=False) * valid_B1hw
        variance_BS11 = mixture.variance(d2_BShw, responsibility)
    elif config.variance == "unweighted":
        variance_BS11 = mixture.variance(d2_BShw, valid_B1hw.expand_as(d2_BShw))
    bandwidth = 1.0 if config.variance == "published" else config.bandwidth
    similarity_BShw = mixture.similarity(d2_BShw, variance_BS11, bandwidth)
    return F.interpolate(similarity_BShw, size=label_BHW.shape[1:], mode="bilinear", align_corners=False)
