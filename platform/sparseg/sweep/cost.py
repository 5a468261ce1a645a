"""What a trial cost, read from the folders of its runs: the second objective of `--cost`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sparseg.planning.annotation_plan import labels_per_image
from sparseg.runs.records import read_run, training_seconds

COSTS = ("labels", "seconds")


def cost_of(kind: str, folders: Sequence[Path]) -> float:
    """Mean over the runs: labelled pixels per training image, or seconds of training without validations.

    Raises ValueError if a run does not tell.
    """
    cost = labels_per_image if kind == "labels" else training_seconds
    return statistics.fmean(cost(read_run(folder)) for folder in folders)
