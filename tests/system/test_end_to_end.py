"""Runs on a real local Ray, each in a process of its own, the way a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import tiny
from driving import Driver, logged, s3_server, wait_until, workers
from heads import Head, head

from sparseg import config
from sparseg.common import object_store
from sparseg.runs import checkpoint
from sparseg.train import loop

pytestmark = pytest.mark.slow


def test_two_ray_workers_do_the_arithmetic_of_one_process(tmp_path: Path, ray_head: Head) -> None:
    tiny.dataset(tmp_path)
    alone = tiny.config(tmp_path, {"run.name": "alone", "optim.learning_rate": 1e-3})
    two = config.with_overrides(alone, {"run.name": "two", "resources.workers": 2})
    loop.run(alone)
    driver = Driver(two, tmp_path, ray_head.address)
    assert driver.code() == 0, driver.output
    nothing_left(driver, two)
    assert json.loads((two.folder / "environment.json").read_text())["workers"] == 2
    first, second = logged(alone), logged(two)
    assert len(first) == len(second) == 6
    for one, other in zip(first, second, strict=True):
        for term in ("seg", "mix", "label", "sep", "absent", "total"):
            assert other[term] == pytest.approx(one[term], rel=1e-4, abs=1e-6), (one["step"], term)
    assert logged(alone, "val")[-1]["iou"].keys() == logged(two, "val")[-1]["iou"].keys()


def nothing_left(driver: Driver, settings: config.Config) -> None:
    """No process of the run is alive, no temporary file lies in its folder."""
    assert wait_until(lambda: not driver.left(), 100), driver.left()
    hidden = {path.name for path in settings.folder.rglob(".*")}
    assert hidden <= {".owner"}, hidden


def test_a_killed_worker_is_replaced_a_hung_one_reported_and_ctrl_c_leaves_a_resumable_run(
    tmp_path: Path, ray_head: Head
) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(
        tmp_path,
        {
            "resources.workers": 2,
            "optim.max_steps": 4000,
            "optim.epochs": 4000,
            "run.checkpoint_every": 25,
            "run.validate_every": 9999.0,
            "run.hang_seconds": 4.0,
            # few lines, because at each of them Ray is asked for news, and a rank may wait there, too
            "run.log_every": 50,
        },
    )
    driver = Driver(settings, tmp_path, ray_head.address)
    driver.says("step 50/")
    os.kill(workers()[0], signal.SIGKILL)
    resumed = int(driver.says("going on after step ").split("going on after step ")[1].split()[0])
    assert resumed >= 25  # the last save, not the start
    driver.says("| ETA")
    hung, _ = sorted(workers())
    os.kill(hung, signal.SIGSTOP)
    try:
        report = driver.says("no step for")
        assert "[tiny] rank " in report and " on " in report
        driver.says("all_reduce")  # where it waits
    finally:
        os.kill(hung, signal.SIGCONT)
    driver.says("| ETA")
    driver.interrupt()
    assert driver.code() == 130, driver.output
    assert "the same command goes on from there" in driver.output
    nothing_left(driver, settings)
    saved = int(checkpoint.all_of(settings.folder)[-1].name.split("_")[1])
    steps = [line["step"] for line in logged(settings)]
    assert steps == list(range(25, saved + 1, 25))  # no gap, no repeat


def test_a_run_in_s3_is_stopped_and_goes_on_without_its_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two Ray workers, a real S3 server on loopback; what the first half left on this node is deleted."""
    with s3_server() as variables, head(tmp_path / "head.log", environment=variables) as found:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        store, _ = object_store.filesystem("s3://bucket-of-runs/runs")
        store.mkdir("bucket-of-runs")
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
        driver = Driver(settings, tmp_path, found.address)
        driver.says("step 7/")
        driver.interrupt()
        assert driver.code() == 130, driver.output
        steps = [line["step"] for line in logged(settings)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 7
        shutil.rmtree(tmp_path / "mirror")
        loop.run(settings, should_stop=lambda: True)  # another number of workers, the same run
        assert f"going on after step {len(steps)} " in capsys.readouterr().out
        assert [line["step"] for line in logged(settings)] == [*steps, len(steps) + 1]


def test_a_run_that_fails_says_why_once_and_leaves_nothing(tmp_path: Path, ray_head: Head) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 1, "optim.learning_rate": 1e30})
    driver = Driver(settings, tmp_path, ray_head.address)
    assert driver.code() == 1, driver.output
    errors = [line for line in driver.lines if line.startswith("error: ")]
    assert len(errors) == 1 and "not finite at step" in errors[0]
    nothing_left(driver, settings)


def test_a_ray_of_its_own_starts_beside_a_dead_heads_note_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start --head` leaves its address behind when it is killed."""
    temp = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # Ray's sockets need a short path
    monkeypatch.setenv("TMPDIR", str(temp))
    monkeypatch.setenv("RAY_TMPDIR", str(temp))
    (temp / "ray").mkdir()
    note = temp / "ray" / "ray_current_cluster"
    note.write_text("127.0.0.1:1")
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 1})
    driver = Driver(settings, tmp_path)
    driver.says("no Ray answers at 127.0.0.1:1")
    assert driver.code() == 0, driver.output
    nothing_left(driver, settings)
    assert not note.exists()
    left = {path.name for path in temp.iterdir() if not path.name.startswith("torchinductor_")}
    assert left <= {"ray"}, left  # Ray's logs, and torch's cache
    shutil.rmtree(temp)


def test_a_cluster_too_small_is_one_line_and_code_2(tmp_path: Path, ray_head: Head) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 4, "resources.cpus_per_worker": 1000})
    driver = Driver(settings, tmp_path, ray_head.address)
    assert driver.code() == 2, driver.output
    error = [line for line in driver.lines if line.startswith("error: ")]
    assert len(error) == 1 and "workers=4 of 1000 CPU" in error[0] and "room for 0 " in error[0]
    assert "--resources.wait-seconds" in error[0]
    assert not settings.folder.exists()
