"""A listed dataset, or one imported before -> shards: what worker processes do, and what the report says."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseg.data import shards
from sparseg.data.importers import layouts, tiles
from sparseg.data.importers.rows import Summary, annotator, rows
from sparseg.data.importers.source import Item, Settings, Source, fingerprint
from sparseg.data.importers.tags_and_boxes import present

# ---------------------------------------------------------------------------------------------- raw -> shards


def import_source(
    source: Source, settings: Settings, out: str, *, num_shards: int = 1, workers: int | None = None
) -> dict[str, Any]:
    """Import a checked source into the folder or URL `out` -> the report.  Goes on if it was interrupted.

    Raises DatasetExistsError if `out` is taken, ValueError naming the file that is wrong.
    """
    name = fingerprint(source, settings)
    report: dict[str, Any] = {
        "layout": settings.layout,
        "root": str(source.root),
        "label": settings.label,
        "settings": dataclasses.asdict(settings),
        "fingerprint": name,
        "classes": source.names,
        "encoding": "",
        "splits": {},
        "refused": list(source.refused),
        "notes": list(source.notes),
    }
    shards.refuse_taken(out)  # before the label files are read, which may take a while
    _refuse_equal_ids(source)
    if settings.tile_px:
        report["tiles"] = {name: getattr(settings, name) for name in ("tile_px", "tile_overlap_px")}
        _refuse_ids_of_tiles(source)
    found: dict[str, Any] = {}
    annotator(source, settings, report, found)
    if settings.tile_px and settings.drawn:
        report["encoding"] += f"; each tile of {settings.tile_px} px is an image of its own"
    palette = layouts.PALETTES.get(settings.layout)
    if palette is not None and len(palette) != len(source.names):
        palette = None
    bare = dataclasses.replace(source, splits={split: [] for split in source.splits})
    shards.build(
        out,
        source.splits,
        functools.partial(_open_reader, bare, settings, found),
        source.names,
        fingerprint=name,
        report=report,
        summarise=functools.partial(_summarise, source, settings, report),
        palette=palette,
        num_shards=num_shards,
        workers=workers,
        part_items=tiles.PART_ITEMS if settings.tile_px else None,
    )
    return report


def _refuse_ids_of_tiles(source: Source) -> None:
    for split, items in source.splits.items():
        if pair := tiles.colliding(item.id for item in items):
            raise ValueError(
                f"{source.root}, split {split!r}: image {pair[1]} is named as a tile of image {pair[0]} "
                "would be; rename one"
            )


def _refuse_equal_ids(source: Source) -> None:
    for split, items in source.splits.items():
        first: dict[str, Item] = {}
        for item in items:
            if item.id in first:
                raise ValueError(
                    f"{source.root}, split {split!r}: two rows have the id {item.id} ("
                    f"{first[item.id].image} and {item.image}); ids must differ: "
                    "correct the list, or rename one"
                )
            first[item.id] = item


def _open_reader(source: Source, settings: Settings, found: dict[str, Any]) -> shards.Reader:
    """Of raw items; called in every process, where `source` is without its items."""
    annotate = annotator(source, settings, {}, found)

    def read(split: str, items: Sequence[Item], facts: dict[str, Any]) -> Iterator[shards.Row]:
        return rows(source, split, items, annotate, settings, facts)

    return read


def _summarise(source: Source, settings: Settings, report: dict[str, Any], parts: shards.Facts) -> None:
    """Fill in the report's counts; refuse sparse labels where dense ones are needed."""
    totals = _merged(parts, list(source.splits), len(source.names), report)
    for split, total in totals.items():
        if not total.rows and total.extra["tiles_left_out"]:
            unit = "labelled pixel or box" if settings.label == "box" else "labelled pixel"
            raise ValueError(
                f"{source.root}: none of the {total.extra['tiles_left_out']} tiles of split {split!r} has a "
                f"{unit}; correct the labels, or the value that means unlabelled"
            )
        if source.dense_is_labels and (split != "train" or settings.label == "full" or settings.drawn):
            share = total.counts["labelled"] / max(1, sum(total.counts.values()))
            if total.rows and share < 0.5:
                raise ValueError(
                    f"{source.root}: the {split} labels are sparse ({share:.2%} of the pixels), where dense "
                    "ones are needed; put dense masks into masks/ beside labels/"
                )


