"""An elastic run loses a node and gets it back: its step losses are those of a run of fixed size.

    PYTHONPATH=platform python tests/chaos/elastic.py

Two nodes of one CPU, --resources.workers 2 --resources.min-workers 1.  One node is killed, the run goes on
with one worker; a node comes, the run goes on with two.  Each step's loss is compared with that of two
workers whom nobody disturbed: 1e-5 relative at most, or exit code 1.  The rate is low: rounding differs
between one worker and two, and training amplifies it (with 1e-4 it passes 1e-5 after 140 steps).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import tiny
from driving import FAST, MARK, Driver, newest_step, wait_until

from sparseg import config


def settings_of(work: Path, name: str, steps: int, least: int) -> config.Config:
    return tiny.config(
        work,
        {
            "run.name": name,
            "resources.workers": 2,
            "resources.min_workers": least,
            "resources.resize_seconds": 5.0,
            "resources.max_failures": 10,
            "optim.max_steps": steps,
            "optim.epochs": steps,
            "optim.learning_rate": 1e-5,
            "run.validate_every": 1000.0,
            "run.checkpoint_every": 10,
        },
    )


def world_of(settings: config.Config) -> int:
    """Workers of the run's newest start."""
    try:
        return int(json.loads((settings.folder / "environment.json").read_text())["workers"])
    except (OSError, ValueError):
        return 0


def lines_of(settings: config.Config) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def must(condition: bool, what: str, driver: Driver) -> None:
    if not condition:
        raise SystemExit(f"never happened: {what}\n{driver.output}")
    print(what, flush=True)


def main() -> None:
    """Both runs and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    os.environ.update(FAST | MARK)
    from ray.cluster_utils import Cluster

    work = Path(tempfile.mkdtemp(prefix="sparseg-elastic-"))
    tiny.dataset(work)
    fixed = settings_of(work, "fixed", options.steps, 2)
    elastic = settings_of(work, "elastic", options.steps, 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    driver = Driver(elastic, Path(elastic.run.storage), cluster.address)
    try:
        must(wait_until(lambda: newest_step(elastic) >= 20, 120), "20 steps with 2 workers", driver)
        cluster.remove_node(nodes[1], allow_graceful=False)
        must(wait_until(lambda: world_of(elastic) == 1, 180), "a node is gone: 1 worker", driver)
        driver.goes_on(30, 120)
        print(f"a node comes after step {newest_step(elastic)}")
        cluster.add_node(num_cpus=1)
        must(wait_until(lambda: world_of(elastic) == 2, 180), "2 workers again", driver)
        must(driver.process.wait(600) == 0, "the run ended", driver)
        undisturbed = Driver(fixed, Path(fixed.run.storage), cluster.address)
        must(undisturbed.process.wait(600) == 0, "the run with 2 workers ended", undisturbed)
    finally:
        driver.process.kill()
        cluster.shutdown()
    found, expected = lines_of(elastic), lines_of(fixed)
    steps = [line["step"] for line in found]
    totals = zip((line["total"] for line in found), (line["total"] for line in expected), strict=True)
    worst = max(abs(one - other) / abs(other) for one, other in totals)
    same = steps == [line["step"] for line in expected] == list(range(1, options.steps + 1))
    print(f"steps {'1 to ' + str(options.steps) + ', once each' if same else steps}; ", end="")
    print(f"largest relative difference of a step's loss {worst:.1e}")
    raise SystemExit(not same or worst > 1e-5)


if __name__ == "__main__":
    main()
