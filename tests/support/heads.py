"""A head of a cluster of its own: on free ports, in a folder of its own, gone with the test."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray
from driving import CALM, LIMIT_S, own_mark, processes, wait_until

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclasses.dataclass(frozen=True)
class Head:
    """Where drivers and jobs find it."""

    address: str  # HOST:PORT, for RAY_ADDRESS
    dashboard: str  # URL, for `ray job submit`
    logs: Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def this_host() -> str:
    """The address that Ray gives to a node of this machine."""
    return str(ray.util.get_node_ip_address())


@contextlib.contextmanager
def head(
    log: Path, *words: str, gcs_port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """`ray start --head WORDS` -> its addresses, once its dashboard answers."""
    port, gcs = free_port(), gcs_port or free_port()
    temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    command = [*RAY, "start", "--head", "--block", "--temp-dir", temp]
    command += ["--port", str(gcs), "--dashboard-port", str(port)]
    for name in ("dashboard-agent-listen-port", "ray-client-server-port"):
        command += [f"--{name}", str(free_port())]
    mark = own_mark()
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **CALM, **(environment or {}), **mark},
        )
    found = Head(f"{this_host()}:{gcs}", f"http://127.0.0.1:{port}", Path(temp) / "session_latest" / "logs")

    def answers() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{found.dashboard}/api/version", timeout=2).status == 200)
        except OSError:
            return False

    try:
        assert wait_until(lambda: process.poll() is not None or answers(), LIMIT_S), log.read_text()
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        for pid in processes(mark["SPARSEG_TEST"]):  # asked to end, Ray takes half a minute
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(60)
        shutil.rmtree(temp, ignore_errors=True)
