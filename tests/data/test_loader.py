"""Which rows make step t, whatever the workers; batches as of any step; errors that reach the consumer."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fixtures
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED, Config
from sparseg.data import loader, shards
from sparseg.data.loader import Batch, Microbatches, training_batches, validation_batches
from sparseg.data.node_shards import Node
from sparseg.data.row_order import permutation, rows_of_step, share, validation_rows

SIZES = [(48, 48), (40, 60), (33, 35), (70, 50), (48, 48), (36, 64), (52, 44)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data/, seven training images of unequal sizes."""
    folder = tmp_path_factory.mktemp("loader")
    tiny.dataset(folder, SIZES, ((48, 48), (48, 48), (40, 52), (48, 48)))
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> shards.ShardedDataset:
    return shards.open(folder / "data")


def batches(
    data: shards.ShardedDataset, config: Config, first: int, last: int, rank: int = 0, world: int = 1
) -> list[Batch]:
    return list(training_batches(data, config, rank=rank, world=world, first_step=first, last_step=last))


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.rows, one.num_slots) == (other.rows, other.num_slots)
        for name in ("image_B3HW", "label_BHW", "present_BK"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


# -------------------------------------------------------------------------------------------------- the order


@settings(deadline=None)
@given(seed=st.integers(0, 9), rows=st.integers(1, 30), batch=st.integers(1, 40), step=st.integers(0, 20))
def test_rows_of_a_step_are_a_function_of_seed_and_step(seed: int, rows: int, batch: int, step: int) -> None:
    first = rows_of_step(seed, step, rows, batch)
    for other in range(6):  # more than the cache of permutations holds
        rows_of_step(seed + 1, other, rows, batch)
    permutation.cache_clear()
    assert rows_of_step(seed, step, rows, batch) == first
    assert len(first) == batch


@settings(deadline=None)
@given(seed=st.integers(0, 9), rows=st.integers(1, 30), batch=st.integers(1, 40))
def test_every_row_comes_once_an_epoch(seed: int, rows: int, batch: int) -> None:
    steps = rows * 3  # whole epochs: rows * 3 * batch places
    keys = [key for step in range(steps) for key in rows_of_step(seed, step, rows, batch)]
    assert [epoch for epoch, _ in keys] == sorted(epoch for epoch, _ in keys)
    assert Counter(keys) == Counter((epoch, row) for epoch in range(3 * batch) for row in range(rows))


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(count=st.integers(0, 50), parts=st.integers(1, 9))
def test_shares_partition_in_order_and_nearly_equal(count: int, parts: int) -> None:
    items = list(range(count))
    shares = [share(items, part, parts) for part in range(parts)]
    assert [item for part in shares for item in part] == items
    lengths = [len(part) for part in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_together_see_the_rows_of_the_step(
    folder: Path, data: shards.ShardedDataset, world: int, accumulate: int
) -> None:
    config = tiny.config(folder, {"optim.batch_size": 7, "optim.accumulate": accumulate})
    ranks = [batches(data, config, 0, 3, rank, world) for rank in range(world)]
    for step in range(3):
        expected = [row for _, row in rows_of_step(0, step, len(SIZES), 7)]
        found = [
            row
            for number in range(accumulate)
            for rank in ranks
            for row in rank[step * accumulate + number].rows
        ]
        assert found == expected
    assert {len(rank) for rank in ranks} == {3 * accumulate}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 9),
    rows=st.integers(5, 40),
    batch=st.integers(5, 12),
    accumulate=st.sampled_from([1, 2]),
    world=st.sampled_from([1, 2, 3, 5]),
)
def test_an_epoch_is_the_split_for_any_number_of_workers(
    seed: int, rows: int, batch: int, accumulate: int, world: int
) -> None:
    optim = {"optim.batch_size": batch * accumulate, "optim.accumulate": accumulate}
    config = tiny.config(Path("nowhere"), {**optim, "run.seed": seed})
    steps = -(-2 * rows // (batch * accumulate))  # two epochs and what belongs to their last step
    ranks = [
        Microbatches(config, range(rows), Node(0, 1, rank, world), world, 0, steps) for rank in range(world)
    ]
    keys = [key for passes in zip(*ranks, strict=True) for part in passes for key in part]
    for epoch in range(2):
        assert Counter(row for e, row in keys if e == epoch) == Counter(range(rows))
    alone = [key for step in range(steps) for key in rows_of_step(seed, step, rows, batch * accumulate)]
    assert keys == alone


def test_a_sample_is_the_same_on_any_rank(folder: Path, data: shards.ShardedDataset) -> None:
    config = tiny.config(folder, {"optim.batch_size": 6})
    [whole] = batches(data, config, 2, 3)
    parts = [batches(data, config, 2, 3, rank, 3)[0] for rank in range(3)]
    for name in ("image_B3HW", "label_BHW", "present_BK"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert max(part.num_slots for part in parts) == whole.num_slots


# ------------------------------------------------------------------------------------------------ the batches


@pytest.mark.parametrize("accumulate", [1, 2])
def test_starting_later_gives_the_same_batches(
    folder: Path, data: shards.ShardedDataset, accumulate: int
) -> None:
    config = tiny.config(folder, {"optim.accumulate": accumulate, "data.colour": True})
    assert_equal(batches(data, config, 3, 6), batches(data, config, 0, 6)[3 * accumulate :])
    assert batches(data, config, 6, 6) == []


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_loader_processes_give_the_same_batches(
    folder: Path, data: shards.ShardedDataset, processes: int
) -> None:
    config = tiny.config(folder, {"data.colour": True, "run.seed": 3})
    several = dataclasses.replace(config, data=dataclasses.replace(config.data, loader_processes=processes))
    assert_equal(batches(data, several, 1, 4), batches(data, config, 1, 4))


def test_batch_is_what_the_network_and_the_objective_take(folder: Path, data: shards.ShardedDataset) -> None:
    [batch] = batches(data, tiny.config(folder), 0, 1)
    assert (batch.image_B3HW.shape, batch.image_B3HW.dtype) == ((4, 3, 32, 32), torch.uint8)
    assert (batch.label_BHW.shape, batch.label_BHW.dtype) == ((4, 32, 32), torch.uint8)
    assert (batch.present_BK.shape, batch.present_BK.dtype) == ((4, 3), torch.bool)
    codes = set(batch.label_BHW.unique().tolist())
    assert codes <= {0, 1, 2, UNLABELLED, IGNORED} and UNLABELLED in codes
    slots = [len([k for k in range(3) if (label == k).any()]) for label in batch.label_BHW]
    assert batch.num_slots == max(slots) > 0
    expected = [[True, True, row % 2 == 0] for row in batch.rows]  # of the whole image, not of the crop
    assert batch.present_BK.tolist() == expected
    moved = batch.to(torch.device("cpu"), channels_last=True)
    assert moved.image_B3HW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.image_B3HW, batch.image_B3HW) and moved.rows == batch.rows


def test_full_labels_come_from_the_dense_mask(folder: Path, data: shards.ShardedDataset) -> None:
    config = tiny.config(folder, {"data.label": "full", "optim.batch_size": 7})
    [batch] = batches(data, config, 0, 1)
    assert UNLABELLED not in batch.label_BHW
    assert (batch.label_BHW < 3).float().mean() > 0.5


def test_full_labels_of_a_dataset_without_a_mask_column(folder: Path, data: shards.ShardedDataset) -> None:
    splits = {name: split.remove_columns("mask") for name, split in data.splits.items()}
    config = tiny.config(folder, {"data.label": "full"})
    [batch] = batches(dataclasses.replace(data, splits=splits), config, 0, 1)
    assert (batch.label_BHW < 3).any()


def test_kept_labels_are_fewer_and_present_follows_them(folder: Path, data: shards.ShardedDataset) -> None:
    """One labelled pixel of 12 or 18 is kept in every image, so one class is present."""
    config = tiny.config(folder, {"data.keep_labels": 0.01, "optim.batch_size": 7})
    [batch] = batches(data, config, 0, 1)
    assert batch.present_BK.sum(1).tolist() == [1] * 7
    assert batch.num_slots <= 1
    [again] = batches(data, tiny.config(folder, {"data.keep_labels": 0.01, "optim.batch_size": 7}), 7, 8)
    kept = {row: present for row, present in zip(batch.rows, batch.present_BK.tolist(), strict=True)}
    assert kept == {row: present for row, present in zip(again.rows, again.present_BK.tolist(), strict=True)}


def test_kept_labels_leave_what_is_present_without_a_pixel(tmp_path: Path) -> None:
    """A class clicked elsewhere in the scene that a tile is of may be in the tile, whatever is dropped."""
    label = np.full((40, 40), UNLABELLED, np.uint8)
    label[3, 4], label[30, 30] = 0, 1
    rows = {"train": lambda: iter([{**fixtures.row("tile", label), "present": [1, 2]}])}
    shards.write(tmp_path / "set", rows, tiny.NAMES)
    split = shards.open(tmp_path / "set").splits["train"]
    config = tiny.config(tmp_path, {"data.keep_labels": 0.5})
    _, _, present_K, _ = loader.TrainingSamples(split, 3, config.data, 0)[0, 0]
    assert present_K[2] and present_K[:2].sum() == 1
    _, _, present_K, _ = loader.TrainingSamples(split, 3, tiny.config(tmp_path).data, 0)[0, 0]
    assert present_K.tolist() == [True, True, True]


def test_validation_gives_every_image_whole_once_in_order(data: shards.ShardedDataset) -> None:
    split = data.splits["val"]
    seen: list[int] = []
    for rows, image_B3HW, label_BHW in validation_batches(split, validation_rows(split)):
        seen += rows
        for row, image_3HW, label_HW in zip(rows, image_B3HW, label_BHW, strict=True):
            stored = split[row]
            picture = np.asarray(Image.open(io.BytesIO(stored["image"]["bytes"])))
            assert (image_3HW.permute(1, 2, 0).numpy() == picture).all()
            assert (label_HW.numpy() == np.asarray(Image.open(io.BytesIO(stored["label"]["bytes"])))).all()
    assert seen == [0, 1, 2, 3]
    assert validation_rows(split) == [[0, 1], [2], [3]]
    assert validation_rows(split, largest=1) == [[0], [1], [2], [3]]
    assert validation_rows(split.select([1, 0])) == [[0, 1]] and validation_rows(split.select([])) == []
    assert [rows for rows, *_ in validation_batches(split, [[1, 0], [3]])] == [[1, 0], [3]]
    assert list(validation_batches(split, [])) == []


# ----------------------------------------------------------------------------------------------------- errors


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sparseg-loader"]


def test_an_error_in_a_sample_reaches_the_consumer_and_ends_the_thread(
    folder: Path, data: shards.ShardedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(folder)
    bad = rows_of_step(0, 1, len(SIZES), 4)[0]
    augment: Any = loader.augment.augment

    def fails(image: Any, label: Any, settings: Any, key: Any, *, dense: bool) -> Any:
        if key[1:] == bad:
            raise RuntimeError("row of step 1")
        return augment(image, label, settings, key, dense=dense)

    monkeypatch.setattr(loader.augment, "augment", fails)
    stream = training_batches(data, config, rank=0, world=1, first_step=0, last_step=4)
    assert next(stream).rows == tuple(row for _, row in rows_of_step(0, 0, len(SIZES), 4))
    with pytest.raises(RuntimeError, match="row of step 1"):
        next(stream)
    assert loader_threads() == []


def test_a_consumer_that_stops_early_ends_the_thread(folder: Path, data: shards.ShardedDataset) -> None:
    stream = training_batches(data, tiny.config(folder), rank=0, world=1, first_step=0, last_step=1000)
    next(stream)
    assert len(loader_threads()) == 1
    stream.close()  # type: ignore[attr-defined]
    assert loader_threads() == []


def test_batches_can_be_pinned(
    folder: Path, data: shards.ShardedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DataLoader(pin_memory=True) passes over what has no pin_memory(); then copies to the GPU wait."""
    [batch] = batches(data, tiny.config(folder), 0, 1)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    assert_equal([batch.pin_memory()], [batch])  # type: ignore[attr-defined]
    assert len(pinned) == 3
