"""What fits on the nodes of a cluster, each given as (CPU, GPU)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def supply(nodes: Sequence[tuple[float, float]]) -> str:
    """What nodes with (CPU, GPU) have, in words."""
    return f"CPU {sum(cpu for cpu, _ in nodes):g}, GPU {sum(gpu for _, gpu in nodes):g}"


def places(nodes: Sequence[tuple[float, float]], cpus: float, gpus: float) -> int:
    """How many workers with so many CPUs and GPUs each nodes with (CPU, GPU) can hold."""

    def times(have: float, each: float) -> float:
        return math.floor(have / each + 1e-6) if each else math.inf

    return int(sum(min(times(cpu, cpus), times(gpu, gpus)) for cpu, gpu in nodes))


def cpus_each(nodes: Sequence[tuple[float, float]], workers: int, gpus: float, free: float) -> int:
    """CPUs for each of `workers` tasks that need `gpus` GPUs each, such that all run at once on nodes with
    (CPU, GPU); what others hold (all but `free` CPUs) is left to them if that is enough for a CPU each."""
    total = sum(cpu for cpu, _ in nodes)
    for each in range(int(max((free if free >= workers else total) // workers, 1)), 0, -1):
        if places(nodes, each, gpus) >= workers:
            return each
    wants = f"a CPU and {gpus:g} GPU each" if gpus else "a CPU each"
    raise ValueError(f"--workers {workers} need {wants}, the cluster has {supply(nodes)}; lower it")
