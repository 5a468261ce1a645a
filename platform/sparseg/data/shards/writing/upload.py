"""Files of a dataset -> object storage (any fsspec URL): each checked, and not sent twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseg.common.files import write_atomically
from sparseg.common.object_store import filesystem, make_folder
from sparseg.common.process import one_line
from sparseg.data.shards.writing.parts import Shard

WAITS_S = (1.0, 4.0, 16.0)  # between tries
UNFINISHED = "sparseg.unfinished.json"
NOTES = "uploaded.json"


def exists(url: str, name: str) -> bool:
    """Whether a file of that name is below the URL.  Raises ValueError if the storage is not reached."""
    fs, root = filesystem(url)
    try:
        fs.invalidate_cache()
        return bool(fs.exists(f"{root}/{name}"))
    except Exception as error:  # of botocore, aiohttp, google.auth: each has its own
        raise ValueError(
            f"{url} is not reached ({one_line(error)}); check the URL and the credentials"
        ) from error


def announce(url: str, fingerprint: str | None) -> None:
    """Put a file there that says that the dataset is unfinished; None takes it away.

    It shows before the long work whether the destination can be written.  Raises ValueError if not.
    """
    fs, root = filesystem(url)
    file = f"{root}/{UNFINISHED}"
    try:
        if fingerprint is None:
            fs.rm_file(file)
        else:
            make_folder(fs, root)
            fs.pipe_file(file, json.dumps({"fingerprint": fingerprint}).encode())
    except Exception as error:
        raise ValueError(
            f"{url} cannot be written to ({one_line(error)}); check bucket and rights, or name "
            "another destination"
        ) from error


def put_shard(
    url: str, folder: Path, shard: Shard, write_to: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Write a shard to a file in `folder`, upload it, remove it; -> what `write_to` says of it.

    What was uploaded is noted in `folder`: if size and note agree at the next call, nothing is done.
    """
    fs, root = filesystem(url)
    file = folder / NOTES
    noted = json.loads(file.read_text()) if file.exists() else {}
    there = noted.get(shard.name)
    if there and _size(fs, f"{root}/{shard.name}") == there["bytes"]:
        return dict(there)
    local = folder / "shard.arrow"
    written = write_to(local)
    _put(url, shard.name, local)
    local.unlink()
    write_atomically(file, json.dumps({**noted, shard.name: written}))
    return written


def put_text(url: str, name: str, text: str, folder: Path) -> None:
    """Upload a small file, by way of `folder`."""
    local = folder / "text.tmp"
    local.write_text(text)
    _put(url, name, local)
    local.unlink()


def _put(url: str, name: str, local: Path) -> None:
    """Upload with retries; the size there must be that of the file.  Raises RuntimeError in the end."""
    fs, root = filesystem(url)
    target, size = f"{root}/{name}", local.stat().st_size
    for wait_s in (*WAITS_S, None):
        try:
            make_folder(fs, target.rsplit("/", 1)[0])
            fs.put_file(str(local), target)
            found = _size(fs, target)
            if found == size:
                return
            reason = f"{found} bytes arrived of {size}"
        except Exception as error:
            reason = one_line(error)
        if wait_s is not None:
            time.sleep(wait_s)
    raise RuntimeError(
        f"{url}/{name}: the upload failed {len(WAITS_S) + 1} times ({reason}); the same command "
        "goes on from there"
    )


def _size(fs: Any, target: str) -> int | None:
    fs.invalidate_cache()  # listings are remembered
    try:
        return int(fs.info(target)["size"])
    except FileNotFoundError:
        return None
