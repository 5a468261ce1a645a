"""Points that a sweep is given: POINTS of the space, the recipe, a grid; and what a study makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sweeping import maker, report, search_of

from sparseg import sweep
from sparseg.sweep.points import enqueue_missing
from sparseg.sweep.space import contains, propose, value_in
from sparseg.sweep.study import open_study

NUMBERS = """from sparseg.sweep import choice, integers, uniform, when
SPACE = {
    "optim.epochs": integers(2, 10, step=2),
    "optim.max_steps": integers(1, 64, log=True),
    "optim.learning_rate": uniform(1e-4, 1e-2, log=True),
    "loss.distance": choice("l1", "l2"),
    "data.colour": choice(True, False),
    "loss.variance": choice("published", "adaptive"),
    "loss.sigma": when("loss.variance", "published", uniform(0.5, 2.0)),
}
"""
GOOD = {
    "optim.epochs": 4,
    "optim.max_steps": 5,
    "optim.learning_rate": 1e-3,
    "loss.distance": "l1",
    "data.colour": True,
    "loss.variance": "published",
    "loss.sigma": 1.0,
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid named `s` in tmp_path."""
    return maker(tmp_path)


def written(tmp_path: Path, *points: dict[str, Any]) -> Callable[..., sweep.Sweep]:
    """Sweeps over NUMBERS with these POINTS."""
    return maker(tmp_path, f"{NUMBERS}POINTS = {list(points)!r}\n")


# ------------------------------------------------------------------------------------------ values of a range


@pytest.mark.parametrize(
    ("values", "given", "proposed"),
    [
        (IntDistribution(2, 10, step=2), 4.0, 4),
        (IntDistribution(1, 64, log=True), 64, 64),
        (FloatDistribution(0.5, 2), 1, 1.0),
        (FloatDistribution(1e-4, 1e-2, log=True), 1e-2, 1e-2),
        (FloatDistribution(0, 1, step=0.1), 0.1 + 0.2, 0.1 + 0.2),
        (CategoricalDistribution((0.5, 1.0)), 1, 1.0),
        (CategoricalDistribution((False, True)), True, True),
        (CategoricalDistribution((None, 3)), None, None),
    ],
)
def test_a_value_becomes_what_the_search_would_propose(
    values: BaseDistribution, given: Any, proposed: Any
) -> None:
    found = value_in(values, given)
    assert found == proposed and type(found) is type(proposed)
    study = optuna.create_study()
    study.enqueue_trial({"x": found})
    trial = study.ask()
    used = propose(trial, "x", values)
    assert used == found and type(used) is type(found) and trial.params == {"x": used}, "recorded as trained"


@pytest.mark.parametrize(
    ("values", "given"),
    [
        (IntDistribution(2, 10, step=2), 4.7),
        (IntDistribution(2, 10, step=2), 5),
        (IntDistribution(2, 10, step=2), 12),
        (IntDistribution(0, 10), True),
        (IntDistribution(0, 10), "4"),
        (IntDistribution(0, 10), float("nan")),
        (FloatDistribution(0.5, 2), 2.0001),
        (FloatDistribution(0.5, 2), float("nan")),
        (FloatDistribution(0.5, 2), float("inf")),
        (FloatDistribution(0.5, 2), True),
        (FloatDistribution(0.5, 2), None),
        (FloatDistribution(0, 1, step=0.1), 0.3001),
        (CategoricalDistribution((0, 1)), True),
        (CategoricalDistribution((False, True)), 1),
        (CategoricalDistribution(("l1", "l2")), "l3"),
    ],
)
def test_a_value_that_the_search_would_never_propose_is_none_of_the_range(
    values: BaseDistribution, given: Any
) -> None:
    assert not contains(values, given)
    with pytest.raises(ValueError, match=r"^must be .*, got "):
        value_in(values, given)


