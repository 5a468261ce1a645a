"""The state of a training process: what checkpoints hold of it, and what is made anew when it starts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sparseg import losses
from sparseg.common import files
from sparseg.common.distributed import world_size
from sparseg.config import Config
from sparseg.data import loader, shards
from sparseg.data.node_shards import Node
from sparseg.losses.mixture import Memory
from sparseg.network import batch_norm, segmenter
from sparseg.runs import checkpoint, new_round, store
from sparseg.runs.background_save import Saver
from sparseg.runs.log import RunLog
from sparseg.train.schedule import Plan, make_optimizer, plan
from sparseg.train.watchdog import Watchdog
from sparseg.train.weight_average import Average


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Everything that one rank of a run trains with.

    The fields of the first part are in every checkpoint (`saved_values`), and a resumed run goes on with
    them.  Those of the second part belong to this process and are made anew when it starts.
    """

    # in every checkpoint
    network: segmenter.Segmenter
    optimizer: torch.optim.Optimizer
    average: Average | None
    memory: Memory | None
    step: int = 0
    """Optimizer steps made."""
    best: dict[str, Any] = dataclasses.field(default_factory=lambda: {"miou": -1.0, "iou": {}, "step": 0})
    """Scores of the best validation so far."""
    skipped: int = 0
    """Steps left out because their gradient was not finite."""

    # of this process
    config: Config
    data: shards.ShardedDataset
    schedule: Plan
    class_weight_K: Tensor | None
    device: torch.device
    rank: int
    saver: Saver
    watchdog: Watchdog
    log: RunLog | None = None
    """Rank 0's."""
    batches: Iterator[loader.Batch] = dataclasses.field(default_factory=lambda: iter(()))
    """This rank's, from `step` on."""


@contextlib.contextmanager
def start(
    config: Config, data: shards.ShardedDataset, *, rank: int, node: Node, device: torch.device
) -> Iterator[TrainingState]:
    """Within: the state as of the newest sound checkpoint in STORAGE/NAME, or as the seed or model.start
    gives it.

    node: where this rank stands.  At the end a checkpoint that is still being written is waited for.
    """
    schedule = plan(config, data.rows[config.data.train_split])
    network = initial_network(config, len(data.names), device, quiet=rank > 0)
    if config.model.start is not None and not checkpoint.all_of(config.folder):
        new_round.load(network, config.model.start, data.names)  # a run that goes on may outlive it
    memory = class_weight_K = None
    if config.loss.class_balance:
        pixels_K = shards.labelled_pixels(data, config.data.train_split)
        class_weight_K = losses.class_weights(pixels_K, config.loss.class_balance).to(device)
    if config.loss.keeps_memory:
        memory = Memory.empty(len(data.names), config.model.feature_channels, device)
    process = f"[{config.run.name}] rank {rank} on {socket.gethostname()}"
    with Saver(config.folder) as saver, Watchdog(config.run.hang_seconds, process) as watchdog:
        state = TrainingState(
            network=network,
            optimizer=make_optimizer(network, config),
            average=Average(network, config.optim.ema_decay) if config.optim.ema_decay else None,
            memory=memory,
            config=config,
            data=data,
            schedule=schedule,
            class_weight_K=class_weight_K,
            device=device,
            rank=rank,
            saver=saver,
            watchdog=watchdog,
        )
        metrics_bytes = restore_newest(state)
        steps = {"first_step": state.step, "last_step": schedule.total_steps}
        state.batches = loader.training_batches(
            data, config, rank=rank, world=world_size(), node=node, **steps
        )
        if rank > 0:
            yield state
            return
        told = {"labels": _labels_told(data, config), "data_fingerprint": data.report.get("fingerprint")}
        state.log = RunLog(config, metrics_bytes, schedule.total_steps, device, told)
        with contextlib.closing(state.log):
            yield state


