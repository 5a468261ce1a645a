"""Two hosts on one machine, without a common file system: a run trains, loses one, goes on, gets it back.

    sudo PYTHONPATH=platform python tests/chaos/two_hosts.py

Each host is a network namespace (joined by a bridge) with its own mount, pid and uts namespace, its own
/tmp, /dev/shm and home.  Data and runs lie on an S3 server (moto) on the first host.  Needs root; without it
the script says so and ends with code 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import tiny
from driving import FAST, SCRIPT, wait_until

from sparseg import config

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("sparseg-a", "sparseg-b")
ADDRESS = {f"sparseg-{letter}": f"10.177.0.{number}" for number, letter in enumerate("abcd", 1)}
HEAD = f"{ADDRESS['sparseg-a']}:6379"
S3 = f"http://{ADDRESS['sparseg-a']}:5555"
ENVIRONMENT = {
    **FAST,
    "AWS_ENDPOINT_URL": S3,
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "GLOO_SOCKET_IFNAME": "eth0",
    "HOME": "/tmp/home",
    "PYTHONPATH": str(ROOT / "platform"),
    "PYTHONUNBUFFERED": "1",
}


def shell(*words: str) -> None:
    subprocess.run(words, check=True)


@contextlib.contextmanager
def network(names: Sequence[str] = NAMES) -> Iterator[None]:
    """Network namespaces, each with eth0; that of the first is a bridge into which the others plug."""
    first, *others = names
    shell("ip", "netns", "add", first)  # not in `try`: another run's namespaces are not ours to delete
    try:
        shell("ip", "-n", first, "link", "add", "eth0", "type", "bridge")
        for name in others:
            shell("ip", "netns", "add", name)
            there = ("peer", "name", name, "netns", first)
            shell("ip", "-n", name, "link", "add", "eth0", "type", "veth", *there)
            shell("ip", "-n", first, "link", "set", name, "master", "eth0", "up")
        for name in names:
            inside = ("ip", "-n", name)
            shell(*inside, "addr", "add", f"{ADDRESS[name]}/24", "dev", "eth0")
            shell(*inside, "link", "set", "eth0", "up")
            shell(*inside, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


class Host:
    """A host: its init process runs the given command, and dies with it."""

    def __init__(
        self, name: str, command: str, log: Path, environment: Mapping[str, str] = ENVIRONMENT
    ) -> None:
        self.environment = {**os.environ, **environment}
        setup = (
            f"hostname {name}; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /tmp; mkdir -p /tmp/home; "
            f"exec {command}"
        )
        self.process = subprocess.Popen(
            [
                *("ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--uts", "--fork"),
                *("--kill-child", "--mount-proc", "bash", "-c", setup),
            ],
            env=self.environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        assert wait_until(lambda: bool(children.read_text().split()), 10)
        self.init = int(children.read_text().split()[0])

    def start(self, command: list[str], **keywords: Any) -> subprocess.Popen[str]:
        """A process on this host."""
        inside = ["nsenter", "--target", str(self.init), "--mount", "--pid", "--uts", "--net"]
        return subprocess.Popen([*inside, *command], env=self.environment, text=True, **keywords)

    def fail(self) -> None:
        """As if the plug were pulled: init dies, and all that is on the host with it."""
        self.process.kill()
        self.process.wait()


def ray(*words: str) -> str:
    store = "--object-store-memory=100000000"
    program = f"{sys.executable} -m ray.scripts.scripts start --block --num-cpus=1 {store}"
    return f"{program} {shlex.join(words)}"


def settings_of(steps: int) -> config.Config:
    return tiny.config(
        Path("/nowhere"),
        {
            "data.root": "s3://bucket/data",
            "run.storage": "s3://bucket/runs",
            "run.name": "two-hosts",
            "resources.workers": 2,
            "resources.min_workers": 1,
            "resources.resize_seconds": 5.0,
            "resources.max_failures": 10,
            "optim.max_steps": steps,
            "optim.epochs": steps,
            "optim.learning_rate": 1e-4,
            "run.validate_every": 1000.0,
            "run.checkpoint_every": 10,
        },
    )


UPLOAD = """
import json, sys
from sparseg.data import shards
store, _ = shards.filesystem("s3://bucket/data")
store.mkdir("bucket")
store.put(sys.argv[1], "bucket/data", recursive=True)
"""
READ = """
import sys
from sparseg.data import shards
store, _ = shards.filesystem("s3://bucket/runs")
sys.stdout.write(store.cat_file("bucket/runs/two-hosts/metrics.jsonl").decode())
"""


class Output:
    """Follows a file that a process writes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def text(self) -> str:
        return self.file.read_text(errors="replace")

    def steps(self) -> int:
        return self.text().count("| ETA")

    def workers(self) -> int:
        """Of the newest start that went on from a checkpoint."""
        found = re.findall(r"going on after step \d+ with (\d+) workers", self.text())
        return int(found[-1]) if found else 0


def must(condition: bool, what: str, output: Output) -> None:
    print(("" if condition else "NEVER HAPPENED: ") + what, flush=True)
    if not condition:
        raise SystemExit(output.text()[-6000:])


def run(work: Path, steps: int) -> None:
    head = Host(
        "sparseg-a", ray("--head", f"--node-ip-address={ADDRESS['sparseg-a']}", "--port=6379"), work / "a.log"
    )
    joins = ray(f"--address={HEAD}", f"--node-ip-address={ADDRESS['sparseg-b']}")
    other = None
    try:
        server = head.start(
            [sys.executable, "-m", "moto.server", "-H", ADDRESS["sparseg-a"], "-p", "5555"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(5)
        assert head.start([sys.executable, "-c", UPLOAD, str(work / "data")]).wait() == 0
        other = Host("sparseg-b", joins, work / "b.log")
        (work / "run.json").write_text(json.dumps(config.to_dict(settings_of(steps))))
        output = Output(work / "driver.log")
        time.sleep(15)
        driver = head.start(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(work / "run.json")],
            stdout=output.file.open("w"),
            stderr=subprocess.STDOUT,
        )
        # the save after step 40 has waited for that after step 20: there is something to go on from
        must(wait_until(lambda: output.steps() >= 45, 180), "45 steps on two hosts", output)
        other.fail()
        must(wait_until(lambda: output.workers() == 1, 180), "one host is gone: 1 worker", output)
        reached = output.steps()
        must(wait_until(lambda: output.steps() >= reached + 20, 180), "20 steps on one host", output)
        other = Host("sparseg-b", joins, work / "b2.log")
        must(wait_until(lambda: output.workers() == 2, 180), "the host is back: 2 workers", output)
        must(driver.wait(600) == 0, "the run ended", output)
        reader = head.start([sys.executable, "-c", READ], stdout=subprocess.PIPE)
        lines = [json.loads(line) for line in reader.communicate()[0].splitlines()]
        found = [line["step"] for line in lines if line["kind"] == "train"]
        must(found == list(range(1, steps + 1)), f"steps 1 to {steps} in metrics.jsonl, once each", output)
        server.kill()
    finally:
        for host in (other, head):
            if host is not None:
                host.fail()


def main() -> None:
    """Set up, run, clear away."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: namespaces need root")
        return
    # not below /tmp: each host has its own
    with tempfile.TemporaryDirectory(prefix="sparseg-two-hosts-", dir="/var/tmp") as work:
        tiny.dataset(Path(work))
        with network():
            run(Path(work), options.steps)


if __name__ == "__main__":
    main()
