"""Sweeps as tests make them: of camvid, their search driven by hand; and one small enough to run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import tiny

from sparseg import config, sweep
from sparseg.sweep.study import StudySearch, open_study

ROOT = Path(__file__).resolve().parents[2]
SPACE = """from sparseg.sweep import choice, uniform
SPACE = {"loss.bandwidth": uniform(0.25, 4, log=True), "model.multi_grid": choice(True, False)}
"""


def maker(folder: Path, first: str = SPACE) -> Callable[..., sweep.Sweep]:
    """Makes sweeps named `s` in a folder, over the space `first` or another one."""
    (folder / "space.py").write_text(first)

    def make(*args: str, space: str = "") -> sweep.Sweep:
        if space:
            (folder / "space.py").write_text(f"from sparseg.sweep import choice\n{space}")
        words = ["--trainer", "camvid", "--space", str(folder / "space.py"), "--sweep.name", "s"]
        words += ["--loss.method", "agmm"]
        found, _ = sweep.parse(ROOT / "trainers", [*words, "--run.storage", str(folder), *args])
        found.folder.mkdir(exist_ok=True)
        return found

    return make


def search_of(found: sweep.Sweep) -> tuple[StudySearch, optuna.Study]:
    """The search of a sweep and its study."""
    study = open_study(found)
    return StudySearch(found, study, lambda number: None), study


def report(step: int, miou: float, *, total: int = 9, **more: object) -> dict[str, object]:
    """A validation, one epoch a step, or the end of a trial."""
    base = {"miou": miou, "step": step, "epoch": float(step), "steps": step, "total_steps": total}
    return {**base, "scores": [{"miou": miou}], **more}


def tiny_sweep(folder: Path, *words: str, workers: int = 0) -> tuple[list[str], Path]:
    """A command that sweeps two learning rates, of which the second cannot work; the sweep's folder."""
    tiny.dataset(folder)
    run = tiny.config(folder, {"optim.max_steps": 4, "run.validate_every": 0.5, "resources.workers": workers})
    (folder / "run.json").write_text(json.dumps(config.to_dict(run)))
    (folder / "rates.py").write_text(
        "from sparseg.sweep import choice\nSPACE = {'optim.learning_rate': choice(1e-2, 1e30)}\n"
    )
    command = [
        sys.executable,
        "trainers/sweep.py",
        "--trainer",
        "folder",
        "--space",
        str(folder / "rates.py"),
    ]
    command += ["--sampler", "grid", "--sweep.name", "s", "--config", str(folder / "run.json"), *words]
    return command, folder / "runs" / "s"
