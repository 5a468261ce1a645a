"""What a run carries from step to step: as the seed or a checkpoint gives it, and into checkpoints."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import torch
from torch import Tensor

from sparseg import losses
from sparseg.common import files
from sparseg.common.distributed import world_size
from sparseg.config import Config
from sparseg.data import shards
from sparseg.losses.mixture import Memory
from sparseg.network import batch_norm, segmenter
from sparseg.runs import checkpoint, store
from sparseg.runs.background_save import Saver
from sparseg.runs.log import RunLog
from sparseg.train.schedule import make_optimizer
from sparseg.train.weight_average import Average


@dataclasses.dataclass
class Progress:
    """What a run carries from step to step, and what its checkpoints hold."""

    network: segmenter.Segmenter
    optimizer: torch.optim.Optimizer
    average: Average | None
    class_weight_K: Tensor | None = None
    memory: Memory | None = None
    step: int = 0
    best: dict[str, Any] = dataclasses.field(default_factory=lambda: {"miou": -1.0, "iou": {}, "step": 0})
    metrics_bytes: int = 0
    skipped: int = 0


def start(config: Config, data: shards.ShardedDataset, device: torch.device, *, quiet: bool) -> Progress:
    """Network and optimizer as of the newest checkpoint in STORAGE/NAME, or as the seed gives them."""
    torch.manual_seed(config.run.seed)
    network = segmenter.build(config.model, len(data.names), quiet=quiet)
    network = network.to(device)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if world_size() > 1 or device.type == "cpu":  # on a CPU ours is also the more accurate one, at any size
        batch_norm.with_global_batch_norm(network, device)
    optimizer = make_optimizer(network, config)
    average = Average(network, config.optim.ema_decay) if config.optim.ema_decay else None
    progress = Progress(network, optimizer, average)
    if config.loss.class_balance:
        pixels_K = shards.labelled_pixels(data, config.data.train_split)
        progress.class_weight_K = losses.class_weights(pixels_K, config.loss.class_balance).to(device)
    if config.loss.keeps_memory:
        progress.memory = Memory.empty(len(data.names), config.model.feature_channels, device)
    saved = checkpoint.newest(config.folder, device, warn=_silent if quiet else _to_stderr)
    if saved is not None:
        path, tensors, state = saved
        network.load_state_dict(state["raw_model"] or tensors)
        optimizer.load_state_dict(state["optimizer"])
        if progress.memory is not None:
            progress.memory = Memory(**{name: value.to(device) for name, value in state["memory"].items()})
        if average is not None:
            average.state = {name: tensors[name].to(device) for name in average.state}
        progress.step, progress.best = state["step"], state["best"]
        progress.metrics_bytes, progress.skipped = state["metrics_bytes"], state["skipped"]
        if not quiet:
            print(
                f"[{config.run.name}] going on after step {progress.step} with {world_size()} workers from "
                f"{path}",
                flush=True,
            )
    return progress


def _silent(text: str) -> None:
    pass


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _copy(value: Any) -> Any:
    """Nested containers with every tensor copied to the CPU, as it is now."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def save(
    progress: Progress,
    config: Config,
    data: shards.ShardedDataset,
    saver: Saver,
    log: RunLog,
    miou: float | None,
) -> None:
    """Hand the checkpoint of this step to `saver` (rank 0; the other ranks hold the same weights).

    All is copied here; what follows of the training does not change it.
    """
    log.check_owner()
    network, average, step = progress.network, progress.average, progress.step
    weights = _copy(average.state if average is not None else network.state_dict())
    state = {
        "step": step,
        "optimizer": _copy(progress.optimizer.state_dict()),
        "raw_model": _copy(network.state_dict()) if average is not None else None,
        "memory": _copy(dataclasses.asdict(progress.memory)) if progress.memory is not None else None,
        "best": progress.best,
        "metrics_bytes": log.metrics_bytes,
        "skipped": progress.skipped,
    }

    def write() -> None:
        path = checkpoint.save(
            config.folder,
            step,
            weights,
            state,
            config=config,
            names=data.names,
            palette=data.palette,
            miou=miou,
        )
        if state["best"]["step"] == step:
            checkpoint.mark_best(config.folder, path)
            files.write_atomically(config.folder / "iou.json", json.dumps(state["best"], indent=2))
        checkpoint.prune(config.folder, config.run.keep, step)
        store.push(config)

    saver.submit(step, write)
