"""The three terms of the mixture: L_mix, L_label, L_sep (Wu et al., CVPR 2023, and the variants of ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseg.config import IGNORED, LossConfig
from sparseg.losses import mixture, online_em
from sparseg.losses.inputs import LossInputs
from sparseg.losses.mixture import Slots


def terms(inputs: LossInputs, p_BKHW: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Compute L_mix, L_label and L_sep, those that are on; a memory takes in the batch.

    p_BKHW (B, K, H, W): the prediction's probabilities at the label's size.  Terms of weight 0 are left out.
    """
    slots = image_slots(inputs)
    labelled_BSHW = labelled_pixels(inputs, slots)
    mean_BSD = mixture.class_means(inputs.feature_BDhw, labelled_BSHW.to(inputs.feature_BDhw.dtype))
    is_em, memory = "agmm-em" in config.parts, inputs.memory
    values: dict[str, Tensor] = {}
    if config.sep_weight or (memory is not None and not is_em):
        labelled_BS = labelled_BSHW.any(3).any(2)
        sum_KD, count_K = mixture.batch_sums(mean_BSD, slots, labelled_BS, inputs.num_classes)
        if config.sep_weight:
            reduction = config.centroid_reduction
            if reduction == "auto":
                reduction = "sum" if config.variance == "published" and not is_em else "mean"
            sep = mixture.separation(sum_KD, count_K, distance=config.distance, reduction=reduction)
            values["sep"] = sep / inputs.passes
        if memory is not None and not is_em:
            memory.update(sum_KD, count_K, config.centroid_momentum)
            mean_BSD = memory.centroid_KD[slots.class_BS]
    if not (config.mix_weight or config.label_weight):
        return values
    if is_em:
        return values | online_em.terms(inputs, mean_BSD, labelled_BSHW, p_BKHW, slots, config)
    return values | pixel_terms(inputs, mean_BSD, labelled_BSHW, p_BKHW, slots, config)


def image_slots(inputs: LossInputs) -> Slots:
    """Slots for the classes labelled in each crop, and for those annotated in the image that a memory has."""
    class_BK = mixture.crop_classes(inputs.label_BHW, inputs.num_classes)
    if inputs.memory is not None:
        class_BK = class_BK | (inputs.present_BK & inputs.memory.seen_K)
    return mixture.slots_of(class_BK, inputs.num_slots)


def labelled_pixels(inputs: LossInputs, slots: Slots) -> Tensor:
    """Mark each slot's labelled pixels, 1[m = k] -> (B, S, H, W) bool."""
    used_BS11 = slots.used_BS[:, :, None, None]
    return (inputs.label_BHW[:, None] == slots.class_BS[:, :, None, None]) & used_BS11


def pixel_terms(
    inputs: LossInputs,
    mean_BSD: Tensor,
    labelled_BSHW: Tensor,
    p_BKHW: Tensor,
    slots: Slots,
    config: LossConfig,
) -> dict[str, Tensor]:
    """Compute L_mix and L_label around the means of the slots.

    L_mix   = mean over valid pixels of (1/S_b) sum_k c 1/2 BCE(P_k; target G_k)
    L_label = mean over labelled pixels of (1/S_b) sum_k c 1/2 BCE(G_k; target [m = k])

    With target=posterior L_mix is the cross-entropy of P with the responsibilities (`class_posterior`).
    """
    label_BHW, values = inputs.label_BHW, {}
    valid_B1HW = (label_BHW != IGNORED)[:, None]
    if config.target == "posterior" and config.mix_weight:
        target_BSHW = class_posterior(inputs, mean_BSD, p_BKHW, slots, config)
        cost_BSHW = -torch.log(mixture.pick(p_BKHW, slots) + mixture.EPS) * target_BSHW
        cost_BSHW = cost_BSHW * slots.used_BS[:, :, None, None]
        values["mix"] = (cost_BSHW * valid_B1HW).sum() * inputs.per_valid_pixel
        if not config.label_weight:
            return values
    similarity_BSHW = class_similarity(inputs, mean_BSD, p_BKHW, slots, config)
    share_BS = slots.used_BS / (slots.used_BS.sum(1, keepdim=True) + mixture.EPS) / 2  # c / S_b * 1/2
    share_BS11 = share_BS[:, :, None, None]
    if config.mix_weight and config.target == "similarity":  # L_mix
        p_BSHW = mixture.pick(p_BKHW, slots)
        log_p, log_not_p = torch.log(p_BSHW + mixture.EPS), torch.log(1 - p_BSHW + mixture.EPS)
        cost_BSHW = torch.lerp(log_not_p, log_p, similarity_BSHW)  # G log p + (1 - G) log(1 - p)
        values["mix"] = -(cost_BSHW * (share_BS11 * valid_B1HW)).sum() * inputs.per_valid_pixel
    if config.label_weight:  # L_label
        probability_BSHW = torch.where(labelled_BSHW, similarity_BSHW, 1 - similarity_BSHW)
        weight = share_BS11 * (label_BHW < inputs.num_classes)[:, None]
        cost = -(torch.log(probability_BSHW + mixture.EPS) * weight).sum()
        values["label"] = cost * inputs.per_labelled_pixel
    return values


def class_posterior(
    inputs: LossInputs, mean_BSD: Tensor, p_BKHW: Tensor, slots: Slots, config: LossConfig
) -> Tensor:
    """Responsibilities of the slots at the label's size, without gradient (`mixture.posterior`)
    -> (B, S, H, W)."""
    d2_BShw = mixture.squared_distance(inputs.feature_BDhw.detach(), mean_BSD.detach(), config.distance)
    p_BShw = mixture.resized(mixture.pick(p_BKHW.detach(), slots), inputs.cells)
    valid_B1hw = mixture.valid_cells(inputs.label_BHW, inputs.cells)
    r_BShw = mixture.posterior(d2_BShw, p_BShw, valid_B1hw, slots, config.bandwidth)
    return mixture.resized(r_BShw, inputs.pixels)


def class_similarity(
    inputs: LossInputs, mean_BSD: Tensor, p_BKHW: Tensor, slots: Slots, config: LossConfig
) -> Tensor:
    """Compute G = up(exp(-d^2 / (2 beta^2 sigma^2))) by the chosen variance -> (B, S, H, W), in (0, 1].

    mean_BSD (B, S, D): the slots' class means; p_BKHW (B, K, H, W): probabilities, which weigh the adaptive
    variance.  d is 0 at ignored cells; slots that are not used hold values that mean nothing.
    """
    valid_B1hw = mixture.valid_cells(inputs.label_BHW, inputs.cells)
    d2_BShw = mixture.squared_distance(inputs.feature_BDhw, mean_BSD, config.distance) * valid_B1hw
    variance_BS11: Tensor | float = config.sigma**2
    if config.variance == "adaptive":
        present_BS = inputs.present_BK.gather(1, slots.class_BS)[:, :, None, None]
        p_BSHW = mixture.pick(p_BKHW.detach(), slots) * present_BS
        responsibility_BShw = mixture.resized(p_BSHW, inputs.cells) * valid_B1hw
        variance_BS11 = mixture.variance(d2_BShw, responsibility_BShw)  # Eq. 7
    elif config.variance == "unweighted":
        variance_BS11 = mixture.variance(d2_BShw, valid_B1hw.expand_as(d2_BShw))
    bandwidth = 1.0 if config.variance == "published" else config.bandwidth
    return mixture.resized(mixture.similarity(d2_BShw, variance_BS11, bandwidth), inputs.pixels)
