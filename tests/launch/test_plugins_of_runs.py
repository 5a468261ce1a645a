"""A backbone of the user's own: in a run, in its workers, in a sweep, and from its checkpoint afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train.torch
import tiny
from heads import Head
from sweeping import ROOT, tiny_sweep

from sparseg import launch
from sparseg.config import Config, load, to_dict
from sparseg.launch import prepare, ray_train
from sparseg.runs import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")

NETS = """import timm
from timm.models import register_model


@register_model
def my_tiny_net(pretrained=False, **arguments):
    return timm.create_model("test_efficientnet", pretrained=pretrained, **arguments)
"""
RUN = {"model.backbone": "my_tiny_net", "run.plugins": ("my_tiny_nets",)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with the module, which is forgotten afterwards; timm keeps the entry point."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "my_tiny_nets.py").write_text(NETS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("my_tiny_nets", None)


def unknown_to_timm() -> None:
    """Forget the module and what it registered, as in a process that never heard of it."""
    from timm.models import _registry

    sys.modules.pop("my_tiny_nets", None)
    _registry._model_entrypoints.pop("my_tiny_net", None)


@pytest.fixture
def run(tmp_path: Path) -> Config:
    unknown_to_timm()
    tiny.dataset(tmp_path)
    return tiny.config(tmp_path, {**RUN, "optim.max_steps": 1})


def test_a_run_and_its_checkpoint_know_the_backbone(
    run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.launch(run)
    assert load(run.folder / "config.json").run.plugins == ("my_tiny_nets",)
    unknown_to_timm()
    assert checkpoint.load_model(run.folder).config.model.backbone == "my_tiny_net"
    assert "my_tiny_nets.py" in capsys.readouterr().err
    unknown_to_timm()
    (tmp_path / "here" / "my_tiny_nets.py").unlink()
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path / "here")]
    with pytest.raises(
        ValueError, match=r"checkpoint_0000001: its network was trained with the plugin my_tiny_nets"
    ):
        checkpoint.load_model(run.folder)


def test_a_file_goes_to_the_workers_by_its_absolute_path(run: Config, here: Path) -> None:
    config, _ = prepare.prepare(tiny.config(here.parent, {**RUN, "run.plugins": ("my_tiny_nets.py",)}))
    assert config.run.plugins == (str(here / "my_tiny_nets.py"),)


def test_a_missing_plugin_is_told_before_anything_starts(run: Config) -> None:
    with pytest.raises(ValueError, match=r"run\.plugins=no_such_nets: there is no module no_such_nets"):
        launch.launch(tiny.config(run.folder.parents[1], {"run.plugins": ("no_such_nets",)}))
    assert not run.folder.exists()


def test_a_backbone_that_timm_lacks_is_told_with_the_flag(run: Config) -> None:
    with pytest.raises(ValueError, match=r"timm has no 'my_tiny_net'; .*--run\.plugins"):
        launch.launch(tiny.config(run.folder.parents[1], {"model.backbone": "my_tiny_net"}))


def test_a_worker_in_another_folder_gets_the_drivers_path(
    run: Config, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver gives to Ray Train is enough for a process that shares nothing with it but the disk."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", lambda worker, **given: made.append(given))
    ray_train._trainer(prepare.prepare(run)[0], run.data.root, [], 0.0)
    (tmp_path / "arguments.json").write_text(json.dumps(made[0]["train_loop_config"]))
    code = """
import json, os, ray.train, ray.train.torch, torch
from sparseg.launch import ray_train
class Context:
    get_world_rank = get_node_rank = get_local_rank = lambda self: 0
    get_world_size = get_local_world_size = lambda self: 1
ray.train.get_context, ray.train.get_preemption_info = Context, lambda: None
ray.train.torch.get_device = lambda: torch.device("cpu")
ray_train._worker(json.load(open("arguments.json")))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((run.folder / ray_train.RESULT_FILE).read_text())
    assert result["steps"] == 1, result


@pytest.mark.slow
def test_a_sweep_on_ray_knows_the_backbone_in_driver_trial_and_worker(
    tmp_path: Path, here: Path, ray_head: Head
) -> None:
    command, folder = tiny_sweep(tmp_path, "--trials", "1", workers=1)
    values = to_dict(tiny.config(tmp_path, {**RUN, "optim.max_steps": 1, "resources.workers": 1}))
    (tmp_path / "run.json").write_text(json.dumps(values))
    command[1] = str(ROOT / "trainers" / "sweep.py")
    environment = {**os.environ, "RAY_ADDRESS": ray_head.address, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (trial,) = json.loads((folder / "results.json").read_text())["trials"]
    assert (trial["state"], trial["error"]) == ("finished", None)
