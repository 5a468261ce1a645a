"""Every method at every budget with every seed under one protocol, and the tables of RESULTS.md.

    python experiments/protocol.py camvid-small --data ../shared/data/camvid --weights FILE --work DIR
    python experiments/protocol.py camvid-small --table

A run is `trainers/camvid_small.py` (or camvid.py) with a few flags, in a process of its own; its line goes to
experiments/results/PROTOCOL.jsonl as soon as it ends, and what has a line is not run again: repeat the
command to go on, on this machine or the next.  The drawn pixels depend on the budget alone (data.label_seed),
`run.seed` changes weights, order and augmentation.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"

METHODS = {
    "ce": "--loss.method ce",
    "ce+absent": "--loss.method ce+absent",
    "agmm published": "--loss.method agmm --loss.variance published",
    "agmm adaptive": "--loss.method agmm --loss.variance adaptive",
    "agmm no L_absent": "--loss.method agmm --loss.variance adaptive --loss.absent-weight 0",
    "agmm-em": "--loss.method agmm-em --loss.warmup-epochs 5 --loss.mix-weight 0.3 --loss.label-weight 0.1 "
    "--loss.sep-weight 0.1 --loss.absent-weight 0",
    "tel": "--loss.method tel",
    "agmm+tel": "--loss.method agmm+tel --loss.variance adaptive",
    "gated-crf": "--loss.method gated-crf",
    "gated-crf 0.01": "--loss.method gated-crf --loss.pairwise-weight 0.01",
    "agmm+gated-crf 0.01": "--loss.method agmm+gated-crf --loss.variance adaptive "
    "--loss.pairwise-weight 0.01",
    "dense-pairwise": "--loss.method dense-pairwise",
    "agmm posterior": "--loss.method agmm --loss.target posterior --loss.centroids memory "
    "--loss.bandwidth 0.4 --loss.mix-weight 0.3 --loss.label-weight 0 --loss.sep-weight 0 "
    "--loss.absent-weight 0 --loss.warmup-epochs 5",
}
"""Flags of each row of a table."""
BUDGETS = {
    "1 click": "--data.clicks-per-class 1",
    "5 clicks": "--data.clicks-per-class 5",
    "20 pixels": "--data.clicks-per-class 0 --data.random-pixels 20",
    "100 pixels": "--data.clicks-per-class 0 --data.random-pixels 100",
}
"""Flags of each column; clicks are per class and image, pixels per image."""
FULL = ("ce", "full")
FULL_FLAGS = "--loss.method ce --data.label full --data.clicks-per-class 0 --data.random-pixels 0"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A trainer and the size of its images (None: as they are)."""

    trainer: str
    size: tuple[int, int] | None


PROTOCOLS = {
    "camvid-small": Protocol("camvid_small", (240, 180)),
    "camvid": Protocol("camvid", None),
}
Key = tuple[str, str, int]
"""(method, budget, seed)."""


def shrink(source: Path, target: Path, size: tuple[int, int]) -> Path:
    """CamVid's folders with images resized (Lanczos, PNG) and masks sampled to width x height; made once."""
    if target.exists():
        return target
    draft = target.with_name(target.name + ".part")
    for folder, method in (("images", Image.Resampling.LANCZOS), ("masks", Image.Resampling.NEAREST)):
        for file in sorted((source / folder).rglob("*.*")):
            out = (draft / file.relative_to(source)).with_suffix(".png")
            out.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).resize(size, method).save(out)
    for name in ("classes.txt", *(f"splits/{split}.txt" for split in ("train", "val", "test"))):
        file, out = source / name, draft / name
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(file.read_bytes())
    return draft.rename(target)


def flags_of(key: Key) -> str:
    method, budget, seed = key
    flags = FULL_FLAGS if (method, budget) == FULL else f"{METHODS[method]} {BUDGETS[budget]}"
    return f"{flags} --run.seed {seed}"


