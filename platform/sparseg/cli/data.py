"""Commands on data: import, sparsify, inspect."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseg.config import FieldError, ImportConfig

if TYPE_CHECKING:
    from sparseg.data.importers import ImportReport

IMPORT_FLAGS = {
    "data.layout": "the argument layout",
    "data.root": "the argument source",
    "data.label": "--label",
    "data.label_path": "--labels",
    "data.label_format": "--format",
    "data.stroke_px": "--stroke-width",
    "data.unlabelled_code": "--unlabelled",
    "data.mask_values": "--mask-values",
    "data.random_pixels": "--random-pixels",
    "data.clicks_per_class": "--clicks-per-class",
    "data.label_seed": "--seed",
    "data.num_classes": "--num-classes",
    "data.orientation": "--orientation",
    "data.skip_bad": "--skip-bad",
    "data.unannotated": "--unannotated",
    "data.val_split": "--val-split",
    "data.val_group": "--val-group",
    "data.store": "--store",
    "data.tile_px": "--tile-px",
    "data.tile_overlap_px": "--tile-overlap-px",
    "data.long_side_px": "--long-side",
}
"""Field of the configuration -> what `sparseg import` calls it."""
DATASET_FLAGS = {"data.root": "the argument dataset"}
"""The same of `sparseg sparsify` and `sparseg inspect`."""
RECIPE_OF = {"voc": "voc", "cityscapes": "cityscapes"}
"""Layout -> the recipe that trains on labels as they were imported; `folder` does for the others."""
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
    """The command `import`; what it puts into the configuration is stored under the field's name."""
    add = commands.add_parser("import", help="a raw dataset -> Arrow shards")
    add.add_argument("layout", choices=["auto", "camvid", "voc", "cityscapes", "ade20k", "folder"])
    add.add_argument("source", help="folder of the raw dataset")
    add.add_argument("out", help="folder to make, or s3://bucket/path")
    add.add_argument("--label", default="point", choices=_choices("label"))
    _add_reading(add)
    _add_drawing(add)
    add.add_argument("--num-classes", type=int, help="refuse another number of classes")
    add.add_argument(
        "--skip-bad", action="store_true", help="leave out unreadable or unlabelled images and list them"
    )
    _add_splitting(add)
    add.add_argument("--shards", type=int, default=1, help="Arrow files per split (default 1)")
    add.add_argument(
        "--workers", type=int, help="processes (default: as many as cores if that pays; 0: none)"
    )
    _add_storing(add)
    add.set_defaults(action=_import)


def _add_reading(add: argparse.ArgumentParser) -> None:
    """How annotation and masks are read."""
    add.add_argument(
        "--labels",
        dest="label_path",
        metavar="PATH",
        help="folder of label PNGs; file or folder of points, strokes, tags or boxes",
    )
    add.add_argument(
        "--format",
        dest="label_format",
        default="auto",
        choices=_choices("label_format"),
        help="what is at --labels (default: looks at the files and says what it took)",
    )
    add.add_argument(
        "--stroke-width",
        dest="stroke_px",
        type=float,
        default=1.0,
        metavar="PX",
        help="of points and lines",
    )
    add.add_argument(
        "--unlabelled",
        dest="unlabelled_code",
        type=int,
        metavar="CODE",
        help="value that means: nobody annotated this",
    )
    add.add_argument(
        "--mask-values",
        default="auto",
        choices=_choices("mask_values"),
        help="of dense masks: class ids (from-0, 255 is void), class + 1 (from-1, 0 is void), or black and "
        "white (binary: 0 and 255 are the two classes)",
    )
    add.add_argument(
        "--orientation",
        default="upright",
        choices=_choices("orientation"),
        help="what labels of images with an EXIF orientation were made on: the picture as viewers show it, "
        "or the stored pixels",
    )


def _add_splitting(add: argparse.ArgumentParser) -> None:
    add.add_argument(
        "--unannotated",
        default="refuse",
        choices=_choices("unannotated"),
        help="keep: images that nobody annotated go into the split pool, which training never reads",
    )
    add.add_argument(
        "--val-split",
        default="val",
        metavar="NAME",
        help="none: hold nothing out, all images of a folder train (default val)",
    )
    add.add_argument(
        "--val-group",
        metavar="folder|REGEX",
        help="hold out whole groups: by the first folder below images/, or by a regular expression on the id",
    )


def _add_storing(add: argparse.ArgumentParser) -> None:
    add.add_argument(
        "--store",
        default="original",
        choices=_choices("store"),
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
    add.add_argument(
        "--long-side",
        dest="long_side_px",
        type=int,
        default=0,
        metavar="PX",
        help="resize larger images to this long side, their labels with them (default 0: do not)",
    )


def _choices(name: str) -> list[str]:
    """The values of a field of ImportConfig."""
    return list(typing.get_args(typing.get_type_hints(ImportConfig)[name]))


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
    add.add_argument("--seed", dest="label_seed", type=int, default=0, help="seed of the drawn clicks")


def _import(options: argparse.Namespace) -> None:
    from sparseg.data import importers

    with _in_words_of(IMPORT_FLAGS):
        asked = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(ImportConfig)}
        report = importers.import_dataset(
            options.layout,
            options.source,
            options.out,
            ImportConfig(**asked),
            num_shards=options.shards,
            workers=options.workers,
        )
    print(importers.format_report(report))
    print(f"next: {_training_on(options.out, report, options.val_split)}")


def _training_on(dataset: str, report: ImportReport, val_split: str = "val") -> str:
    """The command that trains on a dataset that was just made."""
    words = ["sparseg", "train", RECIPE_OF.get(report.layout, "folder"), "--data.root", dataset]
    if report.label not in (None, "point", "clicks"):  # those the recipes take for each other
        words += ["--data.label", str(report.label)]
    return shlex.join([*words, *(["--data.val-split", val_split] if val_split != "val" else [])])


@contextlib.contextmanager
def _in_words_of(flags: dict[str, str]) -> Iterator[None]:
    """Within: a wrong value is told in terms of the command's own flags."""
    try:
        yield
    except FieldError as error:
        raise ValueError(error.told(flags)) from error


def _sparsify(options: argparse.Namespace) -> None:
    from sparseg.data import importers, sparsify

    recipe = sparsify.Recipe(
        kind=options.kind, budget=options.budget, seed=options.seed, width_px=options.width
    )
    with _in_words_of(DATASET_FLAGS):
        report = importers.sparsify_dataset(options.dataset, options.out, recipe)
    print(importers.format_report(report))
    print(f"next: {_training_on(options.out, report)}")


def _inspect(options: argparse.Namespace) -> None:
    from sparseg.data import importers, shards

    with _in_words_of(DATASET_FLAGS):
        dataset = shards.open(options.dataset)
        report = importers.inspected(dataset)
    print(importers.format_report(report))
    if options.html:
        from sparseg.reports import dataset_page

        sizes = ", ".join(f"{name} {len(data):,}" for name, data in dataset.splits.items())
        facts = [("images", sizes), ("label", report.label or ""), ("encoding", report.encoding)]
        facts += [("layout", report.layout), ("from", report.root)]
        facts += [("refused rows", f"{len(report.refused):,}")]
        dataset_page.write_contact_sheet(dataset, Path(options.html), facts, rows_per_split=options.rows)
        print(f"wrote {options.html}", file=sys.stderr)
