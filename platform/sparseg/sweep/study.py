"""The Optuna study on disk: which trial is next, does it go on, what came out.

STORAGE/SWEEP/study.db is the only state, so a killed sweep goes on with the same command: finished trials
stand, half-trained ones resume in their folders.  Ray's own OptunaSearch is not used: it tells the study that
pruned trials are complete, and after a restart it counts reports from 1 again and leaves the killed trials
running for ever.  Tune's schedulers forget their rungs with the driver; here they are read from the study.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher
from sqlalchemy.exc import SQLAlchemyError

from sparseg.common import plugins
from sparseg.common.files import write_atomically
from sparseg.common.process import one_line
from sparseg.config import Config, to_dict, with_overrides
from sparseg.runs import checkpoint
from sparseg.sweep.points import enqueue_missing, recipe_point
from sparseg.sweep.pruning import first_rung, goes_on
from sparseg.sweep.space import Space, fill, plain, propose

METRICS = {"val_miou": "miou", "val_pixel_accuracy": "pixel_accuracy"}
"""Name on the command line -> key of what a validation reports; larger is better."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What the command line says; `config` is the recipe with the trainer's flags, named like the sweep."""

    trainer: Path
    arguments: list[str]  # the trainer's flags as they were typed
    config: Config
    space: Space
    grid: list[dict[str, Any]] | None
    trials: int
    concurrent: int | None  # None: as many as fit
    scheduler: str
    sampler: str
    metric: str
    seed: int
    seeds: tuple[int, ...] = ()
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    keep: str = "all"
    cost: str | None = None  # what is minimised besides
    study_url: str | None = None

    @property
    def folder(self) -> Path:
        """STORAGE/SWEEP."""
        return self.config.folder


def identity(sweep: Sweep) -> dict[str, Any]:
    """What must be the same for a sweep to go on; how it is run (trials, concurrency, pruning) may change."""
    sections = to_dict(sweep.config)
    fixed = {f"{part}.{name}": value for part in sections for name, value in sections[part].items()}
    free = ("resources.", "run.", "data.root", "data.shards", "data.cache", "data.loader_processes")
    return {
        "trainer": sweep.trainer.stem,
        "metric": sweep.metric,
        "grid": sweep.sampler == "grid",
        "seeds": list(sweep.seeds),
        "cost": sweep.cost,
        "study": sweep.study_url,
        **{f"space {name}": plain(entry) for name, entry in sweep.space.items()},
        **{name: value for name, value in fixed.items() if name == "run.seed" or not name.startswith(free)},
    }


def _completed(saved: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A saved identity, with the defaults of those wanted fields that the configuration did not have then."""
    sections = json.loads(json.dumps(to_dict(Config())))
    defaults = {f"{part}.{name}": value for part in sections for name, value in sections[part].items()}
    return {name: defaults[name] for name in wanted if name in defaults} | saved


def refuse_other_sweep(sweep: Sweep) -> None:
    """Raise ValueError if STORAGE/SWEEP holds something else; else write sweep.json there."""
    path, wanted = sweep.folder / "sweep.json", json.loads(json.dumps(identity(sweep)))
    if (sweep.folder / "metrics.jsonl").exists():
        raise ValueError(f"{sweep.folder} holds a run; give the sweep another --sweep.name")
    if path.exists():
        saved = _completed(json.loads(path.read_text()), wanted)
        for name in {**saved, **wanted}:
            if saved.get(name) != wanted.get(name):
                raise ValueError(
                    f"{sweep.folder} holds a sweep with {name}={saved.get(name)}, this one has "
                    f"{wanted.get(name)}; give another --sweep.name, or the same value"
                )
    write_atomically(path, json.dumps(wanted, indent=2))


def open_study(sweep: Sweep) -> optuna.Study:
    """The study, by default in STORAGE/SWEEP/study.db; a new one begins with the grid, or with POINTS and the
    recipe itself.  Raises ValueError if its place cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        study = optuna.create_study(
            storage=_study_storage(sweep),
            study_name=sweep.folder.name,
            directions=["maximize", "minimize"] if sweep.cost else ["maximize"],
            load_if_exists=True,
        )
    except (OptunaError, SQLAlchemyError, ImportError, OSError) as error:
        place, why = sweep.study_url or "study.db", one_line(error)
        raise ValueError(f"--sweep.study {place}: cannot be opened ({why})") from error
    known, wanted = study.user_attrs.get("identity"), json.loads(json.dumps(identity(sweep)))
    if sweep.study_url is not None:  # a database is shared, and a study is found there by its name alone
        if known is None and not study.trials:
            study.set_user_attr("identity", wanted)
        elif known is None or _completed(known, wanted) != wanted:
            raise ValueError(
                f"--sweep.study {sweep.study_url} holds another sweep named {sweep.folder.name}; give "
                "another --sweep.name"
            )
    # a study that goes on must not draw again what it drew at its start
    study.sampler = _sampler(sweep.sampler, sweep.seed * 100_003 + len(study.trials))
    enqueue_missing(study, first_points(sweep, quiet=bool(study.trials)))
    return study


def first_points(sweep: Sweep, *, quiet: bool = False) -> list[dict[str, Any]]:
    """Return what is tried before the sampler draws: the grid, or POINTS and the recipe itself.

    A recipe that is not in the space is left out, with a note unless `quiet`.
    """
    if sweep.grid:
        return sweep.grid
    try:
        return [*sweep.points, recipe_point(sweep.space, sweep.config)]
    except ValueError as error:
        if not quiet:
            print(f"note: the recipe itself is not among the trials: its {error}")
        return sweep.points


def _study_storage(sweep: Sweep) -> Any:
    if sweep.study_url == "journal":
        return optuna.storages.JournalStorage(JournalFileBackend(str(sweep.folder / "study.log")))
    return sweep.study_url or f"sqlite:///{sweep.folder / 'study.db'}"


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        case "cmaes":  # options, and fields that are not always searched, are drawn at random
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)


