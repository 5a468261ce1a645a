"""A raw dataset before anything is decoded: its images, its annotation, its name; and what layouts share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseg.config import IGNORED, PIXELLESS, FieldError, ImportConfig, field, flag
from sparseg.data import shards, sparsify
from sparseg.data.importers.files import (
    PASSED_OVER,
    first_folder,
    label_files,
    label_paths,
    nearest,
    some,
)

READ_KINDS = ("point", "scribble", "clicks", "block", *PIXELLESS)
STROKE_SUFFIXES = {
    **{"whats-the-point": ".json", "labelme": ".json", "coco": ".json", "label-studio": ".json"},
    **{"scribblesup": ".xml", "cvat": ".xml", "voc": ".xml", "csv": ".csv"},
}
"""Format of point and stroke files, of tags and boxes -> the suffix it is read from."""
SUFFIX_OF = {".tsv": ".csv"}
"""Another suffix, in lower case -> the one that means the same."""
WEAK_FORMATS = {"tag": ("csv", "coco", "cvat", "voc"), "box": ("coco", "labelme", "cvat", "voc")}
"""Label kind that places no class at a pixel -> the formats that it is read from; voc has no other kind."""
FINGERPRINTED = (
    *("label", "label_path", "label_format", "stroke_px", "unlabelled_code", "random_pixels"),
    *("clicks_per_class", "label_seed", "skip_bad", "store"),
)
"""The fields of ImportConfig that are part of an import's name, in the order in which they always were: with
another order or list every dataset would be imported again."""
TILE_FIELDS = ("tile_px", "tile_overlap_px")
"""They are part of the name of an import that cuts tiles."""
NOT_FINGERPRINTED = ("num_classes", "val_split")
"""They refuse a dataset, or choose among its splits, whose images are part of the name in any case."""
POOL = "pool"
"""Split of the images that nobody annotated; training never reads it."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One image and where its annotations are."""

    id: str
    image: Path
    mask: Path | None = None
    """Dense ground truth."""
    label: Path | None = None
    """Sparse annotation as PNG."""


