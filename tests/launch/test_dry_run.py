"""--dry-run says what the run would do: the batches of the loader, then the configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from sparseg import config
from sparseg.data import loader, shards
from sparseg.data.node_shards import Node
from sparseg.launch import dry_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data/, eight training images."""
    folder = tmp_path_factory.mktemp("dry_run")
    tiny.dataset(folder)
    return folder


@pytest.fixture
def plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[str], str]]:
    """Overrides -> the seven lines, and the text after them."""

    def lines_of(overrides: dict[str, Any]) -> tuple[list[str], str]:
        dry_run.print_plan(tiny.config(folder, overrides))
        printed = capsys.readouterr().out  # the first line is the import's
        *lines, text = printed[printed.index("dataset  ") :].split("\n", 7)
        return lines, text

    return lines_of


def test_seven_lines_come_before_the_configuration(folder: Path, plan: Any) -> None:
    lines, text = plan({"optim.max_steps": 5})
    assert lines[0] == f"dataset      {folder / 'data'}"
    assert lines[1] == "splits       train 8, val 3 images"
    assert lines[2] == "classes      3: ground, red, green"
    assert lines[3].startswith(
        "batch        4 images: 4 at once; a pass of worker 0: image (4, 3, 32, 32) uint8"
    )
    assert lines[4].startswith("labels       ")
    assert lines[5].startswith("parameters   ") and lines[5].endswith(" M")
    assert lines[6] == "steps        5 (2.50 epochs)"
    assert config.from_dict(json.loads(text)) == tiny.config(folder, {"optim.max_steps": 5})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"resources.workers": 2}, "4 images: 2 on each of 2 workers; a pass"),
        ({"resources.workers": 3, "optim.batch_size": 8}, "2 on worker 0, 3 on worker 1, 3 on worker 2; a"),
        ({"optim.accumulate": 2}, "4 images: 2+2, in 2 passes; a pass of worker 0: image (2, 3, 32, 32)"),
        (
            {"optim.accumulate": 3, "optim.batch_size": 8, "resources.workers": 2},
            "8 images: 1+1+1 on worker 0, 1+2+2 on worker 1, in 3 passes; a pass of worker 0: image (1,",
        ),
        ({"data.sharding": "node"}, "; each node's from its own shards; a pass"),
    ],
)
def test_the_batch_is_told_of_every_worker_and_pass(plan: Any, overrides: dict[str, Any], words: str) -> None:
    assert words in plan(overrides)[0][3]


@pytest.mark.parametrize(("workers", "accumulate", "batch_size"), [(1, 1, 4), (3, 2, 7), (2, 3, 8)])
def test_the_keys_are_those_of_the_loaders_batches(
    folder: Path, workers: int, accumulate: int, batch_size: int
) -> None:
    sizes = {"optim.accumulate": accumulate, "optim.batch_size": batch_size, "resources.workers": workers}
    run = tiny.config(folder, sizes)
    keys = dry_run.first_step_keys(run, 8)
    data = shards.open(folder / "data")
    for rank in range(workers):
        batches = loader.training_batches(
            data, run, rank=rank, world=workers, first_step=0, last_step=1, node=Node(0, 1, rank, workers)
        )
        assert [batch.rows for batch in batches] == [tuple(row for _, row in part) for part in keys[rank]]
    assert sum(len(part) for passes in keys for part in passes) == batch_size


WHOLE = {"data.crop_px": 48, "data.scale_min": 1.0, "data.scale_max": 1.0}
"""Crops as large as the images, not resized."""


def test_labelled_pixels_are_those_of_the_runs_first_crops(folder: Path, plan: Any) -> None:
    """Four images have 12 labelled pixels, four 18, and 32 crops are four epochs."""
    words = "12 to 18 labelled pixels a crop, median 15; 0% of 32 crops hold none"
    for batch_size in (1, 8):
        assert plan({**WHOLE, "optim.batch_size": batch_size})[0][4] == f"labels       {words}"


def test_crops_without_labels_are_counted_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.dataset(tmp_path, train=((400, 400),) * 4, val=((48, 48),))
    small = {"data.scale_min": 1.0, "data.scale_max": 1.0, "loss.method": "ce"}

    def said(**changes: str) -> str:
        dry_run.print_plan(tiny.config(tmp_path, {**small, **changes}))
        return capsys.readouterr().out

    random = said()
    opened = shards.open(tmp_path / "data")
    labelled = dry_run.labelled_pixels(tiny.config(tmp_path, small), opened)
    bare = sum(labelled == 0) / 32
    assert 0.5 < bare < 1
    assert (
        f"median 0; {bare:.0%} of 32 crops hold none\nnote: such crops teach nothing; set --data." in random
    )
    assert "note:" not in said(**{"loss.method": "ce+absent"})  # they teach what is absent
    chosen = said(**{"data.crop_choice": "labelled"})
    assert "; 0% of 32 crops hold none\nparameters" in chosen


def test_an_earlier_run_stays_in_place(folder: Path, tmp_path: Path, plan: Any) -> None:
    storage = tmp_path / "runs"
    (storage / "tiny").mkdir(parents=True)
    (storage / "tiny" / "metrics.jsonl").touch()
    plan({"run.storage": str(storage), "run.fresh": True})
    assert [path.name for path in storage.rglob("*")] == ["tiny", "metrics.jsonl"]
