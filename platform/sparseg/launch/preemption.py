"""Nodes of a run that will be taken away."""

from __future__ import annotations

import time


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
