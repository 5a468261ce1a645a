"""Speed and memory of imports: python tests/benchmarks/bench_import.py [--rows N] [--images N]

1. `--rows` generated rows (a few encoded images, used again and again) through the import engine, N and 4N
   of them: images/s and the peak memory of this process and of its largest worker.  It must not grow with N.
2. `--images` links to CamVid's images (--camvid, default ../shared/data/camvid) with drawn clicks, imported
   as a folder with 1 and 2 workers in turn: medians, and their ratio.

Every measurement is a process of its own, for the peak of a process never falls.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import UNLABELLED, ImportConfig
from sparseg.data import importers, shards

ROOT = Path(__file__).resolve().parents[2]
SIZE_PX = 32


def open_rows() -> shards.Reader:
    """Rows of numbers: one of eight noise images, one click."""
    from PIL import Image

    images = []
    for seed in range(8):
        noise = np.random.default_rng(seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    return functools.partial(_rows, images)


def _rows(
    images: list[bytes], split: str, numbers: Sequence[int], facts: dict[str, Any]
) -> Iterator[shards.Row]:
    for number in numbers:
        label_HW = np.full((SIZE_PX, SIZE_PX), UNLABELLED, np.uint8)
        label_HW[number % SIZE_PX, number // SIZE_PX % SIZE_PX] = number % 3
        image = images[number % len(images)]
        yield {"id": f"{number:08d}", "image": image, "label": label_HW, "height": SIZE_PX, "width": SIZE_PX}


def one_import(kind: str, count: int, workers: int, source: str) -> None:
    """A measurement; prints JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        start_s = time.perf_counter()
        if kind == "rows":
            shards.build(
                str(out),
                {"train": range(count)},
                open_rows,
                ["a", "b", "c"],
                fingerprint="bench",
                report_of=dict,
                num_shards=8,
                workers=workers,
            )
        else:
            config = ImportConfig(label="clicks", random_pixels=20)
            importers.import_dataset("folder", source, out, config, workers=workers, num_shards=8)
        seconds = time.perf_counter() - start_s
    peak_mb = [
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps({"images_per_s": count / seconds, "seconds": seconds, "peak_mb": peak_mb}))


def measured(kind: str, count: int, workers: int, source: str = "") -> dict[str, Any]:
    """`one_import` in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, str(count), str(workers), source]
    paths = [str(ROOT / "platform"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def linked_folder(camvid: Path, count: int, folder: Path) -> None:
    """`count` links to CamVid's training images and masks as a folder dataset."""
    names = sorted(file.stem for file in (camvid / "images" / "train").iterdir())
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(count):
        name = names[number % len(names)]
        for part, suffix in (("images", "jpg"), ("masks", "png")):
            source = camvid / part / "train" / f"{name}.{suffix}"
            target = folder / part / f"copy_{number:06d}.{suffix}"
            try:
                os.link(source, target)
            except OSError:  # another file system
                target.symlink_to(source)
    (folder / "classes.txt").write_text("".join(f"class {k}\n" for k in range(12)))  # 11: void


def compare_workers(camvid: Path, count: int, rounds: int) -> None:
    """1 and 2 workers in turn on the same images; prints medians and ratio."""
    with tempfile.TemporaryDirectory() as name:
        linked_folder(camvid, count, Path(name))
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers, found in speeds.items():
                found.append(measured("folder", count, workers, name)["images_per_s"])
                print(f"{count} images of CamVid, {workers} workers: {found[-1]:.0f} images/s", flush=True)
    medians = {workers: statistics.median(found) for workers, found in speeds.items()}
    print(f"medians: {medians[1]:.0f} images/s with 1 worker, {medians[2]:.0f} with 2")
    print(f"2 workers to 1: {medians[2] / medians[1]:.2f}")


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=25000, help="N; 4N are imported too")
    parser.add_argument("--images", type=int, default=2000, help="0: leave out the second measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--camvid", type=Path, default=ROOT.parent / "shared" / "data" / "camvid")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, count, workers, source = options.one
        one_import(kind, int(count), int(workers), source)
        return
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.rows:
        for count, workers in ((options.rows, 1), (options.rows, 2), (4 * options.rows, 2)):
            result = measured("rows", count, workers)
            main_mb, worker_mb = result["peak_mb"]
            print(
                f"{count} rows, {workers} workers: {result['images_per_s']:.0f} images/s, "
                f"{result['seconds']:.0f} s, peak {main_mb:.0f} MB, largest worker {worker_mb:.0f} MB"
            )
    if options.images and options.camvid.is_dir():
        compare_workers(options.camvid, options.images, options.rounds)


if __name__ == "__main__":
    main()
