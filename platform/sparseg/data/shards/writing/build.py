"""Listed items -> a dataset folder, or a dataset in object storage: in parallel, and gone on with."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseg.common.files import cache_folder
from sparseg.common.object_store import is_url
from sparseg.data.shards.manifest import ImagesElsewhere
from sparseg.data.shards.palette import Colour
from sparseg.data.shards.writing import upload
from sparseg.data.shards.writing.parts import Form, Part, cut_into_parts, is_finished, read_summary
from sparseg.data.shards.writing.pool import Job, Reader, make_parts
from sparseg.data.shards.writing.writer import (
    MANIFEST,
    exists_error,
    finish,
    form_of,
    join,
    metadata,
    sole_writer,
)

Facts = Iterator[tuple[str, dict[str, Any]]]
"""(split, facts) of every part, in listed order."""


def build(
    out: str,
    splits: Mapping[str, Sequence[Any]],
    open_reader: Callable[[], Reader],
    names: list[str],
    *,
    fingerprint: str,
    report_of: Callable[[Facts], dict[str, Any]],
    palette: list[Colour] | None = None,
    num_shards: int = 1,
    workers: int | None = None,
    part_items: int | None = None,
    images: ImagesElsewhere | None = None,
) -> dict[str, Any]:
    """Write a dataset from listed items into a folder or to a URL; interrupted, the next call goes on.

    `splits` are the items in order; `open_reader()`, called once a process and picklable, gives the function
    that turns some of them into rows.  What is finished, in parts of `part_items` items (default:
    parts.PART_ITEMS), lies in a hidden sibling of `out` (for a URL: in the user's cache) and is taken again
    by a call with the same `fingerprint`, which must change with everything that the rows depend on, and with
    `part_items`.  `report_of` makes the report, which is stored in sparseg.json and returned, of the readers'
    facts, and may raise.  `workers` as in pool.make_parts.  With `images` those of another dataset, row by
    row, stand in the place of the rows' own.  The result depends neither on workers nor on interruptions.

    Raises DatasetExistsError if the destination is taken, ValueError for bad rows or where nothing can be
    written, OSError for a full disk, RuntimeError for an upload that fails again and again.
    """
    form = form_of(names, palette, num_shards, images)
    place = _staging(out) if is_url(out) else Path(out).absolute()
    suffix = f".parts-{fingerprint}"
    with sole_writer(place, lambda: _is_taken(out), suffix, shown=out) as folder, _naming_full_disk(out):
        if is_url(out):
            upload.announce(out, fingerprint)
        parts = _import_parts(cut_into_parts(splits, part_items), Job(open_reader, folder, form), workers)
        report = report_of((part.split, read_summary(folder, part.name)["facts"]) for part in parts)
        part_names = {split: [part.name for part in parts if part.split == split] for split in splits}
        if is_url(out):
            _finish_remote(out, folder, part_names, names, form, report, num_shards)
        else:
            finish(place, folder, part_names, names, form, report, num_shards)
        shutil.rmtree(folder, ignore_errors=True)
    return report


def refuse_taken(out: str) -> None:
    """Raises DatasetExistsError if there is something at the folder, or a dataset at the URL."""
    if _is_taken(out):
        raise exists_error(out)


def _is_taken(out: str) -> bool:
    return upload.exists(out, MANIFEST) if is_url(out) else Path(out).exists()


def _import_parts(parts: list[Part], job: Job, workers: int | None) -> list[Part]:
    """Make those parts that are not finished yet -> all of them."""
    missing = [part for part in parts if not is_finished(job.folder, part)]
    total = sum(len(part.items) for part in parts)
    done = total - sum(len(part.items) for part in missing)
    if done:
        print(f"going on: {done} of {total} images were imported already", file=sys.stderr)
    make_parts(job, missing, workers, done)
    return parts


def _finish_remote(
    url: str,
    folder: Path,
    parts: Mapping[str, list[str]],
    names: list[str],
    form: Form,
    report: dict[str, Any],
    num_shards: int,
) -> None:
    """One shard at a time on the local disk; the manifest, without which nothing is a dataset, comes last."""
    put = functools.partial(upload.put_shard, url, folder)
    shards = join(folder, parts, form, num_shards, put)
    for name, text in metadata(names, form, report, shards).items():
        upload.put_text(url, name, text, folder)
    upload.announce(url, None)


def _staging(url: str) -> Path:
    """Where an import to a URL keeps its parts: the same place at the next try."""
    return cache_folder() / "imports" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


@contextlib.contextmanager
def _naming_full_disk(out: str) -> Iterator[None]:
    """Within: an OSError says which dataset could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OSError(
            f"{out} was not written ({error.strerror or error}); what is imported is kept: "
            f"{'make room and ' if full else ''}give the same command again"
        ) from error
