"""`ray up cluster/onprem.yaml`, a job on two of its hosts, `ray down`: all of it real, on one machine.

    sudo PYTHONPATH=platform .venv/bin/python tests/chaos/launch_onprem.py

A laptop, a head and two workers are network namespaces (those of two_hosts.py), each with its own mount, pid
and uts namespace, /tmp, /dev/shm and home of root.  The hosts run sshd with fresh keys and have a common
folder at /mnt/shared.  The laptop makes a token, starts the cluster, opens the tunnel of `ray dashboard` and
submits trainers/camvid.py with a worker on each worker host; the head trains nothing, as in the file.  Of the
file only the values marked EDIT change; the hosts pretend to have one CPU each and a small object store,
because they share this machine, and gloo is told its interface.  Needs root, ip, rsync and sshd; without them
the script says so and ends with code 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from two_hosts import ADDRESS, ROOT, Host, Output, must, network, shell, tiny, wait_until

from sparseg import config

LAPTOP, HEAD, *WORKERS = ADDRESS
HOSTS = (HEAD, *WORKERS)
SSHD = "/usr/sbin/sshd"
DASHBOARD = "http://localhost:8265"
JOB = "launched"
STEPS = 20
SHARED = Path("/mnt/shared")
NODE = r"raylet|gcs_server|ray::"
ANY = rf"{NODE}|/ray/"
SSH = ("ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
# sshd and ssh take root's home from /etc/passwd.  The default route is how Ray finds a host's own address.
MACHINE = """set -e
mount --bind {work}/passwd /etc/passwd
mount -t tmpfs tmpfs /run; mkdir /run/sshd
mount -t tmpfs tmpfs /mnt; mkdir /mnt/shared; mount --bind {work}/shared /mnt/shared
ip route add default dev eth0
mkdir -p /tmp/home/sparseg; ln -s {prefix} /tmp/home/sparseg/.venv
mkdir -m 700 /tmp/home/.ssh; install -m 600 {work}/$1 /tmp/home/.ssh/$2
shift 2; exec "$@"
"""
SSHD_CONFIG = """AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
UsePAM no
"""
ENVIRONMENT = {
    "HOME": "/tmp/home",
    "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def lacking() -> str:
    """What this machine has not, and the script needs."""
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [name for name in ("ip", "nsenter", "rsync", "ssh", SSHD) if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def write_files(work: Path, launcher: Path) -> None:
    """Keys, what the machines read at their start, the launcher file with its values, dataset and run."""
    for name in ("key", *HOSTS):
        shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / name))
    accounts = Path("/etc/passwd").read_text()
    (work / "passwd").write_text(re.sub(r"^(root:.*:)[^:]*(:[^:]*)$", r"\1/tmp/home\2", accounts, flags=re.M))
    (work / "machine.sh").write_text(MACHINE.format(work=work, prefix=sys.prefix))
    (work / "sshd_config").write_text(SSHD_CONFIG)
    (work / "cluster.yaml").write_text(yaml.safe_dump(edited(yaml.safe_load(launcher.read_text()))))
    (work / "shared").mkdir()
    tiny.dataset(work / "shared")
    changes = {"run.name": "onprem", "resources.workers": 2, "optim.max_steps": STEPS, "optim.epochs": STEPS}
    settings = tiny.config(SHARED, changes)
    (work / "shared" / "run.json").write_text(json.dumps(config.to_dict(settings)))


def edited(cluster: dict) -> dict:
    """The launcher file with this network's values."""
    cluster["provider"] |= {"head_ip": ADDRESS[HEAD], "worker_ips": [ADDRESS[name] for name in WORKERS]}
    cluster["auth"]["ssh_user"] = "root"
    cluster |= {"min_workers": len(WORKERS), "max_workers": len(WORKERS)}
    for key, more in (("head_start_ray_commands", ""), ("worker_start_ray_commands", " --num-cpus=1")):
        more += " --object-store-memory=100000000"
        cluster[key] = [
            f"export GLOO_SOCKET_IFNAME=eth0; {line}{more}" if "ray start" in line else line
            for line in cluster[key]
        ]
    return cluster


