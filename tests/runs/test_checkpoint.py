"""Checkpoints appear whole or not at all, describe themselves, and refuse in one line what is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import tiny
import torch
import torch.multiprocessing as mp

from sparseg.config import Config, with_overrides
from sparseg.network import segmenter as networks
from sparseg.runs import checkpoint
from sparseg.train import loop

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")

PALETTE = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]


def network(config: Config) -> networks.Segmenter:
    torch.manual_seed(0)
    return networks.build(config.model, len(tiny.NAMES), quiet=True)


def save(config: Config, step: int, miou: float | None = 0.5) -> Path:
    model = network(config)
    return checkpoint.save(
        config.folder,
        step,
        model.state_dict(),
        {"step": step, "values": [1.5, None]},
        config=config,
        names=tiny.NAMES,
        palette=PALETTE,
        miou=miou,
    )


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny.config(tmp_path)


# ---------------------------------------------------------------------------------------------- save and load


def test_a_copied_checkpoint_is_enough_to_predict(config: Config, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / "model"
    shutil.copytree(save(config, 7), copied)
    shutil.rmtree(config.folder)
    loaded = checkpoint.load_model(copied)
    assert (loaded.names, loaded.palette, loaded.config) == (tiny.NAMES, PALETTE, config)
    assert loaded.metadata["step"] == "7" and loaded.metadata["miou"] == "0.5"
    assert not loaded.model.training
    picture = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    saved = network(config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.equal(loaded.model(picture)[1], saved(picture)[1])


def test_weights_given_at_the_start_are_not_needed_again(config: Config) -> None:
    moved = with_overrides(config, {"model.weights": "/gone/weights.safetensors"})
    model = network(config)
    path = checkpoint.save(
        moved.folder, 1, model.state_dict(), {}, config=moved, names=tiny.NAMES, palette=PALETTE, miou=None
    )
    assert checkpoint.load_model(path).metadata["miou"] == ""


def test_state_comes_back(config: Config) -> None:
    tensors, state = checkpoint.load_state(save(config, 3))
    assert state == {"step": 3, "values": [1.5, None]}
    for name, value in network(config).state_dict().items():
        assert torch.equal(tensors[name], value)


def test_saving_a_step_again_replaces_it(config: Config) -> None:
    first = save(config, 3, 0.25)
    assert save(config, 3, 0.75) == first
    assert checkpoint.load_model(first).metadata["miou"] == "0.75"
    assert [path.name for path in config.folder.iterdir()] == [first.name]


def test_a_run_folder_stands_for_its_best_checkpoint_or_its_newest(config: Config) -> None:
    first, second = save(config, 1), save(config, 2)
    assert checkpoint.resolve(config.folder) == second
    checkpoint.mark_best(config.folder, first)
    assert checkpoint.resolve(config.folder) == first == checkpoint.best(config.folder)
    assert checkpoint.resolve(second) == second
    shutil.rmtree(first)
    assert checkpoint.resolve(config.folder) == second


# ----------------------------------------------------------------------------------------------------- killed

OFTEN = {"run.checkpoint_every": 2, "run.validate_every": 99.0}


def killed_while_saving(rank: int, folder: str, where: str) -> None:
    """A run that is killed when the first 1,000 bytes of a file of its second checkpoint are written."""
    write, save = safetensors.torch.save_file, torch.save

    def kill(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

    def save_file(tensors: Any, path: Path, metadata: Any = None) -> None:
        write(tensors, path, metadata=metadata)
        if "0000004" in str(path) and where == "model":
            kill(path)

    def save_state(state: Any, path: Path) -> None:
        save(state, path)
        if "0000004" in str(path) and where == "state":
            kill(path)

    safetensors.torch.save_file, torch.save = save_file, save_state
    loop.run(tiny.config(Path(folder), OFTEN))


@pytest.mark.parametrize("where", ["model", "state"])
def test_a_kill_while_saving_leaves_no_half_checkpoint(tmp_path: Path, where: str) -> None:
    tiny.dataset(tmp_path)
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        tiny.start_processes(killed_while_saving, (str(tmp_path), where), 1)
    config = tiny.config(tmp_path, OFTEN)
    assert [path.name for path in config.folder.glob("checkpoint_*")] == [checkpoint.name_of(2)]
    assert len(list(config.folder.glob(".partial-*"))) == 1
    assert loop.run(config)["steps"] == 6
    steps = [json.loads(line)["step"] for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 6]  # six of training, one of validation
    assert list(config.folder.glob(".partial-*")) == []
    assert checkpoint.load_model(config.folder).metadata["step"] == "6"


# ------------------------------------------------------------------------------------------------------ prune


def fake(config: Config, step: int) -> Path:
    path = config.folder / checkpoint.name_of(step)
    path.mkdir(parents=True)
    (path / "state.pt").touch()
    return path


@pytest.mark.parametrize(
    ("best", "keep", "left"), [(1, 2, [1, 4, 5]), (5, 2, [4, 5]), (None, 1, [5]), (3, 9, [1, 2, 3, 4, 5])]
)
def test_prune_keeps_the_best_and_the_newest(
    config: Config, best: int | None, keep: int, left: list[int]
) -> None:
    paths = {step: fake(config, step) for step in range(1, 6)}
    half = config.folder / f".partial-{checkpoint.name_of(6)}"
    half.mkdir()
    (config.folder / "metrics.jsonl").touch()
    if best is not None:
        checkpoint.mark_best(config.folder, paths[best])
    checkpoint.prune(config.folder, keep, 99)
    assert [path.name for path in checkpoint.all_of(config.folder)] == [
        checkpoint.name_of(step) for step in left
    ]
    assert not half.exists() and (config.folder / "metrics.jsonl").exists()


def test_checkpoints_are_listed_by_step_and_only_if_whole(config: Config) -> None:
    for step in (10, 9, 100):
        fake(config, step)
    (config.folder / checkpoint.name_of(50)).mkdir()
    names = [path.name for path in checkpoint.all_of(config.folder)]
    assert names == [checkpoint.name_of(step) for step in (9, 10, 100)]
    assert checkpoint.all_of(config.folder / "nowhere") == []


def test_prune_removes_damaged_checkpoints_of_later_steps(config: Config) -> None:
    """After a fall back to step 2 the run saves step 3; what was called step 5 is of another try."""
    for step in (1, 2, 3, 5):
        fake(config, step)
    checkpoint.mark_best(config.folder, config.folder / checkpoint.name_of(5))
    checkpoint.prune(config.folder, 2, 3)
    assert [path.name for path in checkpoint.all_of(config.folder)] == [
        checkpoint.name_of(2),
        checkpoint.name_of(3),
    ]


def test_a_kill_while_deleting_leaves_no_half_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        fake(config, step)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)  # dies before it deletes
    checkpoint.prune(config.folder, 1, 3)
    assert [path.name for path in config.folder.glob("checkpoint_*")] == [checkpoint.name_of(3)]
    monkeypatch.undo()
    checkpoint.prune(config.folder, 1, 3)
    assert [path.name for path in config.folder.iterdir()] == [checkpoint.name_of(3)]


# ---------------------------------------------------------------------------------------------------- damaged


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[:-7])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["gone", "truncated", "one bit"])
def test_a_damaged_newest_checkpoint_is_passed_over(config: Config, name: str, how: str) -> None:
    good, bad = save(config, 3), save(config, 5)
    checkpoint.verify(bad)
    if (name, how) == ("manifest.json", "one bit"):
        text = (bad / name).read_text()
        (bad / name).write_text(text.replace('"bytes": ', '"bytes": 1'))
    else:
        damage(bad / name, how)
    heard: list[str] = []
    found = checkpoint.newest(config.folder, warn=heard.append)
    assert found is not None and found[0] == good and found[2]["step"] == 3
    if (name, how) == ("state.pt", "gone"):
        return  # no checkpoint at all
    assert len(heard) == 1 and str(bad) in heard[0]


def test_a_run_all_of_whose_checkpoints_are_damaged_does_not_start_anew_in_silence(config: Config) -> None:
    for step in (3, 5):
        damage(save(config, step) / "model.safetensors", "one bit")
    with pytest.raises(ValueError, match=r"all 2 checkpoints are damaged.*--run\.fresh"):
        checkpoint.newest(config.folder)
    assert checkpoint.newest(config.folder / "nowhere") is None


def test_another_version_of_the_format_is_not_read(config: Config) -> None:
    path = save(config, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))
    with pytest.raises(ValueError, match=r"version 1 of the format, this sparseg reads 2"):
        checkpoint.verify(path)


# -------------------------------------------------------------------------------------------- what is refused


def refused(path: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        checkpoint.load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 200, -100], ids=str)
def test_truncated_safetensors_are_refused(config: Config, keep: int) -> None:
    file = save(config, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(config.folder, r"model\.safetensors: cannot be read")


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(tmp_path, r"model\.safetensors: not a sparseg checkpoint")
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    refused(tmp_path, r"model\.safetensors: not a sparseg checkpoint")


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "neither a checkpoint")
    refused(tmp_path / "nowhere", "nowhere: neither a checkpoint")


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_resuming_from_a_damaged_checkpoint_names_the_file(config: Config, name: str) -> None:
    file = save(config, 1) / name
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        checkpoint.load_state(file.parent)
    assert "\n" not in str(caught.value)


def test_a_state_that_would_run_code_is_refused(config: Config) -> None:
    path = save(config, 1)
    torch.save({"step": os.getcwd}, path / "state.pt")
    with pytest.raises(Exception, match=r"state.pt|[Ww]eights.only|Unsupported"):
        checkpoint.load_state(path)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"loss.bandwidth": 0.5}, "loss.bandwidth=1.0, this one has 0.5"),
        ({"data.crop_px": 64}, "data.crop_px=32"),
        ({"optim.max_steps": 99}, "optim.max_steps=6"),
        ({"run.seed": 5}, "run.seed=0"),
        ({"model.backbone": "resnet18"}, "model.backbone=test_efficientnet"),
    ],
)
def test_another_run_of_the_same_name_is_refused_by_field(
    config: Config, overrides: dict[str, Any], named: str
) -> None:
    other = with_overrides(config, overrides)
    config.folder.mkdir(parents=True)
    (config.folder / "config.json").write_text(json.dumps(checkpoint.configuration.to_dict(config)))
    checkpoint.refuse_other_run(other)  # nothing trained yet
    fake(config, 1)
    with pytest.raises(ValueError, match=rf"{named}.*--run\.name.*--run\.fresh"):
        checkpoint.refuse_other_run(other)
    free = {
        "resources.workers": 4,
        "run.log_every": 5,
        "run.keep": 7,
        "data.loader_processes": 2,
        "data.root": "x",
    }
    checkpoint.refuse_other_run(with_overrides(config, free))


def test_the_commit_of_an_upload_is_what_the_submitted_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEG_COMMIT", "0123abc")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "checkpoint.py"))
    assert checkpoint.commit() == "0123abc"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(
        ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True
    )
    assert re.fullmatch("[0-9a-f]{40}", checkpoint.commit())  # the checkout knows better
