"""Files written whole: a temporary name, then a rename; and their checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_TEMPORARY = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Replace a small file whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file whole."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def checksum(file: Path) -> str:
    """Hex of the file's xxh3_128."""
    import xxhash

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()
