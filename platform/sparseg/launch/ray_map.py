"""A function over parts of some work, on Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sparseg.common import plugins
from sparseg.config import Config, with_overrides
from sparseg.launch.cluster import cpus_each, nodes_there, start_ray


def spread(task: Callable[[Any], Any], parts: Sequence[Any], workers: int) -> Iterator[Any]:
    """task(part) of every part, on `workers` Ray workers at a time -> the results as they come.

    Raises ValueError at once if the cluster cannot hold so many workers; later what a task raised.
    """
    import ray

    if not parts:
        return iter(())
    gpus = start_ray(with_overrides(Config(), {"resources.workers": 1}))
    each = cpus_each(nodes_there(), workers, gpus, ray.available_resources().get("CPU", 0))
    remote_part = ray.remote(_part).options(num_cpus=each, num_gpus=gpus)
    return _results(remote_part, task, parts, workers, each)


def _results(remote_part: Any, task: Any, parts: Sequence[Any], workers: int, threads: int) -> Iterator[Any]:
    import ray

    waiting, running = list(reversed(parts)), list[Any]()
    path = plugins.search_path()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(remote_part.remote(task, waiting.pop(), threads, path))
            done, running = ray.wait(running)
            yield ray.get(done[0])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _part(task: Callable[[Any], Any], part: Any, threads: int, search_path: list[str]) -> Any:
    import torch

    plugins.extend_path(search_path)
    torch.set_num_threads(threads)
    return task(part)
