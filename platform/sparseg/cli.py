"""The `sparseg` command: import, sparsify, inspect, evaluate, predict, export, report, plan."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from sparseg import exits


def main(args: list[str] | None = None) -> None:
    """Run one subcommand.  Exits with 0 done, 1 failed, 2 wrong use."""
    parser = _parser()
    options = parser.parse_args(args)
    raise SystemExit(exits.guarded(lambda: options.action(options)))


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="sparseg", description="Sparse labels in, segmentation network out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_OneLineParser)

    _add_import(commands)
    _add_sparsify(commands)

    add = commands.add_parser("inspect", help="splits, classes, shares labelled, encodings")
    add.add_argument("dataset")
    add.add_argument(
        "--html", metavar="FILE", help="write a contact sheet: images with their labels drawn in"
    )
    add.add_argument(
        "--rows",
        type=int,
        default=12,
        help="images a split on the sheet, more where classes need it (default 12)",
    )
    add.set_defaults(action=_inspect)

    _add_checkpoint_commands(commands)
    return parser


def _add_import(commands: Any) -> None:
    add = commands.add_parser("import", help="a raw dataset -> Arrow shards")
    add.add_argument("layout", choices=["auto", "camvid", "voc", "cityscapes", "ade20k", "folder"])
    add.add_argument("source", help="folder of the raw dataset")
    add.add_argument("out", help="folder to make, or s3://bucket/path")
    add.add_argument("--label", default="point", choices=["point", "scribble", "clicks", "block", "full"])
    add.add_argument(
        "--labels", metavar="PATH", help="folder of label PNGs; file or folder of points or strokes"
    )
    add.add_argument(
        "--format",
        default="auto",
        choices=["auto", "png", "whats-the-point", "scribblesup", "csv", "labelme", "cvat", "coco"],
        help="what is at --labels (default: looks at the files and says what it took)",
    )
    add.add_argument("--stroke-width", type=float, default=1.0, metavar="PX", help="of points and lines")
    add.add_argument("--unlabelled", type=int, metavar="CODE", help="value that means: nobody annotated this")
    _add_drawing(add)
    add.add_argument("--num-classes", type=int, help="refuse another number of classes")
    add.add_argument(
        "--skip-bad", action="store_true", help="leave out unreadable or unlabelled images and list them"
    )
    add.add_argument("--shards", type=int, default=1, help="Arrow files per split (default 1)")
    add.add_argument(
        "--workers", type=int, help="processes (default: as many as cores if that pays; 0: none)"
    )
    add.add_argument(
        "--store",
        default="original",
        choices=["original", "fast", "raw"],
        help="fast: images that are no JPEG in lossless tiles, so that a crop decodes its own only; raw: "
        "3 bytes a pixel, no decoding",
    )
    add.set_defaults(action=_import)


def _add_sparsify(commands: Any) -> None:
    add = commands.add_parser(
        "sparsify", help="an imported dataset with dense masks -> one with sparse labels"
    )
    add.add_argument("dataset")
    add.add_argument("out")
    add.add_argument(
        "--kind", choices=["point", "clicks", "instance", "disc", "scribble", "block"], required=True
    )
    add.add_argument(
        "--budget",
        type=int,
        required=True,
        metavar="N",
        help="point: pixels an image; clicks: pixels a class; instance, disc: components a class (0 = all); "
        "scribble: percent of a stroke's length; block: percent of the annotated pixels",
    )
    add.add_argument("--seed", type=int, default=0)
    add.add_argument(
        "--width", type=int, metavar="PX", help="of scribbles (3), discs (3), instance clicks (1)"
    )
    add.set_defaults(action=_sparsify)


def _add_checkpoint_commands(commands: Any) -> None:
    add = commands.add_parser("evaluate", help="IoU of a checkpoint on a dataset")
    add.add_argument("checkpoint")
    add.add_argument("dataset")
    add.add_argument("--split", default="val")
    add.add_argument("--scales", type=float, nargs="+", default=[1.0])
    add.add_argument("--flip", action="store_true")
    add.add_argument("--window", type=int, metavar="PX")
    add.add_argument("--json", metavar="FILE")
    add.set_defaults(action=_evaluate)

    add = commands.add_parser("predict", help="images -> palette PNG masks")
    add.add_argument("checkpoint")
    add.add_argument("images", help="an image, a folder, or a glob pattern")
    add.add_argument("out")
    add.add_argument("--overlay", action="store_true")
    add.add_argument("--probabilities", action="store_true")
    add.add_argument("--window", type=int, metavar="PX")
    add.add_argument("--force", action="store_true", help="overwrite what is there")
    add.set_defaults(action=_predict)

    add = commands.add_parser("export", help="a checkpoint -> one file for other programs")
    add.add_argument("checkpoint")
    add.add_argument("out")
    add.add_argument("--to", choices=["safetensors"], default="safetensors")
    add.set_defaults(action=_export)

    add = commands.add_parser("report", help="runs, or a sweep -> one self-contained HTML page")
    add.add_argument("runs", nargs="+")
    add.add_argument("--html", required=True, metavar="FILE")
    add.set_defaults(action=_report)

    add = commands.add_parser("plan", help="runs at several budgets -> how many labels a target needs")
    add.add_argument("runs", nargs="+", help="a sweep (search_spaces/label_sparsity.py), or runs")
    add.add_argument("--target-miou", type=float, metavar="SHARE", help="for example 0.65")
    add.add_argument(
        "--seconds-per-label",
        type=float,
        default=2.4,
        metavar="S",
        help="default 2.4, about what Bearman et al. (ECCV 2016) report for a click; a stroke takes about 10",
    )
    add.add_argument("--images", type=int, help="images to annotate (default: those of the runs)")
    add.add_argument("--html", metavar="FILE", help="write the curves as a page")
    add.set_defaults(action=_plan)


def _add_drawing(add: argparse.ArgumentParser) -> None:
    add.add_argument("--random-pixels", type=int, default=0, help="with --label clicks: pixels an image")
    add.add_argument("--clicks-per-class", type=int, default=0, help="with --label clicks: per class present")
    add.add_argument("--seed", type=int, default=0, help="seed of the drawn clicks")


def _import(options: argparse.Namespace) -> None:
    from sparseg import importers

    report = importers.import_dataset(
        options.layout,
        options.source,
        options.out,
        label=options.label,
        label_path=options.labels,
        label_format=options.format,
        stroke_px=options.stroke_width,
        unlabelled_code=options.unlabelled,
        random_pixels=options.random_pixels,
        clicks_per_class=options.clicks_per_class,
        label_seed=options.seed,
        num_classes=options.num_classes,
        skip_bad=options.skip_bad,
        store=options.store,
        num_shards=options.shards,
        workers=options.workers,
    )
    print(importers.format_report(report))


def _sparsify(options: argparse.Namespace) -> None:
    from sparseg import importers, sparsify

    recipe = sparsify.Recipe(
        kind=options.kind, budget=options.budget, seed=options.seed, width_px=options.width
    )
    print(importers.format_report(importers.sparsify_dataset(options.dataset, options.out, recipe)))


def _inspect(options: argparse.Namespace) -> None:
    from sparseg import importers, shards

    dataset = shards.open(options.dataset)
    report = importers.inspected(dataset)
    print(importers.format_report(report))
    if options.html:
        from sparseg import contact_sheet

        sizes = ", ".join(f"{name} {len(data):,}" for name, data in dataset.splits.items())
        facts = [("images", sizes), ("label", report.get("label", "")), ("encoding", report["encoding"])]
        facts += [("layout", report["layout"]), ("from", report["root"])]
        facts += [("refused rows", f"{len(report['refused']):,}")]
        contact_sheet.write_contact_sheet(dataset, Path(options.html), facts, rows_per_split=options.rows)
        print(f"wrote {options.html}", file=sys.stderr)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from sparseg import checkpoint, evaluate, shards

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded, dataset = checkpoint.load_model(options.checkpoint, device), shards.open(options.dataset)
    if dataset.names != loaded.names:
        raise ValueError(f"{options.dataset} has classes {dataset.names}, the checkpoint {loaded.names}")
    if options.split not in dataset.splits:
        raise ValueError(f"{options.dataset}: no split {options.split!r}; it has {', '.join(dataset.splits)}")
    counts_KK = evaluate.evaluate(
        loaded.model,
        dataset.splits[options.split],
        len(loaded.names),
        device=device,
        scales=options.scales,
        flip=options.flip,
        window_px=options.window,
    )
    result = evaluate.scores(counts_KK, loaded.names)
    print(f"{'mIoU':<20} {result['miou']:.4f}\n{'pixel accuracy':<20} {result['pixel_accuracy']:.4f}")
    for name, value in result["iou"].items():
        print(f"  {name:<18} {'-' if value is None else f'{value:.4f}'}")
    if options.json:
        checkpoint.write_text(Path(options.json), json.dumps(result, indent=2))


def _predict(options: argparse.Namespace) -> None:
    from sparseg import predict

    unreadable = predict.predict_folder(
        options.checkpoint,
        options.images,
        options.out,
        overlay=options.overlay,
        probabilities=options.probabilities,
        force=options.force,
        window_px=options.window,
    )
    if unreadable:
        raise RuntimeError(f"{unreadable} images could not be read (named above)")


def _export(options: argparse.Namespace) -> None:
    from sparseg import checkpoint

    checkpoint.load_model(options.checkpoint)  # refuses what is damaged or foreign
    out = Path(options.out)
    if out.exists():
        raise ValueError(f"{out} exists; give another name or remove it")
    temporary = out.with_name(f".partial-{out.name}")
    shutil.copyfile(checkpoint.resolve(options.checkpoint) / "model.safetensors", temporary)
    temporary.replace(out)
    print(
        f"wrote {out}; its metadata holds configuration, classes, palette, score and commit", file=sys.stderr
    )


def _report(options: argparse.Namespace) -> None:
    from sparseg import checkpoint, report, sweep_page

    folders = [Path(run) for run in options.runs]
    if len(folders) == 1 and sweep_page.is_sweep(folders[0]):
        checkpoint.write_text(Path(options.html), sweep_page.html_of(folders[0]))
    else:
        report.write_report(folders, Path(options.html))
    print(f"wrote {options.html}")


def _plan(options: argparse.Namespace) -> None:
    from sparseg import checkpoint, plan

    target = options.target_miou
    if target is not None and not 0 < target < 1:
        raise ValueError(f"--target-miou must be between 0 and 1, got {target:g}")
    curves, images = plan.curves_of([Path(run) for run in options.runs])
    cost = plan.Cost(images if options.images is None else options.images, options.seconds_per_label)
    print(plan.text_of(curves, target, cost))
    if options.html:
        checkpoint.write_text(Path(options.html), plan.html_of(curves, target, cost))
        print(f"wrote {options.html}", file=sys.stderr)


if __name__ == "__main__":
    main()
