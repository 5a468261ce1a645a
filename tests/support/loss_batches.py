"""Batches of random features, logits and sparse labels for the tests of the losses, and comparisons of
terms and gradients.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import brute_force
import torch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig

TERMS = brute_force.TERMS
MIXTURE_TERMS = ("mix", "label", "sep")
VARIANCES = ("published", "adaptive", "unweighted")
RELATIVE, RELATIVE_GRADIENT = 1e-5, 1e-4


@dataclasses.dataclass(frozen=True)
class Batch:
    """feature (B, D, h, w), logits (B, K, any, any), label (B, H, W) uint8, present (B, K) bool."""

    feature: Tensor
    logits: Tensor
    label: Tensor
    present: Tensor

    def __getitem__(self, images: slice) -> Batch:
        return Batch(*(getattr(self, field.name)[images] for field in dataclasses.fields(self)))

    def relabelled(self, label_BHW: Tensor) -> Batch:
        """Another annotation; classes annotated outside the crop stay as they are."""
        return dataclasses.replace(
            self, label=label_BHW, present=self.present | in_crop(label_BHW, self.num_classes)
        )

    @property
    def num_classes(self) -> int:
        return self.present.shape[1]


def in_crop(label_BHW: Tensor, num_classes: int) -> Tensor:
    """c (B, K)."""
    return torch.stack([(label_BHW == k).flatten(1).any(1) for k in range(num_classes)], 1)


def make_batch(
    seed: int,
    *,
    B: int = 3,
    K: int = 5,
    D: int = 8,
    size: tuple[int, int] = (33, 47),
    cells: tuple[int, int] = (9, 12),
    full_logits: bool = False,
    labelled: float = 0.05,
    specks: bool = True,
    empty: tuple[int, ...] = (),
) -> Batch:
    """Points and a block of up to four classes per image; void specks, padding; classes outside the crop."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    H, W = size
    label_BHW = torch.full((B, H, W), UNLABELLED, dtype=torch.uint8)
    for b in range(B):
        classes = torch.randperm(K, generator=random)[: 1 + seed % 4]
        drawn_HW = classes[torch.randint(len(classes), size, generator=random)].to(torch.uint8)
        label_BHW[b] = torch.where(uniform(H, W) < labelled, drawn_HW, label_BHW[b])
        label_BHW[b, H // 4 : H // 2, W // 3 : W // 2] = classes[0].to(torch.uint8)
        if b in empty:
            label_BHW[b] = UNLABELLED
        if specks:
            label_BHW[b][uniform(H, W) < 0.05] = IGNORED
        label_BHW[b, H - H * b // 8 :] = IGNORED
        label_BHW[b, :, W - W * (seed % 3) // 8 :] = IGNORED
    logits_size = size if full_logits else cells
    return Batch(
        torch.randn(B, D, *cells, generator=random),
        torch.randn(B, K, *logits_size, generator=random),
        label_BHW,
        in_crop(label_BHW, K) | (uniform(B, K) < 0.2),
    )


def evaluate(
    function: Any, batch: Batch, config: LossConfig, **keywords: Any
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Terms and the gradients of `total` with respect to feature and logits (zero where there is none)."""
    feature = batch.feature.clone().requires_grad_()
    logits = batch.logits.clone().requires_grad_()
    terms = function(feature, logits, batch.label, batch.present, config, **keywords)
    gradients = (torch.zeros_like(feature), torch.zeros_like(logits))
    if terms["total"].requires_grad:
        found = torch.autograd.grad(terms["total"], (feature, logits), allow_unused=True)
        gradients = tuple(zero if g is None else g for zero, g in zip(gradients, found, strict=True))
    return {name: value.detach() for name, value in terms.items()}, *gradients


def brute(batch: Batch, config: LossConfig, **keywords: Any) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    double = dataclasses.replace(batch, feature=batch.feature.double(), logits=batch.logits.double())
    return evaluate(brute_force.objective, double, config, **keywords)


def check_close(name: str, found: Tensor, expected: Tensor, relative: float, absolute: float) -> None:
    """Largest difference against the largest expected value."""
    assert found.shape == expected.shape, name
    difference = float((found.double() - expected.double()).abs().max())
    scale = float(expected.abs().max())
    # `not <=` also catches NaN
    assert not (not difference <= relative * scale + absolute), (
        f"{name}: off by {difference:.3g}, of {scale:.6g} (relative {difference / max(scale, 1e-30):.2g})"
    )


def check_equal(
    found: tuple[dict[str, Tensor], Tensor, Tensor], expected: tuple[dict[str, Tensor], Tensor, Tensor]
) -> None:
    """Terms to 1e-5, gradients to 1e-4 of the largest."""
    assert set(found[0]) == {*losses.TERMS, "total"}
    for name, value in expected[0].items():
        assert found[0][name].ndim == 0, name
        check_close(name, found[0][name], value, RELATIVE, 1e-7)
    for name, gradient, wanted in zip(("d/d feature", "d/d logits"), found[1:], expected[1:], strict=True):
        check_close(name, gradient, wanted, RELATIVE_GRADIENT, 1e-9)


def only(term: str, config: LossConfig) -> LossConfig:
    """Every weight but one at 0, so that the gradient of a small term is not lost in a large one."""
    return dataclasses.replace(config, **{f"{name}_weight": float(name == term) for name in TERMS})
