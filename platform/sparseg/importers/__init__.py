"""Raw datasets -> Arrow shards: `prepare` for runs, `import_dataset` and `format_report` for the command."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparseg import shards
from sparseg.config import DataConfig
from sparseg.importers import layouts
from sparseg.importers.rows import Summary, annotator, draw, rows
from sparseg.importers.source import READ_KINDS, Settings, Source, attach, fingerprint
from sparseg.importers.summary import describe, format_report

ANNOUNCED_ROWS = 2000  # an import of more takes long enough to be announced

__all__ = ["format_report", "import_dataset", "prepare"]


def import_dataset(
    layout: str,
    source: str | Path,
    out: str | Path,
    *,
    label: str = "point",
    label_path: str | None = None,
    label_format: str = "auto",
    stroke_px: float = 1.0,
    unlabelled_code: int | None = None,
    random_pixels: int = 0,
    clicks_per_class: int = 0,
    label_seed: int = 0,
    num_classes: int | None = None,
    skip_bad: bool = False,
    num_shards: int = 1,
) -> dict[str, Any]:
    """Import a raw dataset (`layout` auto|voc|camvid|cityscapes|folder) into the folder `out` -> the report.

    Options as in DataConfig.  Raises ValueError for wrong input, in one line; then `out` is not made.
    """
    root = _root(source)
    settings = Settings(
        layout=layouts.detect(root) if layout == "auto" else layout,
        label=label,
        label_path=label_path,
        label_format=label_format,
        stroke_px=stroke_px,
        unlabelled_code=unlabelled_code,
        random_pixels=random_pixels,
        clicks_per_class=clicks_per_class,
        label_seed=label_seed,
        num_classes=num_classes,
        skip_bad=skip_bad,
    )
    listed = _listed(root, settings)
    return _import(listed, settings, Path(out), num_shards)


def prepare(data: DataConfig, storage: str | Path) -> Path:
    """The folder of the dataset that a run reads; a raw `data.root` is imported once, then found again.

    To be called once, before workers start.  Two calls at once wait for each other.  Prints one line.
    Raises ValueError for wrong input, in one line.
    """
    start_s = time.perf_counter()
    root = _root(data.root)
    layout: str = data.layout
    if layout == "auto":
        layout = "shards" if shards.is_dataset(root) else layouts.detect(root)
    settings = Settings(
        layout=layout,
        label=data.label,
        label_path=data.label_path,
        label_format=data.label_format,
        stroke_px=data.stroke_px,
        unlabelled_code=data.unlabelled_code,
        random_pixels=data.random_pixels,
        clicks_per_class=data.clicks_per_class,
        label_seed=data.label_seed,
        num_classes=data.num_classes,
        skip_bad=data.skip_bad,
    )
    opened = listed = None
    if layout == "shards":
        opened = _checked(root, data)
        if not _to_derive(opened, settings, data.train_split):
            print(f"dataset: {describe(opened)}")
            return opened.path
        name = _derived_name(opened, settings)
    else:
        listed = _listed(root, settings)
        name = fingerprint(listed, settings)
    out = Path(data.shards) if data.shards else Path(storage) / "datasets" / f"{layout}-{data.label}-{name}"
    if not out.exists():
        try:
            if listed is not None:
                count = sum(len(items) for items in listed.splits.values())
                if count > ANNOUNCED_ROWS:
                    print(f"dataset: importing {count} images of {root} into {out}, once", flush=True)
                _import(listed, settings, out, 1)
            elif opened is not None:
                _derive(opened, settings, out, data.train_split)
            imported = _checked(out, data)
            print(
                f"dataset: imported {describe(imported)} from {root} in {time.perf_counter() - start_s:.1f} s"
            )
            return imported.path
        except shards.DatasetExistsError:
            pass  # another process was faster; its result is as good
    found = _checked(out, data)
    if found.report.get("fingerprint") not in (None, name):
        raise ValueError(
            f"data.shards: {out} was imported with other settings or from other files; name another folder "
            "or remove it"
        )
    print(f"dataset: {describe(found)}")
    return found.path


def _root(root: str | Path) -> Path:
    if not str(root):
        raise ValueError("data.root is not set; give the dataset's folder with --data.root")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root: {path} is not a folder; give the dataset's folder with --data.root")
    return path.absolute()


def _checked(path: Path, data: DataConfig) -> shards.ShardedDataset:
    opened = shards.open(path)
    if data.num_classes not in (None, len(opened.names)):
        raise ValueError(
            f"{path}: has {len(opened.names)} classes but data.num_classes={data.num_classes}; "
            "correct --data.num-classes or --data.root"
        )
    for field in ("train_split", "val_split"):
        if getattr(data, field) not in opened.splits:
            raise ValueError(
                f"{path}: data.{field}={getattr(data, field)!r} is not among its splits "
                f"{', '.join(opened.splits)}"
            )
    return opened


# ---------------------------------------------------------------------------------------------- raw -> shards


def _listed(root: Path, settings: Settings) -> Source:
    """The listed raw dataset, after all checks that need no decoding."""
    if (
        settings.label == "clicks"
        and not settings.drawn
        and settings.label_path is None
        and settings.layout != "folder"
    ):
        raise ValueError(
            "data.label=clicks needs --data.random-pixels N or --data.clicks-per-class N (drawn from dense "
            "masks), or "
            "--data.label-path with clicks as PNGs"
        )
    if settings.drawn and settings.label != "clicks":
        raise ValueError(f"random_pixels and clicks_per_class need label=clicks, got {settings.label}")
    if settings.label not in (*READ_KINDS, "full"):
        raise ValueError(
            f"data.label must be one of {', '.join((*READ_KINDS, 'full'))}, got {settings.label!r}"
        )
    source = layouts.read_layout(root, settings)
    if settings.label == "full" and settings.label_path is not None:
        raise ValueError(
            "data.label_path has no meaning with data.label=full, which trains on the dense masks"
        )
    return attach(source, settings)


def _import(source: Source, settings: Settings, out: Path, num_shards: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "layout": settings.layout,
        "root": str(source.root),
        "label": settings.label,
        "settings": dataclasses.asdict(settings),
        "fingerprint": fingerprint(source, settings),
        "classes": source.names,
        "encoding": "",
        "splits": {},
        "refused": [],
        "notes": list(source.notes),
    }
    if out.exists():  # before the label files are read, which may take a while
        raise shards.DatasetExistsError(f"{out} exists already; remove it or name another destination")
    annotate = annotator(source, settings, report)
    splits = {
        split: functools.partial(rows, source, split, annotate, settings, report) for split in source.splits
    }
    palette = layouts.PALETTES.get(settings.layout)
    if palette is not None and len(palette) != len(source.names):
        palette = None
    shards.write(out, splits, source.names, palette=palette, report=report, num_shards=num_shards)
    return report


# ------------------------------------------------------------------------------------------- shards -> shards


def _to_derive(opened: shards.ShardedDataset, settings: Settings, train_split: str) -> bool:
    """Whether the run wants other labels than the dataset has.  Raises ValueError if it cannot have them."""
    train = opened.splits[train_split]
    masks_missing = "mask" not in train.features or bool(train.data.column("mask").null_count)
    if settings.label == "full" and opened.report.get("label", "full") != "full" and masks_missing:
        raise ValueError(
            f"{opened.path}: imported with label {opened.report['label']} and without dense masks, so "
            "data.label=full is not to be had; import the data again with dense masks"
        )
    return settings.drawn  # for `full` the loader reads the masks


def _derived_name(opened: shards.ShardedDataset, settings: Settings) -> str:
    manifest = opened.path / shards.MANIFEST
    facts: list[Any] = [str(opened.path.resolve()), shards.VERSION]
    facts.append(
        manifest.read_text() if manifest.is_file() else {s: d._fingerprint for s, d in opened.splits.items()}
    )
    facts.append([settings.label, settings.random_pixels, settings.clicks_per_class, settings.label_seed])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]


def _derive(opened: shards.ShardedDataset, settings: Settings, out: Path, train_split: str) -> None:
    """The same images with training labels made from the dense masks."""
    report: dict[str, Any] = {
        "notes": [],
        "refused": [],
        **opened.report,
        "classes": opened.names,
        "label": settings.label,
        "settings": dataclasses.asdict(settings),
        "splits": {},
    }
    report |= {"layout": "shards", "root": str(opened.path), "fingerprint": _derived_name(opened, settings)}
    report["encoding"] = f"made from the masks of {opened.path}"

    def derived(split: str) -> Iterator[shards.Row]:
        total = Summary(len(opened.names))
        for stored in opened.splits[split]:
            row: shards.Row = {name: stored[name] for name in ("id", "height", "width")}
            mask = (stored.get("mask") or {}).get("bytes")
            if mask is None and opened.report.get("label", "full") == "full":
                mask = stored["label"]["bytes"]
            row["image"] = stored["image"]["bytes"]
            row["mask"] = shards.decode_label(mask) if mask is not None and split == train_split else None
            row["label"] = shards.decode_label(stored["label"]["bytes"])
            if split == train_split:
                if row["mask"] is None:
                    raise ValueError(
                        f"{opened.path}: row {row['id']} has no dense mask to make {settings.label} labels "
                        "from; use "
                        "the labels it has, or import the data again with dense masks"
                    )
                row["label"] = draw(row["mask"], settings, row["id"])
            total.add(row["label"])
            yield row
        report["splits"][split] = total.as_dict()

    splits = {split: functools.partial(derived, split) for split in opened.splits}
    shards.write(out, splits, opened.names, palette=opened.palette, report=report)
