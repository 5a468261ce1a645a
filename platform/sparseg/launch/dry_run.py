"""--dry-run: what a run would do, without a step of it."""

from __future__ import annotations

import numpy as np

from sparseg.common import object_store
from sparseg.config import UNLABELLED, Config, to_dict
from sparseg.data import shards
from sparseg.data.loader import Microbatches, NumberedRows, TrainingSamples
from sparseg.data.node_shards import Node
from sparseg.data.row_order import rows_of_step
from sparseg.launch.prepare import prepare
from sparseg.network import segmenter
from sparseg.runs import log
from sparseg.train import label_watch, schedule

CROPS = 32
"""Crops of the run that are looked at for their labels."""


def print_plan(config: Config) -> None:
    """Print a few lines (dataset, splits, classes, batch, labels, parameters, steps), then the resolved
    configuration; nothing is trained.  The labels of a dataset in an object store are not looked at.

    Raises ValueError as the run would.
    """
    config, dataset = prepare(config)
    described = shards.describe(dataset, cache=config.data.cache)
    num_rows = described.rows[config.data.train_split]
    steps = schedule.plan(config, num_rows)
    network = segmenter.build(config.model, len(described.names), quiet=True)
    rows = ", ".join(f"{split} {count}" for split, count in described.rows.items())
    print(f"dataset      {dataset}")
    print(f"splits       {rows} images")
    print(f"classes      {len(described.names)}: {', '.join(described.names)}")
    print(f"batch        {_batch(config, num_rows)}")
    if not object_store.is_url(dataset):  # its shards are not copied for this
        _print_labels(config, labelled_pixels(config, shards.open(dataset)))
    print(f"parameters   {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M")
    print(f"steps        {steps.total_steps} ({steps.epoch(steps.total_steps):.2f} epochs)")
    print(log.json_text(to_dict(config)))


def first_step_keys(config: Config, num_rows: int) -> list[list[list[tuple[int, int]]]]:
    """The (epoch, row) keys of the first step as the loader draws them: of every worker, of each of its
    passes.  The workers stand on one node, as far as is known before the cluster is."""
    workers = max(config.resources.workers, 1)
    return [
        list(Microbatches(config, range(num_rows), Node(0, 1, rank, workers), workers, first=0, last=1))
        for rank in range(workers)
    ]


def _batch(config: Config, num_rows: int) -> str:
    """The first step's batch in words, with the shape of worker 0's first pass."""
    keys = first_step_keys(config, num_rows)
    counts = ["+".join(str(len(batch)) for batch in passes) for passes in keys]
    side = config.data.crop_px
    text = f"{sum(len(batch) for passes in keys for batch in passes)} images: "
    if len(set(counts)) == 1:
        text += f"{counts[0]} on each of {len(counts)} workers" if len(counts) > 1 else f"{counts[0]} at once"
    else:
        text += ", ".join(f"{count} on worker {rank}" for rank, count in enumerate(counts))
    if config.optim.accumulate > 1:
        text = text.replace(" at once", "") + f", in {config.optim.accumulate} passes"
    if config.data.sharding == "node":
        text += "; each node's from its own shards"
    return f"{text}; a pass of worker 0: image ({len(keys[0][0])}, 3, {side}, {side}) uint8"


def labelled_pixels(config: Config, opened: shards.ShardedDataset) -> np.ndarray:
    """Labelled pixels of each of the first CROPS crops that a run would train on, ascending."""
    split = opened.splits[config.data.train_split]
    samples = TrainingSamples(NumberedRows(split, 0), len(opened.names), config.data, config.run.seed)
    keys = rows_of_step(config.run.seed, 0, len(split), CROPS)
    return np.sort([np.count_nonzero(samples[key][1] < UNLABELLED) for key in keys])


def _print_labels(config: Config, labelled: np.ndarray) -> None:
    """Print how many labels a crop holds, and what to do where most hold none that the loss needs."""
    bare = np.mean(labelled == 0)
    print(
        f"labels       {labelled[0]} to {labelled[-1]} labelled pixels a crop, median "
        f"{np.median(labelled):g}; {bare:.0%} of {len(labelled)} crops hold none"
    )
    if bare > 0.5 and config.loss.needs_labelled_pixels:
        print(f"note: such crops teach nothing; {label_watch.remedy(config.data)}")
