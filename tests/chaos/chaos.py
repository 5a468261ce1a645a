"""Kill a run on two Ray workers again and again, at random moments; it must end as if nothing had happened.

    PYTHONPATH=platform python tests/chaos/chaos.py --kills 20 --seed 0

Victims are a worker, a node (its raylet, replaced by a new one) and the driver (its command is repeated);
moments are any time, while a checkpoint is written, and while a validation runs.  At the end weights,
optimizer and metrics.jsonl (but for the speed) are compared with those of a run that nobody disturbed: equal
to the last bit, or exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import tiny
from driving import FAST, MARK, Driver, newest_step, wait_until, workers

from sparseg import config
from sparseg.runs import checkpoint

VICTIMS = ("worker", "worker", "driver", "node")
MOMENTS = ("any", "save", "validation")


def settings_of(work: Path, name: str, steps: int) -> config.Config:
    """Two workers, averaged weights, a checkpoint every 5 steps, a validation every 50."""
    return tiny.config(
        work,
        {
            "run.name": name,
            "resources.workers": 2,
            "resources.max_failures": 1000,
            "optim.max_steps": steps,
            "optim.epochs": steps,
            "optim.ema_decay": 0.9,
            "optim.learning_rate": 1e-3,
            "run.validate_every": 25.0,
            "run.checkpoint_every": 5,
        },
    )


def kill(victim: str, driver: Driver, cluster: Any, nodes: list[Any], rng: random.Random) -> None:
    if victim == "driver":
        driver.process.kill()
        driver.process.wait()
    elif victim == "worker":
        for pid in rng.sample(workers(), k=min(1, len(workers()))):
            os.kill(pid, signal.SIGKILL)
    else:
        cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))


def disturb(settings: config.Config, kills: int, rng: random.Random) -> dict[str, int]:
    """Run to the end on a cluster of two nodes, killed `kills` times -> how often which victim fell when."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    counts: collections.Counter[str] = collections.Counter()
    driver = Driver(settings, Path(settings.run.storage), cluster.address)
    try:
        while True:
            driver.goes_on(6, 240)  # so that every kill meets a run that has gone on since the last one
            if driver.ended():
                if driver.process.returncode == 0:
                    break
                print("the command ended with code", driver.process.returncode, "and is repeated", flush=True)
                print("".join(driver.lines[-60:]), flush=True)
                driver = Driver(settings, Path(settings.run.storage), cluster.address)
                continue
            if sum(counts.values()) >= kills:
                driver.process.wait()
                continue
            victim, moment = rng.choice(VICTIMS), rng.choice(MOMENTS)
            if moment == "save":
                wait_until(lambda: any(settings.folder.glob(".partial-checkpoint_*")), 20, 0.0005)
            elif moment == "validation":
                wait_until(lambda: newest_step(settings) % 50 == 0, 20, 0.002)
            else:
                time.sleep(rng.uniform(0, 2))
            if driver.ended():
                continue
            step = newest_step(settings)
            kill(victim, driver, cluster, nodes, rng)
            counts[f"{victim}, {moment}"] += 1
            print(f"kill {sum(counts.values())}: {victim} ({moment}) after step {step}", flush=True)
            if victim == "driver":
                driver = Driver(settings, Path(settings.run.storage), cluster.address)
    finally:
        if not driver.ended():
            driver.process.kill()
        cluster.shutdown()
        ray.shutdown()
    return dict(counts)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Places in nested containers where two values are not equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [text for key in one for text in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for number, pair in pairs for text in differences(*pair, f"{where}/{number}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other else [where]


def compare(found: config.Config, expected: config.Config) -> list[str]:
    """What differs between two finished runs."""
    states, texts = [], []
    for settings in (found, expected):
        newest = checkpoint.newest(settings.folder)
        assert newest is not None
        _, tensors, state = newest
        state.pop("metrics_bytes")  # the speeds have more digits or fewer
        states.append({"model": tensors, "state": state})
        lines = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
        texts.append([{key: value for key, value in line.items() if key != "images_per_s"} for line in lines])
    wrong = differences(*states)
    if texts[0] != texts[1]:
        steps = [[line["step"] for line in lines] for lines in texts]
        wrong.append(f"metrics.jsonl ({'steps' if steps[0] != steps[1] else 'values'})")
    return wrong


def main() -> None:
    """The two runs and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="default: 60 a kill")
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    os.environ.update(FAST | MARK)
    work = options.work or Path(tempfile.mkdtemp(prefix="sparseg-chaos-"))
    tiny.dataset(work)
    steps = options.steps or 60 * options.kills
    calm, wild = (settings_of(work, name, steps) for name in ("calm", "wild"))
    start_s = time.monotonic()
    undisturbed = Driver(calm, Path(calm.run.storage), None)
    undisturbed.process.wait()
    if undisturbed.process.returncode:
        raise SystemExit(undisturbed.output)
    print(f"undisturbed: {steps} steps in {time.monotonic() - start_s:.0f} s", flush=True)
    start_s = time.monotonic()
    counts = disturb(wild, options.kills, random.Random(options.seed))
    print(
        f"disturbed: {time.monotonic() - start_s:.0f} s, seed {options.seed}, {sum(counts.values())} kills:"
    )
    for what, count in sorted(counts.items()):
        print(f"  {count} x {what}")
    wrong = compare(wild, calm)
    left = [path.name for path in wild.folder.glob(".partial-*")]
    print(
        "differs: " + ", ".join(wrong)
        if wrong
        else "weights, optimizer, metrics.jsonl: equal to the last bit"
    )
    print(f"temporary files left: {left or 'none'}; workers left: {workers() or 'none'}")
    raise SystemExit(bool(wrong or left or workers()))


if __name__ == "__main__":
    main()
