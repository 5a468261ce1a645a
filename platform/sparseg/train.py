"""The training loop, written out once.  No ray: it runs in one process, or in every rank of a process
group."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparseg import checkpoint, loader, losses, nodes, runlog, shards
from sparseg import model as networks
from sparseg.config import Config
from sparseg.evaluate import evaluate, scores
from sparseg.mixture import world_size
from sparseg.schedule import Plan, make_optimizer, plan, rate_factor


def train_step(
    model: nn.Module,
    batches: list[loader.Batch],
    optimizer: torch.optim.Optimizer,
    config: Config,
    *,
    mixture: bool,
    class_weight_K: Tensor | None = None,
) -> dict[str, Tensor]:
    """One optimizer step over this rank's passes -> loss terms (mean over ranks = the global batch's) and
    grad_norm.

    Nothing here waits for the device.
    """
    num_classes = batches[0].present_BK.shape[1]
    counts = losses.pixel_counts(torch.cat([batch.label_BHW for batch in batches]), num_classes)
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        silent = (
            contextlib.nullcontext()
            if last or not isinstance(model, DistributedDataParallel)
            else model.no_sync()
        )
        with silent:
            bf16 = config.optim.precision == "bf16"
            with torch.autocast(batch.label_BHW.device.type, dtype=torch.bfloat16, enabled=bf16):
                feature_BDhw, logits_BKhw = model(batch.image_B3HW)
            terms = losses.objective(
                feature_BDhw,
                logits_BKhw,
                batch.label_BHW,
                batch.present_BK,
                config.loss,
                counts=counts,
                num_slots=batch.num_slots,
                passes=len(batches),
                mixture=mixture,
                class_weight_K=class_weight_K,
            )
            terms["total"].backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    largest = config.optim.clip_norm or math.inf
    sums["grad_norm"] = nn.utils.clip_grad_norm_(parameters, largest)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sums


class Average:
    """Exponential moving average of the weights; batch-norm statistics are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        weights = dict(model.named_parameters())
        for name, value in model.state_dict().items():
            if name in weights:
                self.state[name].lerp_(value, 1 - self.decay)
            else:
                self.state[name].copy_(value)

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights, inside."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(own)


@dataclasses.dataclass
class Progress:
    """What a run carries from step to step, and what its checkpoints hold."""

    network: networks.Segmenter
    optimizer: torch.optim.Optimizer
    average: Average | None
    class_weight_K: Tensor | None = None
    step: int = 0
    best: dict[str, Any] = dataclasses.field(default_factory=lambda: {"miou": -1.0, "iou": {}, "step": 0})
    metrics_bytes: int = 0


def start(config: Config, data: shards.ShardedDataset, device: torch.device, *, quiet: bool) -> Progress:
    """Network and optimizer as of the newest checkpoint in STORAGE/NAME, or as the seed gives them."""
    torch.manual_seed(config.run.seed)
    network = networks.build(config.model, len(data.names), quiet=quiet)
    network = network.to(device)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if world_size() > 1 or device.type == "cpu":  # on a CPU ours is also the more accurate one, at any size
        networks.with_global_batch_norm(network, device)
    optimizer = make_optimizer(network, config)
    average = Average(network, config.optim.ema_decay) if config.optim.ema_decay else None
    progress = Progress(network, optimizer, average)
    if config.loss.class_balance:
        pixels_K = shards.labelled_pixels(data, config.data.train_split)
        progress.class_weight_K = losses.class_weights(pixels_K, config.loss.class_balance).to(device)
    saved = checkpoint.all_of(config.folder)
    if saved:
        tensors, state = checkpoint.load_state(saved[-1], device)
        network.load_state_dict(state["raw_model"] or tensors)
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.state = {name: tensors[name].to(device) for name in average.state}
        progress.step, progress.best = state["step"], state["best"]
        progress.metrics_bytes = state["metrics_bytes"]
        if not quiet:
            print(f"[{config.run.name}] going on after step {progress.step} from {saved[-1]}", flush=True)
    return progress


def save(
    progress: Progress, config: Config, data: shards.ShardedDataset, metrics_bytes: int, miou: float | None
) -> None:
    """Write the checkpoint of this step (rank 0; the other ranks hold the same weights)."""
    network, average = progress.network, progress.average
    path = checkpoint.save(
        config.folder,
        progress.step,
        average.state if average is not None else network.state_dict(),
        {
            "step": progress.step,
            "optimizer": progress.optimizer.state_dict(),
            "raw_model": network.state_dict() if average is not None else None,
            "best": progress.best,
            "metrics_bytes": metrics_bytes,
        },
        config=config,
        names=data.names,
        palette=data.palette,
        miou=miou,
    )
    if progress.best["step"] == progress.step:
        checkpoint.mark_best(config.folder, path)
        checkpoint.write_text(config.folder / "iou.json", json.dumps(progress.best, indent=2))
    checkpoint.prune(config.folder, config.run.keep)


def validate(
    progress: Progress, config: Config, data: shards.ShardedDataset, device: torch.device, rank: int
) -> dict:
    """Scores of the (averaged) network on the validation split; the best so far is kept in `progress`."""
    network, average = progress.network, progress.average
    autocast = torch.bfloat16 if config.optim.precision == "bf16" else None
    split, num_classes = data.splits[config.data.val_split], len(data.names)
    with average.swapped_in(network) if average is not None else contextlib.nullcontext():
        counts_KK = evaluate(network, split, num_classes, device=device, rank=rank, autocast=autocast)
    result = {**scores(counts_KK, data.names), "step": progress.step}
    if result["miou"] > progress.best["miou"] or not progress.best["iou"]:  # the first one even if it is NaN
        progress.best = result
    return result


