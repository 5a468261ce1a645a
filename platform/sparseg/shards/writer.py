"""Rows -> a dataset folder, written all or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import IGNORED, MAX_CLASSES, UNLABELLED
from sparseg.shards.codec import Colour, default_palette, encode_label

VERSION = 1
MANIFEST = "sparseg.json"
ROWS_PER_BATCH = 16  # of rows in memory while writing; a Cityscapes image is 2.3 MB

Row = dict[str, Any]


class DatasetExistsError(ValueError):
    """The destination of `write` is taken."""


def _features(names: list[str]) -> Any:
    import datasets

    stroke = {
        "class": datasets.Value("int32"),
        "width": datasets.Value("float32"),
        "y": datasets.List(datasets.Value("float64")),
        "x": datasets.List(datasets.Value("float64")),
    }
    return datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.Image(),
            "mask": datasets.Image(),
            "present": datasets.List(datasets.ClassLabel(names=names)),
            "height": datasets.Value("int32"),
            "width": datasets.Value("int32"),
            "strokes": datasets.List(stroke),
        }
    )


def _record(row: Row, num_classes: int, palette: list[Colour]) -> Row:
    """A row as Arrow stores it: label and mask as PNG, `present` counted."""
    record: Row = {"id": row["id"], "height": row["height"], "width": row["width"]}
    record["image"] = {"bytes": row["image"], "path": None}
    present: list[int] = []
    for column in ("label", "mask"):
        array, record[column] = row.get(column), None
        if array is None:
            continue
        if array.dtype != np.uint8 or array.shape != (row["height"], row["width"]):
            raise ValueError(
                f"row {row['id']}: {column} must be uint8 of shape ({row['height']}, {row['width']}), "
                f"got {array.dtype} {array.shape}"
            )
        values = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
        wrong = values[(values >= num_classes) & (values < UNLABELLED)]
        if len(wrong):
            raise ValueError(
                f"row {row['id']}: {column} has values {wrong.tolist()}; allowed are 0..{num_classes - 1}, "
                f"{UNLABELLED} (unlabelled) and {IGNORED} (ignored)"
            )
        record[column] = {"bytes": encode_label(array, palette), "path": None}
        if column == "label":
            present = values[values < num_classes].tolist()
    record["present"] = present
    record["strokes"] = row.get("strokes") or []
    return record


def _write_stream(file: Path, rows: Iterator[Row], names: list[str], palette: list[Colour]) -> int:
    """One Arrow stream with all rows, ROWS_PER_BATCH in memory at a time -> number of rows."""
    import pyarrow as pa

    schema = _features(names).arrow_schema
    count, batch = 0, []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for row in rows:
            batch.append(_record(row, len(names), palette))
            count += 1
            if len(batch) == ROWS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    return count


def _build(
    folder: Path,
    splits: Mapping[str, Callable[[], Iterator[Row]]],
    names: list[str],
    palette: list[Colour],
    num_shards: int,
) -> Path:
    """Write everything but the manifest below `folder` -> the finished dataset's folder."""
    import datasets

    streams, shard_counts = {}, {}
    for split, rows in splits.items():
        file = folder / f"{split}.stream"
        count = _write_stream(file, rows(), names, palette)
        if not count:
            raise ValueError(
                f"no rows in split {split!r}; a dataset needs at least one image in each of its splits"
            )
        # how many rows there are is known at the end of the stream only: a second pass cuts it into shards
        streams[split] = datasets.Dataset.from_file(str(file), split=split)
        shard_counts[split] = min(num_shards, count)
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.DatasetDict(streams).save_to_disk(str(folder / "out"), num_shards=shard_counts)
    finally:
        if bars:
            datasets.enable_progress_bars()
    return folder / "out"


def write(
    path: str | Path,
    splits: Mapping[str, Callable[[], Iterator[Row]]],
    names: list[str],
    *,
    palette: list[Colour] | None = None,
    report: dict[str, Any] | None = None,
    num_shards: int = 1,
) -> None:
    """Write a dataset folder, or nothing: a killed call leaves but a hidden sibling, removed at the next try.

    `splits` give rows one by one: id str, image encoded bytes, label and mask (H, W) uint8 with codes or
    None, height, width, optionally strokes.  `report` is saved after the last row, so that the row iterators
    may fill it in.  Calls with the same destination wait for each other.

    Raises DatasetExistsError if the destination is taken, ValueError for a split without rows or a bad row.
    """
    path = Path(path).absolute()
    if not names or len(names) > MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError(
            f"class names must be 1 to {MAX_CLASSES} different ones, got {len(names)}: {names[:5]}"
        )
    if num_shards < 1:
        raise ValueError(f"num_shards must be at least 1, got {num_shards}")
    palette = palette or default_palette(len(names))
    with _sole_writer(path) as temporary:
        out = _build(temporary, splits, names, palette, num_shards)
        files = sorted(out.rglob("*.arrow"))
        manifest = {
            "version": VERSION,
            "classes": names,
            "palette": palette,
            "report": report or {},
            "shards": {file.relative_to(out).as_posix(): file.stat().st_size for file in files},
        }
        (out / MANIFEST).write_text(json.dumps(manifest, indent=1))
        try:
            os.replace(out, path)
        except OSError as error:  # on a file system without locks somebody else was faster
            if not path.exists():
                raise
            raise _exists(path) from error


def _exists(path: Path) -> DatasetExistsError:
    return DatasetExistsError(f"{path} exists already; remove it or name another destination")


@contextlib.contextmanager
def _sole_writer(path: Path) -> Iterator[Path]:
    """A temporary sibling folder of `path`, removed at the end, while no other process writes `path`."""
    import filelock

    lock_file = path.parent / f".{path.name}.lock"
    lock = filelock.FileLock(lock_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            print(f"waiting for another process that writes {path}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise ValueError(f"{path.parent} cannot be written to ({error}); name another destination") from error
    try:
        if path.exists():
            raise _exists(path)
        for sibling in path.parent.iterdir():  # left by killed writers: we hold the lock
            if sibling.name.startswith(f".{path.name}.tmp-"):
                shutil.rmtree(sibling, ignore_errors=True)
        temporary = path.parent / f".{path.name}.tmp-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        if path.exists():  # whoever waits finds the dataset, so the lock has served
            lock_file.unlink(missing_ok=True)
        lock.release()
