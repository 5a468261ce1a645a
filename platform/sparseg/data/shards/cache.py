"""Datasets in object storage: s3://, gs:// or any URL that fsspec reads, copied into a checked cache."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseg.common.files import cache_folder, checksum, write_atomically
from sparseg.common.object_store import filesystem
from sparseg.common.process import one_line
from sparseg.config import FieldError, field, flag
from sparseg.data.shards.manifest import Manifest, parse
from sparseg.data.shards.writing.writer import MANIFEST

TRIES = 3
PAUSE_S = 0.5  # before the second try of an object; doubled before each further one
AT_ONCE = 4  # objects copied side by side: one stream seldom fills the line


def read_manifest(url: str) -> Manifest:
    """The dataset's sparseg.json, the only thing that is read here.

    Raises ValueError naming the URL if there is none, or it cannot be reached.
    """
    url = url.rstrip("/")
    store, path = filesystem(url)
    try:
        text = store.cat_file(f"{path}/{MANIFEST}").decode()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(
            f"{url} has no {MANIFEST}; give the URL of an imported dataset (import a raw one with "
            "`sparseg import` into a local folder, then copy that whole folder there)"
        ) from error
    except Exception as error:  # every store has errors of its own
        raise ValueError(
            f"{url}/{MANIFEST} cannot be read ({type(error).__name__}: {one_line(error)}); check the URL, "
            "the credentials, and AWS_ENDPOINT_URL if the server is your own"
        ) from error
    return parse(text, f"{url}/{MANIFEST}", "copy the dataset there again")


def place(url: str, manifest: Manifest, cache: str | None) -> Path:
    """The folder in the cache for this dataset; another manifest at the same URL has another folder."""
    key = hashlib.sha256(f"{url.rstrip('/')}\n{manifest.text}".encode()).hexdigest()[:20]
    return cache_folder(cache) / "datasets" / key


def copy(url: str, manifest: Manifest, names: Sequence[str], cache: str | None) -> int:
    """Bring the shards `names` into the dataset's `place`, where they are not there yet -> bytes copied.

    A shard has its name only once its size and its checksum are right.  Processes of a node wait for each
    other and share the copy.  Raises ValueError naming an object that is missing, truncated or altered.
    """
    folder, url = place(url, manifest, cache), url.rstrip("/")
    if not _missing(folder, manifest, names):
        return 0
    store, root = filesystem(url)
    with _sole_copier(folder, url):
        missing = _missing(folder, manifest, names)
        num_bytes = sum(manifest.shards[name].bytes for name in missing)
        free = shutil.disk_usage(folder).free
        if num_bytes > free:
            raise FieldError(
                f"{field('data.cache')}: {folder} has {free / 1e9:.1f} GB free, {len(missing)} shards of "
                f"{url} take {num_bytes / 1e9:.1f} GB; name another folder, or shard by node with "
                f"{flag('data.sharding')} node"
            )
        write_atomically(folder / MANIFEST, manifest.text)
        fetch = functools.partial(_fetch, store, root, url, folder, manifest)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(fetch, name) for name in missing]
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
    if missing:
        print(
            f"dataset: copied {len(missing)} shards, {num_bytes / 1e6:.1f} MB, from {url} to {folder}",
            flush=True,
        )
    return num_bytes


@contextlib.contextmanager
def _sole_copier(folder: Path, url: str) -> Iterator[None]:
    """Within: the folder is there, and no other process of the node copies into it."""
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=5)
        except filelock.Timeout:
            print(f"waiting for another process that copies {url} to {folder}", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise FieldError(
            f"{field('data.cache')}: {folder} cannot be written to ({error}); name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _missing(folder: Path, manifest: Manifest, names: Sequence[str]) -> list[str]:
    """Shards that are not in the folder at their right size."""
    sizes = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    return [name for name in names if sizes.get(name) != manifest.shards[name].bytes]


def _fetch(store: Any, root: str, url: str, folder: Path, manifest: Manifest, name: str) -> None:
    """Copy one object; the caller holds the lock, so that the temporary name is ours."""
    target, shard, what = folder / name, manifest.shards[name], ""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S * 2 ** (number - 1))
        try:
            store.get_file(f"{root}/{name}", str(temporary))
            size = temporary.stat().st_size
        except FileNotFoundError as error:
            raise ValueError(f"{url}/{name} is missing; copy the dataset there again") from error
        except Exception as error:  # every store has errors of its own
            what = f"cannot be copied to {folder} ({type(error).__name__}: {one_line(error)})"
            continue
        if size != shard.bytes:
            what = f"is truncated or changed: {size} bytes, {shard.bytes} expected"
        elif shard.xxh3 is not None and checksum(temporary) != shard.xxh3:
            what = f"is altered: its checksum is not the one in {MANIFEST}"
        else:
            os.replace(temporary, target)
            return
    temporary.unlink(missing_ok=True)
    raise ValueError(f"{url}/{name} {what}, {TRIES} times; copy the dataset there again")
