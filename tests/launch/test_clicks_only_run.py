"""Runs on clicks alone: validated on clicks or not at all; and what becomes of them when labels, images or
classes change."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import fixtures
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from sparseg import launch
from sparseg.common.process import guarded
from sparseg.config import Config, with_overrides
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


def add_images(root: Path) -> None:
    for name in ("photo_91", "photo_92", "photo_93", "photo_94"):
        mask = fixtures.dense_mask(name, 3, 255)
        fixtures.save_image(root / "images" / f"{name}.jpg", mask)
        fixtures.save_label(root / "labels" / f"{name}.png", fixtures.sparse_label(mask, 254))


def add_click(root: Path) -> None:
    """One more labelled pixel on every image."""
    for file in (root / "labels").iterdir():
        label_HW = np.array(Image.open(file))
        label_HW.flat[np.flatnonzero(label_HW == 254)[0]] = 1
        fixtures.save_label(file, label_HW)


def test_an_unfinished_run_goes_on_with_other_labels_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = raw_of(tmp_path)
    config = config_of(tmp_path)
    launch.launch(config)
    shutil.rmtree(config.folder / checkpoint.name_of(2))
    launch.launch(config)
    assert "goes on with other data" not in capsys.readouterr().out
    shutil.rmtree(config.folder / checkpoint.name_of(2))
    add_click(root)
    assert launch.launch(config)["steps"] == 2
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "goes on with other data" in line]
    assert re.match(r"note: .*began with: train labelled pixels (\d+) -> (\d+) \(fingerprint", note)
    assert "--run.fresh trains anew" in note


@pytest.mark.parametrize("steps", [2, None])
def test_a_finished_run_whose_data_changed_is_not_done(
    tmp_path: Path, steps: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With more images a run by epochs would have more steps to make: it was finished all the same."""
    root = raw_of(tmp_path)
    config = config_of(tmp_path, **{"optim.max_steps": steps, "optim.epochs": 1})
    launch.launch(config)
    assert guarded(lambda: launch.finish(config)) == 0
    add_images(root)
    capsys.readouterr()
    assert guarded(lambda: launch.finish(config)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"finished run, .* since: train images 9 -> 1\d, train labelled pixels \d+ -> \d+ \(", line
    )
    assert "--run.fresh" in line and f"--model.start {config.folder} and another --run.name" in line
    assert [path.name for path in config.folder.parent.glob("tiny*")] == ["tiny"]
    dry = with_overrides(config, {"run.fresh": True})
    assert launch.launch(dry)["steps"] == launch.launch(config)["total_steps"]


def test_a_new_round_starts_from_the_network_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = raw_of(tmp_path)
    first = config_of(tmp_path)
    launch.launch(first)
    add_click(root)
    still = {"optim.learning_rate": 1e-12, "optim.weight_decay": 0.0}
    second = with_overrides(first, {"run.name": "second", "model.start": str(first.folder), **still})
    launch.launch(second)
    best = checkpoint.best(first.folder)
    assert best is not None
    assert json.loads((second.folder / "config.json").read_text())["model"]["start"] == str(best)
    before, after = (checkpoint.load_state(path)[0] for path in (best, checkpoint.all_of(second.folder)[0]))
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-6)
    shutil.rmtree(first.folder)
    launch.finish(second)  # what it started from is not asked for again
    assert "is finished already" in capsys.readouterr().out


def test_a_fresh_run_may_start_from_the_network_that_it_moves_aside(tmp_path: Path) -> None:
    raw_of(tmp_path)
    config = config_of(tmp_path)
    launch.launch(config)
    again = with_overrides(config, {"model.start": str(config.folder), "run.fresh": True})
    assert launch.launch(again)["steps"] == 2
    (aside,) = config.folder.parent.glob("tiny.old-*")
    start = json.loads((config.folder / "config.json").read_text())["model"]["start"]
    assert Path(start).parent == aside and Path(start).is_dir()


def test_a_new_round_wants_the_same_classes_and_network(tmp_path: Path) -> None:
    root = raw_of(tmp_path)
    first = config_of(tmp_path)
    launch.launch(first)
    second = {"run.name": "second", "model.start": str(first.folder)}
    cases = {
        "no run": ({"model.start": str(tmp_path)}, "model.start: .*neither a checkpoint"),
        "URL": ({"model.start": "s3://bucket/runs/one"}, "model.start=s3:.* is a URL; copy"),
        "width": ({"model.feature_channels": 16}, r"another kind \(backbone test_efficientnet; \d+ tensors"),
        "backbone": ({"model.backbone": "test_resnet"}, r"another kind \(backbone test_efficientnet; \d+"),
    }
    for changes, message in cases.values():
        with pytest.raises(ValueError, match=message):
            launch.launch(with_overrides(first, {**second, **changes}))
    (root / "classes.txt").write_text("class b\nclass a\nclass c\n")
    with pytest.raises(ValueError, match="are class a, class b, class c, the data's are class b, class a"):
        launch.launch(with_overrides(first, second))
    assert not (first.folder.parent / "second").exists()


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
