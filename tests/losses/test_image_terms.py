"""The terms of the methods that look at the image: which are on, their worth, on one rank and several."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.losses import pairwise, tree_energy
from sparseg.losses.mixture import Memory

ON = {
    "ce": {"seg"},
    "ce+absent": {"seg", "absent"},
    "agmm": {"seg", "absent", "mix", "label", "sep"},
    "agmm-em": {"seg", "absent", "mix", "label", "sep"},
    "tel": {"seg", "tree"},
    "gated-crf": {"seg", "pairwise"},
    "dense-pairwise": {"seg", "pairwise"},
    "agmm+tel": {"seg", "absent", "mix", "label", "sep", "tree"},
    "agmm+gated-crf": {"seg", "absent", "mix", "label", "sep", "pairwise"},
}


def batch(images: int = 4) -> dict[str, Tensor]:
    """Images of 16 x 24, features at stride 4; mostly unlabelled, void rows, the last image all void."""
    generator = torch.Generator().manual_seed(1)
    label = torch.full((images, 16, 24), UNLABELLED, dtype=torch.uint8)
    drawn = torch.rand(label.shape, generator=generator)
    label[drawn < 0.1], label[drawn < 0.05] = 1, 0
    label[:, -5:], label[-1] = IGNORED, IGNORED
    return {
        "feature_BDhw": torch.randn(images, 5, 4, 6, generator=generator, dtype=torch.float64),
        "logits_BKhw": torch.randn(images, 3, 4, 6, generator=generator, dtype=torch.float64),
        "label_BHW": label,
        "present_BK": torch.tensor([[True, True, False]] * images),
        "image_B3HW": torch.randint(0, 256, (images, 3, 16, 24), generator=generator, dtype=torch.uint8),
    }


def evaluate(method: str, given: dict[str, Tensor], **more: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The terms; the gradients of the total by the feature and by the logits, side by side."""
    leaves = [given[name].clone().requires_grad_() for name in ("feature_BDhw", "logits_BKhw")]
    values = {**given, "feature_BDhw": leaves[0], "logits_BKhw": leaves[1]}
    if method == "agmm-em":
        more["memory"] = Memory(torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.bool))
    terms = losses.objective(**values, config=LossConfig(method=method), **more)  # type: ignore[arg-type]
    terms["total"].backward()
    grads = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
    return {name: value.detach() for name, value in terms.items()}, torch.cat(
        [g.flatten(1) for g in grads], 1
    )


@pytest.mark.parametrize("method", ON)
def test_a_method_is_its_terms(method: str) -> None:
    given = batch()
    terms, grad = evaluate(method, given)
    assert {name for name in losses.TERMS if terms[name] != 0} == ON[method]
    weights = LossConfig()
    total = sum(getattr(weights, f"{name}_weight") * terms[name] for name in ON[method])
    torch.testing.assert_close(terms["total"], total)
    assert grad.isfinite().all()
    warm, _ = evaluate(method, given, with_mixture=False)
    assert {name for name in losses.TERMS if warm[name] != 0} <= {"seg", "absent"}


def test_terms_are_means_over_the_cells_they_look_at() -> None:
    given = batch()
    p = given["logits_BKhw"].softmax(1)
    label = given["label_BHW"][:, None, ::4, ::4]  # nearest: the first pixel of each cell
    unlabelled, valid = label == UNLABELLED, label != IGNORED
    energy = tree_energy.energy(given["feature_BDhw"], p, given["image_B3HW"], unlabelled)
    torch.testing.assert_close(evaluate("tel", given)[0]["tree"], energy / unlabelled.sum())
    near = pairwise.gated_crf(p, given["image_B3HW"], valid)
    torch.testing.assert_close(evaluate("gated-crf", given)[0]["pairwise"], near / valid.sum())
    every = pairwise.dense(p, given["image_B3HW"], valid)
    torch.testing.assert_close(evaluate("dense-pairwise", given)[0]["pairwise"], every / valid.sum())


@pytest.mark.parametrize("method", ["tel", "gated-crf", "dense-pairwise"])
def test_half_precision_changes_nothing_that_matters(method: str) -> None:
    given = batch()
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in given.items()}
    term = "tree" if method == "tel" else "pairwise"
    torch.testing.assert_close(
        evaluate(method, half)[0][term].double(), evaluate(method, given)[0][term], rtol=2e-2, atol=1e-3
    )


def _share(rank: int, world: int, folder: str) -> list[Tensor]:
    cut = {1: (0, 4), 2: (0, 1, 4), 3: (0, 1, 3, 4)}[world]  # unequal shares; the last image has no cell
    mine = {name: value[cut[rank] : cut[rank + 1]] for name, value in batch().items()}
    found = [evaluate(method, mine) for method in ("tel", "gated-crf", "dense-pairwise")]
    stacked = [(torch.stack([terms[name] for name in losses.TERMS]), grad) for terms, grad in found]
    return [piece for pair in stacked for piece in pair]


def test_any_number_of_ranks_gives_the_same_loss_and_gradient(tmp_path: Path) -> None:
    found = tiny.in_groups(_share, tmp_path, (1, 2, 3))
    for world in (2, 3):
        for number, expected in enumerate(found[1][0]):
            pieces = [rank[number] for rank in found[world]]
            mean = torch.stack(pieces).mean(0) if number % 2 == 0 else torch.cat(pieces) / world
            torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12)


def test_weight_0_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_energy, "energy", None)
    monkeypatch.setattr(pairwise, "gated_crf", None)
    given = batch()
    for method in ("agmm+tel", "agmm+gated-crf"):
        off = dataclasses.replace(LossConfig(), method=method, tree_weight=0.0, pairwise_weight=0.0)
        plain = losses.objective(**given, config=LossConfig(method="agmm"))
        assert losses.objective(**given, config=off) == plain


@pytest.mark.parametrize("method", ["tel", "gated-crf"])
def test_without_the_image_it_is_refused_not_left_out(method: str) -> None:
    given = batch()
    del given["image_B3HW"]
    with pytest.raises(ValueError, match=rf"loss.method={method} looks at the image; give image_B3HW"):
        losses.objective(**given, config=LossConfig(method=method))  # type: ignore[arg-type]
