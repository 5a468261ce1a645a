"""A listed dataset, or one imported before -> shards: what worker processes do, and what the report says."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseg.config import FieldError, ImportConfig, flag
from sparseg.data import shards, sparsify
from sparseg.data.importers import held_out, layouts, tiles
from sparseg.data.importers.annotator import Annotator, annotator
from sparseg.data.importers.report import ImportReport
from sparseg.data.importers.rows import Summary, rows
from sparseg.data.importers.source import Item, Source, fingerprint, tiles_of
from sparseg.data.importers.tags_and_boxes import present

# ---------------------------------------------------------------------------------------------- raw -> shards


def import_source(
    source: Source, config: ImportConfig, out: str, *, num_shards: int = 1, workers: int | None = None
) -> ImportReport:
    """Import a checked source into the folder or URL `out`; an import that was interrupted goes on.

    Raises DatasetExistsError if `out` is taken, ValueError naming the file that is wrong.
    """
    name = fingerprint(source, config)
    shards.refuse_taken(out)  # before the label files are read, which may take a while
    _refuse_equal_ids(source)
    if config.tile_px:
        _refuse_ids_of_tiles(source)
    source = held_out.with_sparse_val(source, config)
    annotate = annotator(source, config)
    source = held_out.settled(source, annotate, config)
    uncounted = ImportReport(
        layout=source.layout,
        root=str(source.root),
        label=config.label,
        settings={entry.name: getattr(config, entry.name) for entry in dataclasses.fields(ImportConfig)},
        fingerprint=name,
        classes=tuple(source.names),
        encoding=annotate.encoding,
        refused=source.refused,
        notes=(*source.notes, *annotate.notes),
        val_labels=None if "val" not in source.splits else "sparse" if source.val_from_labels else "dense",
        tiles=tiles_of(config),
        long_side_px=config.long_side_px or None,
    )
    nothing = {split: list[Item]() for split in source.splits}
    without_items = dataclasses.replace(source, splits=nothing, group_of=None)
    written = shards.build(
        out,
        source.splits,
        functools.partial(_open_reader, without_items, config, annotate),
        source.names,
        fingerprint=name + _name_of_colours(source),
        report_of=functools.partial(_import_report, source, config, uncounted),
        palette=layouts.palette_of(source),
        num_shards=num_shards,
        workers=workers,
        part_items=tiles.PART_ITEMS if config.tile_px else None,
    )
    return ImportReport.from_dict(written)


def _name_of_colours(source: Source) -> str:
    """Tell the parts of an interrupted import by the colours that their label PNGs are written in."""
    told = repr(source.colours).encode()
    return f"-{hashlib.sha256(told).hexdigest()[:6]}" if source.colours else ""


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


def _open_reader(source: Source, config: ImportConfig, annotate: Annotator) -> shards.Reader:
    """Make the reader of raw items; called in every process, where `source` is without its items."""

    def read(split: str, items: Sequence[Item], facts: dict[str, Any]) -> Iterator[shards.Row]:
        return rows(source, split, items, annotate, config, facts)

    return read


def _import_report(
    source: Source, config: ImportConfig, uncounted: ImportReport, parts: shards.Facts
) -> dict[str, Any]:
    """Complete the report with its counts.  Raises ValueError for sparse labels where dense ones are
    needed."""
    totals, refused = _merged(parts, list(source.splits), len(source.names))
    for split, total in totals.items():
        if not total.rows and total.extra["tiles_left_out"]:
            unit = "labelled pixel or box" if config.label == "box" else "labelled pixel"
            raise ValueError(
                f"{source.root}: none of the {total.extra['tiles_left_out']} tiles of split {split!r} has a "
                f"{unit}; correct the labels, or the value that means unlabelled"
            )
        if source.dense_is_labels and (split != "train" or config.label == "full" or config.draws_clicks):
            share = total.counts["labelled"] / max(1, sum(total.counts.values()))
            if total.rows and share < 0.5:
                raise ValueError(
                    f"{source.root}: the {split} labels are sparse ({share:.2%} of the pixels), where dense "
                    "ones are needed; put dense masks into masks/ beside labels/"
                )
    _refuse_unlabelled(source, totals, uncounted)
    counts = {split: total.as_dict() for split, total in totals.items()}
    return dataclasses.replace(uncounted, splits=counts, refused=(*uncounted.refused, *refused)).to_dict()


def _refuse_unlabelled(source: Source, totals: dict[str, Summary], uncounted: ImportReport) -> None:
    """Raise ValueError if nothing is labelled in train, or in a val that is scored on sparse labels."""
    for split in ("train", "val") if source.val_from_labels else ("train",):
        total = totals.get(split)
        if total is None or not total.rows or total.unlabelled_rows < total.rows:
            continue
        found = [f"{total.counts[code]:,} pixels are {code}" for code in ("unlabelled", "ignored")]
        lost = [name for name in held_out.LOST if total.extra[name]]
        found += [f"{total.extra[name]} {name.replace('_', ' ')}" for name in lost]
        raise FieldError(
            f"{source.root}: no image of split {split!r} has a labelled pixel, so nothing can be "
            f"{'learnt' if split == 'train' else 'scored'} ({uncounted.encoding}; {', '.join(found)}); "
            f"correct the labels, {flag('data.unlabelled_code')} or classes.txt"
        )


def _merged(
    parts: shards.Facts, splits: list[str], num_classes: int
) -> tuple[dict[str, Summary], list[dict[str, str]]]:
    """Add up the counts of every split over all parts, and the images that were refused in them."""
    totals = {split: Summary(num_classes) for split in splits}
    refused: list[dict[str, str]] = []
    for split, facts in parts:
        totals[split].merge(facts["summary"])
        refused += facts.get("refused", [])
    return totals, refused


# ------------------------------------------------------------------------------------------- shards -> shards


def derive(
    opened: shards.ShardedDataset,
    recipe: sparsify.Recipe,
    out: str | Path,
    *,
    train_split: str,
    name: str,
    images: shards.ImagesElsewhere | None = None,
) -> ImportReport:
    """Write the same images with training labels drawn from their dense masks; `name` is the fingerprint.

    images: where the images are, if they are to stay in `opened` and not to be written again.
    Raises ValueError for a training row without dense mask.
    """
    uncounted = dataclasses.replace(
        ImportReport.from_dict(opened.report),
        layout="shards",
        root=str(opened.path),
        label=recipe.label,
        fingerprint=name,
        classes=tuple(opened.names),
        encoding=f"drawn from the masks of {opened.path}: {recipe.describe()}",
        drawn={**dataclasses.asdict(recipe), "width_px": recipe.width},
    )
    written = shards.build(
        str(out),
        {split: range(len(data)) for split, data in opened.splits.items()},
        functools.partial(_open_derived, str(opened.path), recipe, train_split, images is None),
        opened.names,
        fingerprint=name,
        report_of=functools.partial(_derived_report, uncounted, list(opened.splits)),
        palette=opened.palette,
        images=images,
    )
    return ImportReport.from_dict(written)


def _derived_report(uncounted: ImportReport, splits: list[str], parts: shards.Facts) -> dict[str, Any]:
    """Complete the report with its counts; those of cutting are the original dataset's."""
    totals, refused = _merged(parts, splits, len(uncounted.classes))
    assert not refused
    counts = {split: total.as_dict() for split, total in totals.items()}
    for split, before in uncounted.splits.items():
        counts[split] |= {name: before[name] for name in tiles.COUNTS if name in before}
    return dataclasses.replace(uncounted, splits=counts).to_dict()


