"""A run on an empty cluster whose autoscaler starts nodes: Ray's fake provider behind cluster/aws.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from driving import Driver, wait_until
from heads import free_port, head, this_host
from ray.util.state import list_nodes

pytestmark = pytest.mark.slow

HEAD_ID = "f" * 51 + "00000"  # the fake provider knows its head by this id, and by the name of its type
FAKE = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def on_this_machine(launcher: dict[str, Any], gcs: str, idle_minutes: float) -> dict[str, Any]:
    """The launcher file's head, node types and limits; every worker node is a raylet with one CPU here."""
    kinds = {
        ("ray.head.default" if name == launcher["head_node_type"] else name): kind
        for name, kind in launcher["available_node_types"].items()
    }
    nodes = {
        name: {
            "resources": {"CPU": 0 if name == "ray.head.default" else 1},
            "node_config": {},
            "min_workers": kind.get("min_workers", 0),
            "max_workers": kind.get("max_workers", 0),
        }
        for name, kind in kinds.items()
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    unused = [
        *(f"{name}_commands" for name in commands),
        "cluster_synced_files",
        "rsync_exclude",
        "rsync_filter",
    ]
    return {
        **{name: [] for name in unused},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "file_mounts_sync_continuously": False,
        "cluster_name": launcher["cluster_name"],
        "max_workers": launcher["max_workers"],
        "idle_timeout_minutes": idle_minutes,
        "head_node_type": "ray.head.default",
        "available_node_types": nodes,
        "provider": {
            "type": "external",  # Ray's wheel lacks the defaults of "fake_multinode"
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": HEAD_ID,
            "gcs_address": gcs,
            "disable_node_updaters": True,
        },
    }


def test_nodes_start_for_a_run_and_end_when_idle(tmp_path: Path, fast_ray: None) -> None:
    tiny.dataset(tmp_path)
    launcher = yaml.safe_load((tiny.ROOT / "cluster" / "aws.yaml").read_text())
    port = free_port()
    file = tmp_path / "fake.yaml"
    file.write_text(yaml.safe_dump(on_this_machine(launcher, f"{this_host()}:{port}", idle_minutes=0.2)))
    words = ("--num-cpus", "0", "--autoscaling-config", str(file))
    with head(tmp_path / "head.log", *words, gcs_port=port, environment=FAKE) as found:

        def alive() -> int:
            return len([node for node in list_nodes(found.dashboard) if node.state == "ALIVE"])

        assert wait_until(lambda: alive() == 1, 100, pause_s=1), list_nodes(found.dashboard)
        wants = {"resources.workers": 2, "resources.gpus_per_worker": 0.0, "resources.wait_seconds": 300.0}
        run = Driver(tiny.config(tmp_path, wants), tmp_path, found.address)
        run.says("waiting up to 300 s for nodes: 2 workers of 1 CPU and 0 GPU each, the cluster has CPU 0")
        run.says("step 1/6")
        assert alive() == 3
        assert run.code() == 0, run.output
        assert wait_until(lambda: alive() == 1, 200, pause_s=1), "idle nodes never ended"
