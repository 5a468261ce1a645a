"""From a configuration to a finished run: checks at the border, Ray Train around `train.run`, exit codes."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sparseg import (
    checkpoint,
    config,
    flags,
    importers,
    loader,
    model,
    nodes,
    runlog,
    schedule,
    shards,
    storage,
    train,
)
from sparseg.config import Config
from sparseg.exits import Interrupted, guarded, in_thread, on_interrupt
from sparseg.saver import SaveError

RESULT_FILE = "result.json"
"""What rank 0 leaves for the driver: the best scores, or an error that a retry would meet again."""
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Set unless the user has set them: no usage statistics, and logs that read as they were printed."""


def main(recipe: Config, *, description: str, args: list[str] | None = None) -> None:
    """Command line of a trainer: flags over the recipe, then `launch`.  Exits with 0, 1, 2, or 130 after
    Ctrl-C."""
    settings, dry_run = flags.parse(recipe, args, description=description)
    raise SystemExit(guarded(lambda: print_plan(settings) if dry_run else finish(settings)))


def finish(settings: Config) -> None:
    """Run to the end and say what came out."""
    result = launch(settings)
    print(
        f"done: best val mIoU {result['miou']:.4f} at step {result['step']}; {settings.folder}/best names "
        f"its checkpoint, {settings.folder}/metrics.jsonl holds every logged step"
    )


def prepare(settings: Config) -> tuple[Config, str | Path]:
    """Absolute paths, the imported dataset, and every check that needs no worker -> (settings, the dataset's
    folder or URL).

    Raises ValueError with what is wrong and its remedy.
    """
    if not settings.data.root:
        raise ValueError(
            "data.root is not set: give --data.root FOLDER (an imported dataset, or a raw layout)"
        )
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and not Path(settings.run.storage).is_absolute():
        raise ValueError(
            f"run.storage={settings.run.storage!r} is relative, and the working directory of a Ray job "
            "is temporary; give an absolute folder that the workers reach"
        )
    place = _absolute(settings.run.storage)
    data, weights = settings.data, settings.model.weights
    data = dataclasses.replace(
        data,
        root=_absolute(data.root),
        shards=data.shards and _absolute(data.shards),
        label_path=data.label_path and _label_path(data.label_path),
        # every node has its own home
        cache=data.cache and (data.cache if data.cache.startswith("~") else _absolute(data.cache)),
    )
    settings = dataclasses.replace(
        settings,
        data=data,
        model=dataclasses.replace(
            settings.model, weights=weights if weights in ("none", "timm") else _absolute(weights)
        ),
        run=dataclasses.replace(settings.run, storage=place),
    )
    storage.check(settings)
    storage.pull(settings)
    if not settings.run.fresh:
        checkpoint.refuse_other_run(settings)
    dataset = importers.prepare(settings.data, str(settings.folder.parent))
    found = shards.describe(dataset, cache=settings.data.cache)
    for split in (settings.data.train_split, settings.data.val_split):
        if found.rows[split] == 0:
            raise ValueError(f"{dataset}: split {split!r} has no images")
    if settings.loss.class_balance:
        shards.labelled_pixels(found, settings.data.train_split)
    model.build(settings.model, len(found.names), quiet=True)  # a wrong name or file is cheaper to find here
    return settings, dataset


def _move_aside(settings: Config) -> Config:
    """Rename the earlier run of this name, if any -> settings that no longer ask for it."""
    aside = storage.move_aside(settings)
    if aside is not None:
        print(f"moved the earlier run to {aside}")
    return dataclasses.replace(settings, run=dataclasses.replace(settings.run, fresh=False))


def _absolute(path: str) -> str:
    """Workers may have another working directory; a URL is the same everywhere."""
    return path.rstrip("/") if shards.is_url(path) else str(Path(path).expanduser().absolute())


def _label_path(path: str) -> str:
    """A label path is taken from here if it is there, else left to the importer, which looks under the
    root."""
    return _absolute(path) if Path(path).expanduser().exists() else path


def finished(settings: Config, dataset: str | Path) -> dict[str, Any] | None:
    """The best scores of a run that has made all its steps, else None."""
    saved = checkpoint.all_of(settings.folder)
    found = shards.describe(dataset, cache=settings.data.cache)
    length = schedule.plan(settings, found.rows[settings.data.train_split])
    if not saved or saved[-1].name != checkpoint.name_of(length.total_steps):
        return None
    best = runlog.read_json(settings.folder / "iou.json")
    return {**best, "steps": length.total_steps, "total_steps": length.total_steps}


