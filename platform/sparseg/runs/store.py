"""Runs whose storage is a URL (s3://, gs://, ...): a local mirror on every node, sent and fetched here.

The store is what counts.  `pull` makes the mirror equal to it: its small files, its newest and its best
checkpoint.  `push`, after every save, sends what is new and removes what was pruned.  It may be cut off after
any file: the log goes first, because a run that goes on from a checkpoint needs the lines before it; then the
checkpoint, its manifest last, without which it does not count; then what names it.  All of it does nothing
for a run in a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseg.common.files import write_atomically
from sparseg.common.object_store import filesystem, is_url, make_folder
from sparseg.common.process import one_line
from sparseg.config import Config
from sparseg.runs import checkpoint

STOP_FILE = ".stop"
"""A file of this name in the run's folder asks its workers to save and end at their next logged line."""
NAMES_A_CHECKPOINT = {"best", "iou.json"}


def is_remote(config: Config) -> bool:
    """Whether the run's storage is a URL."""
    return is_url(config.run.storage)


def _opened(config: Config) -> tuple[Any, str]:
    store, root = filesystem(config.run.storage)
    store.invalidate_cache()  # listings are remembered
    return store, f"{root}/{config.run.name}"


def _guarded(config: Config, what: str, action: Callable[[], Any]) -> Any:
    """The action's value; the errors of all kinds of stores as OSError, which a save tries again."""
    try:
        return action()
    except OSError:
        raise
    except Exception as error:
        reason = one_line(error)
        raise OSError(f"{config.run.storage}/{config.run.name}: {what} failed ({reason})") from error


def check(config: Config) -> None:
    """Raise ValueError unless the URL can be written to."""
    if not is_remote(config):
        return
    store, root = filesystem(config.run.storage)
    try:
        make_folder(store, root)
        store.pipe_file(f"{root}/.sparseg-write-test", b"")
        store.rm_file(f"{root}/.sparseg-write-test")
    except Exception as error:  # every store has errors of its own
        reason = one_line(error)
        raise ValueError(
            f"run.storage={config.run.storage} cannot be written to ({reason}); check bucket, rights and "
            "credentials, and AWS_ENDPOINT_URL if the server is your own"
        ) from error


# -------------------------------------------------------------------------------------------------- there


def _listing(store: Any, root: str) -> dict[str, int]:
    """Path below the run -> bytes, of every object of the run."""
    try:
        found = store.find(root, detail=True)
    except FileNotFoundError:
        return {}
    return {path.split(f"{root}/", 1)[1]: int(info["size"]) for path, info in found.items()}


def _checkpoints(names: dict[str, int]) -> list[str]:
    """Names of the complete ones, oldest first."""
    return sorted(
        name.split("/")[0]
        for name in names
        if name.startswith("checkpoint_") and name.endswith(f"/{checkpoint.MANIFEST}")
    )


# --------------------------------------------------------------------------------------------------- pull


def pull(config: Config) -> None:
    """Make this node's mirror equal to the store; processes of a node wait for each other.

    All ranks have done so before rank 0 writes its first file.  Raises OSError if the store is not reached.
    """
    if not is_remote(config):
        return
    import filelock

    folder = config.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.parent / f".{folder.name}.lock"):
        _guarded(config, "reading it", lambda: _pull(config, folder))


