"""A plain folder: images/ with labels/ (sparse) and/or masks/ (dense), and classes.txt."""

from __future__ import annotations

from pathlib import Path

from sparseg.config import PIXELLESS, FieldError, ImportConfig, field, flag
from sparseg.data.importers.class_list import ClassList, read_class_list
from sparseg.data.importers.files import checked_id, existing, label_files, label_paths, list_images, some
from sparseg.data.importers.held_out import groups, held_out
from sparseg.data.importers.readers import class_names, has_order
from sparseg.data.importers.readers.labelmap import class_names as names_of_labelmap
from sparseg.data.importers.source import READ_KINDS, Item, Source, identity, stroke_files
from sparseg.data.shards import IMAGE_SUFFIXES

LABELMAP = "labelmap.txt"
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Split -> the names that its folder may have, in any case."""
MASK_SUFFIXES = (".npy", ".npz", ".mat")
"""Of masks beside those of images, in lower case."""


def folder(root: Path, config: ImportConfig) -> Source:
    """images/ with labels/ and/or dense masks/ of the same names, each flat or with a folder a split.

    Subfolders are followed: images/site/a.jpg is image `site/a`, its label labels/site/a.png (or a.png below
    labels/, if there is but one).  Labels may share an ending, a_mask.png.  In a flat folder the images that
    have a dense mask are held out, or 20 % of all where none or each has one; without masks, held-out images
    are validated on their sparse labels.  Raises ValueError for what is absent or ambiguous.
    """
    images, labels, masks = (root / name for name in ("images", "labels", "masks"))
    if not images.is_dir():
        raise ValueError(
            f"{root}: no images/ folder; expected images/ with labels/ or masks/, and classes.txt"
        )
    read = config.label in READ_KINDS and not config.draws_clicks
    dense = _dense_place(root, config, read=read)
    labelmap = (existing(dense / LABELMAP) if dense is not None else None) or existing(root / LABELMAP)
    classes = _classes(root, config, labelmap, dense)
    group_of = None
    if _split_folder(images, "train") is not None:
        if config.val_group is not None:
            raise FieldError(
                f"{images}: has split folders, so {field('data.val_group')}={config.val_group!r} has no "
                "meaning; leave it out, or put all images into one folder"
            )
        files, notes = _listed(images, config)
        mask_of, more = _dense_files(dense, files)
    else:
        listed, notes = list_images(images, nested=True)
        ids = _by_id(images, listed)
        every_mask, more = label_files(dense, list(ids)) if dense is not None else (dict.fromkeys(ids), [])
        group_of = groups(ids, config.val_group)
        masked = {name for name, file in every_mask.items() if file is not None}
        files, how = _split(ids, masked if read and dense == masks else set(), group_of, config)
        sizes = ", ".join(f"{split} {len(own)}" for split, own in files.items())
        notes = [f"no split folders below {images}: {how} ({sizes})", *notes]
        mask_of = {split: {name: every_mask[name] for name in own} for split, own in files.items()}
    splits = {
        s: [Item(name, file, mask_of[s][name]) for name, file in ids.items()] for s, ids in files.items()
    }
    if read and dense == labels:  # sparse labels must not be stored as the dense truth of training images
        splits["train"] = [Item(item.id, item.image) for item in splits["train"]]
    return Source(
        layout="folder",
        root=root,
        names=classes.names,
        colours=classes.colours,
        splits=splits,
        dense_table=identity(len(classes.names)),
        places={kind: _label_places(labels) for kind in READ_KINDS} if read else {},
        notes=(*classes.notes, *notes, *more, *_dense_note(dense, labelmap)),
        dense_is_labels=dense == labels,
        val_from_labels=dense is None,
        group_of=group_of,
        mask_place=dense,
        labelmap=labelmap,
    )


def _label_places(labels: Path) -> tuple[Path, ...]:
    home = _split_folder(labels, "train") if labels.is_dir() else None
    return (labels,) if home is None else (home, labels)


def _dense_note(dense: Path | None, labelmap: Path | None) -> list[str]:
    """Say how dense masks are read, where there are any."""
    if dense is None:
        return []
    return [f"dense masks: {'255 = void' if labelmap is None else f'the colours of {labelmap}'}"]


def _dense_place(root: Path, config: ImportConfig, *, read: bool) -> Path | None:
    """Find the folder of dense masks; labels/ where only that holds label images; None without any.

    Raises ValueError if there is no annotation at all, or none that the wanted labels can do with.
    """
    labels, masks = root / "labels", root / "masks"
    if masks.is_dir():
        if label_paths(masks):
            return masks
        _refuse_other_masks(masks)
    holds_strokes = (
        read
        and labels.is_dir()
        and config.label_path is None
        and bool(stroke_files(labels, config.label_format))
    )
    if labels.is_dir() and label_paths(labels) and not holds_strokes:
        return labels
    if not read:
        raise FieldError(
            f"{root}: no dense masks (masks/ or labels/ with a PNG named as each image), which "
            f"{field('data.label')}={config.label} needs"
        )
    if config.label_path is None and not labels.is_dir():
        raise FieldError(
            f"{root}: neither labels/ (sparse) nor masks/ (dense); put label PNGs named as the images, or a "
            f"file of clicks, into labels/, or name it with {flag('data.label_path')}"
        )
    if config.label in PIXELLESS and config.validates:
        raise FieldError(
            f"{root}: {field('data.label')}={config.label} labels no pixel of an object, so held-out images "
            "cannot be validated on it; put dense masks of some images into masks/, or train without "
            f"validation with {flag('data.val_split')} none"
        )
    return None


def _refuse_other_masks(masks: Path) -> None:
    """Raise ValueError for a folder whose masks are of kinds that are not read."""
    kinds = (*IMAGE_SUFFIXES, *MASK_SUFFIXES)
    files = [
        file for file in sorted(masks.rglob("*")) if file.suffix.lower() in kinds and file.name[0] != "."
    ]
    if files:
        raise ValueError(
            f"{masks}: no .png mask (or .tif), but {some(file.name for file in files)}; save masks as PNG, "
            "for JPEG changes class ids, or move the folder away to do without"
        )


def _classes(root: Path, config: ImportConfig, labelmap: Path | None, dense: Path | None) -> ClassList:
    """Classes of classes.txt, labelmap.txt or the annotation files, else by number; and notes.

    Raises ValueError where the annotation files have the names in no order, and dense masks their numbers.
    """
    file = root / "classes.txt"
    if file.is_file():
        return read_class_list(file)
    if labelmap is not None:
        told = f"no classes.txt: the classes are those of {labelmap}"
        return ClassList(names_of_labelmap(labelmap), notes=[told])
    places = (
        [root / "labels"]
        if config.label_path is None
        else [Path(config.label_path), root / config.label_path]
    )
    place = next((place for place in places if place.exists()), None)
    files = stroke_files(place, config.label_format) if place is not None and not config.draws_clicks else ()
    names = class_names(files, config.label_format) if files else []
    if names:
        found = some(file.name for file in files)
        if dense is None:
            return ClassList(names, notes=[f"no classes.txt: the classes are those of {found}"])
        if not has_order(files, config.label_format):
            raise FieldError(
                f"{root}: no classes.txt, and {found} has the classes in no order, so which of "
                f"{some(names, 9)} the values 0, 1 ... of {dense} mean is not known; write classes.txt, one "
                "name a line in the order of these values"
            )
        order = ", ".join(f"{k} {name}" for k, name in enumerate(names[:9]))
        told = (
            f"no classes.txt: the classes are those of {found}, and the values of {dense.name}/ are taken "
            f"for them in their order: {order}{' ...' if len(names) > 9 else ''}"
        )
        return ClassList(names, notes=[told])
    if config.num_classes is None:
        raise FieldError(
            f"{root}: no classes.txt, so the classes are not known; write one name a line, or give "
            f"{flag('data.num_classes')}"
        )
    return ClassList([f"class_{k}" for k in range(config.num_classes)])


def _split(
    ids: dict[str, Path], masked: set[str], group_of: dict[str, str], config: ImportConfig
) -> tuple[dict[str, dict[str, Path]], str]:
    """Split the images of a flat folder -> (split -> id -> file; how, for a note)."""
    if not config.validates:
        return {"train": ids}, "all images train, without validation"
    if config.val_group is None and 0 < len(masked) < len(ids):
        val, how = masked, "the images that have a dense mask are val"
    elif config.val_group is None:
        val, how = held_out(group_of), "split about 80/20 by a hash of the names"
    else:
        val = held_out(group_of)
        held = sorted({group_of[name] for name in val})
        num_groups = len(set(group_of.values()))
        how = f"split about 80/20 by a hash of the {num_groups} groups, val: {', '.join(held[:9])}"
        if ids and len(val) in (0, len(ids)):
            raise FieldError(
                f"{field('data.val_group')}={config.val_group!r}: all {len(ids)} images are of one group, "
                f"{next(iter(group_of.values()))!r}; name the groups by another pattern"
            )
    return {
        "train": {name: file for name, file in ids.items() if name not in val},
        "val": {name: file for name, file in ids.items() if name in val},
    }, how


def _split_folder(place: Path, split: str) -> Path | None:
    """Find the folder of a split below a place.  Raises ValueError if it is there under two names."""
    found = [path for path in sorted(place.iterdir()) if path.name.lower() in SPLITS[split] and path.is_dir()]
    if len(found) > 1:
        both = " and ".join(f"{path.name}/" for path in found)
        raise ValueError(f"{place}: {both} are the folder of split {split!r}; keep one")
    return found[0] if found else None


def _listed(images: Path, config: ImportConfig) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """List the split folders -> (split -> id -> image file; notes)."""
    splits: dict[str, dict[str, Path]] = {}
    notes: list[str] = []
    for split in SPLITS:
        if (home := _split_folder(images, split)) is not None:
            files, passed = list_images(home, nested=True)
            splits[split] = _by_id(home, files)
            notes += passed
    if "val" not in splits and config.validates:
        raise FieldError(
            f"{images}: has train/ but no val/; move images to validate on into val/, or all into {images} "
            f"itself to have some held out, or train without validation with {flag('data.val_split')} none"
        )
    known = {name for names in SPLITS.values() for name in names}
    others = [
        path.name
        for path in sorted(images.iterdir())
        if path.name.lower() not in known and path.name[0] != "."
    ]
    return splits, notes + (
        [f"beside the split folders of {images}, not read: {', '.join(others)}"] if others else []
    )


def _by_id(home: Path, files: list[Path]) -> dict[str, Path]:
    ids = {file.relative_to(home).with_suffix("").as_posix(): file for file in files}
    return {checked_id(name, str(file)): file for name, file in ids.items()}


def _dense_files(
    dense: Path | None, files: dict[str, dict[str, Path]]
) -> tuple[dict[str, dict[str, Path | None]], list[str]]:
    """Split -> id -> mask or None, and notes; a split folder below `dense` serves its split only."""
    mask_of: dict[str, dict[str, Path | None]] = {split: dict.fromkeys(ids) for split, ids in files.items()}
    notes: list[str] = []
    if dense is None:
        return mask_of, notes
    homes = {split: _split_folder(dense, split) for split in SPLITS}
    if not any(homes.values()):
        everything, notes = label_files(dense, [name for ids in files.values() for name in ids])
        return {split: {name: everything[name] for name in ids} for split, ids in files.items()}, notes
    for split, ids in files.items():
        home = homes[split]
        if home is not None and label_paths(home):
            mask_of[split], more = label_files(home, list(ids))
            notes += more
    return mask_of, notes
