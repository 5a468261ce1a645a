"""Open a dataset folder, checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseg.shards.codec import Colour, default_palette
from sparseg.shards.writer import MANIFEST, VERSION

if TYPE_CHECKING:
    import datasets

REQUIRED_COLUMNS = ("id", "image", "label", "present", "height", "width")


@dataclasses.dataclass(frozen=True)
class ShardedDataset:
    """An opened dataset; image, label and mask come as dicts with the encoded "bytes"."""

    path: Path
    names: list[str]
    palette: list[Colour]
    splits: dict[str, datasets.Dataset]
    report: dict[str, Any] = dataclasses.field(default_factory=dict)


def is_dataset(path: str | Path) -> bool:
    """Whether the folder looks like an imported or `save_to_disk` dataset (no check of its contents)."""
    return any((Path(path) / name).is_file() for name in (MANIFEST, "dataset_dict.json"))


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """sparseg.json with every shard's size checked, or None where there is none."""
    file = path / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text())
        version, shards = manifest["version"], manifest["shards"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); remove {path} and import it again") from error
    if version not in (1, VERSION):
        raise ValueError(
            f"{file}: version {version} is not known (this sparseg reads 1 and {VERSION}); import it again"
        )
    for name, noted in shards.items():
        size = noted if version == 1 else noted["bytes"]
        shard = path / name
        if not shard.is_file():
            raise ValueError(f"{shard} is missing; copy it again, or remove {path} and import it again")
        if (found := shard.stat().st_size) != size:
            raise ValueError(
                f"{shard} is truncated or changed: {found} bytes, {size} expected; copy it again, or remove "
                f"{path} "
                "and import it again"
            )
    return dict(manifest)


def _check_columns(path: Path, split: str, columns: dict[str, Any]) -> list[str]:
    """Class names of a split whose columns are right.  Raises ValueError saying what is missing."""
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"{path}, split {split!r}: columns {missing} are missing (found {sorted(columns)})")
    for name in ("image", "label"):
        if type(columns[name]).__name__ != "Image":
            raise ValueError(
                f"{path}, split {split!r}: column {name!r} must be of type Image, is {columns[name]}"
            )
    names = getattr(getattr(columns["present"], "feature", None), "names", None)
    if not names:
        raise ValueError(
            f"{path}, split {split!r}: column 'present' must be a list of ClassLabel, to name the classes"
        )
    return list(names)


def open(path: str | Path) -> ShardedDataset:
    """Open a dataset folder, memory-mapped, after checking it against its manifest.

    Raises ValueError naming what is missing, truncated or of the wrong kind.
    """
    import datasets

    path = Path(path).absolute()
    if not path.is_dir():
        raise ValueError(
            f"{path}: no such dataset folder; import one with `sparseg import` or set --data.root"
        )
    manifest = _read_manifest(path)
    try:
        opened = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow, json and datasets each have their own for a damaged folder
        raise ValueError(
            f"{path} does not open as a dataset ({type(error).__name__}: {error})".replace("\n", " ")
        ) from error
    if not isinstance(opened, datasets.DatasetDict):
        raise ValueError(
            f"{path} holds one split only; save a datasets.DatasetDict with the splits train and val"
        )
    names: list[str] = []
    splits = {}
    for split, data in opened.items():
        found = _check_columns(path, split, data.features)
        if names and found != names:
            raise ValueError(f"{path}: the splits name different classes: {names} and {found} in {split!r}")
        names = found
        for column in ("image", "label", "mask"):
            if column in data.features:
                data = data.cast_column(column, datasets.Image(decode=False))
        splits[str(split)] = data
    palette = default_palette(len(names))
    if manifest:
        palette = [(r, g, b) for r, g, b in manifest["palette"]]
    return ShardedDataset(path, names, palette, splits, (manifest or {}).get("report", {}))
