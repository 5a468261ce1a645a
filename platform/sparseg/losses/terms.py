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
from sparseg.config import IGNORED, TERMS, UNLABELLED, LossConfig
from sparseg.losses import agmm, extra_terms, mixture, pairwise, tree_energy
from sparseg.losses.inputs import LossInputs, at_least_fp32, per_pixel, pixel_counts
from sparseg.losses.mixture import Memory, resized


def class_weights(pixels_K: Sequence[int], balance: float) -> Tensor:
    """Weights of the classes in L_seg by their labelled pixels: share ** -balance, of mean 1 over the pixels.

    pixels_K counts the labelled pixels of every class; balance is `loss.class_balance`: 0 gives ones, 1 makes
    every class weigh the same.  A class without a pixel gets 1 -> (K,) float32.
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
    with_mixture: bool = True,
    class_weight_K: Tensor | None = None,
    memory: Memory | None = None,
    image_B3HW: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute all loss terms: unweighted scalars seg mix label sep absent only tree pairwise, and their
    weighted total; with loss.extra_terms the user's own besides.

    The mixture's are those of Wu et al., CVPR 2023 (agmm.py, online_em.py), tree and pairwise stand in
    tree_energy.py and pairwise.py.  Terms that are off are 0 and cost nothing.  Sums are in fp32 whatever
    the autocast.

    Args:
        feature_BDhw: (B, D, h, w), the decoder's feature at its stride.
        logits_BKhw: (B, K, any, any), resized once to the label's size.
        label_BHW: uint8 codes.
        present_BK: bool, classes annotated anywhere in the whole image.
        config: method, weights and modes.
        counts: `pixel_counts` of the global batch (default: of this call's labels).
        num_slots: most classes labelled in any crop of the batch, with a memory most classes annotated in any
            image (default: looked up, which waits for the device).
        passes: accumulation passes that share `counts`; sep, tree and pairwise, which are taken per pass, are
            divided by it.
        with_mixture: False during warm-up, which computes no terms but seg, absent and only.
        class_weight_K: factors on the pixels of a class in seg (`class_weights`).
        memory: the running class means of a configuration that keeps them (`keeps_memory`), changed in place.
        image_B3HW: 0..255, for tree and pairwise.

    Raises:
        ValueError: the method looks at the image and there is none, or the user's own terms are none.
    """
    logits_BKhw = at_least_fp32(logits_BKhw)
    if counts is None:
        counts = pixel_counts(label_BHW, logits_BKhw.shape[1])
    per_labelled_pixel, per_valid_pixel = per_pixel(counts, logits_BKhw.dtype)
    inputs = LossInputs(
        at_least_fp32(feature_BDhw),
        logits_BKhw,
        label_BHW,
        present_BK,
        per_labelled_pixel,
        per_valid_pixel,
        num_slots,
        passes,
        class_weight_K,
        memory,
        image_B3HW,
    )
    with torch.autocast(logits_BKhw.device.type, enabled=False):
        return _terms(inputs, config, with_mixture)


def _terms(inputs: LossInputs, config: LossConfig, past_warm_up: bool) -> dict[str, Tensor]:
    label_BHW, present_BK, num_classes = inputs.label_BHW, inputs.present_BK, inputs.num_classes
    terms = {name: inputs.logits_BKhw.new_zeros(()) for name in TERMS}
    if past_warm_up:
        terms |= image_terms(inputs, config)
    log_p_BKHW = F.log_softmax(resized(inputs.logits_BKhw, inputs.pixels), 1)
    if config.seg_weight:  # L_seg
        target_BHW = label_BHW.where(label_BHW < num_classes, label_BHW.new_tensor(IGNORED)).long()
        weight_K = None if inputs.class_weight_K is None else inputs.class_weight_K.to(log_p_BKHW.dtype)
        loss = F.nll_loss(log_p_BKHW, target_BHW, weight_K, ignore_index=IGNORED, reduction="sum")
        terms["seg"] = loss * inputs.per_labelled_pixel
    with_mixture = past_warm_up and config.has_mixture
    with_pixels = with_mixture and bool(config.mix_weight or config.label_weight)
    p_BKHW = log_p_BKHW.exp() if config.with_absent or with_pixels else log_p_BKHW
    if config.with_absent:  # L_absent
        terms["absent"] = absent_class(p_BKHW, label_BHW, present_BK) * inputs.per_valid_pixel
    if config.with_only:
        terms["only"] = only_class(log_p_BKHW, label_BHW, present_BK) * inputs.per_valid_pixel
    if with_mixture and (with_pixels or config.sep_weight):
        terms |= agmm.terms(inputs, p_BKHW, config)
    weights = config.weights
    terms["total"] = torch.zeros_like(terms["seg"])
    for name in TERMS:
        terms["total"] = terms["total"] + weights[name] * terms[name]
    if past_warm_up and config.with_extra:
        for name, value in extra_terms.terms(inputs, config).items():
            terms[name] = value
            terms["total"] = terms["total"] + config.extra_weight * value
    return terms


