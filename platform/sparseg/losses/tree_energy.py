"""Tree energy (Liang et al., CVPR 2022): what is similar along the minimum spanning trees of colour and of
feature shall be predicted alike.  No compiled extension: SciPy finds the trees, torch filters them a level at
a time.

The images of a batch are one forest: a root above the first cell of each joins them, over edges of weight 0
that let nothing pass.  Nodes stand in breadth-first order, so a level is a slice and all images filter at
once.

Legend: N nodes, the root and B * h * w cells; C channels.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparseg.losses.pairwise import standard_colours

COLOUR_SIGMA, FEATURE_SIGMA = 0.02, 1.0
"""Scales of squared differences along a tree: of colours in `pairwise.COLOUR_UNIT` (as published for VOC;
0.002 for Cityscapes), and of features."""


@dataclasses.dataclass(frozen=True)
class Forest:
    """Minimum spanning trees of a batch's grids, in breadth-first order from the common root, node 0."""

    cell_N: Tensor  # flat index b * h * w + y * w + x of a node; the root's means nothing
    parent_N: Tensor  # position of a node's parent; the root's own is 0
    levels: tuple[tuple[int, int], ...]  # (first, past the last) node of each level below the root
    num_images: int  # the nodes of the first level


def grow(value_BChw: Tensor) -> Forest:
    """Grow each image's minimum spanning tree over neighbours (up, down, left, right) by squared difference.

    value_BChw (B, C, h, w): colours or features.  Waits for the device.
    """
    B, _, h, w = value_BChw.shape
    cell_Bhw = torch.arange(B * h * w).view(B, h, w)
    down = (value_BChw[:, :, 1:] - value_BChw[:, :, :-1]).detach().square().sum(1)
    right = (value_BChw[:, :, :, 1:] - value_BChw[:, :, :, :-1]).detach().square().sum(1)
    ends = [(cell_Bhw[:, :-1], cell_Bhw[:, 1:]), (cell_Bhw[:, :, :-1], cell_Bhw[:, :, 1:])]
    first, second = (torch.cat([pair[side].flatten() for pair in ends]).numpy() + 1 for side in (0, 1))
    length = torch.cat([down.flatten(), right.flatten()]).double().cpu().numpy()
    roots = cell_Bhw[:, 0, 0].numpy() + 1
    # plus 1, because SciPy takes a length of 0 for no edge; all spanning trees have the same number of edges
    graph = csr_array(
        (
            np.concatenate([length + 1, np.ones(B)]),
            (np.concatenate([first, np.zeros(B, first.dtype)]), np.concatenate([second, roots])),
        ),
        shape=(B * h * w + 1, B * h * w + 1),
    )
    order_N, before_N = breadth_first_order(minimum_spanning_tree(graph), 0, directed=False)
    place_N = np.empty(len(order_N), np.int64)
    place_N[order_N] = np.arange(len(order_N))
    parent_N = place_N[before_N[order_N[1:]]]
    edges = [0, 1]  # of the levels: nodes stand in the order of their parents
    while edges[-1] < len(order_N):
        edges.append(1 + int(np.searchsorted(parent_N, edges[-1])))
    device = value_BChw.device
    return Forest(
        torch.from_numpy(order_N.astype(np.int64) - 1).clamp(min=0).to(device),
        torch.from_numpy(np.concatenate([[0], parent_N])).to(device),
        tuple(itertools.pairwise(edges[1:])),
        B,
    )


