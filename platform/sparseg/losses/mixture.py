"""The adaptive Gaussian mixture of Wu et al., CVPR 2023: class means, distances, variances, similarities.

Pure functions.  Suffixes: B images, K classes, S slots (the classes labelled in an image's crop, padded to
the most that any image of the batch has), D feature channels, H W pixels, h w feature cells, N = h*w.
Everything is computed for slots at feature resolution: neither a full-resolution feature map nor a
(B, K, D, h, w) difference is ever formed.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseg.common.distributed import all_reduce_sum
from sparseg.config import IGNORED

EPS = 1e-6
"""Added to every count before it divides, as in the published code."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """The assignment of an image's classes to its slots.

    class_BS int64 class ids (arbitrary where unused); used_BS bool.
    """

    class_BS: Tensor
    used_BS: Tensor


def crop_classes(label_BHW: Tensor, num_classes: int) -> Tensor:
    """Tell which classes have a labelled pixel in each crop, c[b,k]: (B, H, W) codes -> (B, K) bool."""
    index_BN = label_BHW.flatten(1).long().clamp(max=num_classes)
    seen = torch.zeros(len(label_BHW), num_classes + 1, dtype=torch.bool, device=label_BHW.device)
    return seen.scatter_(1, index_BN, True)[:, :num_classes]


def slots_of(crop_class_BK: Tensor, num_slots: int | None = None) -> Slots:
    """Pack the present classes of every image into slots, in class order.

    `num_slots` must be at least the most classes that any image has; None finds it, which waits for the
    device. At least one slot is made: a rank without labels must still take part in the sums over ranks.
    """
    if num_slots is None:
        num_slots = int(crop_class_BK.sum(1).max())
    num_slots = max(num_slots, 1)
    order_BK = torch.argsort(crop_class_BK.to(torch.int8), dim=1, descending=True, stable=True)
    class_BS = order_BK[:, :num_slots]
    return Slots(class_BS, crop_class_BK.gather(1, class_BS))


def resized(value_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps to (height, width), bilinear with align_corners=False; a map of that size is returned."""
    if tuple(value_BChw.shape[2:]) == size:
        return value_BChw
    return F.interpolate(value_BChw, size=size, mode="bilinear", align_corners=False)


def pick(value_BKhw: Tensor, slots: Slots) -> Tensor:
    """Gather the channels of the slots' classes: (B, K, h, w) -> (B, S, h, w)."""
    height, width = value_BKhw.shape[2:]
    return value_BKhw.gather(1, slots.class_BS[:, :, None, None].expand(-1, -1, height, width))


def _interpolation_matrix(size_in: int, size_out: int, device: torch.device) -> Tensor:
    """Rows of bilinear resizing along one axis, align_corners=False: (size_out, size_in)."""
    source = (torch.arange(size_out, dtype=torch.float64, device=device) + 0.5) * (size_in / size_out) - 0.5
    source = source.clamp(min=0)
    low = source.floor().long().clamp(max=size_in - 1)
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64, device=device)
    matrix.scatter_add_(1, low[:, None], (1 - (source - low))[:, None])
    matrix.scatter_add_(1, (low + 1).clamp(max=size_in - 1)[:, None], (source - low)[:, None])
    return matrix


def class_means(feature_BDhw: Tensor, labelled_BSHW: Tensor) -> Tensor:
    """Mean over a class's labelled pixels of the feature resized to image size, mu[b,k].

    mu = sum_{x: m=k} up(F)[x] / (n + EPS).  Resizing is linear, so the sum over pixels is a weighted sum of
    feature cells whose weights are the adjoint of the resizing applied to the indicator of the pixels.

    feature_BDhw (B, D, h, w); labelled_BSHW (B, S, H, W) float 0/1 -> (B, S, D).
    """
    (height, width), (H, W) = feature_BDhw.shape[2:], labelled_BSHW.shape[2:]
    rows_Hh = _interpolation_matrix(height, H, feature_BDhw.device).to(feature_BDhw.dtype)
    columns_Ww = _interpolation_matrix(width, W, feature_BDhw.device).to(feature_BDhw.dtype)
    weight_BShw = torch.einsum("Hh,BSHw->BShw", rows_Hh, labelled_BSHW @ columns_Ww)
    count_BS1 = labelled_BSHW.sum((2, 3))[..., None]
    return weight_BShw.flatten(2) @ feature_BDhw.flatten(2).mT / (count_BS1 + EPS)