SparseRule = Callable[[Any, int | None, str], tuple[dict[int, int], str] | None]
"""(pixels of every value in all sparse PNGs (256,), declared code, where) -> (value -> class or code, what it
is), or None."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A raw dataset, listed but not read."""

    layout: str
    root: Path
    names: list[str]
    splits: dict[str, list[Item]]
    dense_table: dict[int, int]
    """Value in a dense mask -> class id or code; other values are refused."""
    places: dict[str, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    """Label kind -> where the layout keeps that annotation, first existing one wins."""
    point_files: tuple[Path, ...] = ()
    colours: tuple[shards.Colour | None, ...] = ()
    """What the class list says, None for a class without; empty where no class has any.  No part of the
    import's name: with other colours the rows are the same."""
    notes: tuple[str, ...] = ()
    dense_is_labels: bool = False
    """Dense masks are taken from labels/ for want of masks/: their density must be checked."""
    val_from_labels: bool = False
    """Val and test have no dense masks: their labels are of the sparse annotation, as those of train."""
    group_of: dict[str, str] | None = None
    """Image id -> the group by whose hash it is held out; None where the layout has splits of its own."""
    dense_hint: str = ""
    """What to do about a wrong value in a dense mask, where the layout knows better than the general."""
    shift_needs_proof: bool = False
    """Dense masks hold class + 1, as the layout wants it; but data sets laid out so exist that count from 0,
    and only the value K tells them apart."""
    sparse_rule: SparseRule | None = None
    """The layout's own reading of sparse PNGs; None from it means the general rule."""
    labelmap: Path | None = None
    """Names the colours of the dense masks where they are no ids: a labelmap.txt of CVAT or Datumaro."""
    label_place: Path | None = None
    """Folder of the sparse PNGs, once found."""
    mask_place: Path | None = None
    """Folder of the dense masks, where there is one."""
    refused: tuple[dict[str, str], ...] = ()
    """Images that were left out: split, id, reason."""


def recipe_of(config: ImportConfig) -> sparsify.Recipe | None:
    """Say how the clicks of an import are drawn from the dense masks; None: its labels are read."""
    if config.random_pixels:
        return sparsify.Recipe(kind="point", budget=config.random_pixels, seed=config.label_seed)
    if config.clicks_per_class:
        return sparsify.Recipe(kind="clicks", budget=config.clicks_per_class, seed=config.label_seed)
    return None


def tiles_of(config: ImportConfig) -> dict[str, int] | None:
    """Say how an import cuts larger images, for its report; None: it does not."""
    return {name: getattr(config, name) for name in TILE_FIELDS} if config.tile_px else None


def identity(num_classes: int, **codes: int) -> dict[int, int]:
    """Make the table of a mask whose classes are 0..K-1 and whose void is `codes["void"]` (default
    IGNORED)."""
    return {**{k: k for k in range(num_classes)}, codes.get("void", IGNORED): IGNORED}


def attach(source: Source, config: ImportConfig) -> Source:
    """Find the annotation of the training images of a source, and check that all that is needed is there.

    Raises ValueError naming images without label, or the place where an annotation was looked for.
    """
    if config.num_classes not in (None, len(source.names)):
        raise FieldError(
            f"{source.root}: has {len(source.names)} classes ({some(source.names, 25)}) but "
            f"{field('data.num_classes')}={config.num_classes}; correct {flag('data.num_classes')} or the "
            "data's classes.txt"
        )
    read = config.label in READ_KINDS and not config.draws_clicks
    if read:
        source = _attach_annotation(source, config)
    for split, items in list(source.splits.items()):
        if not items:
            passed = [note for note in source.notes if PASSED_OVER in note]
            why = "; ".join(passed) or "check its list or image folder"
            if split == "val" and len(source.splits.get("train", ())) == 1:
                why = f"one image cannot train and validate; add some, or say {flag('data.val_split')} none"
            raise FieldError(f"{source.root}: no rows in split {split!r}; {why}")
        absent = [item.image for item in items if not config.skip_bad and not item.image.is_file()]
        if absent:
            raise FieldError(
                f"{source.root}, split {split!r}: {len(absent)} of {len(items)} listed images do not exist: "
                f"{some(absent)}; correct the list, or leave them out with {flag('data.skip_bad')}"
            )
        from_labels = split == "train" or source.val_from_labels
        source = _without_unlabelled(source, split, config, read=read and from_labels)
    return source


def _attach_annotation(source: Source, config: ImportConfig) -> Source:
    kind = config.label
    if config.label_path is not None:
        given = Path(config.label_path)
        place = next((path for path in (given, source.root / given) if path.exists()), None)
        if place is None:
            raise FieldError(f"{field('data.label_path')}: {given} does not exist (nor below {source.root})")
    else:
        places = source.places.get(kind, ())
        place = next((path for path in places if path.exists()), None)
        if place is None:
            looked = f" (looked for {some(places, 9)})" if places else ""
            what = "folder of PNGs, or its point or stroke files,"
            draw = (
                f"for clicks drawn from dense masks use {flag('data.label')} clicks "
                f"{flag('data.random_pixels')} N"
            )
            if kind in WEAK_FORMATS:
                what = f"{', '.join(WEAK_FORMATS[kind])} files"
                draw = f"`sparseg sparsify --kind {kind}` draws it from dense masks"
            raise FieldError(
                f"{source.root}: no {kind} annotation{looked}; name its {what} with "
                f"{flag('data.label_path')}; {draw}"
            )
    point_files = stroke_files(place, config.label_format)
    if point_files:
        return dataclasses.replace(source, point_files=point_files)
    if kind in WEAK_FORMATS:
        raise FieldError(
            f"{place}: holds no file of {', '.join(WEAK_FORMATS[kind])}, from which "
            f"{field('data.label')}={kind} is read; correct {flag('data.label_path')} or "
            f"{flag('data.label_format')}"
        )
    if place.is_file():
        raise FieldError(
            f"{field('data.label_path')}: {place} is a file, but label PNGs are read from a folder; point "
            f"and stroke files end in {' '.join(sorted(set(STROKE_SUFFIXES.values())))}"
        )
    splits, notes = dict(source.splits), source.notes
    for split in splits if source.val_from_labels else ("train",):
        own_place = first_folder(place / split) if split != "train" else None
        flat = source.group_of is not None  # then the folder holds the labels of all splits
        ids = [item.id for own in (splits.values() if flat else (splits[split],)) for item in own]
        labels, more = label_files(own_place or place, ids)
        splits[split] = [dataclasses.replace(item, label=labels[item.id]) for item in splits[split]]
        notes = (*notes, *(note for note in more if note not in notes))
    return dataclasses.replace(source, splits=splits, notes=notes, label_place=place)


def _without_unlabelled(source: Source, split: str, config: ImportConfig, *, read: bool) -> Source:
    """Leave out the images that have no label file, if those may be left out (skip_bad)."""
    items = source.splits[split]
    if read:
        bare = [] if source.point_files else [item.id for item in items if item.label is None]
        place = source.label_place
    else:
        bare, place = [item.id for item in items if item.mask is None], source.mask_place
    chosen_anew = source.group_of is not None and split != "train"
    if not bare or (config.unannotated == "keep" and (len(bare) < len(items) or chosen_anew)):
        return source  # `held_out.settled` keeps them
    if not config.skip_bad or len(bare) == len(items):
        stems = [file.stem for file in label_paths(place)] if place is not None else []
        remedy = (
            f"add the missing label PNGs, keep these images aside with {flag('data.unannotated')} keep, or "
            f"leave them out with {flag('data.skip_bad')}"
        )
        raise FieldError(
            f"{source.root}, split {split!r}: {len(bare)} of {len(items)} images are without label: "
            f"{some(bare)}{f' (looked in {place})' if place else ''}{nearest(bare, stems)}; {remedy}"
        )
    reason = f"no label file{f' in {place}' if place else ''}"
    refused = [{"split": split, "id": name, "reason": f"{name}: {reason}"} for name in bare]
    gone = set(bare)
    splits = {**source.splits, split: [item for item in items if item.id not in gone]}
    return dataclasses.replace(source, splits=splits, refused=(*source.refused, *refused))


def stroke_files(place: Path, label_format: str) -> tuple[Path, ...]:
    """Find the point and stroke files at a file or (anywhere below) a folder; none if it holds label PNGs.

    Raises ValueError for an unknown format, for a declared one without its files, and for several suffixes.
    """
    if label_format == "png":
        return ()
    if label_format not in (*STROKE_SUFFIXES, "auto"):
        known = ", ".join(("auto", "png", *STROKE_SUFFIXES))
        raise FieldError(f"{field('data.label_format')} must be one of {known}; got {label_format!r}")
    files_there = [place] if place.is_file() else sorted(place.rglob("*"))
    by_suffix: dict[str, list[Path]] = {}
    for file in files_there:
        suffix = stroke_suffix(file)
        if suffix in STROKE_SUFFIXES.values() and file.name[0] != "." and file.is_file():
            by_suffix.setdefault(suffix, []).append(file)
    if label_format != "auto":
        suffix = STROKE_SUFFIXES[label_format]
        if suffix not in by_suffix:
            holds = "is no" if place.is_file() else "holds no"
            raise FieldError(
                f"{place}: {holds} {suffix} file, from which {label_format} is read; correct "
                f"{flag('data.label_path')} or {flag('data.label_format')}"
            )
        return tuple(by_suffix[suffix])
    if len(by_suffix) > 1:
        firsts = some(files[0] for files in by_suffix.values())
        raise FieldError(
            f"{place}: holds annotation files of several kinds ({firsts}); name one file with "
            f"{flag('data.label_path')}, or its format with {flag('data.label_format')}"
        )
    return tuple(next(iter(by_suffix.values()), ()))


def stroke_suffix(file: Path) -> str:
    """Give a file's suffix as STROKE_SUFFIXES has it."""
    suffix = file.suffix.lower()
    return SUFFIX_OF.get(suffix, suffix)


def fingerprint(source: Source, config: ImportConfig) -> str:
    """Make the short name of an import from what was asked, its root and its files with their size and time.

    A field of ImportConfig that is in none of the lists above is part of it where it is not at its default,
    so that a new field leaves the names of earlier imports as they are.
    """
    files = [
        file
        for items in source.splits.values()
        for item in items
        for file in (item.image, item.mask, item.label)
    ]
    facts = []
    for file in [*files, *source.point_files]:
        stat = file.stat() if file is not None and file.exists() else None
        facts.append([str(file), stat and stat.st_size, stat and stat.st_mtime_ns])
    ids = {split: [item.id for item in items] for split, items in source.splits.items()}
    asked = _asked(source.layout, config)
    text = json.dumps([shards.VERSION, asked, str(source.root.resolve()), source.names, ids, facts])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _asked(layout: str, config: ImportConfig) -> dict[str, Any]:
    names = (*FINGERPRINTED, *(TILE_FIELDS if config.tile_px else ()))
    asked = {"layout": layout} | {name: getattr(config, name) for name in names}
    asked["recipe"] = None  # once a field; `sparseg sparsify` names its datasets in another way
    for entry in dataclasses.fields(ImportConfig):
        value = getattr(config, entry.name)
        if entry.name not in (*FINGERPRINTED, *TILE_FIELDS, *NOT_FINGERPRINTED) and value != entry.default:
            asked[entry.name] = value
    return asked
