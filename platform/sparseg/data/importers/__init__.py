"""Raw datasets -> Arrow shards: `prepare` for runs, `import_dataset` and `format_report` for the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseg.common import object_store
from sparseg.config import DataConfig
from sparseg.data import shards, sparsify
from sparseg.data.importers import layouts
from sparseg.data.importers.build import derive, import_source
from sparseg.data.importers.reuse import refuse_few_of_tiles, refuse_lost_tiles, refuse_settled, to_derive
from sparseg.data.importers.source import READ_KINDS, Settings, Source, attach, fingerprint, settings_of
from sparseg.data.importers.summary import describe, format_report, inspected

ANNOUNCED_ROWS = 2000  # an import of more takes long enough to be announced

__all__ = ["format_report", "import_dataset", "inspected", "prepare", "sparsify_dataset"]


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
    store: str = "original",
    tile_px: int = 0,
    tile_overlap_px: int = 0,
    num_shards: int = 1,
    workers: int | None = None,
) -> dict[str, Any]:
    """Import a raw dataset (`layout` auto or one of layouts.LAYOUTS) into `out` -> the report.

    `out` is a folder to make, or a URL such as s3://bucket/path.  `workers` processes, 0 for this one alone,
    None for as many as pay.  Other options as in DataConfig.  An interrupted import goes on when repeated.
    Raises ValueError for wrong input, in one line; then `out` is not made.
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
        store=store,
        tile_px=tile_px,
        tile_overlap_px=tile_overlap_px,
    )
    listed = _listed(root, settings)
    return import_source(listed, settings, str(out), num_shards=num_shards, workers=workers)


def prepare(data: DataConfig, storage: str | Path, *, older: Sequence[str | Path] = ()) -> str | Path:
    """The dataset that a run reads, folder or URL; a raw `data.root` is imported once, then found again.

    Imports go to STORAGE/datasets; an equal one in the same place of an `older` storage is taken as it is.
    The shards' checksums are checked here; those of a URL, of which only the manifest is read, at copying.
    To be called once, before workers start.  Two calls at once wait for each other.  Prints one line.
    Raises ValueError for wrong input, in one line.
    """
    start_s = time.perf_counter()
    root = _url(data) if object_store.is_url(data.root) else _root(data.root)
    layout: str = data.layout  # of raw data: recipes name theirs, whether or not it was imported before
    if isinstance(root, str) or shards.is_dataset(root):
        layout = "shards"
    elif layout == "auto":
        layout = layouts.detect(root)
    settings = settings_of(data, layout)
    given = listed = None
    if layout == "shards" or isinstance(root, str):
        given = _checked(root, data)
        refuse_settled(given, data)
        refuse_few_of_tiles(given.report, data)
        if not to_derive(given, settings, data):
            print(f"dataset: {describe(given)}")
            return root
        name = _derived_name(given, settings)
    else:
        refuse_few_of_tiles({"tiles": data.tile_px}, data)
        listed = _listed(root, settings)
        name = fingerprint(listed, settings)
    places = [Path(place) / "datasets" / f"{layout}-{data.label}-{name}" for place in (storage, *older)]
    out = Path(data.shards) if data.shards else next((place for place in places if place.exists()), places[0])
    if not out.exists():
        try:
            if listed is not None:
                count = sum(len(items) for items in listed.splits.values())
                if count > ANNOUNCED_ROWS:
                    print(f"dataset: importing {count} images of {root} into {out}, once", flush=True)
                import_source(listed, settings, str(out))
            elif given is not None:
                opened = shards.open(given.source, cache=data.cache)
                derive(opened, settings, out, data.train_split, name)
            imported = _checked(out, data)
            print(
                f"dataset: imported {describe(imported)} from {root} in {time.perf_counter() - start_s:.1f} s"
            )
            return out.absolute()
        except shards.DatasetExistsError:
            pass  # another process was faster; its result is as good
    found = _checked(out, data)
    if found.report.get("fingerprint") not in (None, name):
        raise ValueError(
            f"data.shards: {out} was imported with other settings or from other files; name another folder "
            "or remove it"
        )
    print(f"dataset: {describe(found)}")
    return out.absolute()


def _url(data: DataConfig) -> str:
    """data.root, if all that this needs is in the configuration."""
    if data.shards and object_store.is_url(data.shards):
        raise ValueError(f"data.shards must be a local folder, got {data.shards}")
    return data.root.rstrip("/")


def sparsify_dataset(
    dataset: str | Path, out: str | Path, recipe: sparsify.Recipe, *, train_split: str = "train"
) -> dict[str, Any]:
    """An imported dataset -> the folder `out` with training labels drawn from its dense masks -> the report.

    Raises ValueError, in one line, if it has no such split or no masks, lacks tiles, or if `out` exists; then
    nothing is made.
    """
    given = shards.describe(dataset, verify=True)
    if train_split not in given.rows:
        raise ValueError(f"{dataset}: no split {train_split!r}; it has {', '.join(given.rows)}")
    refuse_lost_tiles(given, train_split, f"labels of kind {recipe.kind}")
    settings = Settings(layout="shards", label=recipe.label, label_seed=recipe.seed, recipe=recipe)
    return derive(shards.open(dataset), settings, out, train_split, _derived_name(given, settings))


def _root(root: str | Path) -> Path:
    if not str(root):
        raise ValueError("data.root is not set; give the dataset's folder with --data.root")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root: {path} is not a folder; give the dataset's folder with --data.root")
    return path.absolute()


def _checked(path: str | Path, data: DataConfig) -> shards.Description:
    found = shards.describe(path, cache=data.cache, verify=True)
    if data.num_classes not in (None, len(found.names)):
        raise ValueError(
            f"{path}: has {len(found.names)} classes but data.num_classes={data.num_classes}; "
            "correct --data.num-classes or --data.root"
        )
    for field in ("train_split", "val_split"):
        if getattr(data, field) not in found.rows:
            raise ValueError(
                f"{path}: data.{field}={getattr(data, field)!r} is not among its splits "
                f"{', '.join(found.rows)}"
            )
    return found


# ---------------------------------------------------------------------------------------------- raw -> shards


def _listed(root: Path, settings: Settings) -> Source:
    """The listed raw dataset, after all checks that need no decoding."""
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


# ------------------------------------------------------------------------------------------- shards -> shards


def _derived_name(given: shards.Description, settings: Settings) -> str:
    assert settings.drawing is not None
    source = given.source if object_store.is_url(given.source) else str(Path(given.source).resolve())
    facts = [source, shards.VERSION, given.identity, settings.label, dataclasses.asdict(settings.drawing)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
