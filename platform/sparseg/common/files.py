"""Files written whole: a temporary name, then a rename; their checksums; where this user's cache is."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

TEMPORARY = ".tmp"
"""How the temporary names end; whoever owns a folder may remove such files of a process that was killed."""


def write_atomically(path: Path, data: str | bytes) -> None:
    """Replace a file whole, or leave it as it was; text becomes UTF-8 and the folder is made.

    The temporary name is this call's own, so processes and nodes that write the same file never mix.  The
    bytes are on the disk before the name says so: after a power cut the file is the old or the new one.
    Raises OSError if the folder cannot be written to or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cache_folder(cache: str | None = None) -> Path:
    """The folder for copies and notes that can be made again: `cache`, else sparseg in the user's cache.

    That is $XDG_CACHE_HOME/sparseg, or ~/.cache/sparseg where the variable is not set, of this node's user.
    """
    return (
        Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sparseg")).expanduser().absolute()
    )


def checksum(file: Path) -> str:
    """Hex of the file's xxh3_128."""
    import xxhash

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()
