"""Which trials of a sweep end early, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeping import maker, report, search_of

from sparseg import sweep
from sparseg.sweep.pruning import first_rung


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid, without a warm-up."""
    plain = maker(tmp_path)
    return lambda *args, **space: plain("--optim.warmup-steps", "0", *args, **space)


def steps_of(make: Callable[..., sweep.Sweep], curves: list[list[float]]) -> list[int]:
    """Trials one after the other, of a value a step: how many steps each has made."""
    search, _ = search_of(make("--trials", str(len(curves))))
    made = []
    for number, curve in enumerate(curves):
        search.suggest(str(number))
        for step, value in enumerate(curve, 1):
            if search.stop(str(number), report(step, value, total=len(curve))):
                break
        made.append(step)
        search.on_trial_complete(str(number), report(step, value, finished=step == len(curve)))
    return made


def test_of_equals_the_first_goes_on(make: Callable[..., sweep.Sweep]) -> None:
    """Trials of a warm-up are equal to the last bit; Optuna's pruner would let all of them pass."""
    assert steps_of(make, [[0.2] * 8] * 5) == [8, 1, 1, 1, 1]


def test_the_best_quarter_passes_a_rung(make: Callable[..., sweep.Sweep]) -> None:
    values = [0.5, 0.4, 0.3, 0.6, 0.1, 0.2, 0.0, 0.55, 0.52, 0.9, float("nan")]  # of 8 two, of 4 one
    assert steps_of(make, [[value] * 4 for value in values]) == [4, 1, 1, 4, 1, 1, 1, 4, 1, 4, 1]


def test_between_the_rungs_nobody_is_stopped(make: Callable[..., sweep.Sweep]) -> None:
    """Rungs of 36 steps are at 4 and at 16: what falls behind at 5 is not looked at before."""
    falling = [0.9] * 4 + [0.1] * 32
    assert steps_of(make, [[0.5] * 36, falling]) == [36, 16]


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


def test_who_resumes_is_not_judged_again(make: Callable[..., sweep.Sweep]) -> None:
    """It passed its rung; trials that came there since must not count when it repeats the step."""
    found = make()
    search, study = search_of(found)
    search.suggest("first"), search.suggest("second")
    assert not search.stop("first", report(1, 0.5))
    assert search.stop("second", report(1, 0.5))
    search.on_trial_complete("second", report(1, 0.5))
    search, study = search_of(found)  # the driver was killed; the first goes on from its checkpoint
    search.suggest("again")
    assert not search.stop("again", report(1, 0.5))
    assert study.trials[0].state is TrialState.RUNNING


def test_a_verdict_outlives_the_driver(make: Callable[..., sweep.Sweep]) -> None:
    found = make()
    search, _ = search_of(found)
    search.suggest("first"), search.suggest("second")
    assert not search.stop("first", report(1, 0.5)) and search.stop("second", report(1, 0.1))
    search, study = search_of(found)  # killed before the study was told
    search.suggest("first again"), search.suggest("second again")
    assert not search.stop("first again", report(2, 0.5)) and search.stop("second again", report(2, 0.9))
    search.on_trial_complete("second again", report(2, 0.9))
    assert study.trials[1].state is TrialState.PRUNED


def test_seeds_that_ended_before_the_driver_did_still_count(make: Callable[..., sweep.Sweep]) -> None:
    found = make("--seeds", "0", "1")
    search, _ = search_of(found)
    search.suggest("a")
    search.stop("a", report(9, 0.6, seed=0))
    search, study = search_of(found)
    search.suggest("a again")
    search.stop("a again", report(1, 0.3, seed=1))
    assert study.trials[0].intermediate_values[10] == pytest.approx(0.45)


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
    assert first_rung(found.space, found.config, 900, 40.0) == rung


def test_before_the_warm_ups_end_nobody_is_pruned(make: Callable[..., sweep.Sweep]) -> None:
    search, _ = search_of(make("--optim.warmup-steps", "8"))
    search.suggest("good"), search.suggest("bad")
    for step in range(4, 37, 4):
        assert not search.stop("good", report(step, 0.5, total=36))
    assert not search.stop("bad", report(4, 0.1, total=36))
    assert search.stop("bad", report(8, 0.1, total=36))