# ----------------------------------------------------------------------------------------------------- POINTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim.epochs": 4.7}, "optim.epochs must be a whole number in 2..10 in steps of 2 from 2, got 4.7"),
        ({"optim.epochs": 5}, "optim.epochs must be a whole number in 2..10 in steps of 2 from 2, got 5"),
        ({"optim.max_steps": True}, "optim.max_steps must be a whole number in 1..64, got True"),
        ({"optim.learning_rate": 0.1}, "optim.learning_rate must be a real number in 0.0001..0.01, got 0.1"),
        ({"loss.distance": "l3"}, "loss.distance must be one of 'l1', 'l2', got 'l3'"),
        ({"data.colour": 1}, "data.colour must be one of True, False, got 1"),
        ({"loss.variance": "adaptive"}, "loss.sigma is not searched with the point's other values"),
        ({"loss.distanc": "l1"}, "'loss.distanc' is no field of SPACE; did you mean 'loss.distance'?"),
        ({"loss.sigma": ...}, "loss.sigma is missing"),
    ],
)
def test_a_wrong_point_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    wrong = {name: value for name, value in {**GOOD, **change}.items() if value is not ...}
    with pytest.raises(ValueError) as caught:
        written(tmp_path, GOOD, wrong)()
    assert str(caught.value).startswith(f"{tmp_path / 'space.py'}: POINTS[1]: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("points", ["{'loss.distance': 'l1'}", "['l1']", "3"])
def test_points_are_a_list_of_dicts(make: Callable[..., sweep.Sweep], points: str) -> None:
    with pytest.raises(ValueError, match=r"space.py: POINTS must be a list of dicts such as"):
        make(space=f'SPACE = {{"loss.distance": choice("l1", "l2")}}; POINTS = {points}')


def test_a_point_whose_values_do_not_go_together_is_refused(make: Callable[..., sweep.Sweep]) -> None:
    space = 'SPACE = {"optim.batch_size": choice(2, 8), "optim.accumulate": choice(1, 4)}\n'
    with pytest.raises(ValueError, match=r"POINTS\[0\]: .*cannot be cut into"):
        make(space=space + 'POINTS = [{"optim.batch_size": 2, "optim.accumulate": 4}]')


def test_points_come_first_and_are_trained_as_they_are_recorded(tmp_path: Path) -> None:
    point = {**GOOD, "optim.epochs": 4.0, "optim.learning_rate": 1e-4, "loss.sigma": 2}
    search, study = search_of(written(tmp_path, point)())
    config = search.suggest("a")["configs"][0]
    recorded = study.trials[0].params
    assert recorded == {**GOOD, "optim.learning_rate": 1e-4, "loss.sigma": 2.0}
    for name, value in recorded.items():
        section, field = name.split(".")
        trained = config[section][field]
        assert trained == value and type(trained) is type(value), name


def test_points_of_the_space_come_before_the_recipe(make: Callable[..., sweep.Sweep]) -> None:
    space = 'SPACE = {"loss.distance": choice("l1", "l2")}\nPOINTS = [{"loss.distance": "l2"}]'
    search, _ = search_of(make(space=space))
    drawn = [search.suggest(trial)["configs"][0]["loss"]["distance"] for trial in "ab"]
    assert drawn == ["l2", "l1"]


def test_a_recipe_beside_the_grid_of_the_space_is_noted_once_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "from sparseg.sweep import integers\nSPACE = {'optim.epochs': integers(2, 10, step=2)}\n"
    found = maker(tmp_path, space)("--optim.epochs", "5")
    search, study = search_of(found)
    assert search.suggest("a")["configs"][0]["optim"]["epochs"] in range(2, 11, 2)
    search.on_trial_complete("a", report(9, 0.3, finished=True))
    assert study.trials[0].state == TrialState.COMPLETE
    note = (
        "note: the recipe itself is not among the trials: its optim.epochs must be a whole number in 2..10 in"
    )
    assert capsys.readouterr().out.startswith(note)
    search_of(found)
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------------------------------- grids, and going on

GRID = 'SPACE = {"run.seed": choice(0, 1), "loss.method": choice("ce", "agmm")}; SAMPLER = "grid"'
WHOLE = [(0, "ce"), (0, "agmm"), (1, "ce"), (1, "agmm")]


def drawn(study: optuna.Study) -> list[tuple[int, str]]:
    return [(trial.params["run.seed"], trial.params["loss.method"]) for trial in study.trials]


@pytest.mark.parametrize("place", [(), ("--sweep.study", "journal")], ids=["sqlite", "journal"])
@pytest.mark.parametrize("seed", ["0", "7"])
def test_a_resumed_grid_neither_repeats_nor_omits(
    make: Callable[..., sweep.Sweep], seed: str, place: tuple[str, ...]
) -> None:
    """Whatever the seed is after the kill; trial 0 had ended then, trial 1 was running."""
    search, _ = search_of(make(*place, space=GRID))
    search.suggest("a"), search.suggest("b")
    search.on_trial_complete("a", report(9, 0.3, finished=True))
    again, study = search_of(make(*place, "--sweep.seed", seed, space=GRID))
    assert len(study.trials) == 4
    for trial in "bcd":
        again.suggest(trial)
        again.on_trial_complete(trial, report(9, 0.3, finished=True))
    assert drawn(study) == WHOLE
    assert {trial.state for trial in open_study(make(*place, space=GRID)).trials} == {TrialState.COMPLETE}


def test_a_grid_whose_entry_was_killed_is_completed(
    make: Callable[..., sweep.Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue, entered = optuna.Study.enqueue_trial, []

    def killed(study: optuna.Study, point: dict[str, Any]) -> None:
        if len(entered) == 2:
            raise KeyboardInterrupt
        entered.append(point)
        enqueue(study, point)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        open_study(make(space=GRID))
    monkeypatch.undo()
    search, study = search_of(make(space=GRID))
    for trial in "abcd":
        search.suggest(trial)
    assert drawn(study) == WHOLE


def test_points_whose_entry_was_killed_or_that_are_new_are_entered(tmp_path: Path) -> None:
    open_study(written(tmp_path, GOOD)())
    study = open_study(written(tmp_path, GOOD, {**GOOD, "optim.epochs": 8})())
    assert [trial.system_attrs["fixed_params"]["optim.epochs"] for trial in study.trials] == [4, 8]


def test_points_that_differ_a_little_are_two() -> None:
    """Optuna's skip_if_exists would take the second for the first."""
    study = optuna.create_study()
    enqueue_missing(study, [{"x": 1_000_000}, {"x": 1_000_001}, {"x": 1_000_000}])
    assert [study.ask().suggest_int("x", 0, 2_000_000) for _ in study.trials] == [1_000_000, 1_000_001]


def test_a_start_reads_the_study_once_however_large_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[None] = []
    study = optuna.create_study()
    read = study.get_trials
    monkeypatch.setattr(study, "get_trials", lambda **words: reads.append(None) or read(**words))
    for _ in range(2):
        enqueue_missing(study, [{"x": number} for number in range(50)])
    assert (len(reads), len(study.trials)) == (2, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("'l1', 'l2', 'l1'", r"SPACE\['loss.distance'\] has the option 'l1' twice; leave one out"),
        (
            "('l1', 'l2')",
            r"SPACE\['loss.distance'\] has the option \('l1', 'l2'\); options are texts, numbers",
        ),
    ],
)
def test_options_that_a_study_cannot_tell_apart_are_refused(
    make: Callable[..., sweep.Sweep], options: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(space=f'SPACE = {{"loss.distance": choice({options})}}')