def advance(
    progress: Progress,
    model: nn.Module,
    batches: Iterator[loader.Batch],
    schedule: Plan,
    config: Config,
    rank: int,
) -> tuple[dict[str, Tensor], float]:
    """Make the next step -> (loss terms and grad_norm, still on the device; the backbone's learning rate)."""
    step, optim = progress.step, config.optim
    model.train()
    # whatever a backbone draws (drop path) is a function of (seed, step, rank): a resumed run draws it again
    torch.manual_seed(hash((config.run.seed, step, rank)) % 2**63)
    factor = rate_factor(step, schedule.total_steps, optim.poly_power, optim.warmup_steps)
    for group in progress.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    device = next(model.parameters()).device
    passes = [next(batches).to(device, optim.channels_last) for _ in range(optim.accumulate)]
    mixture = schedule.epoch(step) >= config.loss.warmup_epochs
    values = train_step(
        model, passes, progress.optimizer, config, mixture=mixture, class_weight_K=progress.class_weight_K
    )
    if progress.average is not None:
        progress.average.update(progress.network)
    progress.step += 1
    return values, optim.learning_rate * factor


def run(
    config: Config,
    dataset: str | Path | None = None,
    *,
    node: nodes.Node | None = None,
    device: torch.device | None = None,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train to the end, going on from the newest checkpoint in STORAGE/NAME if there is one -> the best
    scores.

    dataset: the imported dataset, a folder or a URL (default: config.data.root).  node: where this rank
    stands (default: all ranks on one node).  report: is given every validation, on every rank.  should_stop:
    asked whenever a line is logged (each step on a single rank); one rank's yes saves and ends the run.
    Raises FloatingPointError when the loss is no longer finite.
    """
    rank, world = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    by_node = node if node is not None and config.data.sharding == "node" else nodes.Node(0, 1, rank, world)
    data = nodes.open_part(config, dataset or config.data.root, by_node, device)
    schedule = plan(config, data.rows[config.data.train_split])
    progress = start(config, data, device, quiet=rank > 0)
    log = runlog.RunLog(config, progress.metrics_bytes, schedule.total_steps, device) if rank == 0 else None
    model = parallel(progress.network, config)
    steps = {"first_step": progress.step, "last_step": schedule.total_steps}
    batches = loader.training_batches(data, config, rank=rank, world=world, node=by_node, **steps)
    finite, logged, stopping = torch.ones((), dtype=torch.bool, device=device), progress.step, False
    while progress.step < schedule.total_steps and not stopping:
        values, rate = advance(progress, model, batches, schedule, config, rank)
        finite &= values["total"].isfinite() & values["grad_norm"].isfinite()
        step, epoch = progress.step, schedule.epoch(progress.step)
        validates = schedule.validates(step)
        saves = bool(config.run.checkpoint_every) and step % config.run.checkpoint_every == 0
        asked = world == 1 and should_stop()
        if step % config.run.log_every == 0 or validates or saves or asked:
            line, all_finite, stopping = read(values, finite, asked or should_stop())
            line["learning_rate"] = rate
            if not all_finite:
                raise FloatingPointError(
                    f"run {config.run.name}: loss or gradient not finite between steps {logged + 1} and "
                    f"{step} "
                    f"(now {line}); lower optim.learning_rate or set optim.clip_norm, then repeat the command"
                )
            if log is not None:
                log.train(step, epoch, line, step - logged, config.optim.batch_size)
            logged = step
        result = validate(progress, config, data, device, rank) if validates else None
        if log is not None and result is not None:
            log.validation(step, epoch, result, is_best=progress.best is result)
        if log is not None and (validates or saves or stopping):
            save(progress, config, data, log.metrics_bytes, result["miou"] if result else None)
            log.pause()
        if result is not None:  # after the save: who hears it may end the run
            report({**result, "epoch": epoch, "total_steps": schedule.total_steps})
    if log is not None:
        log.close()
    return {**progress.best, "steps": progress.step, "total_steps": schedule.total_steps}


def parallel(network: nn.Module, config: Config) -> nn.Module:
    """The network, compiled if asked for, whose gradients are averaged over the ranks."""
    model: Any = torch.compile(network) if config.optim.compile else network
    if world_size() == 1:
        return model
    with warnings.catch_warnings():  # torch 2.13 renamed the option; 2.11 does not know the new name
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def read(values: dict[str, Tensor], finite: Tensor, stop: bool) -> tuple[dict[str, float], bool, bool]:
    """The one place where a step waits for the device -> loss terms of the global batch; all finite; any rank
    stops."""
    flags = finite.new_tensor([float(stop)], dtype=torch.float64)
    packed = torch.cat([torch.stack([v.double() for v in values.values()]), 1 - finite.double()[None], flags])
    if world_size() > 1:
        dist.all_reduce(packed)
    *sums, bad, stops = packed.tolist()
    return dict(zip(values, (s / world_size() for s in sums), strict=True)), bad == 0, stops > 0
