"""How many labels do you need?  From runs at several budgets to that of a target, and where it pays."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparseg.planning import learning_curve
from sparseg.planning.learning_curve import Floats, Law
from sparseg.runs.records import RunRecord, differing_fields, read_run, runs_in

BUDGET_FIELDS = ("data.random_pixels", "data.clicks_per_class", "data.keep_labels")
NOT_THE_METHOD = (
    "run.",
    "resources.",
    "data.root",
    "data.shards",
    "data.cache",
    "data.label_seed",
    *BUDGET_FIELDS,
)
CURVE_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Curve:
    """A method's runs: labels per image, and scores, of each; the law through them."""

    name: str
    labels_N: Floats
    miou_N: Floats
    iou_KN: dict[str, Floats]
    law: Law
    laws: list[Law]  # of resampled data

    def summary(self) -> list[tuple[float, float, float | None, int]]:
        """(labels per image, mean, standard deviation, runs) of each budget."""
        found = []
        for labels in sorted(set(self.labels_N.tolist())):
            scores = self.miou_N[self.labels_N == labels].tolist()
            sd = statistics.stdev(scores) if len(scores) > 1 else None
            found.append((labels, statistics.fmean(scores), sd, len(scores)))
        return found


@dataclasses.dataclass(frozen=True)
class Cost:
    """What annotation costs."""

    images: int
    seconds_per_label: float

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(
                f"--images must be at least 1, got {self.images} (older runs do not tell it: give it)"
            )
        if self.seconds_per_label <= 0:
            raise ValueError(f"--seconds-per-label must be > 0, got {self.seconds_per_label:g}")

    def hours(self, labels: float) -> float:
        """Hours for so many labels on every image."""
        return labels * self.images * self.seconds_per_label / 3600


# ---------------------------------------------------------------------------------------------------- reading


def run_folders(path: Path) -> list[Path]:
    """Give the runs of a sweep's finished trials, a run itself, or those that lie in a folder.

    Raises ValueError for anything else.
    """
    results = path / "results.json"
    if results.is_file():
        trials = json.loads(results.read_text())["trials"]
        folders = [path / Path(trial["folder"]).name for trial in trials if trial["state"] == "finished"]
        return [run for folder in folders for run in sorted(folder.glob("seed_*")) or [folder]]
    return runs_in(path)


def labels_per_image(run: RunRecord) -> float:
    """Labelled pixels of a training image, on average.  Raises ValueError if the run does not tell."""
    found = run.environment.get("labels") or {}
    keep = float(run.config.get("data.keep_labels") or 1.0)
    if found.get("pixels"):
        return keep * float(found["pixels"]) / float(found["images"])
    if run.config.get("data.random_pixels") and not run.config.get("data.clicks_per_class"):
        return keep * float(run.config["data.random_pixels"])
    raise ValueError(
        f"{run.name}: its environment.json does not say how many pixels are labelled; train it again"
    )


def curves_of(paths: Sequence[Path]) -> tuple[list[Curve], int]:
    """A curve for each method among the runs, the best first; and the number of training images (0: unknown).

    Raises ValueError naming what is no run, or has too few budgets.
    """
    runs = [read_run(folder) for path in paths for folder in run_folders(path)]
    runs = [run for run in runs if run.best.get("miou") is not None]
    if not runs:
        raise ValueError(f"{', '.join(map(str, paths))}: no finished run")
    groups: dict[str, list[RunRecord]] = {}
    for run, fields in zip(runs, differing_fields(runs, NOT_THE_METHOD), strict=True):
        label = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in fields.items())
        groups.setdefault(label or "all runs", []).append(run)
    curves = [_curve(name, members) for name, members in groups.items()]
    images = [int((run.environment.get("labels") or {}).get("images") or 0) for run in runs]
    return sorted(curves, key=lambda curve: -curve.law.at(float(curve.labels_N.max()))), max(images)


def _curve(name: str, runs: Sequence[RunRecord]) -> Curve:
    labels_N = np.array([labels_per_image(run) for run in runs])
    miou_N = np.array([float(run.best["miou"]) for run in runs])
    classes = list(runs[0].best.get("iou") or {})
    iou_KN = {k: np.array([float(run.best["iou"].get(k) or 0.0) for run in runs]) for k in classes}
    try:
        law, laws = learning_curve.fit(labels_N, miou_N), learning_curve.resampled(labels_N, miou_N)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; run search_spaces/label_sparsity.py, or more budgets") from None
    return Curve(name, labels_N, miou_N, iou_KN, law, laws)


# ---------------------------------------------------------------------------------------------------- answers


def answer(curve: Curve, target: float, cost: Cost) -> str:
    """The budget for a target in one sentence, with its 90 % interval."""
    labels = curve.law.labels_for(target)
    low, high = learning_curve.interval([law.labels_for(target) for law in curve.laws])
    if math.isinf(labels):
        low, high = learning_curve.interval([100 * law.ceiling for law in curve.laws])
        return (
            f"{100 * target:.1f} % is not reached: the law levels off at {100 * curve.law.ceiling:.1f} % "
            f"(90 %: {low:.1f} to {high:.1f})"
        )
    upper = "no bound" if math.isinf(high) else f"{high:.3g}"
    most = float(curve.labels_N.max())
    beyond = f"; beyond the {most:g} labels that were tried, an extrapolation" if labels > most else ""
    return (
        f"{100 * target:.1f} % needs {labels:.3g} labels an image (90 %: {low:.3g} to {upper}), "
        f"{cost.hours(labels):.1f} h for {cost.images:,} images at {cost.seconds_per_label:g} s a label"
        f"{beyond}"
    )


def best_classes(curve: Curve, labels: float, cost: Cost) -> list[tuple[str, float]]:
    """(class, gain of mIoU by one more hour of labels over all classes, through this class), best first."""
    more = 3600 / (cost.images * cost.seconds_per_label)  # labels an image that an hour buys
    gains = []
    for name, iou_N in curve.iou_KN.items():
        law = learning_curve.fit(curve.labels_N, iou_N)
        gains.append((name, (law.at(labels + more) - law.at(labels)) / len(curve.iou_KN)))
    return sorted(gains, key=lambda item: -item[1])


def score(mean: float, sd: float | None) -> str:
    """In %, with its standard deviation."""
    return f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else "")


def text_of(curves: Sequence[Curve], target: float | None, cost: Cost) -> str:
    """The plan as a terminal shows it."""
    lines = []
    for curve in curves:
        law = curve.law
        terms = f"{100 * law.ceiling:.1f} - {100 * law.gap:.1f} n^-{law.exponent:.2f}"
        lines.append(f"{curve.name}: mIoU = {terms}, in %")
        for labels, mean, sd, runs in curve.summary():
            lines.append(
                f"  {labels:8.3g} labels an image {cost.hours(labels):8.1f} h   mIoU {score(mean, sd):<12} "
                f"({runs} runs), law {100 * law.at(labels):.1f}"
            )
        for labels, mean, predicted in learning_curve.held_out(curve.labels_N, curve.miou_N):
            lines.append(
                f"  left out {labels:.3g}: predicted {100 * predicted:.1f}, measured {100 * mean:.1f}, error "
                f"{100 * (predicted - mean):+.1f}"
            )
        if target is not None:
            lines.append(f"  {answer(curve, target, cost)}")
        at = float(curve.labels_N.max())
        gains = ", ".join(f"{name} {100 * gain:+.3f}" for name, gain in best_classes(curve, at, cost)[:5])
        lines.append(f"  one more hour at {at:.3g} labels an image, points of mIoU by class: {gains}")
    return "\n".join(lines)
