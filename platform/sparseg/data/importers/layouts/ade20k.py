"""ADE20K and data sets laid out like it: value 0 is "other", class k is stored as k+1."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from sparseg.config import IGNORED, MAX_CLASSES, UNLABELLED, FieldError, ImportConfig, flag
from sparseg.data.importers.class_list import ClassList, read_class_list
from sparseg.data.importers.files import existing, list_images, read_lines
from sparseg.data.importers.source import Item, Source

NUM_CLASSES = 150
SPLITS = {"train": "training", "val": "validation"}
PLACES = {
    "point": ("points", "annotations_point"),
    "clicks": ("clicks", "annotations_clicks"),
    "scribble": ("scribbles", "annotations_scribble"),
    "block": ("block", "annotations_block"),
}


def home_of(root: Path) -> Path | None:
    """The folder that holds images/training and annotations/training: `root`, or the archive's below it."""
    tries = (root, root / "ADEChallengeData2016")
    wanted = ("images/training", "annotations/training")
    return next((path for path in tries if all((path / name).is_dir() for name in wanted)), None)


def ade20k(root: Path, config: ImportConfig) -> Source:
    """images/{training,validation} with annotations/{training,validation}; masks hold class + 1, 0 = void.

    The classes are those of objectInfo150.txt or classes.txt, else `num_classes` (default 150) numbered ones.
    Raises ValueError for a folder that is not there or a class list that cannot be right.
    """
    home = home_of(root)
    if home is None:
        raise FieldError(
            f"{root}: no images/training/ with annotations/training/, so this is no ADE20K layout; correct "
            f"{flag('data.root')}"
        )
    classes = _classes(home, config)
    names, notes = classes.names, list(classes.notes)
    splits = {}
    for split, folder in SPLITS.items():
        images, masks = home / "images" / folder, home / "annotations" / folder
        if not images.is_dir() or not masks.is_dir():
            raise ValueError(
                f"{home}: split {split!r} is absent; expected images/{folder}/ and annotations/{folder}/"
            )
        files, passed = list_images(images)
        notes += passed
        splits[split] = [Item(file.stem, file, existing(masks / f"{file.stem}.png")) for file in files]
    K = len(names)
    return Source(
        layout="ade20k",
        root=home,
        names=names,
        colours=classes.colours,
        splits=splits,
        dense_table={0: IGNORED, **{k + 1: k for k in range(K)}},
        places={kind: tuple(home / name for name in folders) for kind, folders in PLACES.items()},
        notes=(*notes, f"dense masks: value v is class v-1 (1..{K}), 0 = void"),
        dense_hint=f"ade20k masks hold 1..{K} and 0 = void; for masks that count from 0 say "
        f"{flag('data.mask_values')} from-0",
        shift_needs_proof=not (home / "objectInfo150.txt").is_file(),
        sparse_rule=None if config.mask_values == "from-0" else functools.partial(sparse_rule, K),
        mask_place=home / "annotations",
    )


def _classes(home: Path, config: ImportConfig) -> ClassList:
    info = home / "objectInfo150.txt"
    if info.is_file():
        return ClassList(_info_names(info))
    if (home / "classes.txt").is_file():
        return read_class_list(home / "classes.txt")
    count = config.num_classes or NUM_CLASSES
    note = f"no objectInfo150.txt and no classes.txt in {home}: {count} classes by number"
    return ClassList([f"class_{k}" for k in range(count)], notes=[note])


def _info_names(file: Path) -> list[str]:
    """Names of objectInfo150.txt: columns Idx ... Name, tabs between; synonyms after a comma."""
    full: list[str] = []
    for number, line in enumerate(read_lines(file), 1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and not fields[0].strip().isdigit()):
            continue
        if len(fields) < 2 or fields[0].strip() != str(len(full) + 1) or not fields[-1].strip():
            raise ValueError(
                f"{file}, line {number}: expected number {len(full) + 1}, columns and a name, tabs between, "
                f"found {line[:60]!r}"
            )
        full.append(fields[-1].strip())
    short = [name.split(",")[0].split(";")[0].strip() for name in full]
    names = [brief if short.count(brief) == 1 else whole for brief, whole in zip(short, full, strict=True)]
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError(f"{file}: needs 1 to {MAX_CLASSES} different class names; found {len(names)}")
    return names


def sparse_rule(
    num_classes: int, count_256: np.ndarray, declared: int | None, where: str
) -> tuple[dict[int, int], str] | None:
    """How sparse PNGs are read: value-1 as in the masks, or None for the general rule (classes from 0).

    A 254, or a declared 254 or K: classes from 0.  Declared 0 or 255: value-1 with that unlabelled.
    Undeclared, without 254 and 255: value-1, 0 = unlabelled.  Undeclared with 255 both readings are possible,
    unless K occurs, which only value-1 has; then, and if K covers most pixels as if it were unlabelled,
    ValueError with the choice.
    """
    K = num_classes
    shifted = {0: IGNORED, **{k + 1: k for k in range(K)}, IGNORED: IGNORED}
    if declared in (0, IGNORED):
        return {**shifted, declared: UNLABELLED}, f"declared: value v is class v-1, {declared} = unlabelled"
    if declared is not None or count_256[UNLABELLED]:
        return None
    if count_256[K] > count_256.sum() / 2 or (count_256[IGNORED] and not count_256[K]):
        raise FieldError(
            f"{where}: the classes may count from 1, as in ADE20K's masks, or from 0; say which with "
            f"{flag('data.unlabelled_code')} 0 or 255 (from 1) or {K} (from 0), or write unlabelled as 254 "
            "(from 0)"
        )
    code = IGNORED if count_256[IGNORED] else 0
    return {**shifted, code: UNLABELLED}, f"found: value v is class v-1, {code} = unlabelled"