def train(name: str, key: Key, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """One run in a process of its own -> its line for the results."""
    run = "-".join(str(part).replace(" ", "").replace("+", "-") for part in key)
    work: Path = options.work
    command = [sys.executable, str(ROOT / "trainers" / f"{PROTOCOLS[name].trainer}.py")]
    command += ["--data.root", str(data), "--model.weights", str(options.weights), "--resources.workers", "0"]
    command += ["--run.storage", str(work / name), "--run.name", run, "--run.no-tensorboard"]
    command += f"{flags_of(key)} {options.flags}".split()
    threads = max((os.cpu_count() or 1) // options.parallel, 1)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": options.gpu}
    start_s = time.monotonic()
    with (work / f"{name}-{run}.log").open("w") as log:
        subprocess.run(command, check=True, env=environment, stdout=log, stderr=subprocess.STDOUT)
    scores = json.loads((work / name / run / "iou.json").read_text())
    return {
        "method": key[0],
        "budget": key[1],
        "seed": key[2],
        "miou": scores["miou"],
        "iou": scores["iou"],
        "steps": scores["step"],
        "minutes": round((time.monotonic() - start_s) / 60, 2),
        "flags": f"{flags_of(key)} {options.flags}".strip(),
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "torch": torch.__version__,
    }


def lines_of(file: Path) -> dict[Key, dict[str, Any]]:
    """The finished runs; of a run that was made again, the last."""
    if not file.exists():
        return {}
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    return {(line["method"], line["budget"], line["seed"]): line for line in lines}


# ---------------------------------------------------------------------------------------------------- tables


def mean_sd(values: list[float]) -> str:
    """In %, with the number of seeds unless it is 3."""
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}" + ("" if len(values) == 3 else f" ({len(values)})")


def table(done: dict[Key, dict[str, Any]]) -> str:
    """Markdown: methods x budgets, then IoU per class of each cell."""
    methods = [*METHODS, *sorted({m for m, _, _ in done} - set(METHODS))]
    cell: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (method, budget, _), line in sorted(done.items()):
        cell.setdefault((method, budget), []).append(line)
    rows = ["| mIoU | " + " | ".join(BUDGETS) + " |", "|---" * (len(BUDGETS) + 1) + "|"]
    for method in methods:
        values = [mean_sd([line["miou"] for line in cell.get((method, budget), [])]) for budget in BUDGETS]
        if set(values) != {"-"}:
            rows.append(f"| {method} | " + " | ".join(values) + " |")
    full = mean_sd([line["miou"] for line in cell.get(FULL, [])])
    rows.append(f"| full supervision | {full} |" + " |" * (len(BUDGETS) - 1))
    names = next(iter(done.values()))["iou"] if done else {}
    rows += ["", "| IoU | budget | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for (method, budget), lines in sorted(cell.items(), key=lambda item: item[0][1]):
        means = [100 * statistics.mean(line["iou"][name] or 0.0 for line in lines) for name in names]
        rows.append(f"| {method} | {budget} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("--data", type=Path, help="CamVid")
    parser.add_argument("--weights", type=Path, help="mobilenetv2_100, safetensors")
    parser.add_argument("--work", type=Path, default=Path("runs/protocol"), help="folder for data and runs")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), choices=BUDGETS, metavar="BUDGET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-full", action="store_true", help="without full supervision")
    parser.add_argument("--parallel", type=int, default=2, help="runs at once")
    parser.add_argument("--gpu", default="", help="CUDA_VISIBLE_DEVICES of the runs (default: none)")
    parser.add_argument("--flags", default="", help="further flags of the trainer, for trials")
    parser.add_argument("--results", type=Path, help="file of results (default: the committed one)")
    parser.add_argument("--table", action="store_true", help="print the tables and end")
    options = parser.parse_args()
    file = options.results or RESULTS / f"{options.protocol}.jsonl"
    if options.table:
        print(table(lines_of(file)))
        return
    if options.data is None or options.weights is None:
        parser.error("--data and --weights are needed")
    data = options.data.resolve()
    options.weights, options.work = options.weights.resolve(), options.work.resolve()
    size = PROTOCOLS[options.protocol].size
    options.work.mkdir(parents=True, exist_ok=True)
    if size is not None:
        data = shrink(data, options.work / f"data-{size[0]}x{size[1]}", size)
    keys: list[Key] = []
    for seed in options.seeds:  # whole tables first, then further seeds
        keys += [(*FULL, seed)] * (not options.no_full)
        keys += list(itertools.product(options.methods, options.budgets, [seed]))
    keys = [key for key in keys if key not in lines_of(file)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.parallel) as pool:
        for line in pool.map(lambda key: train(options.protocol, key, options, data), keys):
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(
                f"{line['method']:<16} {line['budget']:<10} {line['seed']} {100 * line['miou']:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
