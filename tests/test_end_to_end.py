"""Runs on a real local Ray, each in a process of its own, the way a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from sparseg import checkpoint, config, shards

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from sparseg import config, exits, launch
settings = config.load(sys.argv[1])
raise SystemExit(exits.guarded(lambda: launch.finish(settings)))
"""


def start(settings: config.Config, folder: Path) -> subprocess.Popen[str]:
    """The run in its own process, stdout and stderr in one pipe."""
    file = folder / f"{settings.run.name}.json"
    file.write_text(json.dumps(config.to_dict(settings)))
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "RAY_AUTH_MODE": "disabled"},
    )


def wait(
    process: subprocess.Popen[str], until: Callable[[str], bool] = lambda line: False
) -> tuple[int, str]:
    """(exit code, output); at a line for which `until` is true the process is left alive, with code -1."""
    output = []
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if until(line):
            return -1, "".join(output)
    return process.wait(timeout=60), "".join(output)


def lines(settings: config.Config, kind: str = "train") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def test_two_ray_workers_do_the_arithmetic_of_one_process(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    alone = tiny.config(tmp_path, {"run.name": "alone", "optim.learning_rate": 1e-3})
    two = config.with_overrides(alone, {"run.name": "two", "resources.workers": 2})
    for settings in (alone, two):
        code, output = wait(start(settings, tmp_path))
        assert code == 0, output
    assert json.loads((two.folder / "environment.json").read_text())["workers"] == 2
    first, second = lines(alone), lines(two)
    assert len(first) == len(second) == 6
    for one, other in zip(first, second, strict=True):
        for term in ("seg", "mix", "label", "sep", "absent", "total"):
            assert other[term] == pytest.approx(one[term], rel=1e-4, abs=1e-6), (one["step"], term)
    assert lines(alone, "val")[-1]["iou"].keys() == lines(two, "val")[-1]["iou"].keys()


def test_killed_worker_is_replaced_and_interrupt_leaves_a_resumable_run(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(
        tmp_path,
        {"resources.workers": 1, "optim.max_steps": 4000, "optim.epochs": 4000, "run.checkpoint_every": 5},
    )
    process = start(settings, tmp_path)
    code, output = wait(process, lambda line: "step 7/" in line)
    assert code == -1, output
    assert process.stdout is not None
    worker = int(output.split("(RayTrainWorker pid=")[-1].split(")")[0].split(",")[0])
    os.kill(worker, signal.SIGKILL)
    code, output = wait(process, lambda line: "going on after step" in line)
    assert code == -1, output
    resumed = int(output.split("going on after step ")[1].split()[0])
    assert resumed >= 5  # the last save, not the start
    wait(process, lambda line: "| ETA" in line)
    process.send_signal(signal.SIGINT)
    code, output = wait(process)
    assert code == 130, output
    assert "the same command goes on from there" in output
    newest = checkpoint.all_of(settings.folder)[-1]
    assert not list(settings.folder.glob(".partial-*"))
    steps = [line["step"] for line in lines(settings)]
    assert steps == list(range(1, int(newest.name.split("_")[1]) + 1))  # no gap, no repeat


def test_a_run_in_s3_is_stopped_and_goes_on_without_its_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two Ray workers, a real S3 server on loopback; what the first half left on this node is deleted."""
    pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        store, _ = shards.filesystem("s3://bucket-of-runs/runs")
        store.mkdir("bucket-of-runs")  # moto forgets nothing while the process lives
        tiny.dataset(tmp_path)
        settings = tiny.config(
            tmp_path,
            {
                "run.storage": "s3://bucket-of-runs/runs",
                "run.mirror": str(tmp_path / "mirror"),
                "run.checkpoint_every": 5,
                "resources.workers": 2,
                "optim.max_steps": 4000,
                "optim.epochs": 4000,
            },
        )
        process = start(settings, tmp_path)
        code, output = wait(process, lambda line: "step 7/" in line)
        assert code == -1, output
        process.send_signal(signal.SIGINT)
        code, output = wait(process)
        assert code == 130, output
        steps = [line["step"] for line in lines(settings)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 7
        shutil.rmtree(tmp_path / "mirror")
        process = start(settings, tmp_path)
        code, output = wait(process, lambda line: f"going on after step {len(steps)} " in line)
        assert code == -1, output
        wait(process, lambda line: "| ETA" in line)
        process.send_signal(signal.SIGINT)
        code, output = wait(process)
        assert code == 130, output
        assert len(lines(settings)) > len(steps)
    finally:
        server.stop()


def test_more_workers_than_the_cluster_has_is_one_line_and_code_2(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 4, "resources.cpus_per_worker": 1000})
    code, output = wait(start(settings, tmp_path))
    assert code == 2, output
    error = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "needs 4000 CPU" in error[0] and "the cluster has CPU" in error[0]
    assert not settings.folder.exists()
