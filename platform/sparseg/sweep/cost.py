"""What a trial cost, read from the folders of its runs: the second objective of `--cost`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sparseg.plan import labels_per_image
from sparseg.report import RunRecord, read_run

COSTS = ("labels", "seconds")


def cost_of(kind: str, folders: Sequence[Path]) -> float:
    """Mean over the runs: labelled pixels per training image, or seconds of training without validations.

    Raises ValueError if a run does not tell.
    """
    cost = labels_per_image if kind == "labels" else training_seconds
    return statistics.fmean(cost(read_run(folder)) for folder in folders)


def training_seconds(run: RunRecord) -> float:
    """Sum over the logged lines of images / (images per second)."""
    seconds, before = 0.0, 0
    for line in run.train:
        images = (line["step"] - before) * run.config["optim.batch_size"]
        seconds, before = seconds + images / line["images_per_s"], line["step"]
    return seconds
