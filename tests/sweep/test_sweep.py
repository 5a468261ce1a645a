"""Sweeps: command line, the study as the only state, results."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import tiny
from optuna.trial import TrialState
from sweeping import maker, report, search_of

from sparseg import config, launch, sweep
from sparseg.config import command_line
from sparseg.config.trainer_file import load_file
from sparseg.data.shards import is_dataset
from sparseg.launch import cluster
from sparseg.sweep import results, runner
from sparseg.sweep.study import refuse_other_sweep, trial_configs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., sweep.Sweep]:
    """Sweeps of camvid named `s` in tmp_path."""
    return maker(tmp_path)


# ---------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trails", "3"], "unknown flag --trails; did you mean --trials?"),
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--concurrent", "0"], "--concurrent must be at least 1, got 0"),
        (["--scheduler", "ahsa"], "argument --scheduler: invalid choice: 'ahsa'"),
        (["--run.name", "x"], "give --sweep.name"),
        (["--sweep.name", "a/b"], "got 'a/b'"),
        (
            ["--cost", "labels", "--scheduler", "asha"],
            "--scheduler asha: with --cost no trial is ended early",
        ),
        (["--cost", "labels", "--sampler", "cmaes"], "--sampler cmaes seeks one best score"),
        (["--cost", "clicks"], "argument --cost: invalid choice: 'clicks' (choose from"),
        (
            ["--run.storage", "s3://b/runs"],
            "run.storage=s3://b/runs: a sweep keeps Optuna's study in a folder",
        ),
    ],
)
def test_wrong_use_is_one_line(make: Callable[..., sweep.Sweep], args: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(*args)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_trainer_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--trainer camvd: no such trainer; give one of camvid, "):
        sweep.parse(ROOT / "trainers", ["--trainer", "camvd", "--space", "x.py"])


@pytest.mark.parametrize("trainer", ["camvid", "camvid_small", "cityscapes", "demo", "folder", "voc"])
def test_every_trainer_can_be_swept(trainer: str, tmp_path: Path) -> None:
    space = str(ROOT / "search_spaces" / "mixture.py")
    words = ["--trainer", trainer, "--space", space, "--run.storage", str(tmp_path), "--dry-run"]
    words += ["--loss.method", "agmm"]
    found, dry_run = sweep.parse(ROOT / "trainers", words)
    assert dry_run and found.config.run.name == f"{trainer}-mixture" and found.points


def test_the_demos_data_are_made_in_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a cluster reach that one, not the driver's current folder."""
    monkeypatch.chdir(tmp_path)
    storage, space = tmp_path / "shared", str(ROOT / "search_spaces" / "mixture.py")
    words = ["--trainer", "demo", "--space", space, "--run.storage", str(storage)]
    found, _ = sweep.parse(ROOT / "trainers", words)
    assert found.config.data.root == str(storage / "demo" / "data") and is_dataset(found.config.data.root)
    with pytest.raises(SystemExit) as done:
        tiny.trainer("demo").command(
            ["--run.storage", str(storage), "--model.backbone", "no_such", "--dry-run"]
        )
    assert done.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_wrong_trainer_flag_exits_with_2(make: Callable[..., sweep.Sweep]) -> None:
    with pytest.raises(SystemExit) as caught:
        make("--loss.bandwith", "1")
    assert caught.value.code == 2


# ------------------------------------------------------------------------------------------------- the study


def test_trial_0_is_the_recipe_itself(make: Callable[..., sweep.Sweep]) -> None:
    found = make("--loss.bandwidth", "2.5")
    search, _ = search_of(found)
    first, second = search.suggest("a")["configs"][0], search.suggest("b")["configs"][0]
    assert (first["loss"]["bandwidth"], first["model"]["multi_grid"]) == (2.5, False)
    assert (first["run"]["name"], first["run"]["storage"]) == ("trial_0000", str(found.folder))
    assert second["run"]["name"] == "trial_0001" and second["loss"]["bandwidth"] != 2.5


