"""A checkpoint on a dataset: the numbers of training's own validation, the same by workers, in a table."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from heads import Head

from sparseg import launch
from sparseg.data import shards
from sparseg.evaluation import evaluate, metrics
from sparseg.launch import cluster
from sparseg.runs import checkpoint
from sparseg.train import loop

VAL = [(48, 48), (40, 52), (33, 61), (48, 48), (48, 48), (64, 40)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A checkpoint folder alone, its dataset, and the scores of its last validation."""
    folder = tmp_path_factory.mktemp("trained")
    data = tiny.dataset(folder, val=VAL)
    settings = tiny.config(folder, {"optim.max_steps": 2})
    best = loop.run(settings)
    alone = folder / "elsewhere"
    shutil.copytree(checkpoint.resolve(settings.folder), alone)
    return alone, data, best


def in_pieces(task: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    task = pickle.loads(pickle.dumps(task))
    return [task([batch]) for part in reversed(parts) for batch in part]


def test_scores_are_those_of_the_validation(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    alone, data, best = trained
    found = evaluate.evaluate(alone, data, "val")
    assert found["miou"] == best["miou"] and found["iou"] == best["iou"]
    assert [image["row"] for image in found["images"]] == list(range(len(VAL)))
    assert json.loads(json.dumps(found))["images"][0].keys() >= {"id", "miou", "pixel_accuracy", "confidence"}
    assert 0 < found["calibration_error"] < 1 and 0 <= found["boundary_iou"] <= 1


def test_scores_of_an_image_are_those_of_it_alone(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    alone, data, _ = trained
    [image] = [image for image in evaluate.evaluate(alone, data, "val")["images"] if image["row"] == 2]
    counts, _ = evaluate.evaluate_part(str(alone), str(data), "val", {}, [[2]])
    scored = metrics.scores(counts.confusion_KK, checkpoint.load_model(alone).names)
    assert (image["miou"], image["pixel_accuracy"]) == (scored["miou"], scored["pixel_accuracy"])


def test_workers_give_the_same_numbers_to_the_last_bit(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    alone, data, _ = trained
    views = {"scales": (0.5, 1.0), "flip": True, "window_px": 40}
    assert evaluate.evaluate(alone, data, "val", **views) == evaluate.evaluate(
        alone, data, "val", spread=in_pieces, **views
    )


@pytest.mark.slow
def test_ray_workers_give_the_same_numbers_and_errors(
    trained: tuple[Path, Path, dict[str, Any]], ray_head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    alone, data, _ = trained
    monkeypatch.setattr(evaluate, "PART_BATCHES", 1)
    expected = evaluate.evaluate(alone, data, "val")
    try:
        for workers in (1, 2):
            found = evaluate.evaluate(
                alone, data, "val", spread=lambda task, parts, n=workers: launch.spread(task, parts, n)
            )
            assert found == expected
        assert list(launch.spread(str, [1, 2, 3], 1)) == ["1", "2", "3"]
        with pytest.raises(ValueError, match="invalid literal for int"):
            list(launch.spread(int, ["1", "x"], 2))
        with pytest.raises(ValueError, match="--workers 500 need a CPU each, the cluster has CPU"):
            launch.spread(int, ["1"], 500)
        assert list(launch.spread(int, [], 500)) == []
    finally:
        ray.shutdown()


def test_table_names_every_class(
    trained: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    alone, data, _ = trained
    found = evaluate.evaluate(alone, data, "val")
    evaluate.show(found)
    shown = capsys.readouterr().out
    for name in found["iou"]:
        assert name in shown
    assert f"mIoU                     {100 * found['miou']:.1f} %" in shown and "calibration error" in shown
    assert "in training" not in shown


def test_what_does_not_go_together_is_refused(
    trained: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    alone, data, _ = trained
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        evaluate.evaluate(alone, data, "test")
    rows = {"val": lambda: tiny.rows(VAL, 500, dense=True)}
    shards.write(tmp_path / "other", rows, ["a", "b", "c"])
    with pytest.raises(ValueError, match="has classes"):
        evaluate.evaluate(alone, tmp_path / "other", "val")


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "free", "each"),
    [
        ([(8, 0)], 2, 0, 8, 4),
        ([(8, 0)], 1, 0, 7, 7),  # a job's entry point holds one
        ([(8, 0)], 2, 0, 0, 4),  # all are held: it waits for them
        ([(8, 0), (2, 0)], 2, 0, 10, 4),
        ([(4, 1), (64, 0)], 1, 1, 68, 4),
        ([(4, 2), (64, 0)], 2, 1, 68, 2),
        ([(2, 0)], 2, 0, 2, 1),
    ],
)
def test_all_workers_fit_at_once(
    nodes: list[tuple[float, float]], workers: int, gpus: float, free: float, each: int
) -> None:
    assert cluster.cpus_each(nodes, workers, gpus, free) == each


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "message"),
    [
        ([(2, 0)], 3, 0, "--workers 3 need a CPU each, the cluster has CPU 2, GPU 0"),
        ([(4, 1), (64, 0)], 2, 1, "--workers 2 need a CPU and 1 GPU each, the cluster has CPU 68, GPU 1"),
    ],
)
def test_workers_that_can_never_fit_are_refused(
    nodes: list[tuple[float, float]], workers: int, gpus: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cluster.cpus_each(nodes, workers, gpus, 100)


def test_sparse_labels_alone_are_refused(trained: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    from sparseg.config import UNLABELLED

    def rows() -> Any:
        for row in tiny.rows([(48, 48)], 0, dense=True):
            yield {**row, "label": np.full((48, 48), UNLABELLED, np.uint8), "mask": None}

    shards.write(tmp_path / "none", {"val": rows}, list(trained[2]["iou"]))
    with pytest.raises(ValueError, match="no pixel of split 'val' has a class"):
        evaluate.evaluate(trained[0], tmp_path / "none", "val")


def test_a_loaded_network_scores_as_its_folder_does(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    alone, data, _ = trained
    by_folder = evaluate.evaluate(alone, data)
    loaded = checkpoint.load_model(alone)
    by_network = evaluate.evaluate(loaded, shards.open(data))
    assert by_network.pop("checkpoint") == "the given network"
    assert {**by_network, "checkpoint": by_folder["checkpoint"]} == by_folder
    with pytest.raises(ValueError, match="give its folder"):
        evaluate.evaluate(loaded, data, spread=map)
