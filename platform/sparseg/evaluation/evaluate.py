"""A checkpoint on a dataset: all scores, those of every image, in one process or spread over workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import rich.console
import rich.table
import torch
from torch import Tensor

from sparseg.common import object_store
from sparseg.common.numbers import UNKNOWN, percent
from sparseg.config import UNLABELLED
from sparseg.data import row_order, shards
from sparseg.evaluation import metrics
from sparseg.evaluation.counts import count_split
from sparseg.evaluation.metrics import Counts
from sparseg.inference.views import Spread
from sparseg.runs import checkpoint as checkpoints
from sparseg.runs.checkpoint import Loaded
from sparseg.runs.log import on_sparse_labels, read_json

PART_BATCHES = 4  # of a worker's turn
Part = tuple[Counts, list[dict[str, Any]]]


def evaluate(
    model: str | Path | Loaded,
    dataset: str | Path | shards.ShardedDataset,
    split: str = "val",
    *,
    spread: Spread | None = None,
    **views: Any,
) -> dict[str, Any]:
    """Score a network on a split; every image counts exactly once.

    On sparse labels the scores are those of the labelled pixels (see `metrics.scores_of_labels`).  They do
    not depend on `spread`: batches stay as they are, and counts are whole (with another number of threads
    the network's own rounding may move a confidence by 1e-7).

    Args:
        model: A checkpoint's folder, a run's (its best), or what `load_model` gives.
        dataset: An imported dataset: opened, its folder or its URL.  Its classes must be the network's.
        split: One of its splits.
        spread: Hands parts of the work to workers (`sparseg.launch.spread`); default: this process does it.
        **views: scales, flip, window_px and stride_px, as in `predict`.

    Returns:
        All of `metrics.detailed_scores` ("miou", "iou" per class, "boundary_iou", "calibration_error",
        "confusion", ...) and "images": id, miou, pixel_accuracy and confidence of each.

    Raises:
        ValueError: Checkpoint, dataset and split do not go together, or no pixel of the split has a class.

    Example:
        >>> scores = sparseg.evaluate("runs/tiny", "my_shards")
        >>> len(scores["images"]), 0 <= scores["miou"] <= 1
        (3, True)
    """
    if isinstance(dataset, shards.ShardedDataset):
        dataset = dataset.path
    dataset = dataset if object_store.is_url(str(dataset)) else Path(dataset).absolute()
    if isinstance(model, Loaded) and spread is not None:
        raise ValueError("spread: workers load the network themselves; give its folder, not the network")
    if not isinstance(model, Loaded):
        model = checkpoints.resolve(model).absolute()  # the best one may become another meanwhile
    names = _class_names(model)
    batches = row_order.validation_rows(_split(dataset, split, names))
    task = functools.partial(evaluate_part, model, str(dataset), split, views)
    size = max(1, len(batches) if spread is None else PART_BATCHES)
    parts = [batches[start : start + size] for start in range(0, len(batches), size)]
    counts, images = Counts.zeros(len(names)), list[dict[str, Any]]()
    for some, records in map(task, parts) if spread is None else spread(task, parts):
        counts += some
        images += records
    if not counts.confusion_KK.sum():
        raise ValueError(f"{dataset}: no pixel of split {split!r} has a class; label some")
    images.sort(key=lambda record: record["row"])
    return {
        "checkpoint": "the given network" if isinstance(model, Loaded) else str(model),
        "dataset": str(dataset),
        "split": split,
        "views": views,
        **metrics.scores_of_labels(counts, sum(row.pop("unlabelled_pixels") for row in images), names),
        "images": images,
    }


def _class_names(model: Path | Loaded) -> list[str]:
    if isinstance(model, Loaded):
        return model.names
    names: list[str] = json.loads(checkpoints.read_metadata(model / "model.safetensors")["classes"])
    return names


def _split(dataset: str | Path, split: str, names: list[str]) -> Any:
    """The rows of a split.  Raises ValueError if there is none, or the dataset has other classes."""
    data = shards.open(dataset)
    if data.names != names:
        raise ValueError(f"{dataset} has classes {data.names}, the checkpoint {names}")
    if split not in data.splits:
        raise ValueError(f"{dataset}: no split {split!r}; it has {', '.join(data.splits)}")
    return data.splits[split]


def evaluate_part(
    model: Path | Loaded, dataset: str, split: str, views: dict[str, Any], batches: Sequence[Sequence[int]]
) -> Part:
    """Counts of some batches, and a record of each of their images; what a worker does."""
    if isinstance(model, Loaded):
        loaded, device = model, next(model.model.parameters()).device
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = checkpoints.load_model(model, device)
    rows = shards.open(dataset).splits[split]
    num_classes, ids = len(loaded.names), rows.select_columns(["id"])  # without decoding images again
    records: list[dict[str, Any]] = []

    def note(numbers: Sequence[int], image: Tensor, p_BKHW: Tensor, truth_BHW: Tensor) -> None:
        confidence_BHW, prediction_BHW = p_BKHW.max(1)
        for row, found, truth, sure in zip(numbers, prediction_BHW, truth_BHW, confidence_BHW, strict=True):
            scored = metrics.scores(metrics.confusion(found, truth, num_classes), loaded.names)
            known = {name: scored[name] if scored["pixels"] else None for name in ("miou", "pixel_accuracy")}
            record = {"row": row, "id": ids[row]["id"], **known, "confidence": sure.mean().item()}
            records.append({**record, "unlabelled_pixels": int((truth == UNLABELLED).sum())})

    counts = count_split(
        loaded.model,
        rows,
        num_classes,
        device=device,
        batches=batches,
        details=True,
        long_side_px=loaded.config.data.long_side_px,
        on_batch=note,
        **views,
    )
    return counts, records


def training_labels(model: str | Path) -> dict[str, str]:
    """Class -> how much of it the run of a checkpoint was taught, as "1 click"; {} where that is not known.

    Raises ValueError if the run's environment.json is damaged.
    """
    file = checkpoints.resolve(model).parent / "environment.json"
    try:
        labels = dict(read_json(file)).get("labels", {}) if file.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error}); remove it or bring it back from a copy") from error
    unit = labels.get("unit", "pixel")
    counts = labels.get("per_class", {}).items()
    return {
        name: f"{count:,} {unit}{'s' * (count != 1)}" if count else f"no {unit}" for name, count in counts
    }


def show(found: dict[str, Any], taught: Mapping[str, str] = MappingProxyType({})) -> None:
    """Print the scores as a table, in percent; `taught` is what `training_labels` says of the run."""
    where = f"{found['checkpoint']} on {found['split']} of {found['dataset']}, {len(found['images'])} images"
    print(f"{where}{on_sparse_labels(found)}")
    table = rich.table.Table()
    table.add_column("class")
    for name in ("IoU", "boundary IoU", "share of pixels"):
        table.add_column(name, justify="right")
    if taught:
        table.add_column("labels in training", justify="right")
    for (name, iou), row in zip(found["iou"].items(), found["confusion"], strict=True):
        cells = [iou, found["boundary_iou_per_class"][name], sum(row) / max(found["pixels"], 1)]
        beside = [taught.get(name, UNKNOWN)] if taught else []
        table.add_row(name, *map(percent, cells), *beside)
    table.add_section()
    means = (found["miou"], found["boundary_iou"])
    table.add_row("mean", *map(percent, means), "")
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "calibration_error"):
        print(f"{name.replace('_', ' ').replace('miou', 'mIoU'):<24} {percent(found[name])}")
