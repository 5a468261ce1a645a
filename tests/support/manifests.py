"""Manifests of either version for a written dataset, whichever version `shards.write` writes; uploads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import xxhash


def arrow_files(folder: Path) -> dict[str, Path]:
    return {f"{file.parent.name}/{file.name}": file for file in sorted(folder.glob("*/*.arrow"))}


def _write(folder: Path, version: int, facts: dict[str, Any]) -> Path:
    file = folder / "sparseg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": version, "shards": facts}))
    return folder


def version_1(folder: Path) -> Path:
    """Sizes alone."""
    return _write(folder, 1, {name: file.stat().st_size for name, file in arrow_files(folder).items()})


def version_2(folder: Path) -> Path:
    """Sizes, rows and checksums."""
    facts = {}
    for name, file in arrow_files(folder).items():
        with pa.ipc.open_stream(str(file)) as stream:
            rows = sum(batch.num_rows for batch in stream)
        content = file.read_bytes()
        facts[name] = {"bytes": len(content), "rows": rows, "xxh3": xxhash.xxh3_128(content).hexdigest()}
    return _write(folder, 2, facts)


def flip_a_byte(file: Path) -> None:
    """Same size, other content; the time of change moves on as by any write."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def upload(folder: Path, url: str) -> str:
    """Copy a dataset folder to a URL -> the URL."""
    filesystem, root = fsspec.core.url_to_fs(url)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            filesystem.pipe_file(f"{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return url
