"""The `sparseg` command: what a user types, in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from commands import run

import sparseg
from sparseg.cli import training
from sparseg.runs import checkpoint
from sparseg.train import loop


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_evaluate_export_and_report_of_a_trained_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"optim.max_steps": 2})
    best = loop.run(settings)
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


# ------------------------------------------------------------------------------------------- train and sweep

OWN = '''"""My recipe."""
from pathlib import Path
import tiny
def recipe():
    return tiny.config(Path(__file__).parent, {"optim.max_steps": 2})
'''


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sparseg {sparseg.__version__}\n"


@pytest.mark.parametrize("words", ["train", "train --help"])
def test_train_alone_lists_the_recipes(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    listed = [
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")
    ]
    assert [name for name, _ in listed] == [name for name in tiny.TRAINERS if name != "sweep"]
    assert all(len(text) <= 106 and text.endswith((".", "`.")) for _, text in listed)


def test_the_command_lists_train_and_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert training.TRAIN_HELP[:30] in printed and training.SWEEP_HELP[:30] in printed


def test_help_of_a_recipe_is_the_trainers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train voc --help") == 0
    printed = capsys.readouterr().out
    assert "usage: sparseg train voc" in printed and "--data.root" in printed
    assert "sparseg train voc --data.root VOC2012" in printed and "python trainers" not in printed


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_train_runs_a_file_with_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.dataset(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert run(f"train {tmp_path}/own.py --run.name mine") == 0
    assert (tmp_path / "runs" / "mine" / "best").is_file()
    assert "done: best val mIoU" in capsys.readouterr().out
    assert run(f"train {tmp_path}/own.py --run.name mine --optim.lerning-rate 1") == 2
    assert "--optim.learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train vok", "vok: no such recipe; give one of camvid, camvid_small, cityscapes, demo, folder, voc"),
        ("train sweep", "sweep: no such recipe"),
        ("train nowhere.py", "nowhere.py: no such file"),
        ("train --data.root here voc", "--data.root: the recipe comes first"),
        ("train {}/empty.py", "has no function recipe()"),
        ("train {}/dict.py", "recipe() must return a sparseg.Config, got dict"),
        ("train {}/broken.py", "cannot be loaded (ZeroDivisionError"),
        ("sweep --trainer vok --space mixture", "--trainer vok: no such trainer"),
        ("sweep --trainer voc --space mixtur", "--space mixtur: no such space; give one of joint, "),
        ("sweep --trainer {}/dict.py --space mixture", "recipe() must return a sparseg.Config"),
    ],
)
def test_wrong_use_of_train_and_sweep(
    words: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"empty": "", "dict": "def recipe(): return {}", "broken": "1 / 0"}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    assert run(words.format(tmp_path)) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and named in error[0]


def test_sweep_takes_a_space_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(f"sweep --trainer camvid --space mixture --dry-run --loss.method agmm --run.storage {tmp_path}")
        == 0
    )
    printed = capsys.readouterr().out
    assert '"space loss.bandwidth"' in printed and f"in {tmp_path}/camvid-mixture" in printed


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_a_report_of_a_folder_shows_the_runs_in_it(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    for name in ("one", "two"):
        loop.run(tiny.config(tmp_path, {"run.name": name, "optim.max_steps": 1}))
    assert run(f"report {tmp_path}/runs --html {tmp_path}/page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Comparison</h2>" in page and "one" in page and "two" in page