def _merged(
    parts: shards.Facts, splits: list[str], num_classes: int, report: dict[str, Any]
) -> dict[str, Summary]:
    totals = {split: Summary(num_classes) for split in splits}
    for split, facts in parts:
        totals[split].merge(facts["summary"])
        report["refused"] += facts.get("refused", [])
    report["splits"] |= {split: total.as_dict() for split, total in totals.items()}
    return totals


# ------------------------------------------------------------------------------------------- shards -> shards


def derive(
    opened: shards.ShardedDataset, settings: Settings, out: str | Path, train_split: str, name: str
) -> dict[str, Any]:
    """The same images with training labels drawn from the dense masks -> the report; `name`: its fingerprint.

    Raises ValueError for a training row without dense mask.
    """
    recipe = settings.drawing
    assert recipe is not None
    report: dict[str, Any] = {
        "notes": [],
        "refused": [],
        **opened.report,
        "classes": opened.names,
        "label": settings.label,
        "settings": dataclasses.asdict(settings),
        "splits": {},
    }
    report |= {"layout": "shards", "root": str(opened.path), "fingerprint": name}
    report["drawn"] = {**dataclasses.asdict(recipe), "width_px": recipe.width}
    report["encoding"] = f"drawn from the masks of {opened.path}: {recipe.describe()}"

    def summarise(parts: shards.Facts) -> None:
        _merged(parts, list(opened.splits), len(opened.names), report)
        for split, counts in opened.report.get("splits", {}).items():
            report["splits"][split] |= {name: counts[name] for name in tiles.COUNTS if name in counts}

    shards.build(
        str(out),
        {split: range(len(data)) for split, data in opened.splits.items()},
        functools.partial(_open_derived, str(opened.path), settings, train_split),
        opened.names,
        fingerprint=name,
        report=report,
        summarise=summarise,
        palette=opened.palette,
    )
    return report


def _open_derived(path: str, settings: Settings, train_split: str) -> shards.Reader:
    """Of row numbers of the dataset at `path`; called in every process."""
    opened = shards.open(path)

    def read(split: str, numbers: Sequence[int], facts: dict[str, Any]) -> Iterator[shards.Row]:
        total = Summary(len(opened.names))
        for number in numbers:
            row = _derived(opened, opened.splits[split][number], settings, split == train_split)
            total.add(row["label"], row["present"])
            yield row
        facts["summary"] = total.state()

    return read


def _derived(
    opened: shards.ShardedDataset, stored: dict[str, Any], settings: Settings, is_train: bool
) -> shards.Row:
    row: shards.Row = {name: stored[name] for name in ("id", "height", "width", "present")}
    mask = (stored.get("mask") or {}).get("bytes")
    if mask is None and opened.report.get("label", "full") == "full":
        mask = stored["label"]["bytes"]
    row["image"] = stored["image"]["bytes"]
    row["mask"] = shards.decode_label(mask) if mask is not None and is_train else None
    row["label"] = shards.decode_label(stored["label"]["bytes"])
    if is_train:
        if row["mask"] is None:
            raise ValueError(
                f"{opened.path}: row {row['id']} has no dense mask to make {settings.label} labels from; use "
                "the labels it has, or import the data again with dense masks"
            )
        assert settings.drawing is not None
        row["label"], row["strokes"] = settings.drawing.draw(row["mask"], row["id"])
        row["present"] = present(settings.label, row["strokes"])
    return row
