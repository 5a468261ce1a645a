"""Folders that another node lacks are told before its workers look for them; Ray itself is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import ray

from sparseg.config import Config, with_overrides
from sparseg.launch import cluster


def node(name: str, *, cpus: float = 4.0, alive: bool = True) -> dict[str, object]:
    return {"NodeID": name, "NodeManagerHostname": f"host-{name}", "Alive": alive, "Resources": {"CPU": cpus}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[str]]]:
    """Nodes a (the driver's), b, and c, which lacks everything; d holds no workers, e is gone."""
    calls: list[tuple[list[str], list[str]]] = []

    def missing(nodes: Sequence[str], folders: Sequence[str]) -> dict[str, list[str]]:
        calls.append((list(nodes), list(folders)))
        return {"a": [], "b": [], "c": list(folders)}

    monkeypatch.setattr(cluster, "folders_missing", missing)
    nodes = [node("a"), node("b"), node("c"), node("d", cpus=0.0), node("e", alive=False)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    return calls


def run(storage: str) -> Config:
    return with_overrides(Config(), {"run.storage": storage, "run.name": "r"})


def test_a_dataset_that_a_node_lacks_is_refused_with_the_node(
    asked: list[tuple[list[str], list[str]]],
) -> None:
    with pytest.raises(
        ValueError, match=r"data\.root: /data/voc is not there on host-c, .* with --data\.root"
    ):
        cluster.refuse_unseen(run("/mnt/runs"), Path("/data/voc"))
    assert asked == [(["a", "b", "c"], ["/data/voc", "/mnt/runs/r"])]


def test_a_run_folder_that_a_node_lacks_is_refused_and_urls_are_not_looked_for(
    asked: list[tuple[list[str], list[str]]],
) -> None:
    with pytest.raises(ValueError, match=r"run\.storage: /mnt/runs/r is not there on host-c"):
        cluster.refuse_unseen(run("/mnt/runs"), "s3://bucket/voc")
    cluster.refuse_unseen(run("s3://bucket/runs"), "s3://bucket/voc")
    assert len(asked) == 1


def test_one_node_alone_is_not_asked(
    asked: list[tuple[list[str], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node("a"), node("e", alive=False)])
    cluster.refuse_unseen(run("/mnt/runs"), "/data/voc")
    assert asked == []


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    assert cluster._missing([str(tmp_path), str(tmp_path / "no")]) == [str(tmp_path / "no")]
