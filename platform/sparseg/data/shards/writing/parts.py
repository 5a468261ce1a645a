"""Rows -> Arrow files: parts, each with a summary beside it, and shards that are cut from parts."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.common.files import checksum, write_atomically
from sparseg.config import IGNORED, UNLABELLED
from sparseg.data.shards.images import encode_label
from sparseg.data.shards.manifest import ImagesElsewhere
from sparseg.data.shards.palette import Colour

PART_ITEMS = 64  # what an interruption costs a worker, at most
BATCH_BYTES = 2**24  # of encoded rows in memory while writing; a Cityscapes image is 2.3 MB

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """What every row of a dataset has in common; goes to worker processes."""

    num_classes: int
    palette: list[Colour]
    schema: Any
    """pyarrow.Schema with the features of `datasets` in its metadata."""
    images: ImagesElsewhere | None = None
    """Where the images are, if they are not written."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Some consecutive items of a split, imported as one."""

    split: str
    number: int
    items: Sequence[Any]

    @property
    def name(self) -> str:
        """Of its files, without suffix."""
        return f"{self.split}-{self.number:06d}"


def cut_into_parts(splits: Mapping[str, Sequence[Any]], part_items: int | None = None) -> list[Part]:
    """`part_items` items each (default PART_ITEMS), in listed order."""
    size = part_items or PART_ITEMS
    return [
        Part(split, start // size, items[start : start + size])
        for split, items in splits.items()
        for start in range(0, len(items), size)
    ]


def features(names: list[str], *, with_image: bool = True) -> Any:
    """Columns of a dataset, as datasets.Features."""
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
            **({"image": datasets.Image()} if with_image else {}),
            "label": datasets.Image(),
            "mask": datasets.Image(),
            "present": datasets.List(datasets.ClassLabel(names=names)),
            "height": datasets.Value("int32"),
            "width": datasets.Value("int32"),
            "strokes": datasets.List(stroke),
        }
    )


def _record(row: Row, form: Form) -> Row:
    """A row as Arrow stores it: label and mask as PNG, `present` counted; a row's own `present` adds classes
    that are known to be in the image and have no pixel on its label."""
    record: Row = {"id": row["id"], "height": row["height"], "width": row["width"]}
    if form.images is None:
        record["image"] = {"bytes": row["image"], "path": None}
    present: list[int] = [int(k) for k in row.get("present") or ()]
    if not all(0 <= k < form.num_classes for k in present):
        raise ValueError(f"row {row['id']}: present must be classes 0..{form.num_classes - 1}, got {present}")
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
        wrong = values[(values >= form.num_classes) & (values < UNLABELLED)]
        if len(wrong):
            raise ValueError(
                f"row {row['id']}: {column} has values {wrong.tolist()}; allowed are 0.."
                f"{form.num_classes - 1}, {UNLABELLED} (unlabelled) and {IGNORED} (ignored)"
            )
        record[column] = {"bytes": encode_label(array, form.palette), "path": None}
        if column == "label":
            present += values[values < form.num_classes].tolist()
    record["present"] = sorted(set(present))
    record["strokes"] = row.get("strokes") or []
    return record


def _batches(rows: Iterable[Row], form: Form) -> Iterator[Any]:
    """Record batches of BATCH_BYTES or a little more; which rows share one depends on their content only."""
    import pyarrow as pa

    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(record := _record(row, form))
        size += sum(len(record[name]["bytes"]) for name in ("image", "label", "mask") if record.get(name))
        if size >= BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(batch, schema=form.schema)
            batch, size = [], 0
    if batch:
        yield pa.RecordBatch.from_pylist(batch, schema=form.schema)


class _HashedFile(io.RawIOBase):
    """A new file that knows the checksum of what was written to it."""

    def __init__(self, path: Path) -> None:
        import xxhash

        self.file = path.open("wb")
        self.hash = xxhash.xxh3_128()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def _write_arrow(path: Path, batches: Iterable[Any], form: Form) -> dict[str, Any]:
    """An Arrow stream -> its bytes, rows and xxh3, as the manifest states them."""
    import pyarrow as pa

    rows = 0
    with _HashedFile(path) as file:
        with pa.ipc.new_stream(file, form.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        return {"bytes": file.size, "rows": rows, "xxh3": file.hash.hexdigest()}


# ----------------------------------------------------------------------------------------------------- parts


def write_part(folder: Path, part: Part, rows: Iterable[Row], form: Form, facts: dict[str, Any]) -> int:
    """NAME.arrow, then NAME.json with its checksum, `facts` and the number of items; -> number of rows.

    `facts` may be filled in by the iterator of rows.  The JSON file is what makes a part finished.
    Raises ValueError for a bad row, OSError if the disk is full.
    """
    arrow, summary = folder / f"{part.name}.arrow", folder / f"{part.name}.json"
    for file in (summary, arrow):
        file.unlink(missing_ok=True)
    written = _write_arrow(arrow.with_suffix(".arrow.tmp"), _batches(rows, form), form)
    arrow.with_suffix(".arrow.tmp").rename(arrow)
    write_atomically(summary, json.dumps({**written, "items": len(part.items), "facts": facts}))
    return int(written["rows"])


def read_summary(folder: Path, name: str) -> dict[str, Any]:
    """What `write_part` noted."""
    return dict(json.loads((folder / f"{name}.json").read_text()))


def is_finished(folder: Path, part: Part) -> bool:
    """Whether the part is there, undamaged (its bytes are read)."""
    arrow = folder / f"{part.name}.arrow"
    try:
        noted = read_summary(folder, part.name)
        same = noted["items"] == len(part.items) and noted["bytes"] == arrow.stat().st_size
        return bool(same and noted["xxh3"] == checksum(arrow))
    except (OSError, ValueError, KeyError, TypeError):
        return False


# ---------------------------------------------------------------------------------------------------- shards


@dataclasses.dataclass(frozen=True)
class Shard:
    """Rows start .. stop of a split, as a file of the dataset."""

    name: str
    """Relative to the dataset's folder."""
    start: int
    stop: int


def plan_shards(split: str, num_rows: int, num_shards: int) -> list[Shard]:
    """min(num_shards, num_rows) shards, sizes as equal as can be, named as `datasets` names them."""
    count = min(num_shards, num_rows)
    small, larger = divmod(num_rows, count)
    starts = [k * small + min(k, larger) for k in range(count + 1)]
    return [
        Shard(f"{split}/data-{k:05d}-of-{count:05d}.arrow", starts[k], starts[k + 1]) for k in range(count)
    ]


def write_shard(
    file: Path, shard: Shard, folder: Path, part_rows: Sequence[tuple[str, int]], form: Form
) -> dict[str, Any]:
    """Copy a shard's rows out of its split's parts (name, rows), a record batch in memory at a time.

    -> {"bytes", "rows", "xxh3"} of the shard.  Raises OSError if the disk is full.
    """
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        position = 0
        for name, rows in part_rows:
            if position + rows <= shard.start or position >= shard.stop:
                position += rows
                continue
            with pa.OSFile(str(folder / f"{name}.arrow")) as source, pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    first = max(0, shard.start - position)
                    last = min(batch.num_rows, shard.stop - position)
                    if first < last:
                        yield batch.slice(first, last - first)
                    position += batch.num_rows

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp")
    written = _write_arrow(temporary, batches(), form)
    assert written["rows"] == shard.stop - shard.start
    os.replace(temporary, file)
    return written
