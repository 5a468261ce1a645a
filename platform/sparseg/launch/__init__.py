"""From a configuration to a finished run on Ray: checks at the border, Ray Train, exit codes."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sparseg.common.numbers import percent
from sparseg.common.process import Interrupted, guarded, on_interrupt
from sparseg.config import Config, command_line
from sparseg.launch import prepare
from sparseg.launch.cluster import start_ray
from sparseg.launch.hardware import may_have_gpu
from sparseg.launch.ray_map import spread
from sparseg.launch.ray_train import train_on_ray
from sparseg.runs import store
from sparseg.runs.log import on_sparse_labels

__all__ = ["finish", "launch", "main", "may_have_gpu", "spread", "start_ray"]


def main(recipe: Config, *, description: str, args: list[str] | None = None, prog: str | None = None) -> None:
    """Command line of a trainer: flags over the recipe, then `launch`.  Exits with 0, 1, 2, or 130 after
    Ctrl-C."""
    settings, dry_run = command_line.parse(recipe, args, description=description, prog=prog)
    raise SystemExit(guarded(lambda: _print_plan(settings) if dry_run else finish(settings)))


def _print_plan(config: Config) -> None:
    from sparseg.launch.dry_run import print_plan  # loads torch, which --help does without

    print_plan(config)


def finish(config: Config) -> None:
    """Run to the end and say what came out."""
    result = launch(config)
    came_out = f"trained to step {result['step']} without validation; {config.folder}/best names the last"
    if config.data.validates:
        score = f"best val mIoU {percent(result['miou'])}{on_sparse_labels(result)}"
        came_out = f"{score} at step {result['step']}; {config.folder}/best names its"
    print(f"done: {came_out} checkpoint, {config.folder}/metrics.jsonl holds every logged step")
    run = shlex.quote(str(config.folder))
    print(f"next: sparseg predict {run} 'photos/*.jpg' masks --overlay --html masks/index.html")


def launch(
    config: Config,
    *,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
    callbacks: Sequence[Any] = (),
    imports: Sequence[str] = (),
    share_images: bool = False,
) -> dict[str, Any]:
    """Train `config` on Ray (or in this process with resources.workers=0) -> the best scores.

    Validations are told to `report` (without Ray) and to the Ray Train `callbacks` (with it): a sweep prunes
    by them.  `imports`, `share_images`: see `prepare.prepare`.  Raises ValueError before any worker starts if
    something is wrong with the configuration, the data or the cluster; Interrupted if the user stopped it.
    """
    config, dataset = prepare.prepare(config, imports=imports, share_images=share_images)
    if config.run.fresh:
        config = prepare.move_aside(config)
    done = prepare.finished(config, dataset)
    if done is not None:
        print(f"{config.folder} is finished already; --run.fresh trains it again")
        return done
    store.forget_stop(config)
    if config.resources.workers == 0:
        import torch

        from sparseg.train import loop

        if config.resources.threads_per_worker:
            torch.set_num_threads(config.resources.threads_per_worker)
        asked = threading.Event()
        with on_interrupt(asked.set, "saving after this step, then ending"):
            result = loop.run(config, dataset, report=report, should_stop=asked.is_set)
    else:
        result = train_on_ray(config, dataset, callbacks)
    if result["steps"] < result["total_steps"]:
        raise Interrupted(
            f"stopped after step {result['steps']} of {result['total_steps']}; the same command goes on "
            "from there"
        )
    return result
