"""Sweeps with a second objective, and where the study is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sparseg import sweep
from sparseg.sweep import results
from sparseg.sweep.cost import cost_of
from sparseg.sweep.study import StudySearch, open_study, refuse_other_sweep

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid named `s` in tmp_path over the number of pixels."""
    (tmp_path / "space.py").write_text(
        "from sparseg.sweep import integers\nSPACE = {'data.random_pixels': integers(1, 100, log=True)}\n"
    )

    def make(*args: str) -> sweep.Sweep:
        words = ["--trainer", "camvid", "--space", str(tmp_path / "space.py"), "--sweep.name", "s"]
        found, _ = sweep.parse(ROOT / "trainers", [*words, "--run.storage", str(tmp_path), *args])
        found.folder.mkdir(exist_ok=True)
        return found

    return make


def ended(found: sweep.Sweep, outcomes: list[tuple[float, float]]) -> optuna.Study:
    study = open_study(found)
    search = StudySearch(found, study, lambda number: None)
    for number, (miou, cost) in enumerate(outcomes):
        assert search.suggest(str(number))["cost"] == "labels"
        middle = {"miou": 0.0, "step": 1, "epoch": 1.0, "total_steps": 9}
        assert not search.stop(str(number), middle), "pruned although it may cost less"
        result = {"miou": miou, "cost": cost, "steps": 9, "scores": [{"miou": miou}], "finished": True}
        search.on_trial_complete(str(number), result)
    return study


def test_the_front_is_what_no_other_trial_beats_in_both(
    make: Callable[..., sweep.Sweep], capsys: pytest.CaptureFixture[str]
) -> None:
    found = make("--cost", "labels")
    study = ended(found, [(0.3, 10.0), (0.5, 40.0), (0.4, 50.0), (0.2, 5.0), (0.3, 20.0)])
    written = results.write(found, study)
    assert sorted(written["front"]) == [0, 1, 3]
    assert [trial["cost"] for trial in written["trials"]] == [10.0, 40.0, 50.0, 5.0, 20.0]
    assert written["best"]["number"] == 1 and written["best"]["val_miou"] == 0.5
    results.show(written)
    shown = capsys.readouterr().out
    assert "1 * ^" in shown and "fewer labels" in shown
    assert set(written["importances"]) == {"data.random_pixels"}


def test_a_sweep_with_a_cost_goes_on_and_is_not_mixed_with_one_without(
    make: Callable[..., sweep.Sweep],
) -> None:
    refuse_other_sweep(make("--cost", "labels"))
    ended(make("--cost", "labels"), [(0.3, 10.0)])
    assert [trial.state for trial in open_study(make("--cost", "labels")).trials[:1]] == [TrialState.COMPLETE]
    with pytest.raises(ValueError, match="a sweep with cost=labels, this one has None"):
        refuse_other_sweep(make())


def test_labels_and_seconds_are_read_from_the_runs(tmp_path: Path) -> None:
    for name, pixels, speeds in (("a", 200, (8.0, 4.0)), ("b", 400, (2.0, 2.0))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"optim": {"batch_size": 4}, "loss": {}, "data": {}}))
        (folder / "environment.json").write_text(json.dumps({"labels": {"images": 10, "pixels": pixels}}))
        lines = [
            {"kind": "train", "step": step, "images_per_s": rate, "total": 1.0}
            for step, rate in zip((2, 5), speeds, strict=True)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folders = [tmp_path / "a", tmp_path / "b"]
    assert cost_of("labels", folders) == 30
    # a: 8 images at 8/s, 12 at 4/s; b: 20 at 2/s
    assert cost_of("seconds", folders) == pytest.approx((1 + 3 + 10) / 2)


def test_the_study_may_lie_in_a_journal_or_a_database(
    make: Callable[..., sweep.Sweep], tmp_path: Path
) -> None:
    for place, file in (("journal", "s/study.log"), (f"sqlite:///{tmp_path}/all.db", "all.db")):
        words = ("--cost", "labels", "--sweep.study", place)
        ended(make(*words), [(0.3, 10.0), (0.5, 40.0)])
        assert (tmp_path / file).is_file() and not (tmp_path / "s" / "study.db").exists()
        assert [trial.values for trial in open_study(make(*words)).trials[:2]] == [[0.3, 10.0], [0.5, 40.0]]


def test_a_study_that_cannot_be_opened_is_one_line(make: Callable[..., sweep.Sweep]) -> None:
    with pytest.raises(
        ValueError, match=r"--sweep.study sqlite:////no/such/study.db: cannot be opened"
    ) as caught:
        open_study(make("--sweep.study", "sqlite:////no/such/study.db"))
    assert "\n" not in str(caught.value)


def test_a_database_does_not_mix_sweeps_of_one_name(make: Callable[..., sweep.Sweep], tmp_path: Path) -> None:
    place = ("--sweep.study", f"sqlite:///{tmp_path}/all.db", "--cost", "labels")
    ended(make(*place), [(0.3, 10.0)])
    assert len(open_study(make(*place)).trials) > 0
    with pytest.raises(ValueError, match=r"holds another sweep named s; give another --sweep.name"):
        open_study(make(*place, "--optim.learning-rate", "0.5"))
    refuse_other_sweep(make(*place))
    with pytest.raises(ValueError, match="a sweep with study=sqlite:"):
        refuse_other_sweep(make("--cost", "labels"))
