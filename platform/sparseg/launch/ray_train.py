"""From a configuration to a finished run: checks at the border, Ray Train around `train.run`, exit codes."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sparseg.runs import checkpoint, store
from sparseg import config, train
from sparseg.config import command_line
from sparseg.data import node_shards
from sparseg.launch.cluster import cpus_each, places, supply
from sparseg.config import Config, ResourcesConfig
from sparseg.common.process import Interrupted, guarded, in_thread, on_interrupt, reason, seldom
from sparseg.launch.local_ray import RAY_SETTINGS, forget_dead_head, own_temporary_folder
from sparseg.launch.prepare import finished, move_aside, prepare, print_plan
from sparseg.runs.background_save import SaveError

RESULT_FILE = "result.json"
"""What rank 0 leaves for the driver: the best scores, or an error that a retry would meet again."""
RAY_FOLDER = ".ray"
"""Ray Train's own notes, in the run's folder while it is driven."""


def main(recipe: Config, *, description: str, args: list[str] | None = None) -> None:
    """Command line of a trainer: flags over the recipe, then `launch`.  Exits with 0, 1, 2, or 130 after
    Ctrl-C."""
    settings, dry_run = command_line.parse(recipe, args, description=description)
    raise SystemExit(guarded(lambda: print_plan(settings) if dry_run else finish(settings)))


def finish(settings: Config) -> None:
    """Run to the end and say what came out."""
    result = launch(settings)
    print(
        f"done: best val mIoU {result['miou']:.4f} at step {result['step']}; {settings.folder}/best names "
        f"its checkpoint, {settings.folder}/metrics.jsonl holds every logged step"
    )


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
        settings = move_aside(settings)
    done = finished(settings, dataset)
    if done is not None:
        print(f"{settings.folder} is finished already; --run.fresh trains it again")
        return done
    store.forget_stop(settings)
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

    for name in ("ray.train", None):  # every report would be a line of its own, from a logger below the root
        logging.getLogger(name).setLevel(logging.WARNING)
    settings = config.from_dict(arguments["config"])
    device = ray.train.torch.get_device()
    context = ray.train.get_context()
    if device.type == "cpu":  # Ray would leave it at the number of CPU slots, one by default
        share = (os.cpu_count() or 1) // context.get_local_world_size()
        torch.set_num_threads(settings.resources.threads_per_worker or max(1, share))
    rank, alone = context.get_world_rank(), context.get_world_size() == 1
    node_rank, local = context.get_node_rank(), (context.get_local_rank(), context.get_local_world_size())
    try:
        result = train.run(
            settings,
            arguments["dataset"],
            node=node_shards.here(node_rank, *local, device),
            device=device,
            report=ray.train.report,
            # a single rank is asked after every step, and a store need not be
            should_stop=seldom(lambda: rank == 0 and store.asked_to_stop(settings), 1.0 if alone else 0.0),
            should_save=Farewell(settings.run.name, rank),
        )
    except (ValueError, FloatingPointError, SaveError) as error:  # a retry would only meet it again
        result = {"error": str(error), "wrong_use": isinstance(error, ValueError)}
    if rank == 0:
        store.write_note(settings, RESULT_FILE, result)


class Farewell:
    """Asks Ray whether nodes of this run will be taken away (a spot notice, `ray drain-node`): yes, once for
    each such news, so that a checkpoint is written before they go."""

    def __init__(self, name: str, rank: int) -> None:
        self.name, self.rank, self.known = name, rank, frozenset[str]()

    def __call__(self) -> bool:
        """On every rank, equally often."""
        import ray.train

        info = ray.train.get_preemption_info()
        going = frozenset(info.preempted_node_ids) if info is not None else frozenset[str]()
        if going <= self.known:
            return False
        self.known |= going
        if info is not None and self.rank == 0:
            left = "" if info.deadline_ms is None else f" in {info.deadline_ms / 1000 - time.time():.0f} s"
            print(
                f"[{self.name}] {len(going)} of the run's nodes will be taken away{left} (ranks "
                f"{info.preempted_ranks}): saving",
                flush=True,
            )
        return True


def _on_ray(settings: Config, dataset: str | Path, callbacks: Sequence[Any]) -> dict[str, Any]:
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = start_ray(settings)
    if len(ray.nodes()) == 1:  # nobody could take over, and Ray's watcher starts with an error message
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
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
            name=RAY_FOLDER,
            storage_path=str(settings.folder),
            failure_config=FailureConfig(resources.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=list(callbacks) or None,
        ),
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    store.forget_note(settings, RESULT_FILE)
    what_follows = f"saving at the next logged line (every {settings.run.log_every} steps), then ending"
    with on_interrupt(lambda: store.ask_to_stop(settings), what_follows):
        try:
            in_thread(trainer.fit)
        except Exception as error:
            saved = checkpoint.all_of(settings.folder)
            remedy = f"; the same command goes on from {saved[-1]}" if saved else ""
            raise RuntimeError(f"{reason(error)}{remedy}") from error
        finally:
            shutil.rmtree(settings.folder / RAY_FOLDER, ignore_errors=True)
    store.forget_stop(settings)
    result = store.read_note(settings, RESULT_FILE)
    store.pull(settings)
    if "error" in result:
        raise (ValueError if result["wrong_use"] else RuntimeError)(result["error"])
    return result


def spread(task: Callable[[Any], Any], parts: Sequence[Any], workers: int) -> Iterator[Any]:
    """task(part) of every part, on `workers` Ray workers at a time -> the results as they come.

    Raises ValueError at once if the cluster cannot hold so many workers; later what a task raised.
    """
    import ray

    if not parts:
        return iter(())
    gpus = start_ray(config.with_overrides(Config(), {"resources.workers": 1}))
    each = cpus_each(nodes_there(), workers, gpus, ray.available_resources().get("CPU", 0))
    remote = ray.remote(_part).options(num_cpus=each, num_gpus=gpus)
    return _results(remote, task, parts, workers, each)


def _results(remote: Any, task: Any, parts: Sequence[Any], workers: int, threads: int) -> Iterator[Any]:
    import ray

    waiting, running = list(reversed(parts)), list[Any]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(remote.remote(task, waiting.pop(), threads))
            done, running = ray.wait(running)
            yield ray.get(done[0])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _part(task: Callable[[Any], Any], part: Any, threads: int) -> Any:
    torch.set_num_threads(threads)
    return task(part)


def start_ray(settings: Config, *, runs: int = 1) -> float:
    """Join the cluster, or start a local one, and see that it can hold `runs` runs at once -> GPUs per
    worker.

    Raises ValueError saying what is asked for and what the cluster has.
    """
    import ray

    if not ray.is_initialized():
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        forget_dead_head()
        with own_temporary_folder():
            ray.init(logging_level=logging.ERROR)
    resources = settings.resources
    if resources.wait_seconds:
        await_nodes(resources, runs)
    there = nodes_there()
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(gpu for _, gpu in there) else 0.0
    room = places(there, resources.cpus_per_worker, gpus)
    if runs * (resources.min_workers or max(resources.workers, 1)) > room:
        asked = f"resources.workers={resources.workers}" + (f" in {runs} runs at once" if runs > 1 else "")
        raise ValueError(
            f"{asked} of {resources.cpus_per_worker:g} CPU and {gpus:g} GPU each: the cluster has room for "
            f"{room} ({supply(there)}); lower --resources.workers or --resources.cpus-per-worker"
            f"{' or --concurrent' if runs > 1 else ''}, or wait for nodes that an autoscaler starts: "
            "--resources.wait-seconds 900"
        )
    return gpus


def await_nodes(resources: ResourcesConfig, runs: int) -> None:
    """Ask the autoscaler for what `runs` runs need; return once it is there, or after wait_seconds."""
    from ray.autoscaler.sdk import request_resources

    gpus, cpus = resources.gpus_per_worker, resources.cpus_per_worker
    if gpus is None:
        raise ValueError(
            "resources.wait_seconds: nodes that do not run yet cannot be asked for their GPUs; say with "
            "--resources.gpus-per-worker 1 (or 0) what a worker needs"
        )
    workers, end_s = runs * max(resources.workers, 1), time.monotonic() + resources.wait_seconds
    if places(nodes_there(), cpus, gpus) >= workers:
        return
    print(
        f"waiting up to {resources.wait_seconds:g} s for nodes: {workers} workers of {cpus:g} CPU and "
        f"{gpus:g} GPU each, the cluster has {supply(nodes_there())}",
        flush=True,
    )
    request_resources(bundles=[{"CPU": cpus} | ({"GPU": gpus} if gpus else {})] * workers)
    try:
        while places(nodes_there(), cpus, gpus) < workers and time.monotonic() < end_s:
            time.sleep(1)
    finally:
        request_resources(bundles=[])  # the workers themselves hold their nodes from now on


def nodes_there() -> list[tuple[float, float]]:
    """(CPU, GPU) of every node that is alive."""
    import ray

    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in there]
