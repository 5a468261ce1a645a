"""The table of the methods is true: what an entry says is found again by trial in the objective."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from loss_batches import Batch, make_batch

from sparseg import losses
from sparseg.config import METHODS, TERMS, LossConfig, methods
from sparseg.losses.mixture import Memory

K, D = 4, 3
BATCHES = [make_batch(seed, B=2, K=K, D=D, size=(16, 20), cells=(4, 5)) for seed in (4, 6)]
OTHER: dict[str, Any] = {
    "variance": "unweighted",
    "sigma": 0.3,
    "bandwidth": 2.0,
    "distance": "l2",
    "target": "posterior",
    "centroids": "memory",
    "centroid_momentum": 0.2,
    "centroid_reduction": "sum",
    "em_steps": 3,
    "em_confidence": 0.8,
    "em_trust": 0.1,
    **{f"{term}_weight": 0.3 for term in TERMS},
}
"""Another value of every field that the objective may read; the training loop reads the rest."""
ALONE = [name for name in METHODS if len(methods.parts_of(name) - {"ce"}) <= 1]  # others join their entries
STARTS: list[dict[str, Any]] = [
    {"em_confidence": 0.55},
    {"em_confidence": 0.55, "variance": "published", "centroids": "memory"},
]


def outcome(config: LossConfig, **more: Any) -> list[list[float]]:
    """Total, its gradients and the class means, of two steps."""
    memory = Memory.empty(K, D, torch.device("cpu")) if config.keeps_memory else None
    found = []
    for batch in BATCHES:
        leaves = [batch.feature.clone().requires_grad_(), batch.logits.clone().requires_grad_()]
        keywords = {"memory": memory, "image_B3HW": image(batch), **more}
        terms = losses.objective(*leaves, batch.label, batch.present, config, **keywords)
        gradients = torch.autograd.grad(terms["total"], leaves, allow_unused=True)
        values = [terms["total"].detach(), *(grad for grad in gradients if grad is not None)]
        found += [value.flatten().tolist() for value in values]
    return found


def image(batch: Batch) -> torch.Tensor:
    shape = (len(batch.label), 3, *batch.label.shape[1:])
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_every_field_is_tried() -> None:
    loop = {"method", "class_balance", "warmup_epochs"}  # class weights and the warm-up are handed in
    own = {"extra_terms", "extra_weight"}  # test_extra_terms.py
    assert {*OTHER} | loop | own == {field.name for field in dataclasses.fields(LossConfig)}


@pytest.mark.parametrize("method", ALONE)
def test_a_method_reads_the_fields_that_it_names_and_no_others(method: str) -> None:
    starts = [LossConfig(method=method, **fields) for fields in STARTS]  # type: ignore[arg-type]
    before = [outcome(start) for start in starts]
    read: set[str] = set()
    for field, value in OTHER.items():
        for start, known in zip(starts, before, strict=True):
            if (
                field in read
                or getattr(start, field) == value
                or (field == "target" and start.centroids == "batch")
            ):
                continue
            try:
                changed = outcome(dataclasses.replace(start, **{field: value}))
            except ValueError as error:  # refused because the method does not read it
                assert f"loss.{field}=0.3 has no effect with loss.method={method}" in str(error)
                continue
            if changed != known:
                read.add(field)
    assert read == METHODS[method].fields & OTHER.keys()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_the_terms_and_needs_that_it_names(method: str) -> None:
    entry = METHODS[method]
    on = LossConfig(method=method, only_weight=float(entry.knows_absent))  # type: ignore[arg-type]
    memory = Memory.empty(K, D, torch.device("cpu")) if on.keeps_memory else None
    alone = dataclasses.replace(BATCHES[1], present=torch.eye(K, dtype=torch.bool)[[0, 1]])  # for `only`
    given = (alone.feature, alone.logits, alone.label, alone.present, on)
    with_image = {"memory": memory, "image_B3HW": image(alone)}
    on_terms = losses.objective(*given, **with_image)  # type: ignore[arg-type]
    assert {term for term in TERMS if on_terms[term] != 0} == set(entry.terms)
    early = losses.objective(*given, **with_image, with_mixture=False)  # type: ignore[arg-type]
    assert entry.warms_up == any(early[term] != on_terms[term] for term in TERMS)
    assert entry.knows_absent == ("absent" in entry.terms)
    if entry.looks_at_image:
        with pytest.raises(ValueError, match="looks at the image"):
            losses.objective(*given, memory=memory)
    else:
        losses.objective(*given, memory=memory)
    assert entry.keeps_memory == (memory is not None)
