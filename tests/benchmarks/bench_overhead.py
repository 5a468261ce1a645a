"""What Ray Train and checkpoints cost: the same run under Ray, and in plain processes started by torchrun.

PYTHONPATH=platform python tests/benchmarks/bench_overhead.py [--rounds 3] [--steps 150]

Synthetic scenes, the demo's network, two workers of one thread each on gloo.  Rounds take turns.  Step time
is the median over the logged lines of a run (ten steps each, the first two left out), then over the rounds;
for checkpoints it is the wall-clock time of the steps, saves included, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sparseg import config
from sparseg.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    RunConfig,
)
from sparseg.data import shards
from sparseg.data.synthetic import scenes
from sparseg.train import loop

PLAIN = """
import sys, torch, torch.distributed as dist
from sparseg import config
from sparseg.train import loop
torch.set_num_threads(1)
dist.init_process_group("gloo")
loop.run(config.load(sys.argv[1]), device=torch.device("cpu"))
dist.destroy_process_group()
"""
RAY = """
import sys
from sparseg import config, launch
launch.launch(config.load(sys.argv[1]))
"""
SKIPPED_LINES = 2


def settings_of(work: Path, name: str, steps: int, workers: int, checkpoint_every: int = 0) -> Config:
    return Config(
        data=DataConfig(root=str(work / "data"), layout="shards", label="clicks", crop_px=96, scale_min=0.75),
        model=ModelConfig(
            backbone="resnet10t", output_stride=16, aspp_dilations=(2, 4), feature_channels=64, separable=True
        ),
        loss=LossConfig(method="agmm"),
        optim=OptimConfig(learning_rate=1e-3, batch_size=8, epochs=1000, max_steps=steps),
        resources=ResourcesConfig(workers=workers, threads_per_worker=1),
        run=RunConfig(
            name=name,
            storage=str(work / "runs"),
            validate_every=1000,
            checkpoint_every=checkpoint_every,
            tensorboard=False,
        ),
    )


def step_s(settings: Config, command: list[str]) -> float:
    """Median seconds of a step of one run."""
    file = Path(settings.run.storage).parent / f"{settings.run.name}.json"
    file.write_text(json.dumps(config.to_dict(settings)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    subprocess.run(
        [*command, str(file)],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_s"] for line in lines if line["kind"] == "train"][SKIPPED_LINES:]
    return settings.optim.batch_size / statistics.median(rates)


def seconds_with(settings: Config) -> float:
    """Seconds from the first line to the last but one of a run in this process, saves included."""
    marks: list[float] = []

    def mark() -> bool:
        marks.append(time.perf_counter())  # a single rank is asked after every step
        return False

    loop.run(settings, should_stop=mark)
    return marks[-2] - marks[10]


def ray_against_torchrun(work: Path, rounds: int, steps: int) -> None:
    """Print the ratio of the step times."""
    script = work / "plain.py"
    script.write_text(PLAIN)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    commands = {"plain": [*torchrun, str(script)], "ray": [sys.executable, "-c", RAY]}
    found: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            found[name].append(step_s(settings_of(work, f"{name}{number}", steps, 2), command))
    plain_s, ray_s = (statistics.median(found[name]) for name in ("plain", "ray"))
    times = f"torchrun {1e3 * plain_s:.1f} ms, Ray Train {1e3 * ray_s:.1f} ms"
    print(f"step, 2 workers: {times}: {ray_s / plain_s:.3f}x", flush=True)


def with_and_without_checkpoints(work: Path, rounds: int, steps: int) -> None:
    """Print what a checkpoint every 50 steps costs."""
    saved: dict[int, list[float]] = {0: [], 50: []}
    for number in range(rounds):
        for every in saved:
            name = f"every{every}-{number}"
            saved[every].append(seconds_with(settings_of(work, name, steps, 0, every)))
    without_s, with_s = (statistics.median(saved[every]) for every in (0, 50))
    print(
        f"{steps} steps: {without_s:.2f} s, with a checkpoint every 50 {with_s:.2f} s: "
        f"{100 * (with_s / without_s - 1):+.1f} %"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--part", choices=("ray", "checkpoints"), help="default: both")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sparseg-overhead-"))
    splits = {
        "train": lambda: scenes.rows(0, range(64), 1),
        "val": lambda: scenes.rows(1, range(4), None),
    }
    shards.write(work / "data", splits, scenes.NAMES, palette=scenes.PALETTE)
    if options.part != "checkpoints":
        ray_against_torchrun(work, options.rounds, options.steps)
    if options.part != "ray":
        torch.set_num_threads(1)
        with_and_without_checkpoints(work, options.rounds, 2 * options.steps)


if __name__ == "__main__":
    main()
