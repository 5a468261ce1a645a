"""Online EM (`agmm-em`): one mixture over the data set, fitted from batch to batch while the network trains.

Our own formulation in the spirit of the journal version of AGMM (TPAMI 2025), of which no equations are at
hand: class means from labelled and from confidently pseudo-labelled pixels, EM steps in a batch, momentum
across batches.

The feature of a pixel is drawn from a Gaussian of its class: mean v_k of the data set, sigma^2 and the shares
pi_k of the image.  Its class is one of those annotated in the image, also where their labels lie outside the
crop or are tags, once a labelled pixel of some image has told where such a class begins.  E does not look at
labels: a cell around a labelled pixel is a cell like others.

    E   r_k = pi_k P_k exp(-d_k^2 / 2 beta^2 sigma^2), made to sum to 1          (`mixture.posterior`)
    M   of an image   mu_k = (1 - t) mean of F over k's labelled pixels + t mean of F over the cells where
                      r_k >= confidence, weighted by r_k                         (t: loss.em_trust)
        of the data   v_k <- m v_k + (1 - m) mean of mu_k over the batch's images (m: loss.centroid_momentum)

    L_mix    cross-entropy of P with r on the cells that are sure of their class
    L_label  cross-entropy at the labelled pixels of the Gaussians alone, without P and pi: it draws F to v
    L_sep    as AGMM has it

Suffixes as in mixture.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseg.config import IGNORED, LossConfig
from sparseg.losses import mixture
from sparseg.losses.inputs import LossInputs
from sparseg.losses.mixture import Memory, Slots


def terms(
    inputs: LossInputs,
    own_BSD: Tensor,
    labelled_BSHW: Tensor,
    p_BKHW: Tensor,
    slots: Slots,
    config: LossConfig,
) -> dict[str, Tensor]:
    """Compute L_mix and L_label; the memory of `inputs` takes in the batch.

    own_BSD (B, S, D): the means of the labelled pixels (`mixture.class_means`); labelled_BSHW (B, S, H, W)
    bool; p_BKHW (B, K, H, W): probabilities.
    """
    memory = inputs.memory
    assert memory is not None
    valid_B1hw = mixture.valid_cells(inputs.label_BHW, inputs.cells)
    p_BSHW = mixture.pick(p_BKHW, slots)
    p_BShw = mixture.resized(p_BSHW.detach(), inputs.cells)
    labelled_BS = labelled_BSHW.any(3).any(2)
    feature_BDhw = inputs.feature_BDhw
    r_BShw, variance_B111 = fit(
        feature_BDhw.detach(), own_BSD.detach(), labelled_BS, p_BShw, valid_B1hw, slots, config, memory
    )
    values = {}
    if config.mix_weight:  # L_mix
        sure_B1hw = (r_BShw.amax(1, keepdim=True) >= config.em_confidence) * valid_B1hw
        target_BSHW = mixture.resized(r_BShw * sure_B1hw, inputs.pixels)
        cost_BSHW = -torch.log(p_BSHW + mixture.EPS) * target_BSHW * slots.used_BS[:, :, None, None]
        values["mix"] = (cost_BSHW * (inputs.label_BHW != IGNORED)[:, None]).sum() * inputs.per_valid_pixel
    if config.label_weight:  # L_label
        mean_BSD = memory.centroid_KD[slots.class_BS]
        # ignored cells count for nothing: where all are, sigma is 0
        d2_BShw = mixture.squared_distance(feature_BDhw, mean_BSD, config.distance) * valid_B1hw
        log_joint_BShw = mixture.log_density(d2_BShw, variance_B111, config.bandwidth, slots)
        log_joint_BSHW = mixture.resized(log_joint_BShw, inputs.pixels)
        cost = -(F.log_softmax(log_joint_BSHW, 1) * labelled_BSHW).sum()
        values["label"] = cost * inputs.per_labelled_pixel
    return values


def class_similarity(
    inputs: LossInputs, mean_BSD: Tensor, p_BKHW: Tensor, slots: Slots, config: LossConfig
) -> Tensor:
    """Compute the Gaussians alone, up(exp(-d^2 / (2 beta^2 sigma^2))) with an image's shared sigma
    -> (B, S, H, W).

    mean_BSD (B, S, D): the slots' class means; p_BKHW (B, K, H, W): probabilities, which weigh sigma.  d is 0
    at ignored cells and the result 0 in slots that are not used.
    """
    valid_B1hw = mixture.valid_cells(inputs.label_BHW, inputs.cells)
    p_BShw = mixture.resized(mixture.pick(p_BKHW.detach(), slots), inputs.cells)
    d2_BShw = mixture.squared_distance(inputs.feature_BDhw, mean_BSD, config.distance) * valid_B1hw
    variance_B111 = mixture.shared_variance(d2_BShw, p_BShw, valid_B1hw, slots)
    log_density_BShw = mixture.log_density(d2_BShw, variance_B111, config.bandwidth, slots)
    return mixture.resized(log_density_BShw.exp(), inputs.pixels)


@torch.no_grad()
def fit(
    feature_BDhw: Tensor,
    own_BSD: Tensor,
    labelled_BS: Tensor,
    p_BShw: Tensor,
    valid_B1hw: Tensor,
    slots: Slots,
    config: LossConfig,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """Take `loss.em_steps` steps of EM, each M from the memory as it was before the batch.

    feature (B, D, h, w), own means (B, S, D), labelled (B, S) bool, p (B, S, h, w), valid cells (B, 1, h, w)
    0/1 -> responsibilities (B, S, h, w) by the new means, and sigma^2 (B, 1, 1, 1).
    """
    num_classes = len(memory.seen_K)
    before = Memory(memory.centroid_KD.clone(), memory.seen_K.clone())

    def expect() -> tuple[Tensor, Tensor]:  # E
        d2_BShw = mixture.squared_distance(feature_BDhw, memory.centroid_KD[slots.class_BS], config.distance)
        variance_B111 = mixture.shared_variance(d2_BShw, p_BShw, valid_B1hw, slots)
        return mixture.posterior(d2_BShw, p_BShw, valid_B1hw, slots, config.bandwidth), variance_B111

    memory.update(*mixture.batch_sums(own_BSD, slots, labelled_BS, num_classes), config.centroid_momentum)
    for _ in range(config.em_steps):
        r_BShw, _ = expect()
        # M of an image: mu_k
        weight_BShw = r_BShw * (r_BShw >= config.em_confidence) * valid_B1hw
        count_BS = weight_BShw.sum((2, 3)) * slots.used_BS
        pseudo_BSD = weight_BShw.flatten(2) @ feature_BDhw.flatten(2).mT
        pseudo_BSD = pseudo_BSD / (count_BS[..., None] + mixture.EPS)
        told_BS = (count_BS > 0) if config.em_trust else torch.zeros_like(labelled_BS)
        trust_BS = torch.where(labelled_BS, config.em_trust * told_BS, 1.0)
        mean_BSD = own_BSD.lerp(pseudo_BSD, trust_BS[..., None].to(own_BSD.dtype))
        # M of the data: v_k
        memory.centroid_KD.copy_(before.centroid_KD)
        memory.seen_K.copy_(before.seen_K)
        sums = mixture.batch_sums(mean_BSD, slots, labelled_BS | told_BS, num_classes)
        memory.update(*sums, config.centroid_momentum)
    return expect()
