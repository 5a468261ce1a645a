"""Batches on the device: a rank's share of the rows that row_order.py names for step t.

They are decoded, some clicks are dropped (`--data.keep-labels`), and they are augmented.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparseg.common.child_processes import script_kept_out
from sparseg.config import UNLABELLED, Config, DataConfig
from sparseg.data import augment, shards, sparsify
from sparseg.data.node_shards import Node
from sparseg.data.row_order import rows_of_step, share


@dataclasses.dataclass(frozen=True)
class Batch:
    """image_B3HW uint8, label_BHW uint8 codes, present_BK bool (classes annotated in the whole image).

    num_slots: most classes labelled in one crop; num_present: most classes annotated in one image (known
    here, so the device need not be asked).
    rows: their numbers in the split.
    """

    image_B3HW: Tensor
    label_BHW: Tensor
    present_BK: Tensor
    num_slots: int
    num_present: int
    rows: tuple[int, ...]

    def pin_memory(self) -> Batch:
        """For DataLoader: the batch in pinned memory, so that `to` need not wait."""
        return dataclasses.replace(
            self,
            image_B3HW=self.image_B3HW.pin_memory(),
            label_BHW=self.label_BHW.pin_memory(),
            present_BK=self.present_BK.pin_memory(),
        )

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """The batch on the device; the copy does not wait."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return dataclasses.replace(
            self,
            image_B3HW=self.image_B3HW.to(device, non_blocking=True, memory_format=layout),
            label_BHW=self.label_BHW.to(device, non_blocking=True),
            present_BK=self.present_BK.to(device, non_blocking=True),
        )


# --------------------------------------------------------------------------------------------------- the
# order


# ------------------------------------------------------------------------------------------------- the
# samples


class TrainingSamples(Dataset):
    """(epoch, row) -> (image_HW3, label_HW, present_K, row): decoded, clicks dropped, augmented."""

    def __init__(self, split: Any, num_classes: int, data: DataConfig, seed: int) -> None:
        self.split, self.num_classes, self.data, self.seed = split, num_classes, data, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        epoch, row = key
        record, data = self.split[row], self.data
        dense = data.label == "full"
        mask = record.get("mask")
        source = mask if dense and mask is not None else record["label"]
        label = shards.decode_label(source["bytes"])
        present = np.zeros(self.num_classes, bool)
        if not dense:
            present[record["present"]] = True
        if data.keep_labels < 1:
            present[np.unique(label[label < UNLABELLED])] = False  # stays: what was known without a pixel
            label = sparsify.keep_labels(label, data.keep_labels, seed=data.label_seed, key=record["id"])
        if data.keep_labels < 1 or dense:
            present[np.unique(label[label < UNLABELLED])] = True
        draws = (self.seed, epoch, row)
        try:
            image, label = augment.augment(record["image"]["bytes"], label, data, draws, dense=dense)
        except ValueError as error:
            raise ValueError(f"image {record['id']!r} of the training split: {error}") from error
        return image, label, present, row


def collate(samples: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> Batch:
    """Samples of one size -> Batch on the CPU."""
    images, labels, present, rows = zip(*samples, strict=True)
    num_slots = max(len(np.unique(label[label < UNLABELLED])) for label in labels)
    return Batch(
        image_B3HW=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        label_BHW=torch.from_numpy(np.stack(labels)),
        present_BK=torch.from_numpy(np.stack(present)),
        num_slots=num_slots,
        num_present=int(max(p.sum() for p in present)),
        rows=rows,
    )


@dataclasses.dataclass(frozen=True)
class NumberedRows:
    """Rows of a split by their number in the whole split, of which `split` holds those from `first` on."""

    split: Any
    first: int

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.split[row - self.first]


@dataclasses.dataclass(frozen=True)
class Microbatches:
    """Batch sampler: the (epoch, row) keys of one worker's passes, from global step `first` up to `last`.

    rows: numbers of the rows that its node reads.
    """

    config: Config
    rows: range
    node: Node
    world: int
    first: int
    last: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        optim, node = self.config.optim, self.node
        workers = range(node.before, node.before + node.local_world)
        passes = [
            share(range(optim.batch_size), number, optim.accumulate) for number in range(optim.accumulate)
        ]
        # places in the global batch that the node fills, in the order in which its rows come
        places = [place for part in passes for worker in workers for place in share(part, worker, self.world)]
        index = {place: number for number, place in enumerate(places)}
        mine = [[index[p] for p in share(part, workers[node.local_rank], self.world)] for part in passes]
        for step in range(self.first, self.last):
            keys = rows_of_step(
                self.config.run.seed, step, len(self.rows), len(places), (node.rank, node.count)
            )
            for numbers in mine:
                yield [(keys[k][0], self.rows[keys[k][1]]) for k in numbers]


def training_batches(
    dataset: shards.ShardedDataset,
    config: Config,
    *,
    rank: int,
    world: int,
    first_step: int,
    last_step: int,
    node: Node | None = None,
) -> Iterator[Batch]:
    """This rank's batches, `optim.accumulate` a step, from first_step on; prepared ahead in processes or a
    thread.

    node: where the rank stands, if its node draws from the rows of `dataset.parts` alone.
    """
    data = config.data
    rows = dataset.parts[data.train_split]
    node = node or Node(0, 1, rank, world)
    split = NumberedRows(dataset.splits[data.train_split], rows.start)
    batches = DataLoader(
        TrainingSamples(split, len(dataset.names), data, config.run.seed),
        batch_sampler=Microbatches(config, rows, node, world, first_step, last_step),
        collate_fn=collate,
        num_workers=data.loader_processes,
        pin_memory=torch.cuda.is_available(),
    )
    if not data.loader_processes:
        return _one_ahead(iter(batches))
    with script_kept_out():  # iter() starts the processes
        return iter(batches)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Prepare the next batch in a thread (decoding and resizing release the interpreter) while this one
    trains."""
    ahead: queue.Queue[Any] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def offer(item: Any) -> None:
        while not stop.is_set():
            try:
                return ahead.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                offer(batch)
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=work, daemon=True, name="sparseg-loader")
    thread.start()
    try:
        while (item := ahead.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def validation_batches(
    split: Any, batches: Sequence[Sequence[int]]
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Whole images of equal size and their dense labels, a batch after the other: (rows, image_B3HW,
    label_BHW)."""
    for rows in batches:
        records = [split[row] for row in rows]
        images = np.stack([shards.decode_image(record["image"]["bytes"]) for record in records])
        labels = np.stack([shards.decode_label(record["label"]["bytes"]) for record in records])
        yield list(rows), torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