def test_recipe_outside_the_space_is_announced_and_not_forced_in(
    make: Callable[..., sweep.Sweep], capsys: pytest.CaptureFixture[str]
) -> None:
    search, _ = search_of(make("--loss.bandwidth", "8"))
    assert 0.25 <= search.suggest("a")["configs"][0]["loss"]["bandwidth"] <= 4
    expected = (
        "the recipe itself is not among the trials: its loss.bandwidth must be a real number in 0.25..4, "
    )
    assert expected + "got 8.0" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_killed_driver_loses_and_repeats_nothing(make: Callable[..., sweep.Sweep], sampler: str) -> None:
    found = make("--sampler", sampler)
    search, _ = search_of(found)
    before = [search.suggest(trial)["configs"][0] for trial in "abc"]
    search.on_trial_complete("a", report(9, 0.3, finished=True))  # b and c are still running: killed here
    again, study = search_of(found)
    after = [again.suggest(trial)["configs"][0] for trial in "xyzw"]
    assert after[:2] == before[1:]
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] + [TrialState.RUNNING] * 4
    drawn = [json.dumps(trial.params) for trial in study.trials]
    assert len(set(drawn)) == 5, "the second driver drew what the first had drawn"


def test_values_that_do_not_go_together_fail_their_trial_only(make: Callable[..., sweep.Sweep]) -> None:
    space = 'SPACE = {"optim.batch_size": choice(2, 8), "optim.accumulate": choice(1, 4)}'
    search, study = search_of(make("--sampler", "random", space=space))
    for number in range(12):
        proposed = search.suggest(str(number))
        drawn = study.trials[number].params
        impossible = (drawn["optim.batch_size"], drawn["optim.accumulate"]) == (2, 4)
        assert ("cannot be cut into" in proposed.get("error", "")) is impossible
        assert ("configs" in proposed) is not impossible
    seen = {tuple(trial.params.values()) for trial in study.trials}
    assert len(seen) == 4, "twelve draws of four combinations"


def test_other_settings_are_refused_and_named(make: Callable[..., sweep.Sweep]) -> None:
    refuse_other_sweep(make())
    refuse_other_sweep(make("--trials", "99", "--concurrent", "2", "--resources.workers", "0"))
    with pytest.raises(ValueError, match=r"a sweep with optim.epochs=\d+, this one has 3; give another"):
        refuse_other_sweep(make("--optim.epochs", "3"))
    with pytest.raises(ValueError, match=r"a sweep with space loss.bandwidth=.* this one has None"):
        refuse_other_sweep(make(space='SPACE = {"model.multi_grid": choice(True, False)}'))


