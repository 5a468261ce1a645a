"""--dry-run: what a run would do, without a step of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseg.common import object_store
from sparseg.config import UNLABELLED, Config, to_dict
from sparseg.data import shards
from sparseg.data.loader import Microbatches, NumberedRows, TrainingSamples, collate
from sparseg.data.node_shards import Node
from sparseg.launch.prepare import prepare
from sparseg.network import segmenter
from sparseg.runs import log
from sparseg.train import schedule


def print_plan(config: Config) -> None:
    """Print six lines (dataset, splits, classes, batch, parameters, steps), then the resolved configuration;
    nothing is trained.  Raises ValueError as the run would."""
    config, dataset = prepare(config)
    described = shards.describe(dataset, cache=config.data.cache)
    num_rows = described.rows[config.data.train_split]
    steps = schedule.plan(config, num_rows)
    network = segmenter.build(config.model, len(described.names), quiet=True)
    rows = ", ".join(f"{split} {count}" for split, count in described.rows.items())
    print(f"dataset      {dataset}")
    print(f"splits       {rows} images")
    print(f"classes      {len(described.names)}: {', '.join(described.names)}")
    print(f"batch        {_batch(config, dataset, num_rows, len(described.names))}")
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


def _batch(config: Config, dataset: str | Path, num_rows: int, num_classes: int) -> str:
    """The first step's batch in words, with the shape and the labels of worker 0's first pass."""
    keys = first_step_keys(config, num_rows)
    counts = ["+".join(str(len(batch)) for batch in passes) for passes in keys]
    first, side = keys[0][0], config.data.crop_px
    text = f"{sum(len(batch) for passes in keys for batch in passes)} images: "
    if len(set(counts)) == 1:
        text += f"{counts[0]} on each of {len(counts)} workers" if len(counts) > 1 else f"{counts[0]} at once"
    else:
        text += ", ".join(f"{count} on worker {rank}" for rank, count in enumerate(counts))
    if config.optim.accumulate > 1:
        text = text.replace(" at once", "") + f", in {config.optim.accumulate} passes"
    if config.data.sharding == "node":
        text += "; each node's from its own shards"
    if object_store.is_url(dataset):  # its shards are not copied for this
        return f"{text}; a pass of worker 0: image ({len(first)}, 3, {side}, {side}) uint8"
    split = shards.open(dataset).splits[config.data.train_split]
    samples = TrainingSamples(NumberedRows(split, 0), num_classes, config.data, config.run.seed)
    batch = collate([samples[key] for key in first])
    labelled_B = np.sort((batch.label_BHW.numpy() < UNLABELLED).sum((1, 2)))
    return (
        f"{text}; a pass of worker 0: image {tuple(batch.image_B3HW.shape)} uint8, labelled pixels a crop "
        f"{labelled_B[0]} to {labelled_B[-1]}, median {np.median(labelled_B):g}"
    )
