"""Commands on data: import, sparsify, inspect."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABELS = ("point", "scribble", "clicks", "block", "tag", "box", "full")
IMPORT_FLAGS = {
    "--data.label-path": "--labels",
    "--data.label-format": "--format",
    "--data.label-seed": "--seed",
    "--data.stroke-px": "--stroke-width",
    "--data.unlabelled-code": "--unlabelled",
    "--data.": "--",
}
"""What a trainer's flag is called in `sparseg import`; most only lack the group."""
KINDS = ("point", "clicks", "instance", "disc", "scribble", "block", "tag", "box")


def add_commands(commands: Any) -> None:
    """Add them to the parser."""
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


def _add_import(commands: Any) -> None:
    add = commands.add_parser("import", help="a raw dataset -> Arrow shards")
    add.add_argument("layout", choices=["auto", "camvid", "voc", "cityscapes", "ade20k", "folder"])
    add.add_argument("source", help="folder of the raw dataset")
    add.add_argument("out", help="folder to make, or s3://bucket/path")
    add.add_argument("--label", default="point", choices=list(LABELS))
    add.add_argument(
        "--labels",
        metavar="PATH",
        help="folder of label PNGs; file or folder of points, strokes, tags or boxes",
    )
    add.add_argument(
        "--format",
        default="auto",
        choices="auto png whats-the-point scribblesup csv labelme label-studio cvat coco voc".split(),
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
    add.add_argument(
        "--tile-px",
        type=int,
        default=0,
        metavar="PX",
        help="cut larger images into tiles of this side (default 0: do not)",
    )
    add.add_argument(
        "--tile-overlap-px",
        type=int,
        default=0,
        metavar="PX",
        help="least overlap of neighbouring training tiles (default 0)",
    )
    add.set_defaults(action=_import)


def _add_sparsify(commands: Any) -> None:
    add = commands.add_parser(
        "sparsify", help="an imported dataset with dense masks -> one with sparse labels"
    )
    add.add_argument("dataset")
    add.add_argument("out")
    add.add_argument("--kind", choices=list(KINDS), required=True)
    add.add_argument(
        "--budget",
        type=int,
        required=True,
        metavar="N",
        help="point: pixels an image; clicks: pixels a class; instance, disc, box: components a class (0 = "
        "all); scribble: percent of a stroke's length; block: percent of the annotated pixels; tag: 0",
    )
    add.add_argument("--seed", type=int, default=0)
    add.add_argument(
        "--width", type=int, metavar="PX", help="of scribbles (3), discs (3), instance clicks (1)"
    )
    add.set_defaults(action=_sparsify)


def _add_drawing(add: argparse.ArgumentParser) -> None:
    add.add_argument("--random-pixels", type=int, default=0, help="with --label clicks: pixels an image")
    add.add_argument("--clicks-per-class", type=int, default=0, help="with --label clicks: per class present")
    add.add_argument("--seed", type=int, default=0, help="seed of the drawn clicks")


def _import(options: argparse.Namespace) -> None:
    from sparseg.data import importers

    with _own_flags():
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
            tile_px=options.tile_px,
            tile_overlap_px=options.tile_overlap_px,
            num_shards=options.shards,
            workers=options.workers,
        )
    print(importers.format_report(report))


@contextlib.contextmanager
def _own_flags() -> Iterator[None]:
    """Errors that advise a trainer's flag, in terms of `sparseg import`."""
    try:
        yield
    except ValueError as error:
        told = str(error)
        for of_trainer, own in IMPORT_FLAGS.items():
            told = told.replace(of_trainer, own)
        if told == str(error):
            raise
        raise ValueError(told) from error


def _sparsify(options: argparse.Namespace) -> None:
    from sparseg.data import importers, sparsify

    recipe = sparsify.Recipe(
        kind=options.kind, budget=options.budget, seed=options.seed, width_px=options.width
    )
    print(importers.format_report(importers.sparsify_dataset(options.dataset, options.out, recipe)))


def _inspect(options: argparse.Namespace) -> None:
    from sparseg.data import importers, shards

    dataset = shards.open(options.dataset)
    report = importers.inspected(dataset)
    print(importers.format_report(report))
    if options.html:
        from sparseg.reports import dataset_page

        sizes = ", ".join(f"{name} {len(data):,}" for name, data in dataset.splits.items())
        facts = [("images", sizes), ("label", report.get("label", "")), ("encoding", report["encoding"])]
        facts += [("layout", report["layout"]), ("from", report["root"])]
        facts += [("refused rows", f"{len(report['refused']):,}")]
        dataset_page.write_contact_sheet(dataset, Path(options.html), facts, rows_per_split=options.rows)
        print(f"wrote {options.html}", file=sys.stderr)
