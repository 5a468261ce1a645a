"""--data.sharding node: whose shards, whose rows, when they come again; groups of processes on nodes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import manifests
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseg.config import Config
from sparseg.data import loader, node_shards, row_order, shards
from sparseg.data.loader import Microbatches
from sparseg.data.node_shards import Node, shards_of_node
from sparseg.data.row_order import rows_of_step
from sparseg.train import loop

CPU = torch.device("cpu")
SIZES = [(48, 48)] * 10

shard_rows = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def of_workers(per_node: Sequence[int]) -> list[Node]:
    """Every worker of a group with so many workers on each node, by rank."""
    before = [0, *itertools.accumulate(per_node)]
    return [
        Node(rank, len(per_node), local, count, before[rank])
        for rank, count in enumerate(per_node)
        for local in range(count)
    ]


def parts(rows: Sequence[int], count: int) -> list[range]:
    """Numbers of the rows of every node."""
    ends = [0, *itertools.accumulate(rows)]
    found = [shards_of_node(rows, rank, count) for rank in range(count)]
    return [range(ends[part.start], ends[part.stop]) for part in found]


def drawn(
    config: Config, rows: Sequence[int], per_node: Sequence[int], first: int, last: int
) -> list[list[list[tuple[int, int]]]]:
    """[worker][pass] -> (epoch, row) keys."""
    own = parts(rows, len(per_node))
    workers = of_workers(per_node)
    return [list(Microbatches(config, own[n.rank], n, len(workers), first, last)) for n in workers]


def config_of(batch_size: int, accumulate: int = 1, seed: int = 0) -> Config:
    optim = {"optim.batch_size": batch_size, "optim.accumulate": accumulate}
    return tiny.config(Path("nowhere"), {**optim, "run.seed": seed, "data.sharding": "node"})


# ----------------------------------------------------------------------------------------------- whose shards


@settings(deadline=None)
@given(rows=shard_rows, data=st.data())
def test_shards_are_cut_in_order_and_every_node_has_one(rows: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(rows)))
    found = [shards_of_node(rows, rank, count) for rank in range(count)]
    assert [number for part in found for number in part] == list(range(len(rows)))
    assert all(found)


@settings(deadline=None)
@given(rows=st.integers(1, 500), num_shards=st.integers(1, 40), data=st.data())
def test_rows_are_balanced_to_half_a_shard_at_each_cut(
    rows: int, num_shards: int, data: st.DataObject
) -> None:
    """With shards as `sparseg import` cuts them, which differ by one row."""
    num_shards = min(num_shards, rows)
    counts = [rows * (k + 1) // num_shards - rows * k // num_shards for k in range(num_shards)]
    count = data.draw(st.integers(1, num_shards))
    for part in parts(counts, count):
        assert abs(len(part) - rows / count) <= max(counts)
    if num_shards % count == 0:
        assert (
            max(map(len, parts(counts, count))) - min(map(len, parts(counts, count))) <= num_shards // count
        )


def test_unequal_shards_are_balanced_by_rows() -> None:
    assert [shards_of_node([100, 1, 1, 1, 97], rank, 2) for rank in range(2)] == [range(0, 1), range(1, 5)]
    assert [shards_of_node([100, 1, 1, 1], rank, 3) for rank in range(3)] == [
        range(1),
        range(1, 2),
        range(2, 4),
    ]
    assert [shards_of_node([1, 1, 100], rank, 3) for rank in range(3)] == [range(1), range(1, 2), range(2, 3)]


# ------------------------------------------------------------------------------------------------- whose rows

groups = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.integers(1, 9), min_size=4, max_size=9), per_node=groups, data=st.data())
def test_a_node_draws_from_its_own_rows_and_starves_none(
    rows: list[int], per_node: list[int], data: st.DataObject
) -> None:
    """After any number of steps the rows of a node have come equally often, give or take one."""
    accumulate = data.draw(st.sampled_from([1, 2]))
    batch_size = data.draw(st.integers(accumulate * sum(per_node), 30))
    config = config_of(batch_size, accumulate, seed=data.draw(st.integers(0, 5)))
    first = data.draw(st.integers(0, 4))
    last = first + data.draw(st.integers(1, 12))
    found = drawn(config, rows, per_node, 0, last)
    by_worker = list(zip(of_workers(per_node), found, strict=True))
    for number, part in enumerate(parts(rows, len(per_node))):
        keys = [key for node, of in by_worker if node.rank == number for p in of for key in p]
        counts = Counter(row for _, row in keys)
        assert set(counts) <= set(part)
        assert max(counts.values()) - min(counts[row] for row in part) <= 1
        assert len(set(keys)) == len(keys)  # augmented anew each time
    per_pass = [sum(len(of[k]) for of in found) for k in range(last * accumulate)]
    assert sum(per_pass) == last * batch_size
    assert all(max(map(len, p)) - min(map(len, p)) <= 1 for p in zip(*found, strict=True))
    later = drawn(config, rows, per_node, first, last)
    assert later == [of[first * accumulate :] for of in found]  # a function of the step


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 6),
    shards_each=st.integers(1, 3),
    per_node=st.integers(1, 3),
    count=st.integers(1, 4),
    share=st.integers(1, 4),
)
def test_every_row_comes_once_an_epoch_where_shares_and_rows_match(
    rows: int, shards_each: int, per_node: int, count: int, share: int
) -> None:
    counts = [rows] * (shards_each * count)
    batch_size = share * per_node * count
    num_rows, epochs = sum(counts), batch_size  # so many epochs are a whole number of steps
    found = drawn(config_of(batch_size), counts, [per_node] * count, 0, num_rows * epochs // batch_size)
    keys = [key for of in found for p in of for key in p]
    assert Counter(keys) == Counter((epoch, row) for epoch in range(epochs) for row in range(num_rows))


def test_rows_of_a_node_do_not_depend_on_the_workers_there() -> None:
    rows = [7, 5, 8, 6]
    one = drawn(config_of(12), rows, [1, 1], 0, 5)
    three = drawn(config_of(12), rows, [3, 3], 0, 5)
    for number in range(2):
        for step in range(5):
            joined = [key for worker in three[3 * number : 3 * number + 3] for key in worker[step]]
            assert joined == one[number][step]


def test_one_node_is_global_order_and_other_counts_have_other_orders() -> None:
    [[*alone]] = drawn(config_of(6), [5, 8], [1], 0, 9)
    assert alone == [rows_of_step(0, step, 13, 6) for step in range(9)]
    orders = {
        tuple(row_order.permutation(0, 0, 50, (rank, count))) for count in (1, 2, 3) for rank in range(count)
    }
    assert len(orders) == 6


def test_rows_of_a_node_with_fewer_come_more_often_by_just_that_factor() -> None:
    found = drawn(config_of(4), [10, 30], [1, 1], 0, 30)
    counts = Counter(row for of in found for p in of for _, row in p)
    assert {counts[row] for row in range(10)} == {6} and {counts[row] for row in range(10, 40)} == {2}


# ------------------------------------------------------------------------------------------ groups of workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data/ with ten training rows in five shards."""
    folder = tmp_path_factory.mktemp("nodes")
    splits = {
        "train": lambda: tiny.rows(SIZES, 0, dense=False),
        "val": lambda: tiny.rows([(48, 48)] * 3, 500, dense=True),
    }
    shards.write(folder / "data", splits, tiny.NAMES, num_shards=5)
    manifests.version_2(folder / "data")
    return folder