def test_a_sweep_from_before_a_field_existed_goes_on(make: Callable[..., sweep.Sweep]) -> None:
    """As with --loss.em-steps at its default; another value is another sweep."""
    found = make()
    refuse_other_sweep(found)
    saved = json.loads((found.folder / "sweep.json").read_text())
    del saved["loss.em_steps"]
    (found.folder / "sweep.json").write_text(json.dumps(saved))
    refuse_other_sweep(found)
    (found.folder / "sweep.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"a sweep with loss.em_steps=1, this one has 4"):
        refuse_other_sweep(make("--loss.em-steps", "4"))


def test_a_run_is_no_place_for_a_sweep(make: Callable[..., sweep.Sweep]) -> None:
    found = make()
    (found.folder / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="holds a run"):
        refuse_other_sweep(found)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with runner._alone(tmp_path / "s"):
        with (
            pytest.raises(ValueError, match="another process runs this sweep"),
            runner._alone(tmp_path / "s"),
        ):
            pass
    with runner._alone(tmp_path / "s"):
        pass


# ------------------------------------------------------------------------------------------------ outcomes


def test_every_end_is_recorded(make: Callable[..., sweep.Sweep]) -> None:
    found = make()
    search, study = search_of(found)
    for trial in "abcd":
        search.suggest(trial)
    search.on_trial_complete("a", report(9, 0.25, finished=True))
    search.on_trial_complete("b", {"error": "loss not finite"})
    search.on_trial_complete("c", None, error=True)
    search.on_trial_complete("d", report(9, float("nan"), finished=True))
    written = results.write(found, study)
    assert written == json.loads((found.folder / "results.json").read_text())
    assert [trial["state"] for trial in written["trials"]] == ["finished", "failed", "failed", "failed"]
    assert [trial["error"] for trial in written["trials"]][:2] == [None, "loss not finite"]
    assert "process died" in written["trials"][2]["error"]
    assert (written["best"]["number"], written["best"]["val_miou"], written["best"]["steps"]) == (0, 0.25, 9)


def test_seeds_are_runs_of_one_trial_whose_mean_counts(make: Callable[..., sweep.Sweep]) -> None:
    found = make("--seeds", "3", "5")
    search, study = search_of(found)
    configs = search.suggest("a")["configs"]
    assert [(c["run"]["seed"], c["run"]["name"]) for c in configs] == [(3, "seed_3"), (5, "seed_5")]
    assert {c["run"]["storage"] for c in configs} == {str(found.folder / "trial_0000")}
    search.stop("a", report(9, 0.4, seed=3)), search.stop("a", report(9, 0.5, seed=5))
    assert study.trials[0].intermediate_values == pytest.approx({9: 0.4, 18: 0.45})
    scores = [{"miou": 0.4}, {"miou": 0.5}]
    search.on_trial_complete("a", report(9, 0.45, finished=True, scores=scores))
    written = results.write(found, study)["trials"][0]
    assert written["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert results.outcome(written, "val_miou") == "finished, val_miou 45.00 ± 7.07 %"
    assert "--run.seed 3" in results.command(found, {})
    with pytest.raises(ValueError, match=r"a sweep with seeds=\[3, 5\], this one has \[3\]"):
        refuse_other_sweep(found), refuse_other_sweep(make("--seeds", "3"))


def test_seeds_and_a_space_of_seeds_exclude_each_other(make: Callable[..., sweep.Sweep]) -> None:
    with pytest.raises(ValueError, match=r"--seeds: .* searches run.seed itself"):
        make("--seeds", "0", "1", space='SPACE = {"run.seed": choice(0, 1)}')


def test_only_the_best_trial_keeps_its_checkpoints(make: Callable[..., sweep.Sweep]) -> None:
    found = make("--keep", "best")
    search, study = search_of(found)
    for trial, miou in (("a", 0.2), ("b", 0.4), ("c", 0.3)):
        search.suggest(trial)
        folder = found.folder / f"trial_{'abc'.index(trial):04d}"
        (folder / "checkpoint_0000009").mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
        if trial != "c":  # still running
            search.on_trial_complete(trial, report(9, miou, finished=True))
    runner.drop_checkpoints(results.write(found, study))
    left = {path.parent.name for path in found.folder.rglob("checkpoint_*")}
    assert left == {"trial_0001", "trial_0002"}
    assert (found.folder / "trial_0000" / "metrics.jsonl").exists()


def test_command_repeats_the_trial(make: Callable[..., sweep.Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = make("--loss.bandwidth", "2", "--data.root", "my data", "--optim.max-steps", "4", "--run.fresh")
    params = {"loss.bandwidth": 0.1 + 0.2, "model.multi_grid": True}
    python, trainer, *words = shlex.split(results.command(found, params))
    assert (python, trainer) == ("python", "trainers/camvid.py")
    repeated, _ = command_line.parse(load_file(ROOT / trainer).recipe(), words)
    trial = config.from_dict(trial_configs(found, 7, params)[0])
    assert repeated.run.name == "s-best"
    assert dataclasses.replace(repeated, run=trial.run) == trial
    off = results.command(found, {"model.multi_grid": False})
    assert command_line.parse(trial, shlex.split(off)[2:])[0].model.multi_grid is False


def test_what_does_not_fit_is_refused_with_need_and_supply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}] * 2)
    settings = config.with_overrides(config.Config(), {"resources.workers": 2})
    assert launch.start_ray(settings, runs=2) == 0
    message = r"in 3 runs at once of 1 CPU and 0 GPU each: .* room for 4 \(CPU 4, GPU 0\); .* --concurrent"
    with pytest.raises(ValueError, match=message):
        launch.start_ray(settings, runs=3)
    # 6 CPUs in all, but no node has 3
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}] * 3)
    with pytest.raises(ValueError, match=r"of 3 CPU and 0 GPU each: .* room for 0 \(CPU 6, GPU 0\)"):
        launch.start_ray(config.with_overrides(settings, {"resources.cpus_per_worker": 3.0}))
    with pytest.raises(ValueError, match=r"say with --resources.gpus-per-worker 1 \(or 0\)"):
        launch.start_ray(config.with_overrides(settings, {"resources.wait_seconds": 9.0}))


def test_fractions_of_a_gpu_fit_as_often_as_they_should() -> None:
    assert cluster.places([(8, 1)], 1, 0.1) == 8
    assert cluster.places([(64, 1), (64, 0)], 1, 0.1) == 10
    assert cluster.places([(0.3, 0)], 0.1, 0) == 3
