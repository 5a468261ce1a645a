"""Which rows make step t: a pure function of (seed, t)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, num_rows: int, node: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Order of the rows in an epoch; of the rows of node (n, N), each node has its own."""
    key = (seed, epoch) if node[1] == 1 else (seed, epoch, *node)
    return np.random.default_rng(key).permutation(num_rows)


def rows_of_step(
    seed: int, step: int, num_rows: int, batch_size: int, node: tuple[int, int] = (0, 1)
) -> list[tuple[int, int]]:
    """(epoch, row) of every image of global step `step`, counted from 0.

    The epochs' permutations stand one behind the other and are cut into global batches, so that every row
    comes once an epoch and no batch is short; a batch may span two epochs.  With a node, the same of its own
    rows and its own share of the batch (node_shards.py has the rule).
    """
    keys: list[tuple[int, int]] = []
    place, stop = step * batch_size, (step + 1) * batch_size
    while place < stop:
        epoch, first = divmod(place, num_rows)
        rows = permutation(seed, epoch, num_rows, node)[first : first + stop - place]
        keys += [(epoch, row) for row in rows.tolist()]
        place += len(rows)
    return keys


def share(items: Sequence[Any], part: int, parts: int) -> Any:
    """The part-th of `parts` contiguous, nearly equal shares."""
    return items[len(items) * part // parts : len(items) * (part + 1) // parts]


def validation_rows(split: Any, largest: int = 8) -> list[list[int]]:
    """The rows of a split in batches: neighbours of equal size, at most `largest`.

    They do not depend on the number of ranks, which share whole batches: kernels round otherwise for another
    batch size, and a pixel on the fence would change sides.
    """
    batches: list[list[int]] = []
    columns = split.select_columns(["height", "width"]).with_format("numpy")[:]
    sizes = (
        list(zip(columns["height"].tolist(), columns["width"].tolist(), strict=True)) if len(split) else []
    )
    for row, size in enumerate(sizes):
        if batches and len(batches[-1]) < largest and sizes[batches[-1][0]] == size:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