def configure(folder: Path, rank: int = 0) -> Config:
    overrides = {"data.sharding": "node", "data.root": f"file://{folder}/data"}
    return tiny.config(folder, {**overrides, "data.cache": str(folder / f"cache{rank}")})


def test_batches_hold_the_rows_of_the_node(folder: Path) -> None:
    config = configure(folder)
    whole = shards.open(folder / "data").splits["train"]
    samples = loader.TrainingSamples(whole, 3, config.data, config.run.seed)
    for node in of_workers([1, 1]):
        opened = node_shards.open_part(config, config.data.root, node, CPU)
        part = opened.parts["train"]
        steps = {"first_step": 1, "last_step": 4}
        found = list(loader.training_batches(opened, config, rank=node.rank, world=2, node=node, **steps))
        keys = list(Microbatches(config, part, node, 2, 1, 4))
        for batch, passes in zip(found, keys, strict=True):
            expected = loader.collate([samples[key] for key in passes])  # by their number in the whole split
            assert batch.rows == expected.rows and set(batch.rows) <= set(part)
            assert torch.equal(batch.image_B3HW, expected.image_B3HW)
            assert torch.equal(batch.label_BHW, expected.label_BHW)


def test_fewer_shards_than_nodes_are_refused(folder: Path) -> None:
    config = configure(folder)
    with pytest.raises(ValueError, match=r"has 5 shards, too few for 6 nodes.*--shards 24`, or use --data"):
        node_shards.open_part(config, folder / "data", Node(5, 6, 0, 1, 5), CPU)
    whole = dataclasses.replace(config, data=dataclasses.replace(config.data, sharding="global"))
    assert len(node_shards.open_part(whole, folder / "data", Node(5, 6, 0, 1, 5), CPU).splits["train"]) == 10


