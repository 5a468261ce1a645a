"""The tree filter against a loop over all pairs of cells and the paths between them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sparseg.losses import tree_energy


def brute_tree(value_Chw: Tensor) -> dict[int, list[int]]:
    """Kruskal: edges by length, each that joins two parts -> neighbours of each cell."""
    _, h, w = value_Chw.shape
    flat_NC = value_Chw.flatten(1).T
    edges = [(y * w + x, y * w + x + 1) for y in range(h) for x in range(w - 1)]
    edges += [(y * w + x, (y + 1) * w + x) for y in range(h - 1) for x in range(w)]
    edges.sort(key=lambda edge: float((flat_NC[edge[0]] - flat_NC[edge[1]]).square().sum()))
    part = list(range(h * w))
    near: dict[int, list[int]] = {cell: [] for cell in range(h * w)}
    for a, b in edges:
        if part[a] != part[b]:
            old, new = part[a], part[b]
            part = [new if p == old else p for p in part]
            near[a].append(b)
            near[b].append(a)
    return near


def brute_filter(tree_value_Chw: Tensor, value_Chw: Tensor, guide_Dhw: Tensor, sigma: float) -> Tensor:
    """sum_j exp(-D_ij / sigma) x_j / sum_j exp(-D_ij / sigma), D_ij summed along the path from i to j."""
    near = brute_tree(tree_value_Chw)
    C, h, w = value_Chw.shape
    x_NC, guide_ND = value_Chw.flatten(1).T, guide_Dhw.flatten(1).T
    rows = []
    for start in range(h * w):
        distance = {start: guide_ND.new_zeros(())}
        queue = [start]
        for cell in queue:
            for other in near[cell]:
                if other not in distance:
                    step = (guide_ND[cell] - guide_ND[other]).square().sum()
                    distance[other] = distance[cell] + step
                    queue.append(other)
        weight = {cell: torch.exp(-d / sigma) for cell, d in distance.items()}
        total = torch.stack(list(weight.values())).sum()
        rows.append(torch.stack([weight[cell] * x_NC[cell] for cell in weight]).sum(0) / total)
    return torch.stack(rows).T.view(C, h, w)


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 5), (4, 1), (3, 4), (6, 5)])
@pytest.mark.parametrize("sigma", [0.02, 1.0])
def test_filter_is_the_sum_over_all_paths(h: int, w: int, sigma: float) -> None:
    grown, value, guide = (
        values(2, 3, h, w),
        values(2, 4, h, w, seed=1),
        values(2, 5, h, w, seed=2, scale=0.2),
    )
    found = tree_energy.filter_by(tree_energy.grow(grown), value, guide, sigma)
    for b in range(2):
        expected = brute_filter(grown[b], value[b], guide[b], sigma)
        torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-12)


def test_energy_and_its_gradients_are_those_of_the_plain_form() -> None:
    feature, logits = values(2, 3, 4, 5), values(2, 3, 4, 5, seed=1, scale=4)
    image = (255 * values(2, 3, 4, 5, seed=2)).round()
    unlabelled = values(2, 1, 4, 5, seed=3) < 0.7
    found = []
    for plain in (False, True):
        f, z = feature.clone().requires_grad_(), logits.clone().requires_grad_()
        p = z.softmax(1)
        if plain:
            energy = torch.zeros((), dtype=torch.float64)
            for b in range(2):
                std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
                colour = image[b] / 255 / std  # standardised, as the authors' network has it
                soft = brute_filter(colour, p[b], colour, 0.02)
                soft = brute_filter(f[b].detach(), soft, f[b], 1.0)
                energy = energy + ((p[b] - soft).abs() * unlabelled[b]).sum()
        else:
            energy = tree_energy.energy(f, p, image, unlabelled)
        found.append((energy, *torch.autograd.grad(energy, (f, z))))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-11)
    assert found[0][1].abs().max() > 0  # the feature does learn


def test_gradcheck() -> None:
    forest = tree_energy.grow(values(2, 3, 3, 4))
    value = values(2, 2, 3, 4, seed=1).requires_grad_()
    guide = values(2, 3, 3, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: tree_energy.filter_by(forest, x, g, 0.5), (value, guide))


def test_a_flat_image_has_a_tree_and_means_everything() -> None:
    value = values(1, 2, 4, 6)
    flat = torch.zeros(1, 3, 4, 6, dtype=torch.float64)
    found = tree_energy.filter_by(tree_energy.grow(flat), value, flat, 0.02)
    torch.testing.assert_close(found, value.mean((2, 3), keepdim=True).expand_as(value))


def test_nothing_passes_a_hard_border_and_no_image_reaches_another() -> None:
    image = torch.zeros(2, 1, 4, 6, dtype=torch.float64)
    image[:, :, :, 3:] = 1.0
    value = torch.arange(48, dtype=torch.float64).view(2, 1, 4, 6)
    found = tree_energy.filter_by(tree_energy.grow(image), value, image, 0.02)
    for b, half in itertools.product((0, 1), (slice(0, 3), slice(3, 6))):
        mean = value[b, 0, :, half].mean()
        torch.testing.assert_close(found[b, 0, :, half], mean.expand(4, 3))
