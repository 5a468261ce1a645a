"""Many runs that differ in a few fields: Ray Tune runs them, an Optuna study on disk chooses them and remembers.

The study (STORAGE/SWEEP/study.db) is the only state, so a killed sweep goes on with the same command: finished trials
stand, half-trained ones resume in their folders.  Ray's own OptunaSearch is not used: it tells pruned trials to the
study as complete, and after a restart counts reports from 1 and leaves the killed trials running for ever; Tune's
schedulers lose their rungs when the driver dies.  Optuna's pruners keep theirs in the study.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import fcntl
import importlib.util
import itertools
import json
import math
import os
import shlex
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher

from sparseg import config, flags, launch
from sparseg.config import Config

METRICS = {"val_miou": "miou", "val_pixel_accuracy": "pixel_accuracy"}
"""Name on the command line -> key of what a validation reports; larger is better."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
TRIALS = 20  # where neither --trials nor a grid says how many


def uniform(low: float, high: float, *, log: bool = False) -> FloatDistribution:
    """Real number in [low, high]; log: uniform in its logarithm."""
    return FloatDistribution(low, high, log=log)


def integers(low: int, high: int, *, step: int = 1, log: bool = False) -> IntDistribution:
    """Whole number in low..high, both included."""
    return IntDistribution(low, high, step=step, log=log)


def choice(*options: str | float | bool | None) -> CategoricalDistribution:
    """One of the options."""
    return CategoricalDistribution(options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What the command line says, resolved: `base` is the recipe with the trainer's flags, named like the sweep."""

    trainer: Path
    arguments: list[str]  # the trainer's flags as they were typed
    base: Config
    space: dict[str, BaseDistribution]
    grid: list[dict[str, Any]] | None
    trials: int
    concurrent: int
    scheduler: str
    sampler: str
    metric: str
    seed: int

    @property
    def folder(self) -> Path:
        """STORAGE/SWEEP."""
        return self.base.folder


# ---------------------------------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(message)


def main(trainers: Path, args: list[str] | None = None, *, description: str = "") -> None:
    """Command line of `trainers/sweep.py`.  Exits with 0, 1, 2, or 130 after Ctrl-C."""
    raise SystemExit(launch.guarded(lambda: _main(trainers, args, description)))


def _main(trainers: Path, args: list[str] | None, description: str) -> None:
    sweep, dry_run = parse(trainers, args, description)
    if dry_run:
        print(json.dumps(_identity(sweep), indent=2))
        print(f"{sweep.trials} trials, {sweep.concurrent} at a time, in {sweep.folder}")
    else:
        run(sweep)


def parse(trainers: Path, args: list[str] | None = None, description: str = "") -> tuple[Sweep, bool]:
    """Read and check the command line -> (sweep, --dry-run given).  Raises ValueError in one line."""
    parser = _Parser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trainer", required=True, help="voc, camvid, ... (trainers/NAME.py), or the path of such a file")
    add("--space", required=True, type=Path, help="file with SPACE, e.g. search_spaces/mixture.py")
    add("--trials", type=int, help=f"trials in all (default: the whole grid, or {TRIALS})")
    add("--concurrent", type=int, default=1, help="trials at a time (default: %(default)s)")
    add("--scheduler", choices=("asha", "median", "none"), default="asha", help="what ends hopeless trials early")
    add("--sampler", choices=("tpe", "random", "grid"), help="default: SAMPLER of the space file, else tpe")
    add("--metric", choices=METRICS, help="default: METRIC of the space file, else val_miou")
    add("--sweep.name", dest="name", help="folder under --run.storage (default: TRAINER-SPACE)")
    add("--sweep.seed", dest="seed", type=int, default=0, help="seed of the sampler (default: %(default)s)")
    parser.epilog = "Every flag of the trainer is a flag here: see `python trainers/NAME.py --help`."
    own, rest = parser.parse_known_args(args)
    for word in rest:
        if word.startswith("--") and "." not in word and word not in ("--config", "--dry-run"):
            near = difflib.get_close_matches(word, [f for f in parser._option_string_actions if f[:2] == "--"], n=1)
            raise ValueError(f"unknown flag {word}" + (f"; did you mean {near[0]}?" if near else ""))
    trainer = _trainer_file(trainers, own.trainer)
    base, dry_run = flags.parse(_module(trainer).recipe(), rest)
    name = own.name or f"{trainer.stem}-{own.space.stem}"
    base = dataclasses.replace(base, run=dataclasses.replace(base.run, name=name))
    module = _module(own.space)
    space = _space(own.space, module)
    sampler = own.sampler or getattr(module, "SAMPLER", "tpe")
    grid = _grid(own.space, space) if sampler == "grid" else None
    check_space(own.space, space, grid, base)
    metric = own.metric or getattr(module, "METRIC", "val_miou")
    trials = own.trials if own.trials is not None else len(grid) if grid else TRIALS
    for flag, value in (("--trials", trials), ("--concurrent", own.concurrent)):
        if value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    if sampler not in ("tpe", "random", "grid") or metric not in METRICS:
        raise ValueError(
            f"{own.space}: SAMPLER={sampler!r}, METRIC={metric!r}; allowed: tpe, random, grid; {', '.join(METRICS)}"
        )
    sweep = Sweep(
        trainer=trainer,
        arguments=[word for word in rest if word not in ("--dry-run", "--run.fresh")],
        base=base,
        space=space,
        grid=grid,
        trials=min(trials, len(grid)) if grid else trials,
        concurrent=own.concurrent,
        scheduler=own.scheduler,
        sampler=sampler,
        metric=metric,
        seed=own.seed,
    )
    return sweep, dry_run
