"""The length of a run, when it validates, its learning rates, its optimizer."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparseg.config import Config, with_overrides
from sparseg.train.schedule import Plan, make_optimizer, plan, rate_factor

EVERY = [Fraction(text) for text in ("1/10", "1/4", "1/3", "1/2", "1", "3/2", "2", "5")]


def test_rate_factor_starts_at_the_peak_and_reaches_zero_after_the_last_step() -> None:
    assert rate_factor(0, 100, 0.9) == 1.0
    assert rate_factor(100, 100, 0.9) == 0.0
    assert rate_factor(50, 100, 0.9) == pytest.approx(0.5**0.9)
    assert 0 < rate_factor(99, 100, 0.9) == pytest.approx(0.01**0.9)
    rates = [rate_factor(step, 100, 0.9) for step in range(100)]
    assert rates == sorted(rates, reverse=True)


def test_rate_factor_of_power_zero_is_constant() -> None:
    assert [rate_factor(step, 3, 0.0) for step in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "max_steps", "steps"),
    [(8, 4, 3, None, 6), (9, 4, 3, None, 7), (3, 4, 1, None, 1), (8, 4, 3, 5, 5), (8, 4, 3, 500, 6)],
)
def test_length_is_what_the_epochs_give_and_at_most_max_steps(
    rows: int, batch: int, epochs: int, max_steps: int | None, steps: int
) -> None:
    values = {"optim.batch_size": batch, "optim.epochs": epochs, "optim.max_steps": max_steps}
    run = with_overrides(Config(), values)
    length = plan(run, rows)
    assert length.total_steps == steps
    assert length.epoch(steps) == steps * batch / rows
    assert length.validate_every == run.run.validate_every


@settings(deadline=None)
@given(
    rows=st.integers(1, 97), batch=st.integers(1, 40), epochs=st.integers(1, 6), every=st.sampled_from(EVERY)
)
def test_validates_once_at_every_boundary_and_after_the_last_step(
    rows: int, batch: int, epochs: int, every: Fraction
) -> None:
    """Boundary m lies at epoch m * every; the first step that reaches it validates (exactly)."""
    total = math.ceil(epochs * rows / batch)
    run = Plan(rows, batch, total, float(every))
    boundaries = range(1, int(Fraction(total * batch, rows) / every) + 1)
    expected = {math.ceil(m * every * rows / batch) for m in boundaries} | {total}
    assert {step for step in range(1, total + 1) if run.validates(step)} == expected


def test_an_epoch_of_many_steps_validates_at_fractions_of_it() -> None:
    run = Plan(num_rows=100, batch_size=1, total_steps=200, validate_every=0.1)
    assert [step for step in range(1, 201) if run.validates(step)] == list(range(10, 201, 10))


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_warm_up_grows_linearly_to_the_poly_rate(warmup: int) -> None:
    for step in range(10):
        ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
        assert rate_factor(step, 10, 0.9, warmup) == pytest.approx((1 - step / 10) ** 0.9 * ramp)


# -------------------------------------------------------------------------------------------------- optimizer


class TwoParts(nn.Module):
    """What make_optimizer needs of a Segmenter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.decoder = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_every_parameter_is_in_one_group_and_the_decoder_has_its_own_rate(kind: str) -> None:
    values = {"optim.learning_rate": 0.02, "optim.decoder_lr_factor": 5.0, "optim.weight_decay": 0.3}
    run = with_overrides(Config(), {**values, "optim.optimizer": kind, "optim.momentum": 0.7})
    model = TwoParts()
    optimizer = make_optimizer(model, run)  # type: ignore[arg-type]
    assert type(optimizer) is {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[kind]
    backbone, decoder = optimizer.param_groups
    assert [id(p) for p in backbone["params"]] == [id(p) for p in model.backbone.parameters()]
    assert [id(p) for p in decoder["params"]] == [id(p) for p in model.decoder.parameters()]
    assert (backbone["peak"], decoder["peak"]) == (0.02, pytest.approx(0.1))
    assert backbone["weight_decay"] == decoder["weight_decay"] == 0.3
    if kind == "sgd":
        assert backbone["momentum"] == decoder["momentum"] == 0.7
