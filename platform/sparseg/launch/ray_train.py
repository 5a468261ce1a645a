"""Ray Train around `train.loop.run`: what every worker runs, and the driver that starts the workers.

How often a lost worker is replaced is said in `_trainer` (FailureConfig); the run then goes on in
train/state.py:restore_newest.  Nodes that announce their end are preemption.py's.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseg.common import plugins
from sparseg.common.process import formatted_warning, in_thread, on_interrupt, reason, seldom
from sparseg.config import Config, from_dict, to_dict
from sparseg.launch.cluster import refuse_unseen, start_ray
from sparseg.launch.preemption import Farewell
from sparseg.runs import checkpoint, store

RESULT_FILE = "result.json"
"""What rank 0 leaves for the driver: the best scores, or an error that a retry would meet again."""
RAY_FOLDER = ".ray"
"""Ray Train's own notes, in the run's folder while it is driven."""


def _worker(arguments: dict[str, Any]) -> None:
    """Train on one Ray Train worker; rank 0 leaves the outcome in RESULT_FILE.

    arguments: `config` as a dict, `dataset`, `reports`: whether validations are told to Ray Train,
    `search_path`: the folders where the driver finds the user's modules, and its `commit`.
    """
    # Here, because Ray's controller and the driver import this module, too, and need neither torch nor timm.
    import ray.train
    import ray.train.torch
    import torch

    from sparseg.data import node_shards
    from sparseg.runs.background_save import SaveError
    from sparseg.train import loop

    warnings.formatwarning = formatted_warning
    for name in ("ray.train", None):  # every report would be a line of its own, from a logger below the root
        logging.getLogger(name).setLevel(logging.WARNING)
    config = from_dict(arguments["config"])
    os.environ[checkpoint.COMMIT_VARIABLE] = arguments["commit"]
    device = ray.train.torch.get_device()
    context = ray.train.get_context()
    if device.type == "cpu":  # Ray would leave it at the number of CPU slots, one by default
        share = (os.cpu_count() or 1) // context.get_local_world_size()
        torch.set_num_threads(config.resources.threads_per_worker or max(1, share))
    rank, alone = context.get_world_rank(), context.get_world_size() == 1
    node_rank, local = context.get_node_rank(), (context.get_local_rank(), context.get_local_world_size())
    try:
        plugins.extend_path(arguments["search_path"])
        plugins.load(config.run.plugins)
        result = loop.run(
            config,
            arguments["dataset"],
            node=node_shards.here(node_rank, *local, device),
            device=device,
            report=ray.train.report if arguments["reports"] else _tell_nobody,
            # a single rank is asked after every step, and a store need not be
            should_stop=seldom(lambda: rank == 0 and store.asked_to_stop(config), 1.0 if alone else 0.0),
            should_save=Farewell(config.run.name, rank),
        )
    except (ValueError, FloatingPointError, SaveError) as error:  # a retry would only meet it again
        result = {"error": str(error), "wrong_use": isinstance(error, ValueError)}
    if rank == 0:
        store.write_note(config, RESULT_FILE, result)


def _tell_nobody(line: dict[str, Any]) -> None:
    pass


def train_on_ray(config: Config, dataset: str | Path, callbacks: Sequence[Any]) -> dict[str, Any]:
    """Run on the workers of a Ray cluster -> the best scores.

    Validations are reported to Ray Train only if `callbacks` listen: a report waits for the workers and, for
    up to two seconds, for Ray's controller, which needs none, because the checkpoints are ours.  Raises
    ValueError for what a retry would meet again, else RuntimeError naming the checkpoint to go on from.
    """
    import ray

    gpus = start_ray(config)
    if len(ray.nodes()) == 1:  # nobody could take over, and Ray's watcher starts with an error message
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    trainer = _trainer(config, dataset, callbacks, gpus)
    config.folder.mkdir(parents=True, exist_ok=True)
    refuse_unseen(config, dataset)
    store.forget_note(config, RESULT_FILE)
    what_follows = f"saving at the next logged line (every {config.run.log_every} steps), then ending"
    with on_interrupt(lambda: store.ask_to_stop(config), what_follows):
        try:
            in_thread(trainer.fit)
        except Exception as error:
            saved = checkpoint.all_of(config.folder)
            remedy = f"; the same command goes on from {saved[-1]}" if saved else ""
            raise RuntimeError(f"{reason(error)}{remedy}") from error
        finally:
            shutil.rmtree(config.folder / RAY_FOLDER, ignore_errors=True)
    store.forget_stop(config)
    result = store.read_note(config, RESULT_FILE)
    store.pull(config)
    if "error" in result:
        raise (ValueError if result["wrong_use"] else RuntimeError)(result["error"])
    return result


def _trainer(config: Config, dataset: str | Path, callbacks: Sequence[Any], gpus: float) -> Any:
    """Ray's trainer for the run; gpus: of each worker."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = config.resources
    workers: Any = resources.workers
    if resources.min_workers is not None and resources.min_workers < resources.workers:
        workers = (resources.min_workers, resources.workers)
    return TorchTrainer(
        _worker,
        train_loop_config={
            "config": to_dict(config),
            "dataset": str(dataset),
            "reports": len(callbacks) > 0,
            "search_path": plugins.search_path(),
            "commit": checkpoint.commit(),
        },
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
            storage_path=str(config.folder),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=resources.max_failures,
                max_preemption_failures=resources.max_preemptions,
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=list(callbacks) or None,
        ),
    )
