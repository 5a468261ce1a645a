"""The three terms of the mixture: L_mix, L_label, L_sep (Wu et al., CVPR 2023, and what RESULTS.md tried)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseg.config import IGNORED, LossConfig
from sparseg.losses import mixture, online_em
from sparseg.losses.mixture import Memory


def terms(
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
    values: dict[str, Tensor] = {}
    used_BS11 = slots.used_BS[:, :, None, None]
    labelled_BSHW = (label_BHW[:, None] == slots.class_BS[:, :, None, None]) & used_BS11
    mean_BSD = mixture.class_means(feature_BDhw, labelled_BSHW.to(feature_BDhw.dtype))
    is_em = "agmm-em" in config.parts
    if config.sep_weight or (memory is not None and not is_em):
        labelled_BS = labelled_BSHW.any(3).any(2)
        sum_KD, count_K = mixture.batch_sums(mean_BSD, slots, labelled_BS, p_BKHW.shape[1])
        reduction = config.centroid_reduction
        if reduction == "auto":
            reduction = "sum" if config.variance == "published" and not is_em else "mean"
        if config.sep_weight:
            values["sep"] = mixture.separation(sum_KD, count_K, distance=config.distance, reduction=reduction)
        if memory is not None and not is_em:
            memory.update(sum_KD, count_K, config.centroid_momentum)
            mean_BSD = memory.centroid_KD[slots.class_BS]
    if not (config.mix_weight or config.label_weight):
        return values
    if is_em:
        assert memory is not None
        found = online_em.terms(
            feature_BDhw, mean_BSD, labelled_BSHW, p_BKHW, label_BHW, slots, config, memory
        )
        scale = {"mix": valid, "label": labelled}
        return values | {name: value * scale[name] for name, value in found.items()}

    if config.target == "posterior" and config.mix_weight:
        target_BSHW = class_posterior(feature_BDhw, mean_BSD, p_BKHW, label_BHW, slots, config)
        cost_BSHW = -torch.log(mixture.pick(p_BKHW, slots) + mixture.EPS) * target_BSHW * used_BS11
        values["mix"] = (cost_BSHW * (label_BHW != IGNORED)[:, None]).sum() * valid
        if not config.label_weight:
            return values
    similarity_BSHW = class_similarity(feature_BDhw, mean_BSD, p_BKHW, label_BHW, present_BK, slots, config)
    share_BS = slots.used_BS / (slots.used_BS.sum(1, keepdim=True) + mixture.EPS) / 2  # c / S_b * 1/2
    share_BS11 = share_BS[:, :, None, None]
    if config.mix_weight and config.target == "similarity":
        p_BSHW = mixture.pick(p_BKHW, slots)
        log_p, log_not_p = torch.log(p_BSHW + mixture.EPS), torch.log(1 - p_BSHW + mixture.EPS)
        cost_BSHW = torch.lerp(log_not_p, log_p, similarity_BSHW)  # G log p + (1 - G) log(1 - p)
        weight = share_BS11 * (label_BHW != IGNORED)[:, None]
        values["mix"] = -(cost_BSHW * weight).sum() * valid
    if config.label_weight:
        probability_BSHW = torch.where(labelled_BSHW, similarity_BSHW, 1 - similarity_BSHW)
        weight = share_BS11 * (label_BHW < p_BKHW.shape[1])[:, None]
        values["label"] = -(torch.log(probability_BSHW + mixture.EPS) * weight).sum() * labelled
    return values


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
