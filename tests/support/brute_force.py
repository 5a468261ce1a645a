"""Every term of the objective as a plain loop over images, classes and pairs, in float64.

Written from the equations alone (Wu et al., CVPR 2023, and the choices named here), without a thought for
speed or memory: the feature is upsampled to image size, class by class.  The tests compare `sparseg.losses`
with it.

Legend: b image, k class of K, x pixel; D channels; (H, W) label size; (h, w) feature size.
c[b, k]: class k has a labelled pixel in this crop. y[b, k]: class k is annotated anywhere in the whole image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sparseg.config import IGNORED

EPS = 1e-6
TERMS = ("seg", "mix", "label", "sep", "absent")  # the others have test files of their own


def resize(values_CHW: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size), bilinear with align_corners=False."""
    return interpolate(values_CHW[None], size=size, mode="bilinear", align_corners=False)[0]


def down_nearest(mask_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """0/1 mask (H, W) -> (h, w), nearest."""
    return interpolate(mask_HW[None, None].double(), size=size, mode="nearest")[0, 0]


def bce(p: Tensor, target: Tensor | float) -> Tensor:
    """-(t log(p + 1e-6) + (1 - t) log(1 - p + 1e-6))."""
    return -(target * torch.log(p + EPS) + (1 - target) * torch.log(1 - p + EPS))


def centroid(feature_Dhw: Tensor, label_HW: Tensor, k: int) -> Tensor:
    """mu[b, k] (D,): mean of the upsampled feature over the labelled pixels of class k."""
    feature_DHW = resize(feature_Dhw, tuple(label_HW.shape))
    return feature_DHW[:, label_HW == k].sum(1) / ((label_HW == k).sum() + EPS)


def squared_distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """d^2 over the leading axis D: l1 = (mean |a - b|)^2, l2 = mean (a - b)^2."""
    return (a - b).abs().mean(0).square() if kind == "l1" else (a - b).square().mean(0)


def similarity(feature_Dhw: Tensor, mu_D: Tensor, prob_HW: Tensor, label_HW: Tensor, config: Any) -> Tensor:
    """G[b, k] (H, W) of a class that is in the crop. `prob_HW` is P_k * y_k at label size."""
    size = tuple(feature_Dhw.shape[1:])
    valid_hw = down_nearest(label_HW != IGNORED, size)
    d2_hw = squared_distance(feature_Dhw, mu_D[:, None, None], config.distance) * valid_hw
    if config.variance == "published":
        scale = torch.tensor(2 * config.sigma**2, dtype=torch.float64)
    else:
        weight_hw = valid_hw
        if config.variance == "adaptive":
            weight_hw = resize(prob_HW[None], size)[0] * valid_hw
        sigma2 = ((weight_hw * d2_hw).sum() / (weight_hw.sum() + EPS)).detach()
        scale = 2 * config.bandwidth**2 * sigma2 + EPS
    return resize(torch.exp(-d2_hw / scale)[None], tuple(label_HW.shape))[0]


def objective(
    feature_BDhw: Tensor,
    logits_BKhw: Tensor,
    label_BHW: Tensor,
    present_BK: Tensor,
    config: Any,
    *,
    with_mixture: bool = True,
) -> dict[str, Tensor]:
    """The five unweighted terms and their weighted `total`, as float64 scalars that carry gradients."""
    num_images, num_classes = present_BK.shape
    features = feature_BDhw.double()
    n_labelled = max(sum(int((label_HW < num_classes).sum()) for label_HW in label_BHW), 1)
    n_valid = max(sum(int((label_HW != IGNORED).sum()) for label_HW in label_BHW), 1)

    terms = {name: features.new_zeros(()) for name in TERMS}
    mu_of: dict[int, list[Tensor]] = {}  # class -> its means in the images that contain it
    for b in range(num_images):
        label_HW = label_BHW[b]
        labelled_HW, valid_HW = label_HW < num_classes, label_HW != IGNORED
        logits_KHW = resize(logits_BKhw[b].double(), tuple(label_HW.shape))
        prob_KHW = logits_KHW.softmax(0)
        in_crop = [k for k in range(num_classes) if bool((label_HW == k).any())]
        share = 1 / (len(in_crop) + EPS)
        for k in range(num_classes):
            of_class_HW = label_HW == k
            terms["seg"] = terms["seg"] - logits_KHW.log_softmax(0)[k][of_class_HW].sum() / n_labelled
            if not bool(present_BK[b, k]):
                terms["absent"] = terms["absent"] - torch.log(1 - prob_KHW[k] + EPS)[valid_HW].sum() / n_valid
            if k not in in_crop:
                continue
            mu_D = centroid(features[b], label_HW, k)
            mu_of.setdefault(k, []).append(mu_D)
            G_HW = similarity(features[b], mu_D, prob_KHW[k] * present_BK[b, k], label_HW, config)
            mix_HW = share * 0.5 * bce(prob_KHW[k], G_HW)
            label_term_HW = share * 0.5 * bce(G_HW, of_class_HW.double())
            terms["mix"] = terms["mix"] + mix_HW[valid_HW].sum() / n_valid
            terms["label"] = terms["label"] + label_term_HW[labelled_HW].sum() / n_labelled
    terms["sep"] = terms["sep"] + separation(mu_of, config)

    used = {"ce": ("seg",), "ce+absent": ("seg", "absent"), "agmm": TERMS}[config.method]
    for name in TERMS:
        warming_up = name in ("mix", "label", "sep") and not with_mixture
        if name not in used or warming_up or getattr(config, f"{name}_weight") == 0:
            terms[name] = torch.zeros((), dtype=torch.float64)
    total = sum((getattr(config, f"{name}_weight") * terms[name] for name in TERMS), torch.zeros(()))
    return {**terms, "total": total}


def separation(mu_of: dict[int, list[Tensor]], config: Any) -> Tensor | float:
    """L_sep: mean over the pairs of present classes of exp(-d(v_i, v_j)^2)."""
    reduction = config.centroid_reduction
    if reduction == "auto":
        reduction = "sum" if config.variance == "published" else "mean"
    v = {k: sum(means) / (len(means) if reduction == "mean" else 1) for k, means in mu_of.items()}
    pairs = [(i, j) for i in v for j in v if i < j]
    total: Tensor | float = 0.0
    for i, j in pairs:
        total = total + torch.exp(-squared_distance(v[i], v[j], config.distance))
    return total / (len(pairs) + EPS)