class Laptop(Host):
    """Where the user sits."""

    def __init__(self, work: Path) -> None:
        keep = f"bash {work}/machine.sh key id_ed25519 sleep infinity"
        super().__init__(LAPTOP, keep, work / f"{LAPTOP}.log", ENVIRONMENT)
        self.output = Output(work / "laptop.txt")
        self.output.file.touch()

    def background(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """A command from the project's root; what it prints is added to `output`."""
        words = [
            "env",
            f"--chdir={ROOT}",
            *(f"{name}={value}" for name, value in variables.items()),
            *command,
        ]
        with self.output.file.open("a") as file:
            file.write(f"\n$ {' '.join(words)}\n")
            file.flush()
            return self.start(words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    def run(self, *command: str, seconds: float = 300, **variables: str) -> tuple[int, str]:
        """`background`, to its end -> exit code and what it printed; code -1 where time ran out."""
        before = len(self.output.text())
        process = self.background(*command, **variables)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = -1
        return code, self.output.text()[before:]

    def seen(self, what: str, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Print after how long it was so; end the script where it never was."""
        start_s = time.monotonic()
        found = wait_until(condition, seconds, pause_s=0.5)
        must(found, f"{what}: seen after {time.monotonic() - start_s:.0f} s", self.output)

    def succeeds(self, what: str, *command: str, **variables: str) -> str:
        """`run`, which must end with code 0 -> what it printed."""
        start_s = time.monotonic()
        code, told = self.run(*command, **variables)
        must(code == 0, f"{what}: seen after {time.monotonic() - start_s:.0f} s", self.output)
        return told


def of_ray(host: Host, pattern: str = ANY) -> list[str]:
    """State, age and command line of Ray's processes on a host, but for those that only wait to be reaped."""
    told = host.start(["ps", "-wwe", "-o", "stat=,etime=,args="], stdout=subprocess.PIPE).communicate()[0]
    return [line for line in told.splitlines() if re.search(pattern, line) and not line.startswith("Z")]


def alive(laptop: Laptop) -> set[str]:
    """Addresses of the nodes that the cluster has, by its dashboard."""
    code, told = laptop.run("ray", "list", "nodes", "--address", DASHBOARD, "--format", "json", seconds=60)
    listed = re.search(r"^\[\{.*\}\]$", told, re.MULTILINE)
    nodes = json.loads(listed[0]) if code == 0 and listed else []
    return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}


def trains(host: Host) -> bool:
    return any("RayTrainWorker" in line for line in of_ray(host))


def job(laptop: Laptop, hosts: dict[str, Host]) -> None:
    """Submitted without the token it is refused, with it it trains on both workers."""
    submit = ["ray", "job", "submit", "--address", DASHBOARD, "--submission-id", JOB]
    submit += [
        "--working-dir",
        ".",
        "--runtime-env",
        "cluster/runtime_env.yaml",
        "--",
        "python",
        "trainers/camvid.py",
    ]
    submit += ["--config", str(SHARED / "run.json")]
    code, told = laptop.run(*submit, RAY_AUTH_MODE="disabled")
    refused = code != 0 and "AuthenticationError" in told
    must(refused, "a job without the token is refused: AuthenticationError", laptop.output)
    submitted, start_s = laptop.background(*submit), time.monotonic()
    for name in WORKERS:
        laptop.seen(f"a training process on {name}", lambda name=name: trains(hosts[name]))
    must(not trains(hosts[HEAD]), "none on the head", laptop.output)
    ended = wait_until(lambda: submitted.poll() is not None, 300)
    must(ended, f"the job's end: seen after {time.monotonic() - start_s:.0f} s", laptop.output)
    must(f"step {STEPS}/{STEPS}" in laptop.output.text(), f"all {STEPS} steps", laptop.output)
    told = laptop.succeeds("ray job status", "ray", "job", "status", "--address", DASHBOARD, JOB)
    must(f"Job '{JOB}' succeeded" in told, "the job succeeded", laptop.output)


def ends(laptop: Laptop, host: Host, pattern: str, what: str) -> None:
    """Ray's processes of this pattern end by themselves; those that do not are shown."""
    start_s = time.monotonic()
    wait_until(lambda: not of_ray(host, pattern), 240, pause_s=0.5)
    left = of_ray(host, pattern)
    with laptop.output.file.open("a") as file:
        file.writelines(f"still there: {line}\n" for line in left)
    must(not left, f"{what}: seen after {time.monotonic() - start_s:.0f} s", laptop.output)


def down(laptop: Laptop, hosts: dict[str, Host], cluster: str) -> None:
    """`ray down` stops Ray on the head alone.  A raylet ends by itself after a minute without a head, its
    agents after another; its log monitor never does, hence `ray stop` there."""
    laptop.succeeds("ray down", "ray", "down", "-y", cluster)
    ends(laptop, hosts[HEAD], ANY, f"nothing of Ray on {HEAD}")
    for name in WORKERS:
        ends(laptop, hosts[name], NODE, f"no raylet on {name}")
    for name in WORKERS:
        stop = (*SSH, f"root@{ADDRESS[name]}", "sparseg/.venv/bin/ray", "stop")
        laptop.succeeds(f"ray stop on {name}", *stop)
        ends(laptop, hosts[name], ANY, f"nothing of Ray on {name}")


def run(laptop: Laptop, hosts: dict[str, Host], cluster: str) -> None:
    for name in hosts:
        ssh = (*SSH, f"root@{ADDRESS[name]}", "hostname")
        laptop.seen(f"sshd of {name}", lambda ssh=ssh: laptop.run(*ssh)[0] == 0, 30)
    laptop.succeeds("a token", "ray", "get-auth-token", "--generate")
    laptop.succeeds("ray up", "ray", "up", "-y", cluster, RAY_UP_enable_autoscaler_v2="0")
    laptop.background("ray", "dashboard", cluster)
    everyone = {ADDRESS[name] for name in hosts}
    laptop.seen("head and workers in the cluster", lambda: alive(laptop) == everyone, 240)
    must(all(map(of_ray, hosts.values())), "all hosts run Ray", laptop.output)
    job(laptop, hosts)
    down(laptop, hosts, cluster)


def main() -> None:
    """Set up, run, clear away."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--launcher", type=Path, default=ROOT / "cluster" / "onprem.yaml")
    options = parser.parse_args()
    if lack := lacking():
        print(f"skipped: {lack}")
        return
    # not below /tmp: each host has its own
    with (
        tempfile.TemporaryDirectory(prefix="sparseg-onprem-", dir="/var/tmp") as folder,
        network(tuple(ADDRESS)),
    ):
        work = Path(folder)
        write_files(work, options.launcher)
        with contextlib.ExitStack() as started:
            laptop = Laptop(work)
            started.callback(laptop.fail)
            hosts = {}
            for name in HOSTS:
                sshd = f"{SSHD} -D -e -f {work}/sshd_config -h {work}/{name}"
                command = f"bash {work}/machine.sh key.pub authorized_keys {sshd}"
                hosts[name] = Host(name, command, work / f"{name}.log", ENVIRONMENT)
                started.callback(hosts[name].fail)
            run(laptop, hosts, str(work / "cluster.yaml"))


if __name__ == "__main__":
    main()
