"""Which trials of a sweep end early, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeping import maker, report, search_of

from sparseg import sweep
from sparseg.sweep.study import first_rung


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid, without a warm-up."""
    plain = maker(tmp_path)
    return lambda *args, **space: plain("--optim.warmup-steps", "0", *args, **space)


@pytest.mark.parametrize(("scheduler", "pruned"), [("asha", True), ("none", False)])
def test_worse_trial_ends_at_its_first_rung_even_after_a_restart(
    make: Callable[..., sweep.Sweep], scheduler: str, pruned: bool
) -> None:
    found = make("--scheduler", scheduler)
    search, _ = search_of(found)
    search.suggest("good")
    assert not any(search.stop("good", report(step, 0.5)) for step in range(1, 10))
    search.on_trial_complete("good", report(9, 0.5, finished=True))
    search, study = search_of(found)
    search.suggest("bad")
    assert search.stop("bad", report(1, 0.1)) is pruned
    if pruned:
        search.on_trial_complete("bad", report(1, 0.1))
        assert (study.trials[1].state, study.trials[1].value) == (TrialState.PRUNED, 0.1)


def test_median_waits_for_three_trials(make: Callable[..., sweep.Sweep]) -> None:
    search, _ = search_of(make("--scheduler", "median"))
    for trial in "abc":
        search.suggest(trial)
        assert not any(search.stop(trial, report(step, 0.5, total=18)) for step in range(1, 19))
        search.on_trial_complete(trial, report(18, 0.5, finished=True))
    search.suggest("bad")
    assert not search.stop("bad", report(1, 0.1, total=18))
    assert search.stop("bad", report(3, 0.1, total=18))


def test_run_that_reached_its_last_step_is_not_pruned(make: Callable[..., sweep.Sweep]) -> None:
    search, _ = search_of(make())
    search.suggest("good"), search.suggest("bad")
    assert not search.stop("good", report(9, 0.5))
    assert not search.stop("bad", report(9, 0.1))


def test_resumed_run_may_repeat_a_report(
    make: Callable[..., sweep.Sweep], recwarn: pytest.WarningsRecorder
) -> None:
    search, study = search_of(make())
    search.suggest("a")
    search.stop("a", report(3, 0.2)), search.stop("a", report(3, 0.2)), search.stop("a", report(6, 0.4))
    assert study.trials[0].intermediate_values == {3: 0.2, 6: 0.4}
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]


WARM = 'from sparseg.sweep import uniform\nSPACE = {"loss.warmup_epochs": uniform(0, 6)}'


@pytest.mark.parametrize(
    ("args", "space", "rung"),
    [
        ((), "", 100),  # a ninth
        (("--optim.warmup-steps", "150"), "", 150),
        (("--loss.warmup-epochs", "4"), "", 160),
        # no mixture that could warm up
        (("--loss.warmup-epochs", "4", "--loss.method", "ce"), "SPACE = {'run.seed': choice(0, 1)}", 100),
        (("--loss.warmup-epochs", "4"), WARM, 225),  # 6 epochs are 240 steps, more than a quarter
    ],
)
def test_trials_are_compared_when_their_warm_ups_are_over(
    make: Callable[..., sweep.Sweep], args: tuple[str, ...], space: str, rung: int
) -> None:
    found = make("--loss.method", "agmm", *args, space=space)
    assert first_rung(found, 900, 40.0) == rung


def test_before_the_warm_ups_end_nobody_is_pruned(make: Callable[..., sweep.Sweep]) -> None:
    search, _ = search_of(make("--optim.warmup-steps", "8"))
    search.suggest("good"), search.suggest("bad")
    for step in range(4, 37, 4):
        assert not search.stop("good", report(step, 0.5, total=36))
    assert not search.stop("bad", report(4, 0.1, total=36))
    assert search.stop("bad", report(8, 0.1, total=36))