class StudySearch(Searcher):
    """Tune's view of the study: which configuration is next, does a trial go on, what came out.

    Trials that a killed driver left running come first; their runs resume from their own checkpoints.
    """

    def __init__(
        self,
        sweep: Sweep,
        study: optuna.Study,
        told: Callable[[int], None],
        begins: Callable[[int, dict[str, Any], bool], None] = lambda number, point, again: None,
    ) -> None:
        """`told` is called with the number of every trial that ended, once the study knows how; `begins` with
        number and point of every trial that begins, and whether an ended driver had begun it already."""
        super().__init__(metric=None, mode=None)
        self.sweep, self.study, self.key, self.told = sweep, study, METRICS[sweep.metric], told
        self.begins = begins
        self.unfinished = study.get_trials(states=(TrialState.RUNNING,))
        self.trials: dict[str, optuna.Trial] = {}
        self.scores: dict[str, dict[int, float]] = {}
        self.pruned: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps snapshots of its searchers; ours is the study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial as the argument of `run_trial`."""
        again = bool(self.unfinished)
        if again:
            trial = optuna.Trial(self.study, self.unfinished.pop(0)._trial_id)
        else:
            trial = self.study.ask()
        self.trials[trial_id] = trial
        kept = trial.user_attrs  # of a trial that a killed driver left
        if kept.get("pruned"):
            self.pruned.add(trial_id)
        self.scores[trial_id] = {int(seed): value for seed, value in kept.get("so_far", {}).items()}
        overrides = fill(self.sweep.space, functools.partial(propose, trial))
        self.begins(trial.number, overrides, again)
        try:
            configs = trial_configs(self.sweep, trial.number, overrides)
        except ValueError as error:  # each value is allowed, not all of them together
            return {"error": str(error)}
        imports = import_storages(self.sweep, trial.number)
        return {
            "configs": configs,
            "cost": self.sweep.cost,
            "imports": imports,
            "share_images": draws_labels(self.sweep.space),
            "search_path": plugins.search_path(),
            "commit": checkpoint.commit(),
        }

    def stop(self, trial_id: str, result: Mapping[Any, Any]) -> bool:
        """Take in a validation; is the trial hopeless?  Called by Tune for every report."""
        if self.key not in result or "finished" in result or self.sweep.cost:
            return False
        trial, step, total = self.trials[trial_id], result["step"], result["total_steps"]
        value = result[self.key]
        steps_per_epoch = step / result["epoch"]
        if self.sweep.seeds:  # the seeds follow each other; what counts is the mean of those seen so far
            scores = self.scores[trial_id]
            scores[result["seed"]] = value
            trial.set_user_attr("so_far", scores)
            value = sum(scores.values()) / len(scores)
            step += self.sweep.seeds.index(result["seed"]) * total
            total *= len(self.sweep.seeds)
        if step not in self.study.trials[trial.number].intermediate_values:  # a resumed run may repeat one
            trial.report(value, step)
        # who resumes repeats steps, and those that came since must not count against it a second time
        if trial.user_attrs.get("judged", 0) < step < total:
            first = first_rung(self.sweep.space, self.sweep.config, total, steps_per_epoch)
            if not goes_on(self.sweep.scheduler, self.study, trial, step, first):
                self.pruned.add(trial_id)
                trial.set_user_attr("pruned", True)
            trial.set_user_attr("judged", step)
        return trial_id in self.pruned

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended."""
        trial, result = self.trials.pop(trial_id, None), result or {}
        if trial is None:
            return
        if "finished" in result and math.isfinite(result[self.key]):
            trial.set_user_attr("steps", result["steps"])
            trial.set_user_attr("scores", result["scores"])
            self.study.tell(trial, [result[self.key], *([result["cost"]] if self.sweep.cost else [])])
        elif trial_id in self.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            lost = "its process died (out of memory, or a lost node)" if error else "it ended without a score"
            trial.set_user_attr("error", str(result.get("error", lost)))
            self.study.tell(trial, state=TrialState.FAIL)
        self.told(trial.number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


def trial_folder(sweep: Sweep, number: int) -> Path:
    """STORAGE/SWEEP/trial_0000."""
    return sweep.folder / f"trial_{number:04d}"


def draws_labels(space: Space) -> bool:
    """Whether trials differ in how their clicks are drawn, on the same images."""
    return not {"data.random_pixels", "data.clicks_per_class", "data.label_seed"}.isdisjoint(space)


def import_storages(sweep: Sweep, number: int) -> list[str]:
    """Return the storages in whose datasets/ a trial looks for its import, and puts it into the first.

    The first is the sweep's own, so that trials, seeds, other sweeps and plain runs share equal imports; in
    the others trials of older versions kept theirs.
    """
    return [str(path) for path in (sweep.folder.parent, sweep.folder, trial_folder(sweep, number))]


def trial_configs(sweep: Sweep, number: int, overrides: dict[str, Any]) -> list[dict[str, Any]]:
    """The ordinary runs of a trial, one a seed: in trial_0000, or in trial_0000/seed_S where the sweep has
    seeds.  Raises ValueError for values that do not go together."""
    folder = trial_folder(sweep, number)
    places: list[dict[str, Any]] = [{"run.name": folder.name, "run.storage": str(sweep.folder)}]
    if sweep.seeds:
        places = [
            {"run.name": f"seed_{seed}", "run.storage": str(folder), "run.seed": seed} for seed in sweep.seeds
        ]
    runs = [with_overrides(sweep.config, overrides | place | {"run.fresh": False}) for place in places]
    return [to_dict(run) for run in runs]
