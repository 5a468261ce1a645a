"""See it work in a few minutes on a laptop: synthetic scenes, one click per class, `ce` against `agmm`.

    python trainers/demo.py              # one seed, two runs on local Ray, a table, a picture, a page
    python trainers/demo.py --seeds 3    # mean and standard deviation, as in RESULTS.md

Both methods get the same network, clicks, order of images and number of steps.  With the flags of a trainer
(--loss.bandwidth 2 ...) it is one: a single run of `recipe` on the same scenes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from sparseg import launch
from sparseg.common import process
from sparseg.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    RunConfig,
    command_line,
)
from sparseg.data import drawing, shards
from sparseg.data.synthetic import scenes
from sparseg.inference import predict
from sparseg.reports import run_page
from sparseg.runs import checkpoint

DATA = Path("runs/demo/data")
NUM_TRAIN, NUM_VAL, CLICKS_PER_CLASS, SHOWN = 160, 48, 1, 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the demo takes."""

    out: Path = DATA.parent
    """Folder for data, runs, picture and page. The same folder again resumes or reuses what is there."""
    seeds: int = 1
    """Seeds per method; each one adds a run of about two minutes for every method."""
    methods: tuple[Literal["ce", "ce+absent", "agmm"], ...] = ("ce", "agmm")
    """What is compared, with the same budget."""
    workers: int = 1
    """Ray Train workers per run, one thread each (0 = in this process, without Ray). Runs share the cores."""
    max_steps: int | None = None
    """Optimizer steps per run (default: the recipe's)."""


def run_name(method: str, seed: int) -> str:
    """Folder of a run of the demo."""
    return f"{method.replace('+', '-')}-seed{seed}"


def recipe(method: str = "agmm", seed: int = 0) -> Config:
    """A small network from random weights: no file and no network is needed."""
    return Config(
        data=DataConfig(
            root=str(DATA), layout="shards", label="clicks", crop_px=96, scale_min=0.75, scale_max=1.25
        ),
        model=ModelConfig(
            backbone="resnet10t",
            output_stride=16,
            aspp_dilations=(2, 4),
            feature_channels=64,
            separable=True,
        ),
        loss=LossConfig(method=method, warmup_epochs=4),  # type: ignore[arg-type]
        optim=OptimConfig(
            learning_rate=2e-2, decoder_lr_factor=1.0, warmup_steps=20, epochs=16, batch_size=8, clip_norm=5.0
        ),
        run=RunConfig(name=run_name(method, seed), seed=seed, validate_every=4, tensorboard=False),
    )


def make_data(folder: Path = DATA.parent) -> Path:
    """The synthetic set as shards, made once.  A sweep calls it, too, with STORAGE/demo."""
    path = folder / "data"
    if not path.exists():
        splits = {
            "train": lambda: scenes.rows(0, range(NUM_TRAIN), CLICKS_PER_CLASS),
            "val": lambda: scenes.rows(1, range(NUM_VAL), None),
        }
        shards.write(path, splits, scenes.NAMES, palette=scenes.PALETTE)
        print(f"made {NUM_TRAIN} + {NUM_VAL} scenes in {path}")
    return path