def test_a_dataset_whose_shards_are_not_counted_is_refused(folder: Path, tmp_path: Path) -> None:
    manifests.version_1(tiny.dataset(tmp_path))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"count the rows of each shard.*import the data again"):
            node_shards.open_part(configure(folder), tmp_path / "data", Node(0, 2, 0, 1, 0), CPU)
        (tmp_path / "data" / "sparseg.json").unlink(missing_ok=True)  # plain save_to_disk


def on_nodes(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Two steps of a run on two nodes, with one worker and two; the other four by two workers of one node."""
    if world == 3:
        here = node_shards.here(min(rank, 1), max(rank - 1, 0), 1 if rank == 0 else 2, CPU)
    else:
        here = node_shards.here(0, rank, 2, CPU)
    config = configure(Path(folder), here.rank)
    error = ""
    try:
        node_shards.open_part(config, Path(folder) / "damaged", here, CPU)
    except ValueError as failure:
        error = str(failure)
    calls: list[int] = []

    def enough() -> bool:
        calls.append(1)
        return world == 3 and len(calls) == 2

    result = loop.run(config, node=here, device=CPU, should_stop=enough)
    return {"node": dataclasses.astuple(here), "error": error, "steps": result["steps"]}


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_nodes(folder: Path, tmp_path: Path) -> None:
    """And what one node alone finds damaged, all workers hear: none waits for one that has ended."""
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copytree(folder / "data", tmp_path / "damaged")
    shard = tmp_path / "damaged" / "train" / "data-00004-of-00005.arrow"
    shard.write_bytes(b"short")
    found = tiny.in_groups(on_nodes, tmp_path, (3, 2))
    assert [rank["node"] for rank in found[3]] == [(0, 2, 0, 1, 0), (1, 2, 0, 2, 1), (1, 2, 1, 2, 1)]
    assert [rank["node"] for rank in found[2]] == [(0, 1, 0, 2, 0), (0, 1, 1, 2, 0)]
    assert [rank["steps"] for rank in found[3]] == [2] * 3 and [rank["steps"] for rank in found[2]] == [6] * 2
    for rank in (*found[3], *found[2]):
        assert rank["error"].startswith(f"{shard} is truncated or changed: 5 bytes")
    kept = {
        number: {file.name[5:10] for file in (tmp_path / f"cache{number}").rglob("train/*.arrow")}
        for number in range(2)
    }
    assert kept[1] == {"00002", "00003", "00004"} and kept[0] == {f"{k:05d}" for k in range(5)}
    lines = [json.loads(line) for line in (tmp_path / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "total" in line] == [1, 2, 3, 4, 5, 6]
