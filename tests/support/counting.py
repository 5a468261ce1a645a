"""A dataset of numbered rows for the tests of the import engine; light, for worker processes import it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fixtures
import numpy as np

from sparseg.data import shards

NAMES = ["sky", "road", "car"]


def read_numbers(
    log: str, pause_s: float, wrong: int, split: str, numbers: Sequence[int], facts: dict[str, Any]
) -> Iterator[shards.Row]:
    """Rows of numbers; every one is noted in the file `log`, number `wrong` is refused."""
    for number in numbers:
        if number == wrong:
            raise ValueError(f"file {number}.png is wrong")
        with open(log, "a") as file:
            file.write(f"{split} {number}\n")
        time.sleep(pause_s)
        label = np.full((4 + number % 3, 6), number % 3, np.uint8)
        yield fixtures.row(f"{split}-{number:04d}", label)
    facts["numbers"] = list(numbers)


def open_reader(log: str, pause_s: float = 0.0, wrong: int = -1) -> shards.Reader:
    return functools.partial(read_numbers, log, pause_s, wrong)


def build_numbers(
    out: Path | str,
    log: Path,
    *,
    train: int = 300,
    name: str = "fp",
    pause_s: float = 0.0,
    wrong: int = -1,
    **options: Any,
) -> dict[str, Any]:
    """A dataset of `train` and 70 rows -> its report."""

    def report_of(facts: shards.Facts) -> dict[str, Any]:
        return {"numbers": [number for _, some in facts for number in some["numbers"]]}

    return shards.build(
        str(out),
        {"train": range(train), "val": range(70)},
        functools.partial(open_reader, str(log), pause_s, wrong),
        NAMES,
        fingerprint=name,
        report_of=report_of,
        **options,
    )
