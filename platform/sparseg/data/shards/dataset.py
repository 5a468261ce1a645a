"""Open a dataset, from a folder or a URL, checked."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseg.common import object_store
from sparseg.common.files import cache_folder
from sparseg.common.process import one_line
from sparseg.config import FieldError, field, flag
from sparseg.data.shards import cache as remote
from sparseg.data.shards.manifest import ImagesElsewhere, Manifest, altered, check_sizes, parse
from sparseg.data.shards.orientation import TIFF_STARTS, with_orientation_1
from sparseg.data.shards.palette import Colour, default_palette
from sparseg.data.shards.writing.writer import MANIFEST

if TYPE_CHECKING:
    import datasets

REQUIRED_COLUMNS = ("id", "image", "label", "present", "height", "width")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a dataset is, without its rows.

    source: the absolute path, or the URL.  rows: of every split.  identity: text that differs where the data
    differ.
    """

    source: str
    names: list[str]
    palette: list[Colour]
    rows: dict[str, int]
    report: dict[str, Any]
    identity: str


@dataclasses.dataclass(frozen=True)
class ShardedDataset:
    """An opened dataset; image, label and mask come as dicts with the encoded "bytes".

    path: its local folder, in the cache if it came from a URL.  rows: rows of every split as a whole.
    parts: the numbers of the rows that `splits` holds; all of them unless only some shards were opened.
    copied_bytes: brought from object storage by this call.
    """

    path: Path
    names: list[str]
    palette: list[Colour]
    splits: dict[str, datasets.Dataset]
    rows: dict[str, int]
    parts: dict[str, range]
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    copied_bytes: int = 0


def is_dataset(path: str | Path) -> bool:
    """Whether the folder looks like an imported or `save_to_disk` dataset (no check of its contents)."""
    return any((Path(path) / name).is_file() for name in (MANIFEST, "dataset_dict.json"))


def read_manifest(path: str | Path) -> Manifest | None:
    """sparseg.json of a folder or URL; None in a folder without.  Raises ValueError if it is damaged."""
    if object_store.is_url(path):
        return remote.read_manifest(str(path))
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise FieldError(
            f"{folder}: no such dataset folder; import one with `sparseg import` or set {flag('data.root')}"
        )
    file = folder / MANIFEST
    if not file.is_file():
        return None
    return parse(file.read_text(errors="replace"), str(file), f"remove {folder} and import it again")


def describe(path: str | Path, *, cache: str | None = None, verify: bool = False) -> Description:
    """Class names, row counts, palette and report; of a URL only the manifest is read.

    A folder is opened and checked as in `open`; verify: its checksums, too (those of a URL are checked when
    the shards are copied).
    """
    if object_store.is_url(path):
        manifest = remote.read_manifest(str(path))
        rows = {split: manifest.rows(split) for split in manifest.splits()}
        known = {split: sum(counts) for split, counts in rows.items() if counts is not None}
        if len(known) == len(rows):
            source = str(path).rstrip("/")
            return Description(
                source, manifest.names, manifest.palette, known, manifest.report, manifest.text
            )
    opened = open(path, cache=cache, verify=verify)  # a manifest of version 1 does not know the rows
    found = read_manifest(path)
    prints = {split: data._fingerprint for split, data in opened.splits.items()}
    return Description(
        str(path).rstrip("/") if object_store.is_url(path) else str(opened.path),
        opened.names,
        opened.palette,
        opened.rows,
        opened.report,
        found.text if found else str(prints),
    )


