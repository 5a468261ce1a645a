"""Start a run's command, watch it, find its workers: what the scripts of this folder share."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sparseg import config

FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
}
SCRIPT = """
import sys
from sparseg import config, exits, launch
settings = config.load(sys.argv[1])
raise SystemExit(exits.guarded(lambda: launch.finish(settings)))
"""
MARK = f"SPARSEG_CHAOS={os.getpid()}"


class Driver:
    """The run's command, and what it has printed since it was started."""

    def __init__(self, settings: config.Config, address: str | None) -> None:
        file = Path(settings.run.storage) / f"{settings.run.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config.to_dict(settings)))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"} | ({"RAY_ADDRESS": address} if address else {})
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment,
        )
        self.steps, self.tail = 0, collections.deque[str](maxlen=60)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.tail.append(line)
            self.steps += "| ETA" in line

    def goes_on(self, steps: int, seconds: float) -> None:
        """Wait for so many further steps, or the end."""
        target = self.steps + steps
        wait_until(lambda: self.ended() or self.steps >= target, seconds)

    def ended(self) -> bool:
        return self.process.poll() is not None


def wait_until(condition: Callable[[], bool], seconds: float, pause_s: float = 0.05) -> bool:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(pause_s)
    return False


def workers() -> list[int]:
    """Process ids of this program's Ray Train workers, from their titles and the environment they inherit."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            if title.startswith(b"ray::RayTrainWorker") and MARK.encode() in environment:
                found.append(int(entry.name))
    return found


def newest_step(settings: config.Config) -> int:
    """Of the last whole line of metrics.jsonl."""
    try:
        with (settings.folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            return int(json.loads(file.read().split(b"\n")[-2])["step"])
    except (OSError, IndexError, ValueError):
        return -1
