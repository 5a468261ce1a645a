"""sparseg.json: what a dataset folder holds, and whether its shards are still those that were written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparseg.common.files import checksum, write_atomically
from sparseg.data.shards.palette import Colour

READABLE = (1, 2)
"""Versions of sparseg.json.  1: shards = {name: bytes}; 2: {name: {bytes, rows, xxh3}}."""
UPRIGHT = "upright"
"""The "orientation" in sparseg.json: images are taken as a viewer shows them."""
SHARD_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*\.arrow")  # nothing that leaves the folder
ANNOUNCED_BYTES = 2 * 10**9  # checksums of more take long enough to be announced


@dataclasses.dataclass(frozen=True)
class Shard:
    """Facts of one Arrow file; rows and xxh3 (hex of xxhash.xxh3_128) are None in version 1."""

    bytes: int
    rows: int | None = None
    xxh3: str | None = None


@dataclasses.dataclass(frozen=True)
class ImagesElsewhere:
    """The dataset whose images a dataset has, row by row, in the place of its own."""

    folder: str
    """Relative to the dataset's own folder, or absolute."""
    identity: str
    """xxhash.xxh3_128 (hex) of the other's sparseg.json."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A read sparseg.json; shards by name SPLIT/FILE.arrow, in the order of their rows."""

    text: str
    names: list[str]
    palette: list[Colour]
    report: dict[str, Any]
    shards: dict[str, Shard]
    upright: bool
    """Whether labels belong to the images as their EXIF orientation turns them; else to the stored pixels, as
    in every dataset whose manifest does not say."""
    images: ImagesElsewhere | None = None
    """Where the images are, if the shards hold labels alone."""

    @property
    def identity(self) -> str:
        """Checksum of the text, which differs where the data differ."""
        import xxhash

        return xxhash.xxh3_128(self.text.encode()).hexdigest()

    def splits(self) -> dict[str, list[str]]:
        """Names of the shards of every split."""
        splits: dict[str, list[str]] = {}
        for name in self.shards:
            splits.setdefault(name.split("/")[0], []).append(name)
        return splits

    def rows(self, split: str) -> list[int] | None:
        """Rows of every shard of a split, or None where the manifest does not say (version 1)."""
        counts = [self.shards[name].rows for name in self.splits()[split]]
        known = [count for count in counts if count is not None]
        return known if len(known) == len(counts) else None


def parse(text: str, file: str, remedy: str) -> Manifest:
    """The manifest that `text` holds.  Raises ValueError naming `file`, with the remedy, if it is none."""
    try:
        values = json.loads(text)
        version, stored = values["version"], values["shards"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); {remedy}") from error
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ValueError(
            f"{file}: version {version} is not known (this sparseg reads {known}); import it again"
        )
    try:
        splits = list(dict.fromkeys(name.split("/")[0] for name in stored))  # keep their order
        names_of_shards = sorted(stored, key=lambda name: (splits.index(name.split("/")[0]), name))
        shards = {name: _shard(stored[name]) for name in names_of_shards}
        names = [str(name) for name in values["classes"]]
        palette = [(int(r), int(g), int(b)) for r, g, b in values["palette"]]
        report = dict(values["report"])
        images = ImagesElsewhere(**values["images"]) if "images" in values else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); {remedy}") from error
    wrong = [name for name in shards if SHARD_NAME.fullmatch(name) is None]
    if wrong or not shards or not names:
        found = f"shard name {wrong[0]!r}" if wrong else "no shards or no classes"
        raise ValueError(f"{file} is damaged ({found}); {remedy}")
    return Manifest(text, names, palette, report, shards, values.get("orientation") == UPRIGHT, images)


def _shard(facts: Any) -> Shard:
    if isinstance(facts, int):
        return Shard(facts)
    return Shard(int(facts["bytes"]), int(facts["rows"]), str(facts["xxh3"]))


def check_sizes(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise ValueError naming a shard that is missing or has another size than it was written with."""
    for name in names:
        shard, expected = folder / name, manifest.shards[name].bytes
        if not shard.is_file():
            raise ValueError(f"{shard} is missing; copy it again, or remove {folder} and import it again")
        if (found := shard.stat().st_size) != expected:
            raise ValueError(
                f"{shard} is truncated or changed: {found} bytes, {expected} expected; copy it again, or "
                f"remove {folder} and import it again"
            )


def altered(folder: Path, manifest: Manifest, names: Iterable[str], memo: Path) -> list[str]:
    """The shards among `names` whose checksum is not the manifest's (none in version 1, which has none).

    What was right is noted in the file `memo` by size and time of change, so that the next call does not
    read it again.
    """
    known = _read_memo(memo)
    facts, todo, num_bytes = {}, [], 0
    for name in names:
        stat, expected = (folder / name).stat(), manifest.shards[name].xxh3
        facts[name] = [stat.st_size, stat.st_mtime_ns, expected]
        if expected is not None and known.get(name) != facts[name]:
            todo.append(name)
            num_bytes += stat.st_size
    if num_bytes > ANNOUNCED_BYTES:
        print(f"dataset: checking {len(todo)} shards of {folder}, {num_bytes / 1e9:.1f} GB, once", flush=True)
    wrong = [name for name in todo if checksum(folder / name) != manifest.shards[name].xxh3]
    right = {name: facts[name] for name in todo if name not in wrong}
    if right:
        _write_memo(memo, known | right)
    return wrong


def _read_memo(memo: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(memo.read_text()))
    except (OSError, ValueError):  # a damaged note costs a checksum
        return {}


def _write_memo(memo: Path, facts: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # where nothing can be written the next call computes them again
        write_atomically(memo, json.dumps(facts))