class _MeanAbsoluteDifference(torch.autograd.Function):
    """d[b,s,x] = mean_D |F[b,:,x] - mu[b,s]|, one slot at a time: at most one more tensor of F's size is
    alive.  For GPUs, where the backward pass of torch.cdist forms the (B, S, N, D) tensor."""

    @staticmethod
    def forward(ctx, feature_BND: Tensor, mean_BSD: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(feature_BND, mean_BSD)
        slots = [(feature_BND - mean_B1D).abs_().mean(2) for mean_B1D in mean_BSD[:, :, None].unbind(1)]
        return torch.stack(slots, 1)

    @staticmethod
    def backward(ctx, grad_BSN: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        feature_BND, mean_BSD = ctx.saved_tensors
        grad_feature_BND, grad_means = torch.zeros_like(feature_BND), []
        for mean_B1D, grad_BN in zip(mean_BSD[:, :, None].unbind(1), grad_BSN.unbind(1), strict=True):
            sign_BND = (feature_BND - mean_B1D).sign_()
            grad_feature_BND.addcmul_(sign_BND, grad_BN[..., None], value=1 / feature_BND.shape[2])
            grad_means.append((grad_BN[:, None] @ sign_BND)[:, 0] / -feature_BND.shape[2])
        return grad_feature_BND, torch.stack(grad_means, 1)


def mean_absolute_difference(feature_BND: Tensor, mean_BSD: Tensor) -> Tensor:
    """Distance of every cell to every slot's mean, mean_D |F - mu|: (B, N, D), (B, S, D) -> (B, S, N)."""
    if feature_BND.device.type == "cpu":  # its torch.cdist needs no temporary and a third of the time
        return torch.cdist(feature_BND, mean_BSD, p=1).mT / mean_BSD.shape[2]
    result: Tensor = _MeanAbsoluteDifference.apply(feature_BND, mean_BSD)
    return result


def squared_distance(feature_BDhw: Tensor, mean_BSD: Tensor, distance: str) -> Tensor:
    """Squared distance of every cell to every slot's mean: (B, D, h, w), (B, S, D) -> (B, S, h, w).

    l1: d = mean_D |F - mu|.  l2: d^2 = mean_D (F - mu)^2.
    """
    height, width = feature_BDhw.shape[2:]
    feature_BND = feature_BDhw.flatten(2).mT
    if distance == "l1":
        d2_BSN = mean_absolute_difference(feature_BND, mean_BSD).square()
    else:
        # (F - mu)^2 = F^2 - 2 F mu + mu^2, around a common origin so that little cancels in fp32
        origin_B1D = feature_BND.detach().mean(1, keepdim=True)
        centred_BND, centre_BSD = feature_BND - origin_B1D, mean_BSD - origin_B1D
        norms = centred_BND.square().sum(2)[:, None] + centre_BSD.square().sum(2)[:, :, None]
        d2_BSN = (norms - 2 * centre_BSD @ centred_BND.mT).clamp(min=0) / mean_BSD.shape[2]
    return d2_BSN.unflatten(2, (height, width))


def valid_cells(label_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Mark the cells that are not ignored, down(1[m != IGNORED]): (B, H, W) -> (B, 1, h, w) float 0/1."""
    return F.interpolate((label_BHW != IGNORED).float()[:, None], size=size, mode="nearest")


def variance(d2_BShw: Tensor, weight_BShw: Tensor) -> Tensor:
    """Weighted mean of d^2 over the cells, sigma^2, detached -> (B, S, 1, 1).

    With responsibilities as weights this is Eq. 7 of the paper (authors' answer in issue 4 of their
    repository); with the valid cells as weights it is the `unweighted` mode.
    """
    weight_BShw = weight_BShw.detach()
    total = (weight_BShw * d2_BShw.detach()).sum((2, 3), keepdim=True)
    return total / (weight_BShw.sum((2, 3), keepdim=True) + EPS)  # Eq. 7


def similarity(d2_BShw: Tensor, variance_BS11: Tensor | float, bandwidth: float = 1.0) -> Tensor:
    """Gaussian of the distance, exp(-d^2 / (2 beta^2 sigma^2 + EPS)) -> (B, S, h, w), in (0, 1].

    EPS stands there with an estimated variance (a tensor) alone, as published.
    """
    scale = 2 * bandwidth**2 * variance_BS11
    return torch.exp(-d2_BShw / (scale + EPS if isinstance(scale, Tensor) else scale))


# ----------------------------------------------------------------------------- statistics of the global batch


def batch_sums(
    mean_BSD: Tensor, slots: Slots, labelled_BS: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Sum class means over the images of the GLOBAL batch whose crop contains the class.

    mean_BSD (B, S, D), labelled_BS (B, S) bool -> sums (K, D) and the number of those images (K,), equal on
    every rank.
    """
    member_BSK = F.one_hot(slots.class_BS, num_classes).to(mean_BSD.dtype) * labelled_BS[..., None]
    sum_KD = torch.einsum("BSK,BSD->KD", member_BSK, mean_BSD)
    packed = all_reduce_sum(torch.cat([sum_KD, member_BSK.sum((0, 1))[:, None]], 1))
    return packed[:, :-1], packed[:, -1].detach()


@dataclasses.dataclass
class Memory:
    """Running class means over the batches: centroid_KD, and seen_K, the classes that have one."""

    centroid_KD: Tensor
    seen_K: Tensor

    @classmethod
    def empty(cls, num_classes: int, channels: int, device: torch.device) -> Memory:
        """Make a memory that holds no class yet, in fp32."""
        centroid_KD = torch.zeros(num_classes, channels, device=device)
        return cls(centroid_KD, torch.zeros(num_classes, dtype=torch.bool, device=device))

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors that change in place: centroid_KD and seen_K."""
        return self.centroid_KD, self.seen_K

    @torch.no_grad()
    def update(self, sum_KD: Tensor, count_K: Tensor, momentum: float) -> None:
        """Take in a batch: v_k <- m v_k + (1 - m) mean_k of the classes that the batch has.

        sum_KD, count_K: see `batch_sums`.  The first mean of a class is taken as it is.
        """
        mean_KD = sum_KD / count_K.clamp(min=1)[:, None]
        moved_KD = torch.where(self.seen_K[:, None], self.centroid_KD.lerp(mean_KD, 1 - momentum), mean_KD)
        self.centroid_KD.copy_(torch.where((count_K > 0)[:, None], moved_KD, self.centroid_KD))
        self.seen_K |= count_K > 0


MIXING_STEPS = 10  # of EM for the mixing weights alone, a concave problem: further ones change little


@torch.no_grad()
def shared_variance(d2_BShw: Tensor, p_BShw: Tensor, valid_B1hw: Tensor, slots: Slots) -> Tensor:
    """Mean of d^2 over the valid cells and used slots of an image, weighted by P: sigma^2 -> (B, 1, 1, 1)."""
    weight_BShw = p_BShw * slots.used_BS[:, :, None, None] * valid_B1hw
    total_B111 = (weight_BShw * d2_BShw).sum((1, 2, 3), keepdim=True)
    return total_B111 / (weight_BShw.sum((1, 2, 3), keepdim=True) + EPS)


def log_density(d2_BShw: Tensor, variance_B111: Tensor, bandwidth: float, slots: Slots) -> Tensor:
    """Logarithm of the Gaussian, -d^2 / (2 beta^2 sigma^2 + EPS); -1e9 in slots that are not used."""
    log_BShw = -d2_BShw / (2 * bandwidth**2 * variance_B111 + EPS)
    return log_BShw.masked_fill(~slots.used_BS[:, :, None, None], -1e9)


@torch.no_grad()
def posterior(d2_BShw: Tensor, p_BShw: Tensor, valid_B1hw: Tensor, slots: Slots, bandwidth: float) -> Tensor:
    """Responsibilities of the mixture of an image's classes, (B, S, h, w), which sum to 1 over used slots.

    r_k = pi_k P_k exp(-d_k^2 / (2 beta^2 sigma^2)) / sum over k.  sigma^2 is the mean of d^2 over cells and
    classes weighted by P; pi starts uniform and is the mean of r, alternately (EM).  An image without a used
    slot gives values that mean nothing.
    """
    used_BS11 = slots.used_BS[:, :, None, None]
    variance_B111 = shared_variance(d2_BShw, p_BShw, valid_B1hw, slots)
    log_prior_BShw = torch.log(p_BShw * used_BS11 * valid_B1hw + EPS)
    log_joint_BShw = log_prior_BShw + log_density(d2_BShw, variance_B111, bandwidth, slots)
    count_B111 = valid_B1hw.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mixing_BS11 = torch.ones_like(log_joint_BShw[:, :, :1, :1])
    for _ in range(MIXING_STEPS):
        r_BShw = torch.softmax(log_joint_BShw + torch.log(mixing_BS11 + 1e-4), 1) * valid_B1hw
        mixing_BS11 = r_BShw.sum((2, 3), keepdim=True) / count_B111
    return torch.softmax(log_joint_BShw + torch.log(mixing_BS11 + 1e-4), 1)


def separation(sum_KD: Tensor, count_K: Tensor, *, distance: str, reduction: str) -> Tensor:
    """L_sep: mean over pairs of classes present in the GLOBAL batch of exp(-d(v_i, v_j)^2) -> scalar.

    v_k is the sum (as published) or the mean over the images whose crop contains k (`batch_sums`).
    """
    centroid_KD = sum_KD if reduction == "sum" else sum_KD / count_K.clamp(min=1)[:, None]
    difference = centroid_KD[:, None] - centroid_KD[None]
    d2_KK = difference.abs().mean(2).square() if distance == "l1" else difference.square().mean(2)
    present_K = count_K > 0
    pair_KK = (present_K[:, None] & present_K[None]).triu(1).to(d2_KK.dtype)
    return (torch.exp(-d2_KK) * pair_KK).sum() / (pair_KK.sum() + EPS)
