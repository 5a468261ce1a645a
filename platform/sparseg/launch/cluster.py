"""What fits on the nodes of a cluster, each given as (CPU, GPU)."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from sparseg.common import object_store
from sparseg.config import Config, ResourcesConfig
from sparseg.launch.local_ray import RAY_SETTINGS, forget_dead_head, own_temporary_folder

ANSWER_SECONDS = 60.0
"""How long nodes are waited for that are asked which folders they have."""


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


def start_ray(config: Config, *, runs: int = 1) -> float:
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
    resources = config.resources
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


def refuse_unseen(config: Config, dataset: str | Path) -> None:
    """Raise ValueError if a node that can hold workers lacks the dataset's folder or the run's.

    The driver has made the run's folder, so the others have it only if they share the disk.  Nobody is asked
    where there is one node alone, and nothing about URLs.
    """
    import ray

    folders = {"data.root": str(dataset), "run.storage": str(config.folder)}
    if object_store.is_url(config.run.storage):
        del folders["run.storage"]
    folders = {name: folder for name, folder in folders.items() if not object_store.is_url(folder)}
    nodes = [node for node in ray.nodes() if node.get("Alive")]
    hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Resources"].get("CPU")}
    if len(nodes) < 2 or not folders:
        return
    missing = folders_missing(list(hosts), list(folders.values()))
    for name, folder in folders.items():
        without = dict.fromkeys(host for node, host in hosts.items() if folder in missing.get(node, []))
        if without:
            raise ValueError(
                f"{name}: {folder} is not there on {', '.join(without)}, where workers run, too; give a "
                f"folder that all nodes reach, or a URL (s3://...), with --{name.replace('_', '-')}"
            )


def folders_missing(nodes: Sequence[str], folders: Sequence[str]) -> dict[str, list[str]]:
    """Ask nodes, given by their IDs, which of the folders they lack; one that does not answer is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(_missing)
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        asked[node] = ask.options(scheduling_strategy=here).remote(list(folders))
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS)
    found: dict[str, list[str]] = {}
    for node, answer in asked.items():
        with contextlib.suppress(ray.exceptions.RayError):  # a node that was lost meanwhile
            found |= {node: ray.get(answer)} if answer in done else {}
    return found


def _missing(folders: list[str]) -> list[str]:
    return [folder for folder in folders if not Path(folder).is_dir()]


def nodes_there() -> list[tuple[float, float]]:
    """(CPU, GPU) of every node that is alive."""
    import ray

    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in there]
