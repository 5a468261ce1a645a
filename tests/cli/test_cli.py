"""The `sparseg` command: what a user types, in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from commands import run

from sparseg import train
from sparseg.runs import checkpoint


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_evaluate_export_and_report_of_a_trained_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"optim.max_steps": 2})
    best = train.run(settings)
    assert run(f"evaluate {settings.folder} {data} --json {tmp_path}/scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (
        scores["miou"] == pytest.approx(best["miou"], abs=1e-6) and scores["iou"].keys() == best["iou"].keys()
    )
    assert run(f"export {settings.folder} {tmp_path}/model.safetensors") == 0
    exported = (tmp_path / "model.safetensors").read_bytes()
    assert exported == (checkpoint.resolve(settings.folder) / "model.safetensors").read_bytes()
    assert run(f"export {settings.folder} {tmp_path}/model.safetensors") == 2
    assert run(f"report {settings.folder} --html {tmp_path}/page.html") == 0
    assert "tiny" in (tmp_path / "page.html").read_text()
    assert run(f"evaluate {settings.folder} {data} --split test") == 2
    assert "no split 'test'; it has train, val" in capsys.readouterr().err


def test_sparsified_dataset_can_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.dataset(tmp_path)
    assert run(f"sparsify {data} {tmp_path}/few --kind point --budget 2") == 0
    capsys.readouterr()
    assert run(f"inspect {tmp_path}/few") == 0
    train_line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train"))
    assert train_line.split()[1] == "8" and "0.0868 %" in train_line  # 2 of 48 x 48 pixels


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "COMMAND"),
        ("import vok a b", "vok"),
        ("import voc nowhere out", "nowhere"),
        ("evaluate nowhere data", "nowhere"),
        ("predict nowhere images out", "images: no such image"),
        ("inspect nowhere", "nowhere"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(words: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and named in error[0]


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    code = (
        "from sparseg.common import process\n"
        "def much():\n"
        "    for number in range(100_000): print(number)\n"
        "raise SystemExit(process.guarded(much))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1
