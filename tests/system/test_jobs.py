"""A job's life with the real dashboard: submit, status, logs, stop, and the next submit goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from driving import logged, wait_until, workers
from heads import RAY, Head
from sweeping import tiny_sweep

from sparseg import config

pytestmark = pytest.mark.slow


def job(address: str, *words: str) -> str:
    """`ray job WORDS` -> what it prints."""
    verb, *rest = words
    done = subprocess.run(
        [*RAY, "job", verb, "--address", address, *rest], capture_output=True, text=True, cwd=tiny.ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def logs_with(address: str, name: str, text: str, seconds: float = 120) -> str:
    end_s = time.monotonic() + seconds
    while text not in (found := job(address, "logs", name)):
        assert time.monotonic() < end_s, found
        time.sleep(1)
    return found


def test_a_job_is_submitted_followed_stopped_and_goes_on(ray_head: Head, tmp_path: Path) -> None:
    dashboard = ray_head.dashboard
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 1, "optim.max_steps": 4000, "optim.epochs": 4000})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict(settings)))
    submit = ["submit", "--no-wait", "--working-dir", ".", "--runtime-env", "cluster/runtime_env.yaml"]
    command = ["--", sys.executable, "trainers/folder.py", "--config", str(file)]
    job(dashboard, *submit, "--submission-id", "first", *command)
    text = logs_with(dashboard, "first", "step 3/4000")
    line = next(line for line in text.splitlines() if "step 3/4000" in line)
    for word in ("[tiny]", "epoch", "seg", "mix", "lr", "img/s", "ETA"):
        assert word in line
    assert "RUNNING" in job(dashboard, "status", "first")
    job(dashboard, "stop", "first")
    assert "was stopped" in job(dashboard, "status", "first")
    assert wait_until(lambda: not workers(), 30), workers()
    done = len(logged(settings))
    job(dashboard, *submit, "--submission-id", "second", *command)
    logs_with(dashboard, "second", f"going on after step {done} with 1 workers")
    logs_with(dashboard, "second", f"step {done + 1}/4000")
    job(dashboard, "stop", "second")


def test_a_sweep_is_submitted(ray_head: Head, tmp_path: Path) -> None:
    command, folder = tiny_sweep(tmp_path, workers=1)
    submit = ["submit", "--working-dir", ".", "--runtime-env", "cluster/runtime_env.yaml"]
    told = job(ray_head.dashboard, *submit, "--submission-id", "sweep", "--", *command)
    assert "[s] trial 1 failed: " in told
    assert "succeeded" in told
    found = json.loads((folder / "results.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["finished", "failed"]
    assert "best: trial 0" in told
