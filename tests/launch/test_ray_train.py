"""What Ray Train is asked for, and what its workers tell it; Ray itself is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import ray.train.torch
import tiny
import torch

from sparseg import launch
from sparseg.config import Config, to_dict, with_overrides
from sparseg.launch import ray_train

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


class OneWorker:
    """ray.train.get_context() of a run with a single worker."""

    get_world_rank = get_node_rank = get_local_rank = lambda self: 0
    get_world_size = get_local_world_size = lambda self: 1


class InThisProcess:
    """Stands for TorchTrainer: keeps what it was given, and runs the worker here."""

    made: Any = None

    def __init__(self, worker: Any, **given: Any) -> None:
        self.worker, self.given = worker, given
        InThisProcess.made = self

    def fit(self) -> None:
        self.worker(self.given["train_loop_config"])


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of ray.train.report; one worker, in this process."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray.train, "report", calls.append)
    monkeypatch.setattr(ray.train, "get_context", OneWorker)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", InThisProcess)
    monkeypatch.setattr(ray, "nodes", lambda: [{}])
    monkeypatch.setattr(ray_train, "start_ray", lambda config: 0.0)
    return calls


@pytest.fixture
def run(tmp_path: Path) -> Config:
    tiny.dataset(tmp_path)
    return tiny.config(tmp_path, {"resources.workers": 1, "resources.threads_per_worker": 1})


def test_a_run_that_nobody_listens_to_reports_nothing(run: Config, reported: list[dict[str, Any]]) -> None:
    result = launch.launch(run)
    assert result["steps"] == result["total_steps"] == 6
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "val"] == [2, 4, 6]
    assert reported == []
    assert InThisProcess.made.given["run_config"].callbacks == []


def test_a_sweep_hears_of_every_validation(run: Config, reported: list[dict[str, Any]]) -> None:
    class Listener(ray.train.UserCallback):
        pass

    listener = Listener()
    launch.launch(run, callbacks=[listener])
    assert [line["step"] for line in reported] == [2, 4, 6]
    assert InThisProcess.made.given["run_config"].callbacks == [listener]


def test_failures_and_preemptions_are_bounded_apart(run: Config, reported: list[dict[str, Any]]) -> None:
    resources = {"resources.max_failures": 2, "resources.max_preemptions": 5, "optim.max_steps": 1}
    for changes, expected in [(resources, (2, 5)), ({"optim.max_steps": 1, "run.name": "other"}, (3, 100))]:
        launch.launch(changed := with_overrides(run, changes))
        failure = InThisProcess.made.given["run_config"].failure_config
        assert (failure.max_failures, failure.max_preemption_failures) == expected
        assert InThisProcess.made.given["train_loop_config"]["config"] == to_dict(changed)