def open(
    path: str | Path,
    *,
    cache: str | None = None,
    verify: bool = False,
    only: Mapping[str, range] | None = None,
) -> ShardedDataset:
    """Open a dataset, memory-mapped, after checking the shards' sizes against its manifest.

    path: a folder, or a URL whose shards are copied to `cache` first (default: the user's, see cache_folder;
    checksums are checked then).  verify: check the checksums of all shards, of those unchanged since the last
    time from a note in the cache.  only: of these splits open only the shards of these numbers (needs a
    manifest of version 2).  Raises ValueError naming what is missing, truncated, altered or of another kind.
    """
    manifest = read_manifest(path)
    if manifest is None:
        folder = Path(path).absolute()
        if only:
            raise FieldError(_no_rows(folder))
        return _checked(folder, _load_plain(folder), None, {}, 0)
    only = only or {}
    parts = {split: _part(manifest, split, numbers, path) for split, numbers in only.items()}
    wanted = {
        split: [shard_names[k] for k in only[split]] if split in only else shard_names
        for split, shard_names in manifest.splits().items()
    }
    flat = [name for shard_names in wanted.values() for name in shard_names]
    copied_bytes = 0
    if object_store.is_url(path):
        folder = remote.place(str(path), manifest, cache)
        copied_bytes = remote.copy(str(path), manifest, flat, cache)
    else:
        folder = Path(path).absolute()
        check_sizes(folder, manifest, flat)
    if verify:
        key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:20]
        wrong = altered(folder, manifest, flat, cache_folder(cache) / "verified" / f"{key}.json")
        if wrong and object_store.is_url(path):
            for name in wrong:  # the copy was damaged, not the original
                (folder / name).unlink()
            copied_bytes += remote.copy(str(path), manifest, wrong, cache)
        elif wrong:
            raise ValueError(
                f"{folder / wrong[0]} is altered: its checksum is not the one in {MANIFEST}; copy it again, "
                f"or remove {folder} and import it again"
            )
    loaded = _load_shards(folder, wanted)
    if manifest.images is not None:
        loaded = _with_images(path, folder, manifest.images, loaded, parts, verify=verify)
    return _checked(folder, loaded, manifest, parts, copied_bytes)


def _with_images(
    path: str | Path,
    folder: Path,
    elsewhere: ImagesElsewhere,
    loaded: dict[str, datasets.Dataset],
    parts: Mapping[str, range],
    *,
    verify: bool,
) -> dict[str, datasets.Dataset]:
    """Add the images, memory-mapped, of the dataset that has them.  Raises ValueError if it is not there, or
    is another one now."""
    import datasets

    if object_store.is_url(path):
        raise ValueError(
            f"{path}: holds labels alone, of images that were in {elsewhere.folder}; upload a dataset that "
            "holds its images: `sparseg import` or `sparseg sparsify` makes one"
        )
    home = (folder / elsewhere.folder).resolve()
    found = read_manifest(home) if home.is_dir() else None
    if found is None or found.identity != elsewhere.identity:
        what = "is not there" if found is None else "was imported anew since"
        raise ValueError(
            f"{folder}: its images are those of {home}, which {what}; bring that back, or remove {folder} "
            "and give the command that made it again"
        )
    images = open(home, verify=verify)
    together = {}
    for split, labels in loaded.items():
        rows = parts.get(split, range(len(labels)))
        own = images.splits[split].select(rows)
        if own["id"][:] != labels["id"][:]:
            raise ValueError(f"{folder}: split {split!r} has other rows than {home}; remove {folder}")
        together[split] = datasets.concatenate_datasets([labels, own.select_columns(["image"])], axis=1)
    return together


def _no_rows(path: str | Path) -> str:
    return (
        f"{path}: no {MANIFEST} that counts the rows of each shard, which {field('data.sharding')}=node "
        f"needs; import the data again, or use {flag('data.sharding')} global"
    )


def _part(manifest: Manifest, split: str, numbers: range, path: str | Path) -> range:
    """Numbers of the rows in neighbouring shards of a split."""
    rows = manifest.rows(split)
    if rows is None:
        raise FieldError(_no_rows(path))
    assert numbers and numbers.step == 1 and numbers.stop <= len(rows)
    return range(sum(rows[: numbers.start]), sum(rows[: numbers.stop]))


def _load_shards(folder: Path, wanted: Mapping[str, list[str]]) -> dict[str, datasets.Dataset]:
    import datasets

    splits = {}
    for split, names in wanted.items():
        try:
            shards = [datasets.Dataset.from_file(str(folder / name), split=split) for name in names]
            splits[split] = datasets.concatenate_datasets(shards)
        except Exception as error:  # pyarrow and datasets each have their own for a damaged file
            raise ValueError(_does_not_open(folder / split, error)) from error
    return splits