def _labels_told(data: shards.ShardedDataset, config: Config) -> dict[str, Any]:
    """Images and labels that a run trains on, for its environment.json: in all, and of each class if known.

    Of each class: not of a share of the labels, nor of dense masks beside the sparse labels that are counted.
    """
    split, stored = config.data.train_split, data.report.get("label")
    told: dict[str, Any] = dict(shards.label_counts(data, split))
    dense_beside = config.data.label == "full" and stored != "full"
    if told["pixels"] is None or config.data.keep_labels < 1 or dense_beside:
        return told
    single = stored in ("point", "clicks") and data.report.get("settings", {}).get("stroke_px", 1) == 1
    per_class = dict(zip(data.names, shards.labelled_pixels(data, split), strict=True))
    return {**told, "unit": "click" if single else "pixel", "per_class": per_class}


def initial_network(
    config: Config, num_classes: int, device: torch.device, *, quiet: bool
) -> segmenter.Segmenter:
    """The network as the seed gives it, on the device, with batch norms for the global batch."""
    torch.manual_seed(config.run.seed)
    model = new_round.untrained(config.model)
    quiet = quiet or config.model.start is not None
    network = segmenter.build(model, num_classes, quiet=quiet).to(device)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if world_size() > 1 or device.type == "cpu":  # on a CPU ours is also the more accurate one, at any size
        batch_norm.with_global_batch_norm(network, device)
    return network


# ---------------------------------------------------------------------------------------------- checkpoints


def saved_values(state: TrainingState, metrics_bytes: int) -> dict[str, Any]:
    """What a checkpoint holds besides the weights of the model, copied to the CPU (its state.pt).

    metrics_bytes: length of metrics.jsonl now; the lines after it come again when the run goes on from here.
    """
    averages = state.average is not None  # then the model is the average, and the raw weights are kept beside
    return {
        "step": state.step,
        "optimizer": _copy(state.optimizer.state_dict()),
        "raw_model": _copy(state.network.state_dict()) if averages else None,
        "memory": _copy(dataclasses.asdict(state.memory)) if state.memory is not None else None,
        "best": state.best,
        "metrics_bytes": metrics_bytes,
        "skipped": state.skipped,
    }


def restore_newest(state: TrainingState) -> int:
    """Bring the state to the newest sound checkpoint in STORAGE/NAME, if there is one -> length of
    metrics.jsonl then."""
    config, quiet = state.config, state.rank > 0
    found = checkpoint.newest(config.folder, state.device, warn=_silent if quiet else _to_stderr)
    if found is None:
        return 0
    path, weights, values = found
    state.network.load_state_dict(values["raw_model"] or weights)
    state.optimizer.load_state_dict(values["optimizer"])
    if state.memory is not None:
        memory = {name: tensor.to(state.device) for name, tensor in values["memory"].items()}
        state.memory = Memory(**memory)
    if state.average is not None:
        state.average.state = {name: weights[name].to(state.device) for name in state.average.state}
    state.step, state.best, state.skipped = values["step"], values["best"], values["skipped"]
    if not quiet:
        print(
            f"[{config.run.name}] going on after step {state.step} with {world_size()} workers from {path}",
            flush=True,
        )
    return values["metrics_bytes"]


def save(state: TrainingState, log: RunLog, miou: float | None) -> None:
    """Hand the checkpoint of this step to the saver (rank 0; the other ranks hold the same weights).

    All is copied here; what follows of the training does not change it.  miou: of this step's validation.
    """
    log.check_owner()
    config, data, step = state.config, state.data, state.step
    weights = _copy(state.average.state if state.average is not None else state.network.state_dict())
    values = saved_values(state, log.metrics_bytes)

    def write() -> None:
        path = checkpoint.save(
            config.folder,
            step,
            weights,
            values,
            config=config,
            names=data.names,
            palette=data.palette,
            miou=miou,
        )
        if values["best"]["step"] == step:
            checkpoint.mark_best(config.folder, path)
            files.write_atomically(config.folder / "iou.json", json.dumps(values["best"], indent=2))
        checkpoint.prune(config.folder, config.run.keep, step)
        store.push(config)

    state.saver.submit(step, write)


def _copy(value: Any) -> Any:
    """Nested containers with every tensor copied to the CPU, as it is now."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _silent(text: str) -> None:
    pass


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
