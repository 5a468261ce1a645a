"""Which images of a dataset without split folders are held out, and which nobody annotated (the pool)."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from sparseg.common.files import checksum
from sparseg.config import IGNORED, UNLABELLED, FieldError, ImportConfig, field, flag
from sparseg.data.importers.annotator import Annotator, key_of
from sparseg.data.importers.files import some
from sparseg.data.importers.label_pngs import BadFileError, read_raw, value_counts
from sparseg.data.importers.source import POOL, READ_KINDS, Item, Source

HELD_OUT_SHARE = 0.2
DENSE_SHARE = 0.5
"""Label images with less of their pixels labelled are sparse."""
LOST = ("points_outside", "strokes_outside", "boxes_outside")
"""What is counted of annotation that leaves no labelled pixel."""

TWINS = "are also in val or test and were left out of train"


def groups(ids: Iterable[str], val_group: str | None) -> dict[str, str]:
    """Name every image's group, by whose hash it is held out: itself, its folder, or what a pattern says.

    Raises ValueError for a pattern that finds nothing in an id.
    """
    ids = list(ids)
    if val_group is None:
        return {name: name for name in ids}
    if val_group == "folder":
        return {name: name.split("/", 1)[0] for name in ids}
    found = {name: re.search(val_group, name) for name in ids}
    if strangers := [name for name, match in found.items() if match is None]:
        raise FieldError(
            f"{field('data.val_group')}={val_group!r} finds nothing in {len(strangers)} of {len(ids)} image "
            f"ids: {some(strangers)}; a pattern must name the group of every image"
        )
    matches = {name: match for name, match in found.items() if match is not None}
    return {name: (match[1] if match.re.groups else match[0]) or "" for name, match in matches.items()}


def held_out(group_of: Mapping[str, str], among: Collection[str] | None = None) -> set[str]:
    """Choose the images of about 20 % of the groups by a hash of the group's name alone.

    So an image keeps its side when others are added.  Where no image of `among` (default: all) would be held
    out, or none left to train on, the one group nearest to the line changes sides.
    """
    counted = set(group_of if among is None else among)
    rank = {name: _rank(name) for name in set(group_of.values())}
    val = {name for name in rank if rank[name] < HELD_OUT_SHARE * 2**32}
    there = {group_of[name] for name in counted}
    if len(there) > 1 and not 0 < len(there & val) < len(there):
        val ^= {max(there, key=rank.__getitem__) if there & val else min(there, key=rank.__getitem__)}
    return {name for name, group in group_of.items() if group in val}


def _rank(group: str) -> int:
    return int(hashlib.sha256(f"split/0/{group}".encode()).hexdigest()[:8], 16)


def balanced(source: Source, annotated: Collection[str]) -> Source:
    """Hold images out again where those that are annotated would all stand on one side.

    annotated: ids.  A source with splits of its own, or with dense masks, is given back as it is.
    """
    if source.group_of is None or not source.val_from_labels or "val" not in source.splits:
        return source
    val = held_out(source.group_of, [name for name in annotated if name in source.group_of])
    items = [item for split in ("train", "val") for item in source.splits[split]]
    splits = {
        "train": [item for item in items if item.id not in val],
        "val": [item for item in items if item.id in val],
    }
    for split, own in splits.items():
        if not own:
            raise FieldError(
                f"{source.root}: no annotated image is left for split {split!r}; annotate more images"
                f"{' of other groups' if len(set(source.group_of.values())) < len(source.group_of) else ''}, "
                f"or train without validation with {flag('data.val_split')} none"
            )
    if {item.id for item in splits["val"]} == {item.id for item in source.splits["val"]}:
        return source  # in the order that it has
    return dataclasses.replace(source, splits={**source.splits, **splits})


def pooled(source: Source, bare: Mapping[str, Collection[str]], config: ImportConfig) -> Source:
    """Move images that nobody annotated into the split `pool`; bare: split -> their ids."""
    if config.unannotated != "keep" or not any(bare.values()):
        return source
    splits: dict[str, list[Item]] = {}
    pool = list(source.splits.get(POOL, ()))
    for split, items in source.splits.items():
        gone = set(bare.get(split, ()))
        splits[split] = [item for item in items if item.id not in gone]
        pool += [dataclasses.replace(item, mask=None, label=None) for item in items if item.id in gone]
    splits[POOL] = sorted(pool, key=lambda item: item.id)
    note = f"{sum(map(len, bare.values()))} images that nobody annotated are in the split {POOL!r}"
    return dataclasses.replace(source, splits=splits, notes=(*source.notes, note))


def without_validated(source: Source) -> Source:
    """Leave training images out whose file is also one of val or test, byte for byte."""
    if source.layout != "folder":
        return source  # the splits of a public dataset are what its numbers are compared on
    held = [item for split in ("val", "test") for item in source.splits.get(split, ())]
    train = source.splits.get("train", [])
    sizes = {_size(item.image) for item in held} - {None}
    suspects = [item for item in train if _size(item.image) in sizes]
    if not suspects:
        return source
    sums: dict[str, Item] = {}
    suspect_sizes = {_size(item.image) for item in suspects}
    for item in held:
        if _size(item.image) in suspect_sizes:
            sums.setdefault(checksum(item.image), item)
    twin_of = {item.id: sums.get(checksum(item.image)) for item in suspects}
    twins = {name: twin for name, twin in twin_of.items() if twin is not None}
    if not twins:
        return source
    pairs = some(f"{name} = {twin.id}" for name, twin in twins.items())
    note = f"{len(twins)} training images {TWINS}: {pairs}"
    splits = {**source.splits, "train": [item for item in train if item.id not in twins]}
    return dataclasses.replace(source, splits=splits, notes=(*source.notes, note))


def _size(file: Path) -> int | None:
    """Give the bytes of a file, None if it is not there."""
    return file.stat().st_size if file.is_file() else None


# -------------------------------------------------------------------------------- once the labels are read


def with_sparse_val(source: Source, config: ImportConfig) -> Source:
    """Find out whether the label images of val and test are sparse, where labels/ is all there is."""
    read = config.label in READ_KINDS and not config.draws_clicks
    place, labels = source.label_place, source.mask_place
    if not (source.dense_is_labels and read and place is not None and labels is not None):
        return source
    if labels.resolve() not in (place.resolve(), *place.resolve().parents):
        return source  # train is read from elsewhere
    count_256 = np.zeros(256, dtype=np.int64)
    files = [item.mask for split, items in source.splits.items() if split != "train" for item in items]
    for file in files:
        try:
            count_256 += 0 if file is None else value_counts(read_raw(file))
        except BadFileError:
            if not config.skip_bad:
                raise
    codes = {UNLABELLED, len(source.names), config.unlabelled_code} - {None, IGNORED}
    labelled = count_256[: len(source.names)].sum()
    if not count_256[[code for code in codes if code is not None]].any():
        if labelled and labelled >= DENSE_SHARE * count_256.sum():
            return source
    splits = {
        split: items
        if split == "train"
        else [dataclasses.replace(item, label=item.mask, mask=None) for item in items]
        for split, items in source.splits.items()
    }
    notes = tuple(note for note in source.notes if not note.startswith("dense masks"))
    return dataclasses.replace(
        source, splits=splits, notes=notes, val_from_labels=True, dense_is_labels=False, mask_place=None
    )


def settled(source: Source, annotate: Annotator, config: ImportConfig) -> Source:
    """Put every image into its split, now that it is known which are annotated.

    Raises ValueError if the files annotate nothing at all, or no image of a split.
    """
    source = pooled(source, _bare(source, annotate, config), config)
    source = without_validated(balanced(source, _annotated(source, annotate)))
    for split, items in source.splits.items():
        if not items:
            gone = [note for note in source.notes if TWINS in note]
            remedy = "annotate some"
            if split == "val":
                remedy += f", or train without validation with {flag('data.val_split')} none"
            raise FieldError(
                f"{source.root}: no annotated image is left in split {split!r}; {remedy}"
                + "".join(f" ({note})" for note in gone)
            )
    if annotate.strokes is not None:
        _refuse_empty_files(source, annotate)
    if source.val_from_labels and "val" in source.splits:
        note = "no dense masks: val is scored on the labelled pixels of its images"
        source = dataclasses.replace(source, notes=(*source.notes, note))
    return source


def _bare(source: Source, annotate: Annotator, config: ImportConfig) -> dict[str, list[str]]:
    """List the images of every split that nobody annotated."""
    read = config.label in READ_KINDS and not config.draws_clicks
    bare: dict[str, list[str]] = {}
    for split, items in source.splits.items():
        if not (read and (split == "train" or source.val_from_labels)):
            bare[split] = [item.id for item in items if item.mask is None]
        elif annotate.strokes is None:
            bare[split] = [item.id for item in items if item.label is None]
        else:
            known = annotate.strokes
            bare[split] = [item.id for item in items if key_of(item.id, split, known) not in known.strokes]
    return bare


def _annotated(source: Source, annotate: Annotator) -> list[str]:
    """List the images that have a label image, or a point or stroke."""
    items = [item for split in ("train", "val") for item in source.splits.get(split, ())]
    if annotate.strokes is None:
        return [item.id for item in items if item.label is not None]
    return [item.id for item in items if annotate.strokes.strokes.get(item.id)]


def _refuse_empty_files(source: Source, annotate: Annotator) -> None:
    known = annotate.strokes
    if known is None or any(known.strokes.get(item.id) for item in source.splits["train"]):
        return
    left_out = "; ".join(annotate.notes) or "none"
    cvat = "; of points CVAT writes none into COCO files: export 'CVAT for images 1.1'"
    raise FieldError(
        f"{annotate.files}: no training image has a labelled pixel: the files have no annotation of the "
        f"{len(source.splits['train'])} images of train that can be read ({left_out})"
        f"{cvat if 'coco' in annotate.encoding else ''}; annotate them, or name another file with "
        f"{flag('data.label_path')}"
    )
