"""Pairwise energies against a loop over all pairs of cells."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparseg.losses import pairwise


def batch(h: int, w: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of 3 classes, an image of the grid's size, valid cells."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, h, w, generator=generator, dtype=torch.float64)
    image = torch.randint(0, 256, (2, 3, h, w), generator=generator).double() / 4
    return logits, image, torch.rand(2, 1, h, w, generator=generator) < 0.8


def pairs(p: Tensor, colour: Tensor, valid: Tensor, kernel: Callable[..., float]) -> Tensor:
    """(N, N) of one image: kernel, 0 for cells that are not valid; and 1 - P_i . P_j."""
    _, h, w = p.shape
    cells = [(y, x) for y in range(h) for x in range(w)]
    k = torch.zeros(len(cells), len(cells), dtype=torch.float64)
    for i, (y, x) in enumerate(cells):
        for j, (v, u) in enumerate(cells):
            if valid[0, y, x] and valid[0, v, u]:
                d2 = float((colour[:, y, x] - colour[:, v, u]).square().sum())
                k[i, j] = kernel(d2, v - y, u - x)
    flat = p.flatten(1)
    return torch.stack([k, 1 - flat.T @ flat])


def plain_gated(p: Tensor, image: Tensor, valid: Tensor) -> Tensor:
    def kernel(d2: float, dy: int, dx: int) -> float:
        if max(abs(dy), abs(dx)) > 5 or (dy, dx) == (0, 0):
            return 0.0
        return math.exp(-d2 / (2 * 0.1**2) - (dy * dy + dx * dx) / (2 * 6.0**2))

    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    colour = image / 255 / std  # standardised, as the authors' network has it
    found = [pairs(p[b], colour[b], valid[b], kernel) for b in range(len(p))]
    return torch.stack([(k * unlike).sum() for k, unlike in found]).sum()


def plain_dense(p: Tensor, image: Tensor, valid: Tensor) -> Tensor:
    side = 0.2 * max(p.shape[2:])

    def kernel(d2: float, dy: int, dx: int) -> float:
        return math.exp(-d2 / (2 * 15**2) - (dy * dy + dx * dx) / (2 * side**2))

    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(p)):
        k, unlike = pairs(p[b], image[b], valid[b], kernel)
        total = total + (k / k.sum(1, keepdim=True).clamp(min=1e-6) * unlike).sum()
    return total


@pytest.mark.parametrize(
    ("ours", "plain"), [(pairwise.gated_crf, plain_gated), (pairwise.dense, plain_dense)]
)
@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 9), (7, 8)])
def test_energy_and_gradient_are_those_of_the_loop_over_pairs(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], h: int, w: int
) -> None:
    logits, image, valid = batch(h, w)
    valid[:, :, 0, 0] = True
    found = []
    for energy in (ours, plain):
        z = logits.clone().requires_grad_()
        value = energy(z.softmax(1), image, valid)
        found.append((value, torch.autograd.grad(value, z)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_large_grid_is_averaged_and_one_colour_costs_what_its_classes_disagree() -> None:
    p = torch.zeros(1, 2, 80, 60, dtype=torch.float64)
    p[:, 0, :40], p[:, 1, 40:] = 1, 1
    valid = torch.ones(1, 1, 80, 60, dtype=torch.bool)
    flat = torch.zeros(1, 3, 80, 60, dtype=torch.float64)
    apart = flat.clone()
    apart[:, :, 40:] = 255
    assert pairwise.dense(p, apart, valid).item() == pytest.approx(0, abs=1e-6)
    mean = pairwise.dense(p, flat, valid).item() / valid.sum().item()
    assert 0.05 < mean < 0.5  # what lies across the border, of all that is near


@pytest.mark.parametrize("energy", [pairwise.gated_crf, pairwise.dense])
def test_an_image_without_valid_cells_costs_nothing(energy: Callable[..., Tensor]) -> None:
    logits, image, valid = batch(4, 5)
    p = logits.requires_grad_().softmax(1)
    value = energy(p, image, torch.zeros_like(valid))
    assert value.item() == 0
    assert torch.autograd.grad(value, logits)[0].abs().max() == 0
