"""A job's life with the real dashboard: submit, status, logs, stop; its run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from driving import LIMIT_S, logged, wait_until, workers
from heads import RAY, Head
from ray.job_submission import JobStatus, JobSubmissionClient
from sweeping import tiny_sweep

from sparseg import config
from sparseg.train import loop

pytestmark = pytest.mark.slow


def submit(address: str, name: str, command: list[str], *options: str) -> str:
    """`ray job submit` of a command with the working directory of the documentation -> what it prints."""
    words = ["submit", "--address", address, "--submission-id", name, *options, "--working-dir", "."]
    done = subprocess.run(
        [*RAY, "job", *words, "--runtime-env", "cluster/runtime_env.yaml", "--", *command],
        capture_output=True,
        text=True,
        cwd=tiny.ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_job_is_submitted_followed_stopped_and_goes_on(
    ray_head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 1, "optim.max_steps": 4000, "optim.epochs": 4000})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict(settings)))
    submit(
        ray_head.dashboard,
        "first",
        [sys.executable, "trainers/folder.py", "--config", str(file)],
        "--no-wait",
    )
    client = JobSubmissionClient(ray_head.dashboard)
    assert wait_until(lambda: "step 3/4000" in client.get_job_logs("first"), LIMIT_S, pause_s=0.5)
    line = next(line for line in client.get_job_logs("first").splitlines() if "step 3/4000" in line)
    for word in ("[tiny]", "epoch", "seg", "mix", "lr", "img/s", "ETA"):
        assert word in line
    assert client.get_job_status("first") == JobStatus.RUNNING
    client.stop_job("first")
    assert wait_until(lambda: client.get_job_status("first") == JobStatus.STOPPED, LIMIT_S)
    assert wait_until(lambda: not workers(), 100), workers()
    loop.run(settings, should_stop=lambda: True)
    assert "going on after step " in capsys.readouterr().out
    steps = [line["step"] for line in logged(settings)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 3


def test_a_sweep_is_submitted(ray_head: Head, tmp_path: Path) -> None:
    """Its trial has a Ray worker; test_sweep_on_ray has trials without, and one that fails."""
    command, folder = tiny_sweep(tmp_path, "--trials", "1", workers=1)
    told = submit(ray_head.dashboard, "sweep", ["env", "SPARSEG_COMMIT=0123abc", *command])
    assert "succeeded" in told
    found = json.loads((folder / "results.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["finished"]
    assert "best: trial 0" in told
    environment = json.loads((folder / "trial_0000" / "environment.json").read_text())
    assert environment["commit"] == "0123abc"  # the upload has no .git; said to driver, trial and worker
