"""What goes wrong on a cluster, done for real: a node taken away, a hung worker, a store or a head gone."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from driving import LIMIT_S, Driver, logged, newest_step, s3_server, wait_until, workers

from sparseg.common import object_store, process
from sparseg.runs import background_save, checkpoint
from sparseg.train import loop, state

pytestmark = pytest.mark.slow
LONG = {"optim.max_steps": 4000, "optim.epochs": 4000, "run.validate_every": 9999.0}


@pytest.fixture
def cluster(fast_ray: None) -> Iterator[Any]:
    """A head without CPUs, and two nodes of one CPU each: cluster, and its nodes in `nodes`."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    made.shutdown()


def drain(address: str, node: Any, seconds: int) -> None:
    """What a cloud's spot notice becomes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address]
    command += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot", "--deadline-remaining-seconds", str(seconds)]
    subprocess.run(command, check=True, capture_output=True)


def test_a_node_that_will_be_taken_away_makes_the_run_save_before_it_goes(
    cluster: Any, tmp_path: Path
) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(
        tmp_path,
        {**LONG, "resources.workers": 2, "resources.min_workers": 1, "resources.resize_seconds": 5.0},
    )
    driver = Driver(settings, tmp_path, cluster.address)
    driver.says("step 3/")
    # on a busy machine Ray begins with the one worker whose node it has heard of, and grows
    assert wait_until(lambda: len(workers()) == 2, LIMIT_S), driver.output
    driver.says("| ETA")
    before = checkpoint.all_of(settings.folder)
    drain(cluster.address, cluster.nodes[1], 100)
    driver.says("1 of the run's nodes will be taken away")
    assert wait_until(lambda: checkpoint.all_of(settings.folder)[-1:] != before[-1:], 100)
    cluster.remove_node(cluster.nodes[1], allow_graceful=False)
    saved = checkpoint.all_of(settings.folder)
    line = driver.says("going on after step ")
    assert f"step {saved[-1].name.split('_')[1].lstrip('0')} with 1 workers" in line
    driver.says("| ETA")
    driver.interrupt()
    assert driver.code() == 130, driver.output


def test_a_head_that_dies_ends_the_command_and_the_run_can_go_on_elsewhere(
    tmp_path: Path, fast_ray: None, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.cluster_utils import Cluster

    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {**LONG, "resources.workers": 1, "run.checkpoint_every": 5})
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    driver = Driver(settings, tmp_path, head.address)
    driver.says("step 8/")
    head.remove_node(head.head_node, allow_graceful=False)
    assert driver.code() == 1, driver.output
    error = next(line for line in driver.lines if line.startswith("error: "))
    assert f"the same command goes on from {settings.folder}/checkpoint_" in error
    assert wait_until(lambda: not workers(), 100), workers()
    loop.run(settings, should_stop=lambda: True)  # as a new head would: all is in its folder
    assert int(capfd.readouterr().out.split("going on after step ")[1].split()[0]) >= 5
    steps = [line["step"] for line in logged(settings)]
    assert steps == list(range(1, len(steps) + 1))


def quick_saver(folder: Path) -> background_save.Saver:
    return background_save.Saver(folder, waits_s=(0.1, 0.1))


def test_a_store_that_goes_away_ends_the_run_after_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "Saver", quick_saver)
    monkeypatch.setattr(state.RunLog, "pause", lambda self: time.sleep(0.2))  # a save takes its time
    tiny.dataset(tmp_path)
    mirror = {"run.storage": "s3://store-that-goes/runs", "run.mirror": str(tmp_path / "mirror")}
    settings = tiny.config(
        tmp_path, {**mirror, "run.checkpoint_every": 4, "optim.max_steps": 40, "optim.epochs": 99}
    )
    with s3_server() as variables:
        for name, value in {**variables, "AWS_MAX_ATTEMPTS": "1"}.items():
            monkeypatch.setenv(name, value)
        port = int(variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
        store, _ = object_store.filesystem("s3://store-that-goes/runs")
        store.retries = 1
        store.mkdir("store-that-goes")
        failures: list[BaseException] = []

        def run() -> None:
            try:
                loop.run(settings)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert wait_until(lambda: newest_step(settings) >= 9, LIMIT_S)
    thread.join(LIMIT_S)
    assert isinstance(failures[0], background_save.SaveError)
    text = str(failures[0])
    assert "could not be written" in text and "the last good one is that of step " in text, text
    good = int(text.split("that of step ")[1].split(";")[0])
    assert "again in 0.1 s" in capfd.readouterr().err
    with s3_server(port):
        assert loop.run(settings)["steps"] == 40
    resumed = int(re.search(r"going on after step (\d+) ", capfd.readouterr().out)[1])
    # the store may hold the checkpoint that was being sent, whose answer was lost when it went away
    assert good <= resumed <= good + 4
    assert [line["step"] for line in logged(settings)] == list(range(1, 41))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "sparseg", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_one_line_and_room_lets_it_go_on(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.dataset(tmp_path)
    monkeypatch.setattr(state, "Saver", quick_saver)
    settings = tiny.config(
        tmp_path,
        {
            "run.storage": str(small_disk),
            "run.checkpoint_every": 2,
            "run.keep": 9,
            "optim.max_steps": 12,
            "optim.epochs": 99,
        },
    )
    code = process.guarded(lambda: loop.run(settings))
    assert code == 1
    saved = checkpoint.all_of(settings.folder)
    assert saved and not list(settings.folder.glob(".partial-*"))
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert loop.run(settings)["steps"] == 12
    assert [line["step"] for line in logged(settings)] == list(range(1, 13))
