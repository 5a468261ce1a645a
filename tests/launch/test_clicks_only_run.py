"""Runs on clicks alone: validated on clicks or not at all, and gone on with when classes or data changed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fixtures
import numpy as np
import pytest
import tiny
from PIL import Image

from sparseg import launch
from sparseg.config import Config
from sparseg.data import importers, shards
from sparseg.evaluation.evaluate import evaluate, show
from sparseg.reports import evaluation_section, run_page
from sparseg.runs import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def raw_of(tmp_path: Path, count: int = 10) -> Path:
    return fixtures.folder(tmp_path / "raw", masks=False, unlabelled=254, count=count)


def config_of(tmp_path: Path, **overrides: Any) -> Config:
    fields = {"data.root": str(tmp_path / "raw"), "run.checkpoint_every": 1, "optim.max_steps": 2}
    return tiny.config(tmp_path, {**fields, **overrides})


def test_a_run_is_validated_on_clicks_and_says_so_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_of(tmp_path)
    config = config_of(tmp_path)
    launch.finish(config)
    printed = capsys.readouterr().out
    (dataset,) = (tmp_path / "runs" / "datasets").iterdir()
    labels = [shards.decode_label(row["label"]["bytes"]) for row in shards.open(dataset).splits["val"]]
    pixels = sum(int((label_HW < 3).sum()) for label_HW in labels)
    done = next(line for line in printed.splitlines() if line.startswith("done: best val mIoU"))
    assert f"on {pixels} labelled pixels at step" in done
    assert f" on {pixels} labelled pixels | best so far" in printed
    assert "note: no dense masks: val is scored on the labelled pixels" in printed
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["pixels"] for line in lines if line["kind"] == "val"] == [pixels]

    found = evaluate(config.folder, dataset)
    assert found["labels"] == "sparse" and found["pixels"] == pixels == int(np.sum(found["confusion"]))
    assert found["boundary_iou"] is found["calibration_error"] is found["calibration"] is None
    assert set(found["boundary_iou_per_class"].values()) == {None}
    capsys.readouterr()
    show(found)
    table = capsys.readouterr().out
    assert f"on {pixels} labelled pixels" in table
    assert [
        line for line in table.splitlines() if line.startswith("calibration error") and line.endswith(" -")
    ]

    sheets = evaluation_section.sheets_of(config.folder, dataset, found, count=1, train_split="train")
    assert (
        len({Image.open(io.BytesIO(png)).size for png in sheets.values()}) == 1
    )  # dots on all: no truth, wrong
    run_page.write_report([config.folder, config.folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count(f"best val mIoU on {pixels} labelled pixels, %") == 2
    assert page.count(f"</b> on {pixels} labelled pixels</td>") == 1  # the table over seeds


def test_without_validation_the_last_checkpoint_is_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_of(tmp_path)
    config = config_of(tmp_path, **{"data.val_split": "none"})
    launch.finish(config)
    printed = capsys.readouterr().out
    assert "done: trained to step 2 without validation" in printed and "val mIoU" not in printed
    best = checkpoint.best(config.folder)
    assert best is not None and best.name == checkpoint.name_of(2)
    assert json.loads((config.folder / "iou.json").read_text())["miou"] is None
    launch.finish(config)
    assert "is finished already" in capsys.readouterr().out


def test_a_run_does_not_go_on_with_other_classes(tmp_path: Path) -> None:
    root = raw_of(tmp_path)
    launch.launch(config_of(tmp_path))
    (root / "classes.txt").write_text("class b\nclass a\nclass c\n")
    message = (
        r"classes are class a, class b, class c, the data's are class b, class a, class c; .*--run\.fresh"
    )
    with pytest.raises(ValueError, match=message):
        launch.launch(config_of(tmp_path))
    assert launch.launch(config_of(tmp_path, **{"run.fresh": True}))["steps"] == 2


def test_other_data_of_the_same_classes_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = raw_of(tmp_path)
    launch.launch(config_of(tmp_path))
    launch.launch(config_of(tmp_path))
    assert "goes on with other data" not in capsys.readouterr().out
    for name in ("photo_91", "photo_92"):
        mask = fixtures.dense_mask(name, 3, 255)
        fixtures.save_image(root / "images" / f"{name}.jpg", mask)
        fixtures.save_label(root / "labels" / f"{name}.png", fixtures.sparse_label(mask, 254))
    launch.launch(config_of(tmp_path))
    printed = capsys.readouterr().out
    assert "note: the run goes on with other data than it began with: train rows 9 -> " in printed


def test_an_import_without_a_label_is_refused_by_a_trainer(tmp_path: Path) -> None:
    root = raw_of(tmp_path)
    for file in (root / "labels").iterdir():
        fixtures.save_label(file, np.full((fixtures.HEIGHT, fixtures.WIDTH), 254))
    with pytest.raises(ValueError, match="has a labelled pixel, so nothing can be learnt"):
        launch.launch(config_of(tmp_path))


def test_a_dataset_without_a_label_is_refused_by_a_trainer(tmp_path: Path) -> None:
    fixtures.folder(tmp_path / "raw", unlabelled=254)
    out = tmp_path / "imported"
    importers.import_dataset("folder", tmp_path / "raw", out, workers=0)
    manifest = out / "sparseg.json"
    told = json.loads(manifest.read_text())
    counts = told["report"]["splits"]["train"]
    counts["rows_without_label"] = counts["rows"]
    manifest.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="has a labelled pixel, so nothing can be learnt"):
        launch.launch(config_of(tmp_path, **{"data.root": str(out)}))


def test_training_never_reads_the_pool(tmp_path: Path) -> None:
    root = raw_of(tmp_path)
    for name in ("photo_02", "photo_03"):
        (root / "labels" / f"{name}.png").unlink()
    config = config_of(tmp_path, **{"data.unannotated": "keep"})
    launch.launch(config)
    (dataset,) = (tmp_path / "runs" / "datasets").iterdir()
    opened = shards.open(dataset)
    assert list(opened.splits["pool"]["id"]) == ["photo_02", "photo_03"]
    told = json.loads((config.folder / "environment.json").read_text())
    assert told["labels"]["images"] == len(opened.splits["train"]) == 8 - len(opened.splits["val"])
    assert "pool" in importers.format_report(importers.inspected(opened))