def launch(
    settings: Config,
    *,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Train `settings` on Ray (or in this process with resources.workers=0) -> the best scores.

    Validations are told to `report` (without Ray) and to the Ray Train `callbacks` (with it): a sweep prunes
    by them. Raises ValueError before any worker starts if something is wrong with the settings, the data or
    the cluster; Interrupted if the user stopped it.
    """
    settings, dataset = prepare(settings)
    if settings.run.fresh:
        settings = _move_aside(settings)
    done = finished(settings, dataset)
    if done is not None:
        print(f"{settings.folder} is finished already; --run.fresh trains it again")
        return done
    storage.forget_stop(settings)
    if settings.resources.workers == 0:
        if settings.resources.threads_per_worker:
            torch.set_num_threads(settings.resources.threads_per_worker)
        asked = threading.Event()
        with on_interrupt(asked.set, "saving after this step, then ending"):
            result = train.run(settings, dataset, report=report, should_stop=asked.is_set)
    else:
        result = _on_ray(settings, dataset, callbacks)
    if result["steps"] < result["total_steps"]:
        raise Interrupted(
            f"stopped after step {result['steps']} of {result['total_steps']}; the same command goes on "
            "from there"
        )
    return result


# ------------------------------------------------------------------------------------------------- Ray


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # every report would be a line of its own
    settings = config.from_dict(arguments["config"])
    device = ray.train.torch.get_device()
    context = ray.train.get_context()
    if device.type == "cpu":  # Ray would leave it at the number of CPU slots, one by default
        share = (os.cpu_count() or 1) // context.get_local_world_size()
        torch.set_num_threads(settings.resources.threads_per_worker or max(1, share))
    rank = context.get_world_rank()
    node_rank, local = context.get_node_rank(), (context.get_local_rank(), context.get_local_world_size())
    try:
        result = train.run(
            settings,
            arguments["dataset"],
            node=nodes.here(node_rank, *local, device),
            device=device,
            report=ray.train.report,
            should_stop=lambda: rank == 0 and storage.asked_to_stop(settings),
        )
    except (ValueError, FloatingPointError, SaveError) as error:  # a retry would only meet it again
        result = {"error": str(error), "wrong_use": isinstance(error, ValueError)}
    if rank == 0:
        storage.write_note(settings, RESULT_FILE, result)


def _on_ray(settings: Config, dataset: str | Path, callbacks: Sequence[Any]) -> dict[str, Any]:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = start_ray(settings)
    resources = settings.resources
    workers: Any = resources.workers
    if resources.min_workers is not None and resources.min_workers < resources.workers:
        workers = (resources.min_workers, resources.workers)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"config": config.to_dict(settings), "dataset": str(dataset)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            elastic_resize_monitor_interval_s=resources.resize_seconds,  # type: ignore[call-arg]
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
        ),
        # checkpoints are ours, in STORAGE/NAME; Ray's own bookkeeping stays out of their way
        run_config=RunConfig(
            name=".ray",
            storage_path=str(settings.folder),
            failure_config=FailureConfig(resources.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=list(callbacks) or None,
        ),
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    storage.forget_note(settings, RESULT_FILE)
    what_follows = f"saving at the next logged line (every {settings.run.log_every} steps), then ending"
    with on_interrupt(lambda: storage.ask_to_stop(settings), what_follows):
        in_thread(trainer.fit)
    storage.forget_stop(settings)
    result = storage.read_note(settings, RESULT_FILE)
    storage.pull(settings)
    if "error" in result:
        raise (ValueError if result["wrong_use"] else RuntimeError)(result["error"])
    return result


def start_ray(settings: Config, *, runs: int = 1) -> float:
    """Join the cluster, or start a local one, and see that it can hold `runs` runs at once -> GPUs per
    worker.

    Raises ValueError saying what is asked for and what the cluster has.
    """
    import ray

    if not ray.is_initialized():
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        ray.init(logging_level=logging.ERROR)
    there, resources = ray.cluster_resources(), settings.resources
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) > 0 else 0.0
    workers = runs * (resources.min_workers or max(resources.workers, 1))
    for name, each in (("CPU", resources.cpus_per_worker), ("GPU", gpus)):
        if workers * each > there.get(name, 0):
            asked = f"resources.workers={workers // runs}" + (f" in {runs} runs at once" if runs > 1 else "")
            raise ValueError(
                f"{asked} x {each:g} {name} each needs {workers * each:g} {name}, the cluster has CPU "
                f"{there.get('CPU', 0):g}, GPU {there.get('GPU', 0):g}; lower --resources.workers or "
                f"--resources.{name.lower()}s-per-worker{' or --concurrent' if runs > 1 else ''}"
            )
    return gpus


def print_plan(settings: Config) -> None:
    """--dry-run: the resolved configuration, batch shapes, parameters and steps; nothing is trained."""
    settings, dataset = prepare(settings)
    found = shards.describe(dataset, cache=settings.data.cache)
    length = schedule.plan(settings, found.rows[settings.data.train_split])
    network = model.build(settings.model, len(found.names), quiet=True)
    workers, passes = max(settings.resources.workers, 1), settings.optim.accumulate
    shares = [
        len(loader.share(range(settings.optim.batch_size // passes), r, workers)) for r in range(workers)
    ]
    side = settings.data.crop_px
    print(runlog.json_text(config.to_dict(settings)))
    print(f"dataset      {dataset}")
    print(f"splits       {', '.join(f'{name} {rows}' for name, rows in found.rows.items())} images")
    print(f"classes      {len(found.names)}: {', '.join(found.names)}")
    print(
        f"a pass       image ({shares[0]}, 3, {side}, {side}) uint8 on worker 0; images per worker "
        f"{shares} x {passes}"
    )
    print(f"parameters   {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M")
    print(f"steps        {length.total_steps} ({length.epoch(length.total_steps):.2f} epochs)")