class _Sums(torch.autograd.Function):
    """y_i = sum_j x_j * (product of the weights on the path from i to j), in two sweeps over the levels."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_N: Tensor, forest: Forest) -> Tensor:
        parent_N, w_N1 = forest.parent_N, weight_N[:, None]
        below_NC = x_NC.clone()  # of the subtree that hangs at a node
        for a, b in reversed(forest.levels):
            below_NC.index_add_(0, parent_N[a:b], w_N1[a:b] * below_NC[a:b])
        y_NC = below_NC.clone()
        for a, b in forest.levels:
            y_NC[a:b] = w_N1[a:b] * y_NC[parent_N[a:b]] + (1 - w_N1[a:b].square()) * below_NC[a:b]
        ctx.save_for_backward(below_NC, y_NC, weight_N)
        ctx.forest = forest
        return y_NC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, Tensor, None]:
        below_NC, y_NC, weight_N = ctx.saved_tensors
        parent_N, w_N1 = ctx.forest.parent_N, weight_N[:, None]
        grad_y_NC, grad_below_NC = grad_NC.clone(), torch.empty_like(grad_NC)
        grad_w_N = torch.zeros_like(weight_N)
        for a, b in reversed(ctx.forest.levels):
            above, g = parent_N[a:b], grad_y_NC[a:b]
            grad_below_NC[a:b] = (1 - w_N1[a:b].square()) * g
            grad_w_N[a:b] = (g * (y_NC[above] - 2 * w_N1[a:b] * below_NC[a:b])).sum(1)
            grad_y_NC.index_add_(0, above, w_N1[a:b] * g)
        grad_below_NC[0] = grad_y_NC[0]
        for a, b in ctx.forest.levels:
            g = grad_below_NC[parent_N[a:b]]
            grad_w_N[a:b] += (g * below_NC[a:b]).sum(1)
            grad_below_NC[a:b] += w_N1[a:b] * g
        return grad_below_NC, grad_w_N, None


def filter_by(forest: Forest, value_BChw: Tensor, guide_BDhw: Tensor, sigma: float) -> Tensor:
    """Filter a map along the trees -> (B, C, h, w); gradients reach value and guide.

    A cell becomes the mean of `value` (B, C, h, w) over its image, weighted by exp(-(sum of squared
    differences of the guide (B, D, h, w) along the tree) / sigma).
    """
    B, C, h, w = value_BChw.shape
    guide_ND = guide_BDhw.permute(0, 2, 3, 1).flatten(0, 2)[forest.cell_N]
    weight_N = torch.exp(-(guide_ND - guide_ND[forest.parent_N]).square().sum(1) / sigma)
    weight_N = torch.cat([weight_N.new_zeros(1 + forest.num_images), weight_N[1 + forest.num_images :]])
    value_NC = value_BChw.permute(0, 2, 3, 1).flatten(0, 2)[forest.cell_N[1:]]
    x_NC = torch.cat([value_NC, value_NC.new_ones(len(value_NC), 1)], 1)
    y_NC = _Sums.apply(torch.cat([x_NC.new_zeros(1, C + 1), x_NC]), weight_N, forest)[1:]
    mean_NC = y_NC[:, :-1] / y_NC[:, -1:]
    return (
        mean_NC.new_empty(B * h * w, C)
        .index_copy(0, forest.cell_N[1:], mean_NC)
        .view(B, h, w, C)
        .permute(0, 3, 1, 2)
    )


def energy(feature_BDhw: Tensor, p_BKhw: Tensor, image_B3HW: Tensor, unlabelled_B1hw: Tensor) -> Tensor:
    """Sum |P - P*|_1 over the unlabelled cells -> scalar (Eq. 5 to 7 of Liang et al., CVPR 2022).

    P* is P (B, K, h, w) filtered along the colour's tree, then along the feature's.  image_B3HW: 0..255 of
    any size; unlabelled_B1hw 0/1.
    """
    colour_B3hw = standard_colours(image_B3HW, p_BKhw)
    soft_BKhw = filter_by(grow(colour_B3hw), p_BKhw, colour_B3hw, COLOUR_SIGMA)
    soft_BKhw = filter_by(grow(feature_BDhw), soft_BKhw, feature_BDhw, FEATURE_SIGMA)
    return ((p_BKhw - soft_BKhw).abs() * unlabelled_B1hw).sum()
