"""What runs have left on disk, read leniently: a run may still be going on, or have been killed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseg.config import METHODS, Config, to_dict
from sparseg.runs import checkpoint

DASH = "–"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run folder holds; what is missing is empty, and `notes` say so."""

    name: str
    config: dict[str, Any]  # dotted field -> value
    environment: dict[str, Any]
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]
    best: dict[str, Any]  # miou, iou, step
    notes: list[str]


RUN_FILES = ("config.json", "metrics.jsonl", "model.safetensors")
"""One of them is in every run folder, or in a checkpoint's own."""


def runs_in(path: Path) -> list[Path]:
    """Give the path itself if it is a run or a checkpoint, else the runs that lie in it, by name.

    Raises ValueError if there is none.
    """
    found = [path] if _is_run(path) else sorted(child for child in path.glob("*") if _is_run(child))
    if not found:
        raise ValueError(
            f"{path}: not a run folder (no config.json and no metrics.jsonl in it), and none lies in it"
        )
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def read_run(folder: Path) -> RunRecord:
    """Everything a run folder tells, or a checkpoint of itself.  Raises ValueError if it is neither."""
    if (folder / "model.safetensors").is_file():
        return _of_checkpoint(folder)
    if not any((folder / name).is_file() for name in ("config.json", "metrics.jsonl")):
        raise ValueError(f"{folder}: not a run folder (no config.json and no metrics.jsonl in it)")
    notes: list[str] = []
    lines = _read_lines(folder / "metrics.jsonl", notes)
    # by step: should a resumed run have written a step again, the later line counts
    numbered = [line for line in lines if number(line.get("step")) is not None]
    train, val = (
        list({line["step"]: line for line in numbered if line.get("kind") == kind}.values())
        for kind in ("train", "val")
    )
    best = _read_object(folder / "iou.json", notes)
    scored = [line for line in val if number(line.get("miou")) is not None]
    if not best and scored:
        best = max(scored, key=lambda line: line["miou"])
    config = dotted(_read_object(folder / "config.json", notes))
    environment = _read_object(folder / "environment.json", notes)
    return RunRecord(folder.resolve().name, config, environment, train, val, best, notes)


def _of_checkpoint(folder: Path) -> RunRecord:
    told = checkpoint.read_metadata(folder / "model.safetensors")
    best = {"miou": float(told["miou"]) if told["miou"] else None, "step": int(told["step"])}
    notes = ["a checkpoint alone: the curves are in its run's folder"]
    environment = {"commit": told["commit"]}
    return RunRecord(
        folder.resolve().name, dotted(json.loads(told["config"])), environment, [], [], best, notes
    )


def _read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        notes.append(f"{path.name} is missing")
        return []
    lines, torn = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError:
            line = None
        if isinstance(line, dict):
            lines.append(line)
        else:
            torn += 1
    if torn:
        notes.append(f"{torn} torn line{'s' if torn > 1 else ''} of {path.name} left out")
    return lines


def _read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        notes.append(f"{path.name} is missing")
        return {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} is damaged")
        return {}
    return value


def dotted(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested sections -> {'section.field': value}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(
            dotted(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
        )
    return flat


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def training_seconds(run: RunRecord) -> float:
    """Seconds of training, without validations and pauses: over the logged lines, images / (images/s).

    Raises ValueError if the run does not tell.
    """
    batch_size = run.config.get("optim.batch_size")
    if batch_size is None or not all(number(line.get("images_per_s")) for line in run.train):
        raise ValueError(f"{run.name}: its config.json or metrics.jsonl does not tell how long it trained")
    seconds, before = 0.0, 0
    for line in run.train:
        images = (line["step"] - before) * batch_size
        seconds, before = seconds + images / line["images_per_s"], line["step"]
    return seconds


def group_by_seed(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs alike but for section `run` (seed, name, rhythm) -> {fields that tell the groups apart: runs}."""
    groups: dict[str, list[RunRecord]] = {}
    for run, fields in zip(runs, differing_fields(runs, ("run.",)), strict=True):
        parts = [f"{name} = {value}" for name, value in fields.items()]
        groups.setdefault(", ".join(parts) or "all runs", []).append(run)
    return groups


def is_read(field: str, run: RunRecord) -> bool:
    """Whether the run's method reads this field, e.g. loss.variance; of a method that we do not know, yes."""
    method = METHODS.get(str(run.config.get("loss.method")))
    if method is None or not field.startswith("loss."):
        return True
    waits = run.config.get("loss.extra_terms") is not None and field == "loss.warmup_epochs"
    return waits or field.removeprefix("loss.") in method.fields


def differing_fields(runs: Sequence[RunRecord], ignored: tuple[str, ...]) -> list[dict[str, str]]:
    """For each run its values of the fields in which the runs differ, but for fields that begin like one of
    `ignored`.

    Only the runs whose method reads a field can differ in it, and have a value of it here.  A field that an
    older run does not know has its default there.
    """
    defaults = dotted(to_dict(Config()))
    values = []
    for run in runs:
        fields = {**defaults, **run.config} if run.config else {"name": run.name}
        read = {name: value for name, value in fields.items() if is_read(name, run)}
        values.append({name: json.dumps(value).strip('"') for name, value in read.items()})
    names = sorted({name for fields in values for name in fields if not name.startswith(ignored)})
    telling = [name for name in names if len({fields[name] for fields in values if name in fields}) > 1]
    telling += ["name"] if "name" in names and "name" not in telling else []
    return [{name: fields[name] for name in telling if name in fields} for fields in values]
