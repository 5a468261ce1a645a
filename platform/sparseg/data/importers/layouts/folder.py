"""A plain folder: images/ with labels/ (sparse) and/or masks/ (dense), and classes.txt."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sparseg.config import FieldError, ImportConfig, flag
from sparseg.data.importers.files import checked_id, existing, first_folder, label_files, list_images, some
from sparseg.data.importers.readers import class_names
from sparseg.data.importers.readers.labelmap import class_names as names_of_labelmap
from sparseg.data.importers.source import READ_KINDS, Item, Source, identity, read_names, stroke_files

LABELMAP = "labelmap.txt"
SPLITS = ("train", "val", "test")


def folder(root: Path, config: ImportConfig) -> Source:
    """images/ with labels/ and/or dense masks/ of the same names, each flat or with a folder a split.

    Subfolders are followed: images/site/a.jpg is image `site/a`, its label labels/site/a.png (or a.png below
    labels/, if there is but one).  Labels may share an ending, a_mask.png.  Raises ValueError for what is
    absent or ambiguous.
    """
    images, labels, masks = (root / name for name in ("images", "labels", "masks"))
    if not images.is_dir():
        raise ValueError(
            f"{root}: no images/ folder; expected images/ with labels/ or masks/, and classes.txt"
        )
    dense = first_folder(masks, labels)
    if dense is None:
        raise ValueError(
            f"{root}: neither labels/ (sparse) nor masks/ (dense); label PNGs are named as the images"
        )
    labelmap = existing(dense / LABELMAP) or existing(root / LABELMAP)
    names, name_notes = _names(root, config, labelmap)
    files, notes = _listed(images)
    mask_of, dense_notes = _dense_files(dense, files)
    splits = {
        s: [Item(name, file, mask_of[s][name]) for name, file in ids.items()] for s, ids in files.items()
    }
    read = config.label in READ_KINDS and not config.draws_clicks
    if read and dense == labels:  # sparse labels must not be stored as the dense truth of training images
        splits["train"] = [Item(item.id, item.image) for item in splits["train"]]
    return Source(
        layout="folder",
        root=root,
        names=names,
        splits=splits,
        dense_table=identity(len(names)),
        places={kind: (labels / "train", labels) for kind in READ_KINDS} if read else {},
        notes=(
            *name_notes,
            *notes,
            *dense_notes,
            f"dense masks: {'255 = void' if labelmap is None else f'the colours of {labelmap}'}",
        ),
        dense_is_labels=dense == labels,
        mask_place=dense,
        labelmap=labelmap,
    )


def _names(root: Path, config: ImportConfig, labelmap: Path | None) -> tuple[list[str], list[str]]:
    """Class names of classes.txt, labelmap.txt or the annotation files, else by number; and notes."""
    file = root / "classes.txt"
    if file.is_file():
        return read_names(file)
    if labelmap is not None:
        return names_of_labelmap(labelmap), [f"no classes.txt: the classes are those of {labelmap}"]
    places = (
        [root / "labels"]
        if config.label_path is None
        else [Path(config.label_path), root / config.label_path]
    )
    place = next((place for place in places if place.exists()), None)
    files = stroke_files(place, config.label_format) if place is not None and not config.draws_clicks else ()
    names = class_names(files, config.label_format) if files else []
    if names:
        return names, [f"no classes.txt: the classes are those of {some(file.name for file in files)}"]
    if config.num_classes is None:
        raise FieldError(
            f"{root}: no classes.txt, so the classes are not known; write one name a line, or give "
            f"{flag('data.num_classes')}"
        )
    return [f"class_{k}" for k in range(config.num_classes)], []


def _listed(images: Path) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """Split -> id -> image file, and notes."""
    if not (images / "train").is_dir():
        files, notes = list_images(images, nested=True)
        splits = _hash_split(_by_id(images, files))
        sizes = ", ".join(f"{split} {len(ids)}" for split, ids in splits.items())
        return splits, [
            f"no split folders below {images}: split 80/20 by a hash of the names ({sizes})",
            *notes,
        ]
    splits, notes = {}, []
    for split in SPLITS:
        if (images / split).is_dir():
            files, passed = list_images(images / split, nested=True)
            splits[split] = _by_id(images / split, files)
            notes += passed
    if "val" not in splits:
        raise ValueError(f"{images}: has train/ but no val/; validation needs images and dense masks")
    others = [
        path.name for path in sorted(images.iterdir()) if path.name not in SPLITS and path.name[0] != "."
    ]
    return splits, notes + (
        [f"beside the split folders of {images}, not read: {', '.join(others)}"] if others else []
    )


def _by_id(home: Path, files: list[Path]) -> dict[str, Path]:
    ids = {file.relative_to(home).with_suffix("").as_posix(): file for file in files}
    return {checked_id(name, str(file)): file for name, file in ids.items()}


def _dense_files(
    dense: Path, files: dict[str, dict[str, Path]]
) -> tuple[dict[str, dict[str, Path | None]], list[str]]:
    """Split -> id -> mask or None, and notes; a split folder below `dense` serves its split only."""
    mask_of: dict[str, dict[str, Path | None]] = {}
    notes: list[str] = []
    if not any((dense / split).is_dir() for split in SPLITS):
        everything, notes = label_files(dense, [name for ids in files.values() for name in ids])
        return {split: {name: everything[name] for name in ids} for split, ids in files.items()}, notes
    for split, ids in files.items():
        mask_of[split] = dict.fromkeys(ids)
        if (dense / split).is_dir():
            mask_of[split], more = label_files(dense / split, list(ids))
            notes += more
    return mask_of, notes


def _hash_split(files: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """80 % train, 20 % val by a hash of the id: an image keeps its side when others are added."""
    rank = {name: int(hashlib.sha256(f"split/0/{name}".encode()).hexdigest()[:8], 16) for name in files}
    val = {name for name in files if rank[name] < 0.2 * 2**32}
    if len(files) > 1 and not 0 < len(val) < len(files):
        extreme = min(files, key=rank.__getitem__) if not val else max(files, key=rank.__getitem__)
        val ^= {extreme}
    return {
        "train": {name: file for name, file in files.items() if name not in val},
        "val": {name: file for name, file in files.items() if name in val},
    }
