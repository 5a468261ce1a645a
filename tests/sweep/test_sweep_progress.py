"""The lines of a sweep: which trial begins and ends, how long the rest takes, how many run at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sweeping import maker, report

from sparseg import sweep
from sparseg.common.process import Interrupted
from sparseg.sweep import results, runner
from sparseg.sweep.progress import Progress, remaining_s, stopped
from sparseg.sweep.study import StudySearch, open_study


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid named `s` in tmp_path."""
    return maker(tmp_path)


@pytest.mark.parametrize(
    ("ages_s", "waiting", "at_a_time", "seconds"),
    [
        ((), 4, 1, 400.0),
        ((30.0,), 2, 1, 70.0 + 200.0),
        ((30.0, 90.0), 1, 2, 10.0 + 100.0),  # behind the one that ends first
        ((30.0, 90.0), 0, 2, 70.0),
        ((250.0,), 0, 2, 0.0),  # longer than the mean: any moment
        ((), 1, 8, 100.0),
    ],
)
def test_the_rest_takes_as_long_as_its_last_trial(
    ages_s: Sequence[float], waiting: int, at_a_time: int, seconds: float
) -> None:
    assert remaining_s(100.0, ages_s, waiting, at_a_time) == pytest.approx(seconds)


def test_a_line_at_the_beginning_and_the_end_of_every_trial(capsys: pytest.CaptureFixture[str]) -> None:
    """Four trials, two at a time, one of them ended before; trial 1 fails at once."""
    now_s = [1000.0]
    progress = Progress("s", trials=4, ended=1, at_a_time=2, clock=lambda: now_s[0])
    progress.begins(1, {"loss.bandwidth": 0.123456, "loss.distance": "l1"}, again=True)
    progress.begins(2, {"loss.bandwidth": 1.0}, again=False)
    now_s[0] += 5
    progress.ends(1, "failed: loss not finite", counts=False)
    progress.begins(3, {"loss.bandwidth": 2.0}, again=False)
    now_s[0] += 95
    progress.ends(2, "finished, val_miou 0.4000", counts=True)
    now_s[0] += 5
    progress.ends(3, "pruned at step 4, val_miou 0.2000", counts=True)
    assert capsys.readouterr().out.splitlines() == [
        "[s] trial 1 goes on, 2 of 4: loss.bandwidth=0.1235, loss.distance=l1 | 0s elapsed, ETA after the "
        "first trial",
        "[s] trial 2 begins, 3 of 4: loss.bandwidth=1 | 0s elapsed, ETA after the first trial",
        "[s] trial 1 failed: loss not finite, in 5s; 2 of 4 ended | 5s elapsed, ETA after the first trial",
        "[s] trial 3 begins, 4 of 4: loss.bandwidth=2 | 5s elapsed, ETA after the first trial",
        "[s] trial 2 finished, val_miou 0.4000, in 1m40s; 3 of 4 ended | 1m40s elapsed, ETA 5s",
        "[s] trial 3 pruned at step 4, val_miou 0.2000, in 1m40s; 4 of 4 ended | 1m45s elapsed, ETA 0s",
    ]


def test_a_trial_that_went_on_does_not_say_how_long_trials_take(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    progress = Progress("s", trials=3, ended=0, at_a_time=1, clock=lambda: now_s[0])
    for number, seconds in ((0, 3.0), (1, 60.0)):
        progress.begins(number, {}, again=number == 0)
        now_s[0] += seconds
        progress.ends(number, "finished", counts=True)
    etas = [line.partition("ETA ")[2] for line in capsys.readouterr().out.splitlines()]
    assert etas == ["after the first trial"] * 3 + ["1m00s"]


def test_the_search_tells_what_begins_and_what_goes_on(make: Callable[..., sweep.Sweep]) -> None:
    begun: list[tuple[int, bool]] = []

    def begins(number: int, point: dict[str, object], again: bool) -> None:
        assert set(point) == {"loss.bandwidth", "model.multi_grid"}
        begun.append((number, again))

    for _ in range(2):  # the second driver comes after the first was killed
        found = make()
        StudySearch(found, study := open_study(found), lambda number: None, begins).suggest("a")
    assert begun == [(0, False), (0, True)] and len(study.trials) == 1


def test_a_stopped_sweep_says_what_stands_and_how_it_goes_on(make: Callable[..., sweep.Sweep]) -> None:
    found = make("--trials", "9")
    study = open_study(found)
    assert stopped(results.summary(found, study)) == (
        "stopped after 0 of 9 trials; the same command goes on from there"
    )
    search = StudySearch(found, study, lambda number: None)
    for trial in "abc":
        search.suggest(trial)
    search.on_trial_complete("a", report(9, 0.25, finished=True))
    search.on_trial_complete("b", {"error": "loss not finite"})
    assert stopped(results.summary(found, study)) == (
        "stopped after 2 of 9 trials, which stand (best: trial 0, val_miou 25.00 %), amid 1 more; the same "
        "command goes on from there"
    )


@pytest.mark.parametrize("how", ["Tune ends early", "at once"])
def test_ctrl_c_ends_in_that_line(
    make: Callable[..., sweep.Sweep], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def interrupted(*_: object) -> None:
        if how == "at once":
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "prepared", lambda found: found)
    monkeypatch.setattr(runner, "_tune", interrupted)
    with pytest.raises(Interrupted, match=r"^stopped after 0 of 20 trials.*; the same command goes on"):
        runner.run(make())


# ------------------------------------------------------------------------------------------- trials at a time


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers", "trials", "at_a_time", "threads"),
    [
        ([(16.0, 4.0), (16.0, 4.0)], 1.0, 2, 20, 4, None),
        ([(16.0, 4.0)], 1.0, 1, 3, 3, None),  # no more than there are trials
        ([(8.0, 0.0)], 0.0, 0, 20, 8, 1),
        ([(8.0, 0.0)], 0.0, 2, 2, 2, 2),  # 2 trials of 2 workers share 8 cores
        ([(2.0, 0.0)], 0.0, 3, 20, 1, None),  # an elastic run that began with fewer
    ],
)
def test_as_many_trials_at_a_time_as_fit(
    make: Callable[..., sweep.Sweep],
    capsys: pytest.CaptureFixture[str],
    nodes: list[tuple[float, float]],
    gpus: float,
    workers: int,
    trials: int,
    at_a_time: int,
    threads: int | None,
) -> None:
    found = make("--resources.workers", str(workers))
    assert found.concurrent is None
    fitted = runner.fitted(found, trials, nodes, gpus)
    assert (fitted.concurrent, fitted.config.resources.threads_per_worker) == (at_a_time, threads)
    said = capsys.readouterr().out
    assert said.startswith(f"[s] {at_a_time} trials at a time") and said.count("\n") == 1
    assert f"CPU {sum(cpu for cpu, _ in nodes):g}, GPU {sum(gpu for _, gpu in nodes):g}" in said


def test_threads_that_were_asked_for_stay(make: Callable[..., sweep.Sweep]) -> None:
    fitted = runner.fitted(make("--resources.threads-per-worker", "3"), 20, [(8.0, 0.0)], 0.0)
    assert fitted.config.resources.threads_per_worker == 3
