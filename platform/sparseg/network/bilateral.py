"""Feature bilateral filtering of DBFNet (Wu et al., TIP 2022): each cell becomes a mean of its neighbours, of
which those of like feature count most.

    a_q(p) = exp(-mean_D |f_p - f_q|),   f_p <- sum_q a_q f_q / sum_q a_q

q are the 8 neighbours at each of the dilations 1, 3, 5 and 7 that lie on the grid; p itself is none of them.
No parameters.  Nothing of size (B, D, h, w) is kept for the backward pass but the feature and the result:
32 neighbours would make it 33 times as much.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DILATIONS = (1, 3, 5, 7)
Area = tuple[Any, slice, slice]


def _pairs(h: int, w: int) -> Iterator[tuple[Area, Area]]:
    """Areas of a grid that lie over each other when it is shifted onto its neighbours; every pair of cells
    once."""
    for reach in DILATIONS:
        for dy, dx in ((0, reach), (reach, -reach), (reach, 0), (reach, reach)):
            if dy >= h or abs(dx) >= w:
                continue
            here = (..., slice(dy, h), slice(max(dx, 0), w + min(dx, 0)))
            there = (..., slice(0, h - dy), slice(max(-dx, 0), w + min(-dx, 0)))
            yield here, there


FARTHEST = 80.0
"""Distances beyond count as this: exp(-FARTHEST) is still a number, so a cell unlike all has a mean, too."""


def _alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """a of two areas (B, D, h', w') -> (B, 1, h', w'), and where it has a slope."""
    distance = (one - other).abs().mean(1, keepdim=True)
    return torch.exp(-distance.clamp(max=FARTHEST)), distance < FARTHEST


def _filtered(feature_BDhw: Tensor) -> tuple[Tensor, Tensor]:
    """The filtered feature, and the sums of the weights (B, 1, h, w)."""
    sum_BDhw = torch.zeros_like(feature_BDhw)
    weight_B1hw = torch.zeros_like(feature_BDhw[:, :1])
    for here, there in _pairs(*feature_BDhw.shape[2:]):
        a, _ = _alike(feature_BDhw[here], feature_BDhw[there])
        for at, neighbour in ((here, there), (there, here)):
            sum_BDhw[at] += a * feature_BDhw[neighbour]
            weight_B1hw[at] += a
    return sum_BDhw / weight_B1hw, weight_B1hw


def _filtered_at_any_size(feature_BDhw: Tensor) -> Tensor:
    """The same in a form that a program for grids of any size can hold: no pair is left out for the size's
    sake, neighbours beyond the edge have weight 0 instead.  It visits every pair twice."""
    h, w = feature_BDhw.shape[2:]
    reach = max(DILATIONS)
    border = (reach, reach, reach, reach)
    padded_BDhw = torch.nn.functional.pad(feature_BDhw, border)
    inside_B1hw = torch.nn.functional.pad(torch.ones_like(feature_BDhw[:, :1]), border)
    sum_BDhw = torch.zeros_like(feature_BDhw)
    weight_B1hw = torch.zeros_like(feature_BDhw[:, :1])
    for dilation in DILATIONS:
        for dy, dx in itertools.product((-dilation, 0, dilation), repeat=2):
            if dy == dx == 0:
                continue
            at = (..., slice(reach + dy, reach + dy + h), slice(reach + dx, reach + dx + w))
            a = _alike(feature_BDhw, padded_BDhw[at])[0] * inside_B1hw[at]
            sum_BDhw = sum_BDhw + a * padded_BDhw[at]
            weight_B1hw = weight_B1hw + a
    return sum_BDhw / weight_B1hw


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature_BDhw: Tensor) -> Tensor:
        result_BDhw, weight_B1hw = _filtered(feature_BDhw)
        ctx.save_for_backward(feature_BDhw, result_BDhw, weight_B1hw)
        return result_BDhw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BDhw: Tensor) -> Tensor:
        f, result_BDhw, weight_B1hw = ctx.saved_tensors
        grad_sum_BDhw = grad_BDhw / weight_B1hw
        grad_weight_B1hw = -(grad_sum_BDhw * result_BDhw).sum(1, keepdim=True)
        grad_f_BDhw = torch.zeros_like(f)
        for here, there in _pairs(*f.shape[2:]):
            (a, has_slope), grad_a = _alike(f[here], f[there]), 0
            for at, neighbour in ((here, there), (there, here)):
                grad_a = grad_a + (grad_sum_BDhw[at] * f[neighbour]).sum(1, keepdim=True)
                grad_a = grad_a + grad_weight_B1hw[at]
                grad_f_BDhw[neighbour] += a * grad_sum_BDhw[at]
            grad_distance = (f[here] - f[there]).sign_() * (-a * has_slope * grad_a / f.shape[1])
            grad_f_BDhw[here] += grad_distance
            grad_f_BDhw[there] -= grad_distance
        return grad_f_BDhw


def smooth(feature_BDhw: Tensor) -> Tensor:
    """(B, D, h, w) -> the same, filtered, with sums in fp32; a grid of a single cell stays as it is."""
    _, _, h, w = feature_BDhw.shape
    if h == 1 and w == 1:
        return feature_BDhw
    with torch.autocast(feature_BDhw.device.type, enabled=False):
        wide_BDhw = feature_BDhw.to(torch.promote_types(feature_BDhw.dtype, torch.float32))
        if torch.compiler.is_exporting():
            result = _filtered_at_any_size(wide_BDhw)
        elif not wide_BDhw.requires_grad:
            result = _filtered(wide_BDhw)[0]
        elif torch.compiler.is_compiling():  # its loops, unrolled, would compile for ten minutes
            result = torch.compiler.disable(_Filter.apply)(wide_BDhw)
        else:
            result = _Filter.apply(wide_BDhw)
        return result.to(feature_BDhw.dtype)
