"""Rows -> a dataset folder, written all or not at all, and gone on with where it was interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sparseg.config import MAX_CLASSES
from sparseg.data.shards.manifest import UPRIGHT, ImagesElsewhere
from sparseg.data.shards.palette import Colour, default_palette
from sparseg.data.shards.writing.parts import (
    PART_ITEMS,
    Form,
    Part,
    Row,
    Shard,
    features,
    plan_shards,
    read_summary,
    write_part,
    write_shard,
)

VERSION = 2
MANIFEST = "sparseg.json"

Put = Callable[[Shard, Callable[[Path], dict[str, Any]]], dict[str, Any]]
"""(shard, the function that writes it to a file) -> what that function gave back."""


class DatasetExistsError(ValueError):
    """The destination of `write` is taken."""


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

    Raises DatasetExistsError if the destination is taken, ValueError for a split without rows, a bad row or
    two rows of one id in a split.
    """
    path = Path(path).absolute()
    form = form_of(names, palette, num_shards)
    with sole_writer(path, path.exists, f".tmp-{uuid.uuid4().hex[:8]}") as folder:
        try:
            written: dict[str, list[str]] = {}
            for split, rows in splits.items():
                remaining = _unlike_ids(split, rows())
                written[split] = []
                for number in itertools.count():
                    part = Part(split, number, ())
                    written[split].append(part.name)
                    some = itertools.islice(remaining, PART_ITEMS)
                    if write_part(folder, part, some, form, {}) < PART_ITEMS:
                        break
            finish(path, folder, written, names, form, report or {}, num_shards)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def form_of(
    names: list[str], palette: list[Colour] | None, num_shards: int, images: ImagesElsewhere | None = None
) -> Form:
    """Checked.  Raises ValueError for class names or a number of shards that cannot be."""
    if not names or len(names) > MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError(
            f"class names must be 1 to {MAX_CLASSES} different ones, got {len(names)}: {names[:5]}"
        )
    if num_shards < 1:
        raise ValueError(f"num_shards must be at least 1, got {num_shards}")
    schema = features(names, with_image=images is None).arrow_schema
    return Form(len(names), palette or default_palette(len(names)), schema, images)


def _unlike_ids(split: str, rows: Iterator[Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise ValueError(f"two rows of split {split!r} have the id {row['id']}; ids must differ")
        seen.add(row["id"])
        yield row


# ------------------------------------------------------------------------------------------- parts -> dataset


def finish(
    path: Path,
    folder: Path,
    parts: Mapping[str, list[str]],
    names: list[str],
    form: Form,
    report: dict[str, Any],
    num_shards: int,
) -> None:
    """Parts (names) in `folder` -> the dataset at `path`, by way of folder/out, renamed at the end."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)  # of a call that was killed

    def put(shard: Shard, write_to: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        return write_to(out / shard.name)

    shards = join(folder, parts, form, num_shards, put)
    for name, text in metadata(names, form, report, shards).items():
        (out / name).write_text(text)  # the manifest comes last
    try:
        os.replace(out, path)
    except OSError as error:  # on a file system without locks somebody else was faster
        if not path.exists():
            raise
        raise exists_error(path) from error


def join(
    folder: Path, parts: Mapping[str, list[str]], form: Form, num_shards: int, put: Put
) -> dict[str, dict[str, Any]]:
    """Cut every split's parts (names) into shards -> name: {"bytes", "rows", "xxh3"} of each.

    Raises ValueError for a split without rows.
    """
    rows = {
        split: [(name, int(read_summary(folder, name)["rows"])) for name in part_names]
        for split, part_names in parts.items()
    }
    for split, counts in rows.items():
        if not sum(count for _, count in counts):
            raise ValueError(
                f"no rows in split {split!r}; a dataset needs at least one image in each of its splits"
            )
    written = {}
    for split, counts in rows.items():
        for shard in plan_shards(split, sum(count for _, count in counts), num_shards):
            written[shard.name] = put(
                shard,
                lambda file, shard=shard, counts=counts: write_shard(file, shard, folder, counts, form),  # type: ignore[misc]
            )
    return written


def metadata(
    names: list[str], form: Form, report: dict[str, Any], shards: Mapping[str, dict[str, Any]]
) -> dict[str, str]:
    """File -> text of all that belongs beside the shards: what `datasets` reads, and last the manifest."""
    import xxhash

    columns = features(names, with_image=form.images is None)
    info = {"citation": "", "description": "", "features": columns.to_dict()}
    info |= {"homepage": "", "license": ""}
    texts = {}
    by_split: dict[str, list[str]] = {}
    for name in shards:
        by_split.setdefault(name.split("/")[0], []).append(name)
    for split, files in by_split.items():
        content = "".join(shards[name]["xxh3"] for name in files)
        state: dict[str, Any] = {
            "_data_files": [{"filename": name.split("/")[1]} for name in files],
            "_fingerprint": xxhash.xxh3_64(content.encode()).hexdigest(),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        texts[f"{split}/state.json"] = json.dumps(state, indent=2)
        texts[f"{split}/dataset_info.json"] = json.dumps(info, indent=2)
    texts["dataset_dict.json"] = json.dumps({"splits": list(by_split)})
    manifest = {
        "version": VERSION,
        "orientation": UPRIGHT,
        "classes": names,
        "palette": form.palette,
        "report": report,
        **({"images": dataclasses.asdict(form.images)} if form.images else {}),
        "shards": shards,
    }
    return {**texts, MANIFEST: json.dumps(manifest, indent=1)}


# ------------------------------------------------------------------------------------------------ destination


def exists_error(path: Path | str) -> DatasetExistsError:
    """For a destination that is taken."""
    return DatasetExistsError(f"{path} exists already; remove it or name another destination")


@contextlib.contextmanager
def sole_writer(path: Path, taken: Callable[[], bool], suffix: str, shown: str | Path = "") -> Iterator[Path]:
    """A hidden sibling folder .NAME`suffix` of `path`, while no other process writes `path`.

    Such folders of another suffix are removed: killed or outdated.  `shown` names the destination in messages
    if it is not `path`.  Raises DatasetExistsError if it is `taken`, ValueError if nothing can be written.
    """
    import filelock

    lock_file = path.parent / f".{path.name}.lock"
    lock = filelock.FileLock(lock_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            print(f"waiting for another process that writes {shown or path}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise ValueError(f"{path.parent} cannot be written to ({error}); name another destination") from error
    finished = False
    try:
        folder = path.parent / f".{path.name}{suffix}"
        there = taken()
        for sibling in path.parent.iterdir():  # we hold the lock
            left = sibling.name.startswith((f".{path.name}.tmp-", f".{path.name}.parts-"))
            if left and (there or sibling != folder):
                shutil.rmtree(sibling, ignore_errors=True)
        if there:
            raise exists_error(shown or path)
        folder.mkdir(exist_ok=True)
        try:
            yield folder
            finished = True
        finally:
            for file in folder.glob("*.tmp"):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing is in it
    finally:
        if finished or path.exists():  # whoever waits finds the dataset, so the lock has served
            lock_file.unlink(missing_ok=True)
        lock.release()
