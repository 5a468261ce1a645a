"""Where the trials of a sweep find their dataset: equal imports are made once and shared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures
import pytest
from ray import tune
from ray.tune.integration import ray_train
from sweeping import ROOT, search_of

from sparseg import launch, sweep
from sparseg.config import with_overrides
from sparseg.data import importers
from sparseg.sweep import runner
from sparseg.sweep.study import StudySearch, Sweep
from sparseg.train import loop

CROPS = "SPACE = {'data.crop_px': choice(32, 48)}"
BUDGETS = "SPACE = {'data.random_pixels': choice(2, 4), 'run.seed': choice(0, 1)}; SAMPLER = 'grid'"
CLICKS = ("--data.label", "clicks")


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were imported into; trials train nothing, and no test trial reports to Ray."""
    outs: list[str] = []
    real = importers.import_source

    def counted(source: Any, settings: Any, out: str, **words: Any) -> dict[str, Any]:
        outs.append(out)
        return real(source, settings, out, **words)

    def trained(config: Any, dataset: Any, **_: Any) -> dict[str, Any]:
        return {"miou": 0.5, "pixel_accuracy": 0.5, "step": 1, "steps": 1, "total_steps": 1}

    monkeypatch.setattr(importers, "import_source", counted)
    monkeypatch.setattr(loop, "run", trained)
    return outs


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What trials reported to Tune."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    monkeypatch.setattr(ray_train, "TuneReportCallback", lambda: None)  # it wants a session
    return told


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sweep]:
    """Sweeps named `s` of ten raw images with labels and dense masks; runs are in tmp_path / runs."""
    fixtures.folder(tmp_path / "photos", splits=True)

    def make(space: str, *args: str) -> Sweep:
        (tmp_path / "space.py").write_text(f"from sparseg.sweep import choice\n{space}\n")
        words = ["--trainer", "folder", "--space", str(tmp_path / "space.py"), "--sweep.name", "s"]
        words += ["--data.root", str(tmp_path / "photos"), "--run.storage", str(tmp_path / "runs")]
        words += ["--data.crop-px", "32", "--model.aspp-dilations", "1", "--resources.workers", "0"]
        words += ["--model.backbone", "test_efficientnet", "--model.feature-channels", "8"]
        return sweep.parse(ROOT / "trainers", [*words, *args])[0]

    return make


def run_all(found: Sweep, search: StudySearch) -> None:
    for number in range(found.trials):
        runner.run_trial(search.suggest(str(number)))
        search.on_trial_complete(str(number), {"error": "not looked at"})


def started(found: Sweep) -> StudySearch:
    found.folder.mkdir(parents=True, exist_ok=True)
    return search_of(found)[0]


@pytest.mark.parametrize("seeds", [(), ("--seeds", "0", "1")], ids=["plain", "seeds"])
def test_trials_and_seeds_with_equal_data_import_once(
    make: Callable[..., Sweep],
    imported: list[str],
    reports: list[dict[str, Any]],
    tmp_path: Path,
    seeds: tuple[str, ...],
) -> None:
    found = make(CROPS, "--sampler", "grid", *seeds)
    found = runner.prepared(found)
    assert len(imported) == 1
    run_all(found, started(found))
    assert [report["finished"] for report in reports] == [True, True]
    assert len(imported) == 1
    assert Path(imported[0]).parent == tmp_path / "runs" / "datasets"
    launch.launch(found.config)
    assert len(imported) == 1, "a plain run finds it, too"


def test_budgets_and_seeds_share_the_images_of_one_import(
    make: Callable[..., Sweep], imported: list[str], reports: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = runner.prepared(make(BUDGETS, *CLICKS))
    run_all(found, started(found))
    assert [report["finished"] for report in reports] == [True] * 4
    assert [Path(out).name[:12] for out in imported] == ["folder-full-"]
    kinds = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "runs" / "datasets").iterdir())
    assert kinds == ["folder-clicks", "folder-clicks", "folder-full"]
    best = with_overrides(found.config, {"data.random_pixels": 4, "run.storage": str(tmp_path / "runs")})
    launch.launch(best)
    assert len(imported) == 1, "a plain run finds it, too"


def test_a_budget_of_one_value_is_an_import_of_its_own(
    make: Callable[..., Sweep], imported: list[str], tmp_path: Path
) -> None:
    runner.prepared(make(CROPS, *CLICKS, "--data.random-pixels", "2"))
    assert [Path(out).name[:14] for out in imported] == ["folder-clicks-"]


@pytest.mark.parametrize("place", ["s", "s/trial_0000"])
def test_a_sweep_of_an_older_version_finds_the_import_of_its_trials(
    make: Callable[..., Sweep], imported: list[str], reports: list[dict[str, Any]], tmp_path: Path, place: str
) -> None:
    """They had it in the sweep's folder, with --seeds in the trial's."""
    found = make(CROPS, "--sampler", "grid")
    data = runner.prepared(found).config.data
    old, new = tmp_path / "runs" / place / "datasets", tmp_path / "runs" / "datasets"
    old.parent.mkdir(parents=True)
    os.rename(new, old)
    assert importers.prepare(data, tmp_path / "runs", older=[old.parent]) == next(old.iterdir())
    search = started(found)
    runner.run_trial(search.suggest("a"))
    assert reports[-1]["finished"] and len(imported) == 1 and not new.exists()


@pytest.fixture
def masks(tmp_path: Path) -> tuple[str, ...]:
    """Flags for a raw dataset that has dense masks and no sparse labels at all."""
    return (*CLICKS, "--data.root", str(fixtures.camvid(tmp_path / "camvid")), "--data.layout", "camvid")


@pytest.mark.parametrize("space", ["label_sparsity", "methods"])
def test_a_search_of_the_budget_needs_no_budget_of_the_recipe(
    make: Callable[..., Sweep],
    imported: list[str],
    reports: list[dict[str, Any]],
    masks: tuple[str, ...],
    space: str,
) -> None:
    """The recipe itself, clicks without a number, cannot be imported; what the trials train can."""
    found = make((ROOT / "search_spaces" / f"{space}.py").read_text(), *masks)
    with pytest.raises(ValueError, match="no clicks annotation"):
        launch.launch(found.config)
    found = runner.prepared(found)
    assert (found.config.data.random_pixels, found.config.data.clicks_per_class) == (0, 0)
    search = started(found)
    runner.run_trial(search.suggest("a"))
    assert reports[-1]["finished"] and len(imported) == 1


def test_a_budget_that_the_sampler_draws_needs_none_of_the_recipe_either(
    make: Callable[..., Sweep], imported: list[str], masks: tuple[str, ...]
) -> None:
    found = make("SPACE = {'data.random_pixels': choice(2, 4)}", *masks)
    assert runner.prepared(found).config.data.random_pixels == 0 and len(imported) == 1