def _load_plain(folder: Path) -> dict[str, datasets.Dataset]:
    """A folder of `save_to_disk`."""
    import datasets

    if not any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        raise ValueError(_is_no_dataset(folder))
    try:
        opened = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow, json and datasets each have their own for a damaged folder
        raise ValueError(_does_not_open(folder, error)) from error
    if not isinstance(opened, datasets.DatasetDict):
        raise ValueError(
            f"{folder} holds one split only; save a datasets.DatasetDict with the splits train and val"
        )
    return {str(split): data for split, data in opened.items()}


def _is_no_dataset(folder: Path) -> str:
    """Say so of a folder of raw images, which only trainers import by themselves."""
    return (
        f"{folder} is not an imported dataset (no {MANIFEST} in it); import it first: sparseg import LAYOUT "
        f"{shlex.quote(str(folder))} OUT, where LAYOUT is folder, voc, camvid, cityscapes or ade20k"
    )


def _does_not_open(path: Path, error: Exception) -> str:
    return f"{path} does not open as a dataset ({type(error).__name__}: {one_line(error)})"


def _checked(
    folder: Path,
    loaded: dict[str, datasets.Dataset],
    manifest: Manifest | None,
    parts: dict[str, range],
    copied_bytes: int,
) -> ShardedDataset:
    """The dataset, if its splits have the right columns and as many rows as the manifest says."""
    import datasets

    names: list[str] = []
    splits, rows = {}, {}
    for split, data in loaded.items():
        found = _check_columns(folder, split, data.features)
        if names and found != names:
            raise ValueError(f"{folder}: the splits name different classes: {names} and {found} in {split!r}")
        names = found
        for column in ("image", "label", "mask"):
            if column in data.features:
                data = data.cast_column(column, datasets.Image(decode=False))
        splits[split] = data if manifest is None or manifest.upright else data.with_transform(_as_stored)
        counts = manifest.rows(split) if manifest else None
        rows[split] = len(data) if counts is None else sum(counts)
        parts = {split: range(rows[split])} | parts
        if len(parts[split]) != len(data):
            raise ValueError(
                f"{folder}: split {split!r} has {len(data)} rows, {len(parts[split])} in {MANIFEST}; remove "
                "it and import it again"
            )
    palette = manifest.palette if manifest else default_palette(len(names))
    report = manifest.report if manifest else {}
    return ShardedDataset(folder, names, palette, splits, rows, parts, report, copied_bytes)


def _as_stored(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of a dataset from before images were taken upright: their labels belong to the stored pixels."""
    for image in rows.get("image", ()):
        if image["bytes"][:4] not in TIFF_STARTS:  # these were turned then, too
            image["bytes"] = with_orientation_1(image["bytes"])
    return rows


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


def _counted(dataset: ShardedDataset | Description, split: str) -> list[int] | None:
    """Labelled pixels of each class, as an import notes them."""
    found: list[int] | None = dataset.report.get("splits", {}).get(split, {}).get("pixels")
    return found


def label_counts(dataset: ShardedDataset | Description, split: str) -> dict[str, int | None]:
    """images, and pixels labelled in them (None for a dataset that `sparseg import` did not write)."""
    counts = _counted(dataset, split)
    return {"images": dataset.rows[split], "pixels": None if counts is None else sum(counts)}


def labelled_pixels(dataset: ShardedDataset | Description, split: str) -> list[int]:
    """Labelled pixels of each class in a split, as its import counted them.

    Raises ValueError for a dataset that was not written by `sparseg import`.
    """
    counts = _counted(dataset, split)
    if counts is None or len(counts) != len(dataset.names):
        where = dataset.source if isinstance(dataset, Description) else dataset.path
        raise FieldError(
            f"{where}: no {MANIFEST} that counts the labelled pixels of split {split!r}, which "
            f"{field('loss.class_balance')} needs; import the data with `sparseg import`, or set "
            f"{flag('loss.class_balance')} 0"
        )
    return [int(count) for count in counts]
