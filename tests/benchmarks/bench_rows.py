"""Memory of a large dataset: python tests/benchmarks/bench_rows.py [--rows 100000]

Imports that many generated rows of 32 x 32 pixels (2 workers), then trains a tiny network for one whole epoch
of them, and prints the memory of the training process as it goes: anonymous memory (what the process itself
holds) and resident memory (with the shards' pages that the system keeps mapped and may drop).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import bench_import
import torch

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
from sparseg.train import loop

BATCH = 64


def memory_mb() -> tuple[float, float]:
    """Anonymous and resident memory of this process, MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024, int(lines["VmRSS"].split()[0]) / 1024


def settings(folder: Path, rows: int) -> Config:
    """One epoch on the rows, without Ray."""
    return Config(
        data=DataConfig(root=str(folder / "data"), crop_px=32),
        model=ModelConfig(
            backbone="test_efficientnet", output_stride=16, feature_channels=8, aspp_dilations=(1,)
        ),
        loss=LossConfig(method="ce"),
        optim=OptimConfig(batch_size=BATCH, epochs=1, max_steps=-(-rows // BATCH)),
        resources=ResourcesConfig(workers=0),
        run=RunConfig(name="rows", storage=str(folder / "runs"), log_every=10**6, tensorboard=False),
    )


def main() -> None:
    """Import, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, start_s = Path(name), time.perf_counter()
        shards.build(
            str(folder / "data"),
            {"train": range(rows), "val": range(BATCH)},
            bench_import.open_rows,
            ["a", "b", "c"],
            fingerprint="bench",
            report_of=dict,
            num_shards=16,
            workers=2,
        )
        print(f"imported {rows} rows in {time.perf_counter() - start_s:.0f} s")
        config, step = settings(folder, rows), 0
        total = -(-rows // BATCH)
        wanted = {total * share // 10 for share in (1, 3, 5, 7, 10)}

        def sample() -> bool:
            nonlocal step
            step += 1
            if step in wanted:
                anonymous, resident = memory_mb()
                print(
                    f"after {step * BATCH:>8} rows: {anonymous:5.0f} MB anonymous, {resident:5.0f} resident"
                )
            return False

        print("before training: {:.0f} MB anonymous, {:.0f} MB resident".format(*memory_mb()))
        start_s = time.perf_counter()
        loop.run(config, should_stop=sample)
        print(f"trained one epoch, {total} steps, in {time.perf_counter() - start_s:.0f} s")


if __name__ == "__main__":
    main()