def _open_derived(path: str, recipe: sparsify.Recipe, train_split: str, with_images: bool) -> shards.Reader:
    """Make the reader of row numbers of the dataset at `path`; called in every process."""
    opened = shards.open(path)
    splits = opened.splits
    if not with_images:  # megabytes a row, which nobody would look at
        splits = {split: data.remove_columns(["image"]) for split, data in splits.items()}

    def read(split: str, numbers: Sequence[int], facts: dict[str, Any]) -> Iterator[shards.Row]:
        total = Summary(len(opened.names))
        for number in numbers:
            row = _derived(opened, splits[split][number], recipe, split == train_split)
            total.add(row["label"], row["present"])
            yield row
        facts["summary"] = total.state()

    return read


def _derived(
    opened: shards.ShardedDataset, stored: dict[str, Any], recipe: sparsify.Recipe, is_train: bool
) -> shards.Row:
    row: shards.Row = {name: stored[name] for name in ("id", "height", "width", "present")}
    mask = (stored.get("mask") or {}).get("bytes")
    if mask is None and opened.report.get("label", "full") == "full":
        mask = stored["label"]["bytes"]
    row["image"] = stored["image"]["bytes"] if "image" in stored else None
    row["mask"] = shards.decode_label(mask) if mask is not None and is_train else None
    row["label"] = shards.decode_label(stored["label"]["bytes"])
    if is_train:
        if row["mask"] is None:
            raise ValueError(
                f"{opened.path}: row {row['id']} has no dense mask to make {recipe.label} labels from; use "
                "the labels it has, or import the data again with dense masks"
            )
        row["label"], row["strokes"] = recipe.draw(row["mask"], row["id"])
        row["present"] = present(recipe.label, row["strokes"])
    return row
