"""A checkpoint on a dataset: all scores, those of every image, in one process or spread over workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table
import torch
from torch import Tensor

from sparseg.common import object_store
from sparseg.data import row_order, shards
from sparseg.evaluation import metrics
from sparseg.evaluation.counts import count_split
from sparseg.evaluation.metrics import Counts
from sparseg.inference.views import Spread
from sparseg.runs import checkpoint as checkpoints

PART_BATCHES = 4  # of a worker's turn
Part = tuple[Counts, list[dict[str, Any]]]


def evaluate(
    checkpoint: str | Path, dataset: str | Path, split: str, *, spread: Spread | None = None, **views: Any
) -> dict[str, Any]:
    """`metrics.detailed_scores` of a split, with `images`: {id, miou, pixel_accuracy, confidence} of each.

    The numbers do not depend on `spread`: batches stay as they are, and counts are whole (with another number
    of threads the network's own rounding may move a confidence by 1e-7).  ``views`` go to
    `class_probabilities`.  Raises ValueError if checkpoint, dataset and split do not go together.
    """
    checkpoint = checkpoints.resolve(checkpoint).absolute()  # the best one may become another meanwhile
    dataset = dataset if object_store.is_url(str(dataset)) else Path(dataset).absolute()
    names = json.loads(checkpoints.read_metadata(checkpoint / "model.safetensors")["classes"])
    data = shards.open(dataset)
    if data.names != names:
        raise ValueError(f"{dataset} has classes {data.names}, the checkpoint {names}")
    if split not in data.splits:
        raise ValueError(f"{dataset}: no split {split!r}; it has {', '.join(data.splits)}")
    batches = row_order.validation_rows(data.splits[split])
    task = functools.partial(evaluate_part, str(checkpoint), str(dataset), split, views)
    parts = [batches]
    if spread is not None:
        parts = [batches[start : start + PART_BATCHES] for start in range(0, len(batches), PART_BATCHES)]
    counts, images = Counts.zeros(len(names)), list[dict[str, Any]]()
    for some, records in map(task, parts) if spread is None else spread(task, parts):
        counts += some
        images += records
    if not counts.confusion_KK.sum():
        raise ValueError(f"{dataset}: no pixel of split {split!r} has a class; it takes dense labels")
    images.sort(key=lambda record: record["row"])
    return {
        "checkpoint": str(checkpoint),
        "dataset": str(dataset),
        "split": split,
        "views": views,
        **metrics.detailed_scores(counts, names),
        "images": images,
    }


def evaluate_part(
    checkpoint: str, dataset: str, split: str, views: dict[str, Any], batches: Sequence[Sequence[int]]
) -> Part:
    """Counts of some batches, and a record of each of their images; what a worker does."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded, rows = checkpoints.load_model(checkpoint, device), shards.open(dataset).splits[split]
    num_classes, ids = len(loaded.names), rows.select_columns(["id"])  # without decoding images again
    records: list[dict[str, Any]] = []

    def note(numbers: Sequence[int], image: Tensor, p_BKHW: Tensor, truth_BHW: Tensor) -> None:
        confidence_BHW, prediction_BHW = p_BKHW.max(1)
        for row, found, truth, sure in zip(numbers, prediction_BHW, truth_BHW, confidence_BHW, strict=True):
            scored = metrics.scores(metrics.confusion(found, truth, num_classes), loaded.names)
            known = {name: scored[name] if scored["pixels"] else None for name in ("miou", "pixel_accuracy")}
            records.append({"row": row, "id": ids[row]["id"], **known, "confidence": sure.mean().item()})

    counts = count_split(
        loaded.model, rows, num_classes, device=device, batches=batches, details=True, on_batch=note, **views
    )
    return counts, records


def show(found: dict[str, Any]) -> None:
    """Print the scores as a table."""
    print(f"{found['checkpoint']} on {found['split']} of {found['dataset']}, {len(found['images'])} images")
    table = rich.table.Table()
    table.add_column("class")
    for name in ("IoU", "boundary IoU", "share of pixels"):
        table.add_column(name, justify="right")
    for (name, iou), row in zip(found["iou"].items(), found["confusion"], strict=True):
        cells = [iou, found["boundary_iou_per_class"][name], sum(row) / max(found["pixels"], 1)]
        table.add_row(name, *("-" if value is None else f"{100 * value:.2f}" for value in cells))
    table.add_section()
    table.add_row("mean", f"{100 * found['miou']:.2f}", f"{100 * found['boundary_iou']:.2f}", "")
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "calibration_error"):
        print(f"{name.replace('_', ' ').replace('miou', 'mIoU'):<24} {found[name]:.4f}")