def image_terms(inputs: LossInputs, config: LossConfig) -> dict[str, Tensor]:
    """Compute the tree energy of the decoder's unlabelled cells and the pairwise energy of its valid ones.

    They are means over the pass's global batch, divided by the passes; those that are off are left out.
    Raises ValueError if there is no image.
    """
    if not (config.with_tree or config.with_pairwise):
        return {}
    image_B3HW = inputs.image_B3HW
    if image_B3HW is None:
        raise ValueError(f"loss.method={config.method} looks at the image; give image_B3HW")
    terms: dict[str, Tensor] = {}
    p_BKhw = resized(inputs.logits_BKhw, inputs.cells).softmax(1)
    if config.with_tree:
        unlabelled = (inputs.label_BHW == UNLABELLED)[:, None].to(p_BKhw.dtype)
        unlabelled_B1hw = F.interpolate(unlabelled, size=inputs.cells, mode="nearest")
        energy = tree_energy.energy(inputs.feature_BDhw, p_BKhw, image_B3HW, unlabelled_B1hw)
        terms["tree"] = energy * _share(unlabelled_B1hw, inputs.passes)
    if config.with_pairwise:
        valid_B1hw = mixture.valid_cells(inputs.label_BHW, inputs.cells)
        pairs = pairwise.gated_crf if "gated-crf" in config.parts else pairwise.dense
        terms["pairwise"] = pairs(p_BKhw, image_B3HW, valid_B1hw) * _share(valid_B1hw, inputs.passes)
    return terms


def _share(cells_B1hw: Tensor, passes: int) -> Tensor:
    """Factor on a sum over these cells that makes the mean over ranks, summed over passes, their mean."""
    count = cells_B1hw.double().sum()
    if distributed.world_size() > 1:
        dist.all_reduce(count)
    return (distributed.world_size() / count.clamp(min=1) / passes).to(cells_B1hw.dtype)


def absent_class(p_BKHW: Tensor, label_BHW: Tensor, present_BK: Tensor) -> Tensor:
    """L_absent before its mean: sum over valid pixels of sum_k -(1 - y_k) log(1 - P_k + EPS) -> scalar.

    p_BKHW (B, K, H, W) probabilities; label_BHW codes; present_BK is y, the classes of the whole image.
    """
    absent_BK = (~present_BK).to(p_BKHW.dtype)
    cost_BKHW = torch.log(1 - p_BKHW + mixture.EPS)
    return -torch.einsum("BKHW,BK,BHW->", cost_BKHW, absent_BK, (label_BHW != IGNORED).to(p_BKHW.dtype))


def only_class(log_p_BKHW: Tensor, label_BHW: Tensor, present_BK: Tensor) -> Tensor:
    """Sum -log P of the class over the valid pixels of images in which it alone is annotated -> scalar.

    The penalty of DBFNet (Wu et al., TIP 2022).  log_p_BKHW (B, K, H, W); label_BHW codes; present_BK bool.
    """
    alone_BK = (present_BK & (present_BK.sum(1, keepdim=True) == 1)).to(log_p_BKHW.dtype)
    return -torch.einsum("BKHW,BK,BHW->", log_p_BKHW, alone_BK, (label_BHW != IGNORED).to(log_p_BKHW.dtype))