def _pull(config: Config, folder: Path) -> None:
    store, root = _opened(config)
    there = _listing(store, root)
    complete = _checkpoints(there)
    wanted = set(complete[-1:])
    if "best" in there:
        wanted |= {store.cat_file(f"{root}/best").decode().strip()} & set(complete)
    for path in folder.glob("checkpoint_*"):
        if path.name not in wanted or not _same_manifest(store, root, path):
            shutil.rmtree(path)
    for path in [path for path in folder.glob("*") if path.is_file() and path.name not in there]:
        path.unlink()
    for name in sorted(name for name in there if not name.startswith(".")):
        first, inside = name.split("/")[0], "/" in name
        if (first in wanted and not (folder / first).is_dir()) or not inside:
            target = folder / (f".pulled-{name}" if inside else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{root}/{name}", str(target))
    for path in folder.glob(".pulled-*"):
        os.replace(path, folder / path.name.removeprefix(".pulled-"))


def _same_manifest(store: Any, root: str, path: Path) -> bool:
    try:
        ours = (path / checkpoint.MANIFEST).read_bytes()
    except OSError:
        return False
    return bool(ours == store.cat_file(f"{root}/{path.name}/{checkpoint.MANIFEST}"))


# --------------------------------------------------------------------------------------------------- push


def push(config: Config) -> None:
    """Send what the mirror has and the store has not; then remove checkpoints that the mirror has no more.

    Raises OSError if the store is not reached; what was sent by then stays, and does not count.
    """
    if is_remote(config):
        _guarded(config, "writing it", lambda: _push(config, config.folder))


def _push(config: Config, folder: Path) -> None:
    store, root = _opened(config)
    there = _listing(store, root)
    kept = {path.name for path in checkpoint.all_of(folder)}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    before = [path for path in files if path.name not in NAMES_A_CHECKPOINT]
    new = [
        path
        for name in sorted(kept - set(_checkpoints(there)))
        for path in sorted((folder / name).iterdir(), key=lambda path: path.name == checkpoint.MANIFEST)
    ]
    after = [path for path in files if path.name in NAMES_A_CHECKPOINT]
    for path in (*before, *new, *after):
        _send(store, path, f"{root}/{path.relative_to(folder)}")
    for name in _checkpoints(there):
        if name not in kept:
            store.rm_file(f"{root}/{name}/{checkpoint.MANIFEST}")  # first: what is left does not count
            store.rm(f"{root}/{name}", recursive=True)


def _send(store: Any, path: Path, target: str) -> None:
    make_folder(store, target.rsplit("/", 1)[0])
    store.put_file(str(path), target)


# ------------------------------------------------------------------------------------ driver and workers


def ask_to_stop(config: Config) -> None:
    """The driver's word to the workers: save and end."""
    if is_remote(config):
        store, root = _opened(config)
        store.pipe_file(f"{root}/{STOP_FILE}", b"")
    else:
        (config.folder / STOP_FILE).touch()


def asked_to_stop(config: Config) -> bool:
    """Whether the driver has asked."""
    if not is_remote(config):
        return (config.folder / STOP_FILE).exists()
    store, root = _opened(config)
    return bool(_guarded(config, "reading it", lambda: store.exists(f"{root}/{STOP_FILE}")))


def forget_stop(config: Config) -> None:
    """Before a start, and after an end."""
    forget_note(config, STOP_FILE)


def write_note(config: Config, name: str, value: Any) -> None:
    """A small JSON file for the driver."""
    write_atomically(config.folder / name, json.dumps(value, indent=2))
    if is_remote(config):
        store, root = _opened(config)
        _guarded(config, "writing it", lambda: _send(store, config.folder / name, f"{root}/{name}"))


def read_note(config: Config, name: str) -> Any:
    """What `write_note` wrote on another node."""
    if is_remote(config):
        store, root = _opened(config)
        return json.loads(_guarded(config, "reading it", lambda: store.cat_file(f"{root}/{name}")))
    return json.loads((config.folder / name).read_text())


def forget_note(config: Config, name: str) -> None:
    """Remove it, here and there."""
    (config.folder / name).unlink(missing_ok=True)
    if is_remote(config):
        store, root = _opened(config)
        if store.exists(f"{root}/{name}"):
            store.rm_file(f"{root}/{name}")


def move_aside(config: Config) -> str | None:
    """Give the earlier run of this name, if any, another name -> where it is now."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    if not is_remote(config):
        if not config.folder.exists():
            return None
        aside = config.folder.with_name(f"{config.run.name}.old-{stamp}")
        os.replace(config.folder, aside)
        return str(aside)
    store, root = _opened(config)
    shutil.rmtree(config.folder, ignore_errors=True)
    if not _listing(store, root):
        return None
    store.mv(root, f"{root}.old-{stamp}", recursive=True)
    return f"{config.run.storage}/{config.run.name}.old-{stamp}"
