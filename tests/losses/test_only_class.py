"""The only-class term: an image with one annotated class is all that class."""

from __future__ import annotations

import math

import pytest
import torch
from loss_batches import evaluate, make_batch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig

ON = LossConfig(method="ce+absent", only_weight=0.5)


def case(present: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two images of 2 x 3 pixels, of which the second has a void one; P is 1/2, 1/4, 1/4 everywhere."""
    label_BHW = torch.full((2, 2, 3), UNLABELLED, dtype=torch.uint8)
    label_BHW[0, 0, 0], label_BHW[1, 1, 2] = 1, IGNORED
    logits_BKhw = torch.log(torch.tensor([0.5, 0.25, 0.25])).view(1, 3, 1, 1).repeat(2, 1, 2, 3)
    return torch.zeros(2, 4, 2, 3), logits_BKhw, label_BHW, torch.tensor(present).bool()


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ([[0, 1, 0], [1, 1, 0]], 6 * math.log(4) / 11),
        ([[0, 1, 0], [1, 0, 0]], (6 * math.log(4) + 5 * math.log(2)) / 11),
        ([[0, 1, 1], [0, 0, 0]], 0.0),
    ],
)
def test_it_is_the_cross_entropy_of_images_with_one_class(present: list[list[int]], wanted: float) -> None:
    terms = losses.objective(*case(present), ON)
    torch.testing.assert_close(float(terms["only"]), wanted, rtol=1e-6, atol=0.0)
    expected = float(terms["seg"] + terms["absent"]) + 0.5 * wanted
    torch.testing.assert_close(float(terms["total"]), expected, rtol=1e-6, atol=0.0)


def test_it_needs_a_method_that_knows_what_is_absent() -> None:
    given = case([[0, 1, 0], [1, 0, 0]])
    assert losses.objective(*given, LossConfig(method="agmm", only_weight=1.0))["only"] > 0
    for method in ("ce", "tel"):
        with pytest.raises(ValueError, match=f"only_weight=1 has no effect with loss.method={method}; take"):
            LossConfig(method=method, only_weight=1.0)  # type: ignore[arg-type]


def test_it_teaches_unlabelled_pixels() -> None:
    batch = make_batch(4)  # one class an image
    alone = batch.present & (batch.present.sum(1, keepdim=True) == 1)
    assert alone.any() and not alone.any(1).all()
    config = LossConfig(method="ce+absent", only_weight=1.0, absent_weight=0.0, seg_weight=0.0)
    _, _, gradient = evaluate(losses.objective, batch, config)
    for image, has_one in zip(gradient, alone.any(1), strict=True):
        assert bool(image.any()) is bool(has_one)
