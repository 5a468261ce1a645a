"""Start a run's command in a process of its own, watch it, find its workers; an S3 server on loopback."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparseg import config

CALM = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
}
"""Ray on one machine: a dead worker is noticed at once, and workers do not starve beside other work."""
FAST = CALM | {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}
"""For a cluster that loses nodes: noticed in seconds.  A node that a busy machine holds up for long counts as
lost, too, so that no other cluster has it."""
LIMIT_S = 400.0
"""Longer than anything here takes on a busy machine; below pytest's own limit, which tells less."""
SCRIPT = """
import sys
from sparseg import config, launch
from sparseg.common import process
settings = config.load(sys.argv[1])
raise SystemExit(process.guarded(lambda: launch.finish(settings)))
"""
MARK = {"SPARSEG_TEST": str(os.getpid())}
"""In the environment of all that a Driver starts, and of what that starts; one with a Ray of its own
has `own_mark`.  A cluster that a test starts itself needs it in os.environ, because its raylets start the
workers."""


NUMBERS = itertools.count()


def own_mark() -> dict[str, str]:
    """A mark by which `processes` tells those of one Ray from others of this program."""
    return {"SPARSEG_TEST": f"{os.getpid()}.{next(NUMBERS)}"}


STARTED: list[Driver] = []
"""Those of the test that runs; tests/conftest.py clears them after it."""


class Driver:
    """The run's command, and what it has printed since it was started."""

    def __init__(self, settings: config.Config, folder: Path, address: str | None = None) -> None:
        """`folder` takes the configuration's file; `address` is that of a running cluster."""
        file = folder / f"{settings.run.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config.to_dict(settings)))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RAY_AUTH_MODE": "disabled"}
        self.mark = MARK if address else own_mark()
        self.temp: str | None = None
        if address:
            environment["RAY_ADDRESS"] = address
        elif "RAY_TMPDIR" not in environment:  # else it would join whatever cluster runs on this machine
            self.temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets need a short path
            environment["RAY_TMPDIR"] = self.temp
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment | self.mark,
        )
        STARTED.append(self)
        self.lines: list[str] = []
        self.seen = 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        """All that was printed so far."""
        return "".join(self.lines)

    @property
    def steps(self) -> int:
        """Steps that were logged so far."""
        return sum("| ETA" in line for line in self.lines)

    def says(self, text: str, seconds: float = LIMIT_S) -> str:
        """The next line, after the one that the call before found, with this text.  AssertionError at the
        end of the output, or of the time."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            ended = self.ended() and not self.reader.is_alive()
            while self.seen < len(self.lines):
                self.seen += 1
                if text in self.lines[self.seen - 1]:
                    return self.lines[self.seen - 1]
            if ended:
                break
            time.sleep(0.02)
        raise AssertionError(f"never printed: {text}\n{self.output}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def code(self, seconds: float = LIMIT_S) -> int:
        """The exit code, once it has ended and all its output is read.  AssertionError at the time's end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end in {seconds:g} s\n{self.output}") from None
        self.reader.join(10)
        return code

    def goes_on(self, steps: int, seconds: float) -> None:
        """Wait for so many further steps, or the end."""
        target = self.steps + steps
        wait_until(lambda: self.ended() or self.steps >= target, seconds)

    def left(self) -> dict[int, str]:
        """What is alive of it and of its run: process id -> command line.  Of a Ray that it joined, the run's
        workers and their controller."""
        if self.mark != MARK:
            return processes(self.mark["SPARSEG_TEST"])
        title = ("ray::RayTrainWorker", "ray::TrainController")
        return {pid: line for pid, line in processes().items() if line.startswith(title)}

    def ended(self) -> bool:
        return self.process.poll() is not None

    def clear(self) -> None:
        """Kill what a failed test has left running; remove Ray's session."""
        if not self.ended():
            self.process.kill()
        if self.mark != MARK:  # a Ray that it joined is another's, and ends its workers itself
            for pid in self.left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.temp is not None:
            shutil.rmtree(self.temp, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float, pause_s: float = 0.05) -> bool:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(pause_s)
    return False


def processes(mark: str = "") -> dict[int, str]:
    """Process id -> command line of what this program's Drivers started, directly or not, and is alive.

    mark: that of one Driver; without it those of all Drivers and clusters are found.
    """
    found, name = {}, b"SPARSEG_TEST="
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            marks = [word[len(name) :].decode() for word in environment.split(b"\0") if word.startswith(name)]
            if mark in marks or (not mark and MARK["SPARSEG_TEST"] in [one.split(".")[0] for one in marks]):
                found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def workers() -> list[int]:
    """Process ids of this program's Ray Train workers."""
    return [pid for pid, line in processes().items() if line.startswith("ray::RayTrainWorker")]


def newest_step(settings: config.Config) -> int:
    """Of the last whole line of metrics.jsonl."""
    try:
        with (settings.folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            return int(json.loads(file.read().split(b"\n")[-2])["step"])
    except (OSError, IndexError, ValueError):
        return -1


def logged(settings: config.Config, kind: str = "train") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of one kind."""
    found = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@contextlib.contextmanager
def s3_server(port: int = 0) -> Iterator[dict[str, str]]:
    """An S3 server (moto) on loopback, inside -> the environment that points to it.

    Buckets live as long as this process, over all servers: give each test a bucket of its own.
    """
    pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()
