"""Ray Tune around `launch.launch`: every trial is an ordinary run in its own folder."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from sparseg import launch
from sparseg.common import plugins
from sparseg.common.process import Interrupted, reason
from sparseg.config import from_dict, to_dict, with_overrides
from sparseg.launch import cluster, prepare
from sparseg.runs import checkpoint
from sparseg.sweep import results
from sparseg.sweep.cost import cost_of
from sparseg.sweep.points import lowest_data
from sparseg.sweep.progress import Progress, stopped
from sparseg.sweep.study import (
    FINISHED,
    METRICS,
    StudySearch,
    Sweep,
    draws_labels,
    first_points,
    open_study,
    refuse_other_sweep,
)


def run_trial(arguments: dict[str, Any]) -> None:
    """What Tune runs for a trial: an ordinary run that reports its validations; its error stays its own."""
    from ray.tune.integration.ray_train import TuneReportCallback

    if "error" in arguments:
        return tune.report({"error": arguments["error"]})
    plugins.extend_path(arguments["search_path"])
    os.environ[checkpoint.COMMIT_VARIABLE] = arguments["commit"]
    found = []
    configs = [from_dict(values) for values in arguments["configs"]]
    for config in configs:
        try:
            found.append(
                launch.launch(
                    config,
                    report=tune.report,
                    callbacks=[TuneReportCallback()],
                    imports=arguments["imports"],
                    share_images=arguments["share_images"],
                )
            )
        except Exception as error:
            return tune.report({"error": reason(error)})
    means = {name: statistics.fmean(best[name] for best in found) for name in METRICS.values()}
    ended = {**found[-1], **means, "scores": found, "finished": True}
    if arguments["cost"]:
        try:
            ended["cost"] = cost_of(arguments["cost"], [config.folder for config in configs])
        except ValueError as error:
            ended = {"error": str(error)}
    return tune.report(ended)


def run(sweep: Sweep) -> dict[str, Any]:
    """Run the trials that the study still lacks -> what results.json then holds.

    Raises ValueError before any trial if something is wrong with the settings, the data or the cluster;
    Interrupted if the user stopped it; RuntimeError if no trial came to its end.
    """
    with _alone(sweep.folder):
        sweep = prepared(sweep)
        if sweep.config.run.fresh:
            sweep = dataclasses.replace(sweep, config=prepare.move_aside(sweep.config))
        sweep.folder.mkdir(parents=True, exist_ok=True)
        refuse_other_sweep(sweep)
        study = open_study(sweep)
        missing = sweep.trials - len(study.get_trials(deepcopy=False, states=FINISHED))
        if missing > 0:
            try:
                _tune(sweep, study, missing)
            except KeyboardInterrupt:  # the second Ctrl-C, or one before Tune has begun
                raise Interrupted(stopped(results.write(sweep, study))) from None
        found = results.write(sweep, study)
        results.show(found)
        ended = len(study.get_trials(deepcopy=False, states=FINISHED))
    if ended < sweep.trials:
        raise Interrupted(stopped(found))
    if found["best"] is None:
        raise RuntimeError(
            f"no trial of {sweep.folder} came to its end; results.json there holds their errors"
        )
    return found


def prepared(sweep: Sweep) -> Sweep:
    """Return the sweep with absolute paths and its dataset imported, after all checks that need no worker.

    Checked and imported is what the first trial trains, because the recipe itself need not be trainable: a
    search of data.random_pixels may start from a recipe that draws no pixels.  Raises ValueError.
    """
    point = next(iter(first_points(sweep, quiet=True)), None) or lowest_data(sweep.space)
    first = {name: value for name, value in point.items() if not name.startswith("run.")}
    config, dataset = prepare.prepare(
        with_overrides(sweep.config, first), share_images=draws_labels(sweep.space)
    )
    sections = to_dict(sweep.config)
    own = {name: sections[name.partition(".")[0]][name.partition(".")[2]] for name in first}
    if str(dataset) != config.data.root and not any(name.startswith("data.") for name in sweep.space):
        own["data.shards"] = str(dataset)  # all trials read the one import; raw data are not listed again
    return dataclasses.replace(sweep, config=with_overrides(config, own))


def _tune(sweep: Sweep, study: optuna.Study, trials: int) -> None:
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a run writes its own log,
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # so Tune need not tell that it finds none
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    gpus = launch.start_ray(sweep.config, runs=min(sweep.concurrent or 1, trials))
    if sweep.concurrent is None:
        sweep = fitted(sweep, trials, cluster.nodes_there(), gpus)
    assert sweep.concurrent is not None
    at_a_time = min(sweep.concurrent, trials)
    progress = Progress(
        sweep.folder.name, trials=sweep.trials, ended=sweep.trials - trials, at_a_time=at_a_time
    )
    # Ray Train's workers hold the CPUs; drivers that took some too would wait for each other for ever
    needs = {"cpu": 0.0, "node:__internal_head__": 0.001}
    if sweep.config.resources.workers == 0:
        needs = {"cpu": sweep.config.resources.cpus_per_worker, "gpu": gpus}

    def told(number: int) -> None:
        found = results.write(sweep, study)
        trial = next(trial for trial in found["trials"] if trial["number"] == number)
        if sweep.keep == "best":
            drop_checkpoints(found)
        progress.ends(number, results.outcome(trial, sweep.metric), counts=trial["state"] != "failed")

    search = StudySearch(sweep, study, told, progress.begins)
    shutil.rmtree(sweep.folder / ".tune", ignore_errors=True)  # Tune's own notes on an earlier driver
    tuner = tune.Tuner(
        tune.with_resources(run_trial, needs),
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=trials, max_concurrent_trials=at_a_time, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=".tune",
            storage_path=str(sweep.folder),
            stop=search.stop,
            failure_config=tune.FailureConfig(max_failures=sweep.config.resources.max_failures),
            verbose=0,
        ),
    )
    tuner.fit()


def fitted(sweep: Sweep, trials: int, nodes: Sequence[tuple[float, float]], gpus: float) -> Sweep:
    """Return the sweep with as many of `trials` at a time as nodes with (CPU, GPU) hold, and say so.

    Without GPUs the trials share the cores: torch would start a thread a core in each of them.
    """
    resources, workers = sweep.config.resources, max(sweep.config.resources.workers, 1)
    room = cluster.places(nodes, resources.cpus_per_worker, gpus) // workers
    at_a_time = max(1, min(room, trials))
    threads = ""
    if not gpus and at_a_time > 1 and resources.threads_per_worker is None:
        share = max(1, int(sum(cpu for cpu, _ in nodes)) // (at_a_time * workers))
        config = with_overrides(sweep.config, {"resources.threads_per_worker": share})
        sweep, threads = dataclasses.replace(sweep, config=config), f" ({share} CPU threads per worker)"
    each = f"{workers} x ({resources.cpus_per_worker:g} CPU, {gpus:g} GPU)"
    print(
        f"[{sweep.folder.name}] {at_a_time} trials at a time{threads}: the cluster has "
        f"{cluster.supply(nodes)}, a trial takes {each}; --concurrent N changes it",
        flush=True,
    )
    return dataclasses.replace(sweep, concurrent=at_a_time)


def drop_checkpoints(found: dict[str, Any]) -> None:
    """Remove the checkpoints of ended trials, but for the best one's; a command trains them again."""
    best = found["best"]["number"] if found["best"] else None
    for trial in found["trials"]:
        if trial["state"] in results.WORDS.values() and trial["number"] != best:
            for path in Path(trial["folder"]).rglob("checkpoint_*"):
                shutil.rmtree(path)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within: no other process works on this sweep.  Raises ValueError if one does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{folder}: another process runs this sweep; wait for it, or give another --sweep.name"
            ) from None
        yield