def run_all(options: Options, data: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Train every method with every seed, as many at once as there are cores -> scores."""
    runs = {}
    for seed in range(options.seeds):
        for method in options.methods:
            settings = recipe(method, seed)
            runs[method, seed] = dataclasses.replace(
                settings,
                data=dataclasses.replace(settings.data, root=str(data)),
                optim=dataclasses.replace(settings.optim, max_steps=options.max_steps),
                resources=ResourcesConfig(workers=options.workers, threads_per_worker=1),
                run=dataclasses.replace(settings.run, storage=str(options.out)),
            )
    at_once = max((os.cpu_count() or 1) // options.workers, 1) if options.workers else 1
    keys, results = list(runs), {}
    if options.workers:
        launch.start_ray(runs[keys[0]])
    for first in range(0, len(keys), at_once):
        some = keys[first : first + at_once]
        actions = [functools.partial(launch.launch, runs[key]) for key in some]
        done = process.in_thread(*actions) if options.workers else [action() for action in actions]
        results.update(zip(some, done, strict=True))
    return results


def print_table(options: Options, results: dict[tuple[str, int], dict[str, Any]]) -> None:
    """mIoU and IoU per class, mean over seeds (and standard deviation of the mIoU)."""
    table = Table(
        title=f"synthetic scenes, {CLICKS_PER_CLASS} click per class and image; best validation, IoU in %",
        title_justify="left",
    )
    for column in ("method", "seeds", "mIoU", *scenes.NAMES):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method in options.methods:
        runs = [result for (name, _), result in results.items() if name == method]
        scores = [100 * result["miou"] for result in runs]
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        classes = [
            statistics.mean(100 * (result["iou"].get(name) or 0.0) for result in runs)
            for name in scenes.NAMES
        ]
        table.add_row(
            method,
            str(len(runs)),
            f"{statistics.mean(scores):.1f}{spread}",
            *(f"{value:.1f}" for value in classes),
        )
    Console(width=110).print(table)


def draw(options: Options, data: Path) -> Path:
    """One picture: image, clicks, what each method makes of it, truth; training images, so that clicks are
    there."""
    dataset = shards.open(data)
    models = {method: checkpoint.load_model(options.out / run_name(method, 0)) for method in options.methods}
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("image", "clicks", *options.methods, "truth")
    }
    for row in range(SHOWN):
        record = dataset.splits["train"][row]
        image = shards.decode_image(record["image"]["bytes"])
        label = shards.decode_label(record["label"]["bytes"])
        truth = shards.decode_label(record["mask"]["bytes"])
        columns["image"].append(image)
        columns["clicks"].append(drawing.draw_clicks(image, label, dataset.palette, zoom=2))
        for method, loaded in models.items():
            labels = predict.predict_image(loaded.model, image).argmax(0).astype(np.uint8)
            columns[method].append(drawing.overlay(image, labels, dataset.palette))
        columns["truth"].append(drawing.overlay(image, truth, dataset.palette))
    path = options.out / "overlays.png"
    drawing.panels(columns, path, legend=dict(zip(dataset.names, dataset.palette, strict=True)))
    return path


def main(options: Options) -> None:
    """Data, runs, table, picture, page."""
    options.out.mkdir(parents=True, exist_ok=True)
    data = make_data(options.out)
    results = run_all(options, data)
    picture = draw(options, data)
    page = options.out / "report.html"
    folders = [options.out / run_name(method, seed) for method, seed in results]
    run_page.write_report(
        folders,
        page,
        pictures={"training scenes: image, clicks, what each method makes of them, truth": picture},
        title="sparseg demo: what a few clicks can do",
    )
    print_table(options, results)
    print(f"wrote {picture} (overlays), {page} (open it in a browser), {folders[0].parent}/*/metrics.jsonl")


def command(args: list[str], prog: str | None = None) -> None:
    """The demo's own command line, also of `sparseg train demo`; with a trainer's flags it is a trainer's.

    Its data are then made in STORAGE/demo, which the workers of a cluster reach, too.
    """
    if any(word.startswith("--") and "." in word.partition("=")[0] for word in args):
        own, description = recipe(), __doc__ or ""
        config, _ = command_line.parse(own, args, description=description, prog=prog)
        if config.data.root == own.data.root and "://" not in config.run.storage:
            data = make_data(Path(config.run.storage) / "demo")
            own = dataclasses.replace(own, data=dataclasses.replace(own.data, root=str(data)))
        launch.main(own, description=description, args=args, prog=prog)
    raise SystemExit(
        process.guarded(lambda: main(tyro.cli(Options, args=args, description=__doc__, prog=prog)))
    )


if __name__ == "__main__":
    command(sys.argv[1:])
