"""The training loop, written out once.  No ray: it runs in one process, or in every rank of a process
group."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparseg import losses
from sparseg.common.distributed import world_size
from sparseg.config import Config
from sparseg.data import loader, node_shards, row_order
from sparseg.evaluation.counts import count_split
from sparseg.evaluation.metrics import scores
from sparseg.losses.mixture import Memory
from sparseg.runs import store
from sparseg.train.label_watch import LabelWatch
from sparseg.train.schedule import rate_factor
from sparseg.train.state import TrainingState, save, start


def train_step(
    model: nn.Module,
    batches: list[loader.Batch],
    optimizer: torch.optim.Optimizer,
    config: Config,
    *,
    mixture: bool,
    class_weight_K: Tensor | None = None,
    memory: Memory | None = None,
) -> dict[str, Tensor]:
    """One optimizer step over this rank's passes -> loss terms (mean over ranks = the global batch's),
    grad_norm, and labelled_pixels of the global batch.

    Nothing here waits for the device but optim.skip_nonfinite, and the tree energy for its trees.
    """
    num_classes = batches[0].present_BK.shape[1]
    counts = losses.pixel_counts(torch.cat([batch.label_BHW for batch in batches]), num_classes)
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        with (
            contextlib.nullcontext()
            if last or not isinstance(model, DistributedDataParallel)
            else model.no_sync()
        ):
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
                num_slots=batch.num_slots if memory is None else batch.num_present,
                passes=len(batches),
                with_mixture=mixture,
                class_weight_K=class_weight_K,
                memory=memory,
                image_B3HW=batch.image_B3HW,
            )
            terms["total"].backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    largest = config.optim.clip_norm or math.inf
    sums["grad_norm"] = nn.utils.clip_grad_norm_(parameters, largest)
    if not config.optim.skip_nonfinite or sums["grad_norm"].isfinite():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sums | {"labelled_pixels": counts[0]}


def validate(state: TrainingState) -> dict[str, Any]:
    """Scores of the (averaged) network on the validation split; the best so far is kept in `state`."""
    config, data, network = state.config, state.data, state.network
    autocast = torch.bfloat16 if config.optim.precision == "bf16" else None
    split, num_classes = data.splits[config.data.val_split], len(data.names)

    def note(rows: Sequence[int], image: Tensor, p_BKHW: Tensor, truth_BHW: Tensor) -> None:
        state.watchdog.beat()
        if state.log is not None:
            state.log.pictures(state.step, image, p_BKHW.argmax(1), truth_BHW, data.palette)

    with state.average.swapped_in(network) if state.average is not None else contextlib.nullcontext():
        counts = count_split(
            network,
            split,
            num_classes,
            device=state.device,
            rank=state.rank,
            autocast=autocast,
            on_batch=note,
        )
    result = {**scores(counts.confusion_KK, data.names), "step": state.step}
    if data.report.get("val_labels") == "sparse":
        result["labels"] = "sparse"  # so whoever prints the scores says on how many pixels they are
    if result["miou"] > state.best["miou"] or not state.best["iou"]:  # the first one even if it is NaN
        state.best = result
    return result


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's generators for a step: 64 bits of numpy's SeedSequence with the entropy [seed, step,
    rank], which are the same on every machine and for every version of Python, numpy and torch.

    Whatever a backbone draws (drop path) is so a function of (seed, step, rank): a resumed run draws it
    again.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def advance(state: TrainingState, model: nn.Module) -> tuple[dict[str, Tensor], float]:
    """Make the next step -> (what `train_step` gives, still on the device; the backbone's learning rate)."""
    config, optim, step = state.config, state.config.optim, state.step
    model.train()
    torch.manual_seed(step_seed(config.run.seed, step, state.rank))
    factor = rate_factor(step, state.schedule.total_steps, optim.poly_power, optim.warmup_steps)
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    passes = [next(state.batches).to(state.device, optim.channels_last) for _ in range(optim.accumulate)]
    seen = [*state.network.buffers(), *(state.memory.tensors if state.memory else ())]
    before = [tensor.clone() for tensor in seen] if optim.skip_nonfinite else []
    values = train_step(
        model,
        passes,
        state.optimizer,
        config,
        mixture=state.schedule.epoch(step) >= config.loss.warmup_epochs,
        class_weight_K=state.class_weight_K,
        memory=state.memory,
    )
    state.step += 1
    if optim.skip_nonfinite and not values["grad_norm"].isfinite():  # the same on every rank
        state.skipped += 1
        for tensor, old in zip(seen, before, strict=True):
            tensor.copy_(old)  # batch norm's statistics and the mixture's memory
    elif state.average is not None:
        state.average.update(state.network)
    return values, optim.learning_rate * factor


def run(
    config: Config,
    dataset: str | Path | None = None,
    *,
    node: node_shards.Node | None = None,
    device: torch.device | None = None,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train to the end, going on from the newest sound checkpoint in STORAGE/NAME if there is one -> the best
    scores.

    dataset: the imported dataset, a folder or a URL (default: config.data.root).  node: where this rank
    stands (default: all ranks on one node).  report: is given every validation, on every rank.  should_stop:
    asked whenever a line is logged (each step on a single rank); one rank's yes saves and ends the run.
    should_save: asked whenever a line is logged, on every rank; one rank's yes saves at once.
    Raises FloatingPointError when the loss is no longer finite, SaveError when a checkpoint cannot be
    written.
    """
    rank, world = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    by_node = (
        node if node is not None and config.data.sharding == "node" else node_shards.Node(0, 1, rank, world)
    )
    data = node_shards.open_part(config, dataset or config.data.root, by_node, device)
    store.pull(config)
    if world > 1:
        dist.barrier()
    with start(config, data, rank=rank, node=by_node, device=device) as state:
        loop(state, report, should_stop, should_save)
    if state.saver.error is not None:
        raise state.saver.error
    return {**state.best, "steps": state.step, "total_steps": state.schedule.total_steps}


def loop(
    state: TrainingState,
    report: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
    should_save: Callable[[], bool],
) -> None:
    """A step after the other, and at the steps that ask for it a line, a validation, a checkpoint."""
    config, schedule, log = state.config, state.schedule, state.log
    model = parallel(state.network, config)
    watch = LabelWatch(config, state.step, schedule.total_steps)
    finite: list[Tensor] = []  # a flag for every step since the last line
    stopping, saved_s, limit = False, time.monotonic(), config.optim.skip_nonfinite
    while state.step < schedule.total_steps and not stopping:
        values, rate = advance(state, model)
        state.watchdog.beat()
        if log is not None:
            log.stepped(state.step)
        watch.note(state.step, values.pop("labelled_pixels"))
        finite.append(values["total"].isfinite() & values["grad_norm"].isfinite())
        step, epoch = state.step, schedule.epoch(state.step)
        validates = schedule.validates(step)
        saves = bool(config.run.checkpoint_every) and step % config.run.checkpoint_every == 0
        asked = world_size() == 1 and should_stop()
        if step % config.run.log_every == 0 or validates or saves or asked:
            asked = asked or should_stop() or state.saver.error is not None
            logged = read(values, torch.stack(finite).all(), stop=asked, save=should_save())
            if not logged.all_finite and (limit == 0 or state.skipped > limit):
                refuse(state, torch.stack(finite), logged.terms)
            if log is not None:
                line = logged.terms | {"learning_rate": rate} | ({"skipped": state.skipped} if limit else {})
                log.train(step, epoch, line, len(finite), config.optim.batch_size)
            finite, stopping = [], logged.stops
            # only rank 0 saves, so the clocks of the others may differ
            saves |= logged.saves or 0 < config.run.checkpoint_seconds <= time.monotonic() - saved_s
        result = validate(state) if validates and config.data.validates else None
        if log is not None and result is not None:
            log.validation(step, epoch, result, is_best=state.best is result)
        if not config.data.validates:
            state.best = {"miou": None, "iou": {}, "step": step}  # without scores the last one is the best
        if log is not None and (validates or saves or stopping):
            save(state, log, result["miou"] if result else None)
            saved_s = time.monotonic()
            log.pause()
        if result is not None:
            report({**result, "epoch": epoch, "total_steps": schedule.total_steps, "seed": config.run.seed})


def refuse(state: TrainingState, finite_T: Tensor, terms: dict[str, float]) -> NoReturn:
    """Raise FloatingPointError that names the first step that was not finite, of those of `finite_T`, and its
    images."""
    config, split = state.config, state.config.data.train_split
    finite_T = finite_T.double()
    if world_size() > 1:
        dist.all_reduce(finite_T, dist.ReduceOp.MIN)
    first = int(finite_T.argmin())
    step = state.step - len(finite_T) + 1 + first
    images = ""
    if len(state.data.splits[split]) == state.data.rows[split]:  # else this node does not know all rows
        keys = row_order.rows_of_step(
            config.run.seed, step - 1, state.data.rows[split], config.optim.batch_size
        )
        ids = [state.data.splits[split][row]["id"] for _, row in keys]
        images = f" (images {', '.join(ids[:16])}{', ...' if len(ids) > 16 else ''})"
    raise FloatingPointError(
        f"run {config.run.name}: loss or gradient not finite at step {step}{images}; terms of step "
        f"{state.step}: {terms}; lower optim.learning_rate, set optim.clip_norm, or leave such "
        "steps out with optim.skip_nonfinite, then repeat the command"
    )


def parallel(network: nn.Module, config: Config) -> nn.Module:
    """The network, compiled if asked for, whose gradients are averaged over the ranks."""
    model: Any = torch.compile(network) if config.optim.compile else network
    if world_size() == 1:
        return model
    with warnings.catch_warnings():  # torch 2.13 renamed the option; 2.11 does not know the new name
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


@dataclasses.dataclass(frozen=True)
class LoggedStep:
    """What is known of a step once the device was waited for, the same on every rank.

    terms: loss terms and grad_norm of the global batch.  all_finite: so were all steps since the last line.
    stops, saves: a rank asked for it.
    """

    terms: dict[str, float]
    all_finite: bool
    stops: bool
    saves: bool


def read(values: dict[str, Tensor], finite: Tensor, *, stop: bool, save: bool) -> LoggedStep:
    """The one place where a step waits for the device, and for the other ranks' answers."""
    flags = finite.new_tensor([float(stop), float(save)], dtype=torch.float64)
    packed = torch.cat([torch.stack([v.double() for v in values.values()]), 1 - finite.double()[None], flags])
    if world_size() > 1:
        dist.all_reduce(packed)
    *sums, bad, stops, saves = packed.tolist()
    terms = dict(zip(values, (total / world_size() for total in sums), strict=True))
    return LoggedStep(terms, all_finite=bad == 0, stops=stops > 0, saves=saves > 0)
