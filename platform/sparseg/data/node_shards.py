"""Which node reads which shards, and which rows of a step come from it (`--data.sharding node`).

The shards of the training split, in their order, are cut into one run of neighbours per node, each cut where
it leaves the rows most nearly equal.  A node's share of every global batch is that of its workers.  It fills
its share from its own rows alone: permutations of them, drawn by (seed, its own epoch, node, number of
nodes), stand one behind the other, and step t takes the next ones.  So a node passes over each of its rows
once before any comes again, nothing is dropped at the end of a pass, and a batch may span two.  Where the
nodes' shares of the batch are as their rows, every row of the split comes once an epoch; else the rows of a
node with fewer of them for its workers come more often, by just that factor.  One node gives the order of
`--data.sharding global`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from sparseg.config import Config, FieldError, field, flag
from sparseg.data import shards

MESSAGE_BYTES = 2048  # of an error that the other workers hear


@dataclasses.dataclass(frozen=True)
class Node:
    """Where a worker stands: node `rank` of `count`, worker `local_rank` of `local_world` there.

    before: workers on the nodes of smaller rank.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_world: int = 1
    before: int = 0


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def here(node_rank: int, local_rank: int, local_world: int, device: torch.device) -> Node:
    """This worker's node.  Every worker of the process group calls it: how many nodes there are is learnt so.

    device: one that the process group's backend can send from.
    """
    if _world() == 1:
        return Node()
    own = torch.tensor([node_rank], device=device)
    gathered = [torch.zeros_like(own) for _ in range(_world())]
    dist.all_gather(gathered, own)
    ranks = [int(rank) for rank in gathered]
    before = sum(rank < node_rank for rank in ranks)
    return Node(node_rank, len(set(ranks)), local_rank, local_world, before)


def shards_of_node(rows: Sequence[int], rank: int, count: int) -> range:
    """Numbers of the shards that node `rank` of `count` reads, given the rows of each; at least one."""
    ends = [0, *itertools.accumulate(rows)]
    cuts = [0]
    for number in range(1, count):  # leaving a shard for each of the other nodes
        places = range(cuts[-1] + 1, len(rows) - (count - number) + 1)
        cuts.append(min(places, key=lambda place: abs(ends[place] * count - ends[-1] * number)))
    cuts.append(len(rows))
    return range(cuts[rank], cuts[rank + 1])


def open_part(config: Config, dataset: str | Path, node: Node, device: torch.device) -> shards.ShardedDataset:
    """The dataset as this worker reads it: whole, or with its node's shards of the training split alone.

    The validation split is whole on every node.  Every worker of the process group calls it, and if one fails
    all raise its ValueError: none waits for a worker that has ended.
    """
    error, opened = "", None
    try:
        opened = _open(config, dataset, node)
    except ValueError as failure:
        error = str(failure)
    error = first_error(error, device)
    if opened is None or error:
        raise ValueError(error)
    return opened


def _open(config: Config, dataset: str | Path, node: Node) -> shards.ShardedDataset:
    data, only = config.data, {}
    if data.sharding == "node" and node.count > 1:
        manifest = shards.read_manifest(dataset)
        rows = manifest.rows(data.train_split) if manifest else None
        if rows is None:
            raise FieldError(
                f"{dataset}: its manifest does not count the rows of each shard, which "
                f"{field('data.sharding')}=node needs; import the data again, or use {flag('data.sharding')} "
                "global"
            )
        if len(rows) < node.count:
            raise FieldError(
                f"{dataset}: split {data.train_split!r} has {len(rows)} shards, too few for {node.count} "
                f"nodes with {field('data.sharding')}=node; import it with `sparseg import --shards "
                f"{4 * node.count}`, or use {flag('data.sharding')} global"
            )
        only = {data.train_split: shards_of_node(rows, node.rank, node.count)}
    opened = shards.open(dataset, cache=data.cache, only=only)
    if only and node.local_rank == 0:
        mine, part, total = only[data.train_split], opened.parts[data.train_split], opened.rows
        print(
            f"[{config.run.name}] node {node.rank} of {node.count}: shards {mine.start}..{mine.stop - 1} of "
            f"{len(rows or ())}, {len(part)} of {total[data.train_split]} rows of {data.train_split}",
            flush=True,
        )
    return opened


def first_error(error: str, device: torch.device) -> str:
    """The error of the smallest rank that has one, heard by all; "" if none has."""
    if _world() == 1:
        return error
    own = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8, device=device)
    text = error.encode()[:MESSAGE_BYTES]
    own[: len(text)] = torch.tensor(list(text), dtype=torch.uint8, device=device)
    gathered = [torch.empty_like(own) for _ in range(_world())]
    dist.all_gather(gathered, own)
    texts = [bytes(each.tolist()).rstrip(b"\0").decode(errors="replace") for each in gathered]
    return next((text for text in texts if text), "")
