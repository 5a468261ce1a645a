"""The command line of `trainers/sweep.py` and of `sparseg sweep`."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

from sparseg.common.process import guarded
from sparseg.config import command_line, with_overrides
from sparseg.config.trainer_file import load_file, recipe_of
from sparseg.launch import prepare
from sparseg.sweep import runner
from sparseg.sweep.cost import COSTS
from sparseg.sweep.points import points_of
from sparseg.sweep.space import check_effect, check_space, grid_of, space_of
from sparseg.sweep.study import METRICS, Sweep, identity

SAMPLERS = ("tpe", "random", "grid", "cmaes")
SCHEDULERS = ("asha", "median", "none")
TRIALS = 20  # where neither --trials nor a grid says how many


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(message)


def main(
    trainers: Path, args: list[str] | None = None, *, description: str = "", prog: str | None = None
) -> None:
    """Run the command line of `trainers/sweep.py`.  Exits with 0, 1, 2, or 130 after Ctrl-C.

    trainers: the folder of the recipes that --trainer names; the spaces that --space names lie beside it, in
    search_spaces.  prog: what the help calls the command.
    """
    raise SystemExit(guarded(lambda: _main(trainers, args, description, prog)))


def _main(trainers: Path, args: list[str] | None, description: str, prog: str | None) -> None:
    sweep, dry_run = parse(trainers, args, description, prog)
    if dry_run:
        print(json.dumps(identity(sweep), indent=2))
        at_a_time = sweep.concurrent or "as many as fit"
        print(f"{sweep.trials} trials, {at_a_time} at a time, in {sweep.folder}")
    else:
        runner.run(sweep)


def parse(
    trainers: Path, args: list[str] | None = None, description: str = "", prog: str | None = None
) -> tuple[Sweep, bool]:
    """Read and check the command line -> (sweep, --dry-run given).  Raises ValueError in one line."""
    own, rest = _split(args, description, prog)
    trainer = _named_file(trainers, own.trainer, "trainer")
    own.space = _named_file(trainers.parent / "search_spaces", own.space, "space")
    loaded = load_file(trainer)
    recipe = recipe_of(trainer, loaded)
    config, dry_run = command_line.parse(recipe, rest)
    config = prepare.with_plugins(config)  # before points of the space are checked
    config = with_overrides(config, {"run.name": own.name or f"{trainer.stem}-{own.space.stem}"})
    if "://" in config.run.storage:
        raise ValueError(
            f"run.storage={config.run.storage}: a sweep keeps Optuna's study in a folder; give one that all "
            "nodes reach"
        )
    if not dry_run and hasattr(loaded, "make_data") and config.data.root == recipe.data.root:
        made = loaded.make_data(Path(config.run.storage) / "demo")  # nobody has the demo's on disk
        config = with_overrides(config, {"data.root": str(made)})
    module = load_file(own.space)
    space = space_of(own.space, module)
    sampler = own.sampler or getattr(module, "SAMPLER", "tpe")
    metric = own.metric or getattr(module, "METRIC", "val_miou")
    if sampler not in SAMPLERS or metric not in METRICS:
        raise ValueError(
            f"{own.space}: SAMPLER={sampler!r} must be one of {', '.join(SAMPLERS)}, and METRIC={metric!r} "
            f"one of {', '.join(METRICS)}"
        )
    grid = grid_of(own.space, space) if sampler == "grid" else None
    check_space(own.space, space, grid, config)
    check_effect(own.space, space, config)
    trials = own.trials if own.trials is not None else len(grid) if grid else TRIALS
    for flag, value in (("--trials", trials), ("--concurrent", own.concurrent)):
        if value is not None and value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    sweep = Sweep(
        trainer=trainer,
        arguments=[word for word in rest if word not in ("--dry-run", "--run.fresh")],
        config=config,
        space=space,
        grid=grid,
        trials=min(trials, len(grid)) if grid else trials,
        concurrent=own.concurrent,
        scheduler=own.scheduler or ("none" if grid or own.cost else "asha"),
        sampler=sampler,
        metric=metric,
        seed=own.seed,
        seeds=tuple(own.seeds or ()),
        points=points_of(own.space, module, space, config),
        keep=own.keep,
        cost=own.cost,
        study_url=own.study,
    )
    _check_together(own.space, sweep)
    return sweep, dry_run


def _check_together(path: Path, sweep: Sweep) -> None:
    """Raise ValueError for flags that exclude each other, or need a package that is not there."""
    if sweep.seeds and "run.seed" in sweep.space:
        raise ValueError(f"--seeds: {path} searches run.seed itself; give one or the other")
    if not sweep.config.data.validates:
        raise ValueError(
            "--data.val-split none: a sweep compares its trials by their validation; leave it out, or name a "
            "split"
        )
    if sweep.config.run.fresh and sweep.study_url not in (None, "journal"):
        raise ValueError(
            f"--run.fresh: the study in {sweep.study_url} stays what it is; give another --sweep.name"
        )
    if sweep.cost and sweep.scheduler != "none":
        raise ValueError(
            f"--scheduler {sweep.scheduler}: with --cost no trial is ended early, because one that scores "
            "less may cost less; give --scheduler none"
        )
    if sweep.cost and sweep.sampler == "cmaes":
        raise ValueError("--sampler cmaes seeks one best score; with --cost give tpe, random or grid")
    if sweep.sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ValueError("--sampler cmaes needs the package cmaes: pip install 'sparseg[cmaes]'")


def _split(
    args: list[str] | None, description: str, prog: str | None
) -> tuple[argparse.Namespace, list[str]]:
    """(the sweep's own flags, the trainer's words)."""
    parser = _Parser(
        prog=prog,
        description=description,
        epilog="Every flag of the trainer is a flag here: see `sparseg train NAME --help`.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trainer", required=True, help="voc, camvid, ... (trainers/NAME.py), or the path of such a file")
    add("--space", required=True, help="mixture, ... (search_spaces/NAME.py), or the path of such a file")
    add("--trials", type=int, help=f"trials in all (default: the whole grid, or {TRIALS})")
    add("--concurrent", type=int, help="trials at a time (default: as many as the cluster has room for)")
    add("--scheduler", choices=SCHEDULERS, help="what ends hopeless trials (default: asha; for a grid none)")
    add("--sampler", choices=SAMPLERS, help="what draws (default: SAMPLER of the space file, else tpe)")
    add("--metric", choices=METRICS, help="what is maximised (default: METRIC of the space file)")
    add("--sweep.name", dest="name", help="folder under --run.storage (default: TRAINER-SPACE)")
    add("--sweep.seed", dest="seed", type=int, default=0, help="seed of the sampler (default: %(default)s)")
    add(
        "--seeds",
        type=int,
        nargs="+",
        metavar="S",
        help="train every configuration with each of these seeds; its score is their mean",
    )
    add(
        "--cost",
        choices=COSTS,
        help="also minimise the labelled pixels per image, or the seconds of training: results.json then "
        "names the trials that no other beats in both",
    )
    add(
        "--sweep.study",
        dest="study",
        help="where Optuna keeps the study: 'journal' is a log file in the sweep's folder, safe on disks "
        "that nodes share, or a database's URL (default: SQLite in the folder)",
    )
    add(
        "--keep",
        choices=("all", "best"),
        default="all",
        help="best: of ended trials only the best one's checkpoints stay (default: %(default)s)",
    )
    own, rest = parser.parse_known_args(args)
    for word in rest:
        if word.startswith("--") and "." not in word and word not in ("--config", "--dry-run"):
            near = difflib.get_close_matches(word, parser.format_usage().replace("[", " ").split(), n=1)
            raise ValueError(f"unknown flag {word}" + (f"; did you mean {near[0]}?" if near else ""))
        if word.partition("=")[0] == "--run.name":
            raise ValueError("--run.name: trials name their runs; give --sweep.name")
    return own, rest


def _named_file(folder: Path, name: str, kind: str) -> Path:
    """FOLDER/NAME.py, or the file itself where `name` is a path; `kind` is the flag that named it."""
    path = Path(name) if name.endswith(".py") else folder / f"{name}.py"
    if not path.is_file() or path.stem == "sweep":
        known = sorted(file.stem for file in folder.glob("*.py") if file.stem != "sweep")
        raise ValueError(f"--{kind} {name}: no such {kind}; give one of {', '.join(known)}, or a file's path")
    return path
