"""Pairwise energies: cells that are near and of like colour shall be predicted alike.  Plain tensor code.

    E = sum_ij k_ij (1 - P_i . P_j)
    k_ij = exp(-|colour_i - colour_j|^2 / 2 s_c^2 - |place_i - place_j|^2 / 2 s_p^2)

Both work at the decoder's stride and count valid cells only; places are in cells.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

COLOUR_UNIT = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""ImageNet's standard deviations: the gated CRF and the tree energy were published on standardised images."""
GATED_RADIUS, GATED_COLOUR, GATED_PLACE = 5, 0.1, 6.0
"""Obukhov et al. 2019: the square window of the neighbours, s_c in COLOUR_UNIT, s_p."""
DENSE_COLOUR, DENSE_PLACE = 15.0, 0.2
"""Tang et al., ECCV 2018: s_c of 0..255; s_p as a share of the longer side (there 100 pixels of 500)."""
DENSE_CELLS = 2500
"""Most cells of an image whose pairs are all looked at; larger grids are averaged down by a whole factor."""


def colours(image_B3HW: Tensor, like_BKhw: Tensor) -> Tensor:
    """Resize the image to the size of a grid, averaging -> (B, 3, h, w), 0..255."""
    size = (like_BKhw.shape[2], like_BKhw.shape[3])
    return F.interpolate(image_B3HW.to(like_BKhw.dtype), size=size, mode="bilinear", antialias=True)


def standard_colours(image_B3HW: Tensor, like_BKhw: Tensor) -> Tensor:
    """`colours` in units of COLOUR_UNIT -> (B, 3, h, w); their mean stays, only differences count."""
    return colours(image_B3HW, like_BKhw) / like_BKhw.new_tensor(COLOUR_UNIT)[:, None, None]


def gated_crf(p_BKhw: Tensor, image_B3HW: Tensor, valid_B1hw: Tensor) -> Tensor:
    """Energy of the pairs in a (2 * GATED_RADIUS + 1)^2 window, summed over the valid cells -> scalar.

    p_BKhw (B, K, h, w) probabilities; image_B3HW 0..255 of any size; valid_B1hw 0/1.
    """
    colour_B3hw = standard_colours(image_B3HW, p_BKhw)
    _, _, h, w = p_BKhw.shape
    reach = range(-GATED_RADIUS, GATED_RADIUS + 1)
    total = p_BKhw[:, :, :0].sum()  # 0, of which there is a gradient
    for dy, dx in itertools.product(reach, reach):
        if (dy, dx) <= (0, 0) or dy >= h or abs(dx) >= w:  # the other half is the same pairs
            continue
        here = (..., slice(dy, h), slice(max(dx, 0), w + min(dx, 0)))
        there = (..., slice(0, h - dy), slice(max(-dx, 0), w + min(-dx, 0)))
        near = (dy * dy + dx * dx) / (2 * GATED_PLACE**2)
        alike_Bhw = (colour_B3hw[here] - colour_B3hw[there]).square().sum(1) / (2 * GATED_COLOUR**2)
        kernel_Bhw = torch.exp(-alike_Bhw - near) * valid_B1hw[here][:, 0] * valid_B1hw[there][:, 0]
        total = total + 2 * (kernel_Bhw * (1 - (p_BKhw[here] * p_BKhw[there]).sum(1))).sum()
    return total


def dense(p_BKhw: Tensor, image_B3HW: Tensor, valid_B1hw: Tensor) -> Tensor:
    """Energy of all pairs of an image, the kernel of each cell made to sum to 1 -> scalar.

    p_BKhw (B, K, h, w) probabilities; image_B3HW 0..255 of any size; valid_B1hw 0/1.  The grid is averaged
    down to DENSE_CELLS; the result is the mean over its valid cells times the valid cells of the grid given.
    """
    _, _, h, w = p_BKhw.shape
    factor = 1
    while -(-h // factor) * -(-w // factor) > DENSE_CELLS:
        factor += 1
    share_B1hw = valid_B1hw.to(p_BKhw.dtype)
    averaged = [
        F.avg_pool2d(value * share_B1hw, factor, ceil_mode=True, count_include_pad=False)
        for value in (p_BKhw, colours(image_B3HW, p_BKhw), torch.ones_like(share_B1hw))
    ]
    p_BKN, colour_B3N, share_B1N = (value.flatten(2) for value in averaged)
    used_B1N = (share_B1N > 0).to(p_BKN.dtype)
    p_BKN, colour_B3N = (value / share_B1N.clamp(min=1e-6) for value in (p_BKN, colour_B3N))
    y, x = (torch.arange(n, device=p_BKN.device, dtype=p_BKN.dtype) for n in averaged[0].shape[2:])
    place_2N = torch.stack(torch.meshgrid(y, x, indexing="ij")).flatten(1) / (
        DENSE_PLACE * max(len(y), len(x))
    )
    at_B5N = torch.cat([colour_B3N / DENSE_COLOUR, place_2N.expand(len(p_BKN), -1, -1)], 1)
    d2_BNN = torch.cdist(at_B5N.mT, at_B5N.mT).square()
    kernel_BNN = torch.exp(-d2_BNN / 2) * used_B1N * used_B1N.mT
    kernel_BNN = kernel_BNN / kernel_BNN.sum(2, keepdim=True).clamp(min=1e-6)
    unlike_BN = used_B1N[:, 0] - (p_BKN * (kernel_BNN @ p_BKN.mT).mT).sum(1)
    cells_B = share_B1hw.sum((1, 2, 3))
    return (unlike_BN.sum(1) / used_B1N.sum((1, 2)).clamp(min=1) * cells_B).sum()
