"""From a configuration to a finished run: checks at the border, Ray Train around `train.run`, exit codes."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparseg import checkpoint, config, flags, importers, loader, model, runlog, schedule, shards, train
from sparseg.config import Config

STOP_FILE = ".stop"
"""A file of this name in the run's folder asks its workers to save and end at their next logged line."""

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class Interrupted(Exception):
    """The user asked the run to end; it saved and can be resumed."""


def main(recipe: Config, *, description: str, args: list[str] | None = None) -> None:
    """Command line of a trainer: flags over the recipe, then `launch`.  Exits with 0, 1, 2, or 130 after Ctrl-C."""
    settings, dry_run = flags.parse(recipe, args, description=description)
    raise SystemExit(guarded(lambda: print_plan(settings) if dry_run else finish(settings)))


def guarded(action: Callable[[], Any]) -> int:
    """Exit code of an action; errors are one line on stderr, with the traceback only if SPARSEG_DEBUG=1."""
    try:
        action()
        return 0
    except (KeyboardInterrupt, Interrupted) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("SPARSEG_DEBUG") == "1":
            traceback.print_exc()
        print(f"error: {_reason(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _reason(error: BaseException) -> str:
    """The first cause in one line: Ray wraps what a worker raised."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0] if len(lines) <= 1 else lines[-1]
    return text or type(error).__name__


def finish(settings: Config) -> None:
    """Run to the end and say what came out."""
    result = launch(settings)
    print(
        f"done: best val mIoU {result['miou']:.4f} at step {result['step']}; {settings.folder}/best names its "
        f"checkpoint, {settings.folder}/metrics.jsonl holds every logged step"
    )


def prepare(settings: Config) -> tuple[Config, Path]:
    """Absolute paths, the imported dataset, and every check that needs no worker -> (settings, dataset folder).

    Raises ValueError with what is wrong and its remedy.
    """
    if not settings.data.root:
        raise ValueError(
            "data.root is not set: give --data.root FOLDER (an imported dataset, or a raw layout)"
        )
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and not Path(settings.run.storage).is_absolute():
        raise ValueError(
            f"run.storage={settings.run.storage!r} is relative, and the working directory of a Ray job is temporary; "
            "give an absolute folder that the workers reach"
        )
    storage = str(Path(settings.run.storage).absolute())
    weights = settings.model.weights
    if weights not in ("none", "timm"):
        weights = str(Path(weights).absolute())
    settings = dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, root=str(Path(settings.data.root).absolute())),
        model=dataclasses.replace(settings.model, weights=weights),
        run=dataclasses.replace(settings.run, storage=storage),
    )
    if settings.run.fresh and settings.folder.exists():
        aside = settings.folder.with_name(f"{settings.run.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
        os.replace(settings.folder, aside)
        print(f"moved the earlier run to {aside}")
    checkpoint.refuse_other_run(settings)
    dataset = importers.prepare(settings.data, storage)
    opened = shards.open(dataset)
    for flag, split in (("train_split", settings.data.train_split), ("val_split", settings.data.val_split)):
        if split not in opened.splits:
            raise ValueError(
                f"{dataset}: data.{flag}={split!r} is not a split; it has {', '.join(opened.splits)}"
            )
        if len(opened.splits[split]) == 0:
            raise ValueError(f"{dataset}: split {split!r} has no images")
    expected = settings.data.num_classes
    if expected is not None and expected != len(opened.names):
        raise ValueError(f"{dataset} has {len(opened.names)} classes, data.num_classes says {expected}")
    model.build(settings.model, len(opened.names), quiet=True)  # a wrong name or file is cheaper to find here
    return settings, dataset


def launch(settings: Config) -> dict[str, Any]:
    """Train `settings` on Ray (or in this process with resources.workers=0) -> the best scores.

    Raises ValueError before any worker starts if something is wrong with the settings, the data or the cluster;
    Interrupted if the user stopped it.
    """
    settings, dataset = prepare(settings)
    stop_file = settings.folder / STOP_FILE
    stop_file.unlink(missing_ok=True)
    if settings.resources.workers == 0:
        asked = threading.Event()
        with _on_interrupt(asked.set, settings):
            result = train.run(settings, dataset, should_stop=asked.is_set)
    else:
        result = _on_ray(settings, dataset)
    if result["steps"] < result["total_steps"]:
        raise Interrupted(
            f"stopped after step {result['steps']} of {result['total_steps']}; the same command goes on from there"
        )
    return result


# ------------------------------------------------------------------------------------------------------------- Ray


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    settings = config.from_dict(arguments["config"])
    device = ray.train.torch.get_device()
    context = ray.train.get_context()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    stop_file = settings.folder / STOP_FILE
    result = train.run(
        settings,
        Path(arguments["dataset"]),
        device=device,
        report=ray.train.report,
        should_stop=stop_file.exists,
    )
    if context.get_world_rank() == 0:
        checkpoint.write_text(settings.folder / "result.json", runlog.json_text(result))


def _on_ray(settings: Config, dataset: Path) -> dict[str, Any]:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    if not ray.is_initialized():
        environment = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_DEDUP_LOGS": "0"}
        os.environ.update({key: os.environ.get(key, value) for key, value in environment.items()})
        ray.init(
            log_to_driver=True,
            logging_level=logging.WARNING,
            include_dashboard=False if _is_local() else None,
        )
    gpus = _check_resources(settings, ray.cluster_resources())
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
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
        ),
        # checkpoints are ours, in STORAGE/NAME; Ray's own bookkeeping stays out of their way
        run_config=RunConfig(
            name=".ray",
            storage_path=str(settings.folder),
            failure_config=FailureConfig(resources.max_failures),
        ),
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    result_file = settings.folder / "result.json"
    result_file.unlink(missing_ok=True)
    with _on_interrupt((settings.folder / STOP_FILE).touch, settings):
        _in_thread(trainer.fit)
    (settings.folder / STOP_FILE).unlink(missing_ok=True)
    return runlog.read_json(result_file)


def _is_local() -> bool:
    return not os.environ.get("RAY_ADDRESS")


def _check_resources(settings: Config, there: dict[str, float]) -> float:
    """GPUs per worker.  Raises ValueError saying what is asked for and what the cluster has."""
    resources = settings.resources
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) > 0 else 0.0
    fewest = resources.min_workers or resources.workers
    for name, each in (("CPU", resources.cpus_per_worker), ("GPU", gpus)):
        if fewest * each > there.get(name, 0):
            raise ValueError(
                f"resources.workers={fewest} x {each:g} {name} needs {fewest * each:g}, the cluster has "
                f"{there.get(name, 0):g} {name} (CPU {there.get('CPU', 0):g}, GPU {there.get('GPU', 0):g}); lower "
                f"--resources.workers or --resources.{name.lower()}s-per-worker"
            )
    return gpus


class _on_interrupt:  # noqa: N801 - reads as a statement
    """Within: the first SIGINT or SIGTERM calls `ask` and the run saves and ends; the second ends the process."""

    def __init__(self, ask: Callable[[], Any], settings: Config) -> None:
        self.ask, self.settings, self.count = ask, settings, 0

    def __enter__(self) -> None:
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self.handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def handle(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        print(
            f"\n{signal.Signals(number).name}: saving at the next logged line (every {self.settings.run.log_every} "
            "steps), then ending; once more to end at once",
            file=sys.stderr,
            flush=True,
        )
        self.ask()

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _in_thread(action: Callable[[], Any]) -> None:
    """Run `action` beside the main thread, which stays free for signals (Ray would take SIGINT for itself)."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]


def print_plan(settings: Config) -> None:
    """--dry-run: the resolved configuration, batch shapes, parameters and steps; nothing is trained."""
    settings, dataset = prepare(settings)
    opened = shards.open(dataset)
    length = schedule.plan(settings, len(opened.splits[settings.data.train_split]))
    network = model.build(settings.model, len(opened.names), quiet=True)
    workers, passes = max(settings.resources.workers, 1), settings.optim.accumulate
    shares = [
        len(loader.share(list(range(settings.optim.batch_size // passes)), r, workers))
        for r in range(workers)
    ]
    side = settings.data.crop_px
    print(runlog.json_text(config.to_dict(settings)))
    print(f"dataset      {dataset}")
    print(f"splits       {', '.join(f'{name} {len(split)}' for name, split in opened.splits.items())} images")
    print(f"classes      {len(opened.names)}: {', '.join(opened.names)}")
    print(
        f"a pass       image ({shares[0]}, 3, {side}, {side}) uint8 on worker 0; images per worker {shares} x {passes}"
    )
    print(f"parameters   {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M")
    print(f"steps        {length.total_steps} ({length.epoch(length.total_steps):.2f} epochs)")
