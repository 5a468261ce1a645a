"""Wrong input to a trainer: exit code 2 and one line on stderr that names it, before anything trains."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fixtures
import numpy as np
import pytest
import tiny
from PIL import Image

from sparseg import launch
from sparseg.data import shards

TRAINER = tiny.ROOT / "trainers" / "folder.py"


def flags_for(root: Path, extra: str = "") -> list[str]:
    words = f"--data.root {root} --run.storage {root.parent}/runs --resources.workers 0 --data.crop-px 32"
    words += " --model.aspp-dilations 1"
    words += " --model.backbone test_efficientnet --model.feature-channels 8 --data.loader-processes 0"
    words += " --optim.batch-size 4 --optim.max-steps 1 --run.no-tensorboard"
    return [*words.split(), *extra.split()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images 32x24, labels with 255 = unlabelled, dense masks."""
    return fixtures.folder(tmp_path / "photos", splits=True)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    fixtures.save_label(path, change(np.asarray(Image.open(path)).copy()))


def remove_label(root: Path) -> None:
    (root / "labels" / "train" / "photo_03.png").unlink()


def enlarge_label(root: Path) -> None:
    edit(
        root / "labels" / "train" / "photo_03.png", lambda label: np.pad(label, ((0, 5), (0, 7)), mode="edge")
    )


def foreign_value(root: Path) -> None:
    def change(label: np.ndarray) -> np.ndarray:
        label[5, 5] = 77
        return label

    edit(root / "labels" / "train" / "photo_03.png", change)


def truncate_image(root: Path) -> None:
    file = root / "images" / "train" / "photo_03.jpg"
    file.write_bytes(file.read_bytes()[:300])


def nothing(root: Path) -> None:
    pass


CASES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no root": (nothing, "--data.root=", r"data\.root is not set.*--data\.root"),
    "missing root": (nothing, "--data.root /nowhere/data", r"/nowhere/data.*--data\.root"),
    "image without label": (remove_label, "", r"photo_03"),
    "label larger than its image": (enlarge_label, "", r"photo_03\.png.*39x29.*32x24"),
    "neither class nor code": (foreign_value, "", r"77.*photo_03\.png|photo_03\.png.*77"),
    "class count": (nothing, "--data.num-classes 5", r"3 classes.*num_classes=5|num_classes=5.*3"),
    "truncated image": (truncate_image, "", r"photo_03\.jpg.*truncated.*--data\.skip-bad"),
    "unknown flag": (nothing, "--optim.epoch 3", r"--optim\.epoch"),
    "unknown choice": (nothing, "--loss.method agnn", r"agnn.*--loss\.method"),
    "unknown split": (nothing, "--data.val-split holdout", r"holdout.*train"),
    "unknown backbone": (nothing, "--model.backbone resnet5", r"model\.backbone.*resnet5"),
    "missing weights": (nothing, "--model.weights /nowhere/w.pth", r"model\.weights.*/nowhere/w\.pth"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_and_exit_code_2(
    root: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, extra, named = CASES[case]
    damage(root)
    monkeypatch.delenv("SPARSEG_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        launch.main(tiny.trainer("folder").recipe(), description="", args=flags_for(root, extra))
    err = capsys.readouterr().err
    assert (stop.value.code, len(err.splitlines())) == (2, 1), err
    assert re.match(f"error: .*({named})", err), err
    assert "Traceback" not in err
    assert not (root.parent / "runs" / "folder").exists()
    imported = [p for p in root.parent.glob("runs/datasets/*") if not p.name.startswith(".")]
    assert len(imported) <= 1 and all(shards.open(p) for p in imported)  # whole or absent


@pytest.mark.slow
def test_the_real_command_says_it_in_one_line(root: Path) -> None:
    truncate_image(root)
    command = [sys.executable, str(TRAINER), *flags_for(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "photo_03.jpg" in done.stderr and "--data.skip-bad" in done.stderr


def test_skip_bad_counts_and_lists_what_it_leaves_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate_image(root)
    launched = flags_for(root, "--data.skip-bad --dry-run")
    with pytest.raises(SystemExit) as stop:
        launch.main(tiny.trainer("folder").recipe(), description="", args=launched)
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert re.search(r"1 .*(refused|bad|left out)|(refused|bad|left out)\D*1\b", out), out
    [dataset] = [p for p in root.parent.glob("runs/datasets/*") if not p.name.startswith(".")]
    opened = shards.open(dataset)
    assert len(opened.splits["train"]) == 7
    [refused] = opened.report["refused"]
    assert (refused["id"], refused["split"]) == ("photo_03", "train") and "photo_03.jpg" in refused["reason"]


def test_wrong_input_moves_no_earlier_run_aside(root: Path) -> None:
    run = root.parent / "runs" / "folder"
    run.mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        launch.main(
            tiny.trainer("folder").recipe(),
            description="",
            args=flags_for(root, "--run.fresh --data.num-classes 5"),
        )
    assert stop.value.code == 2
    assert run.is_dir() and list(run.parent.glob("folder.old*")) == []


def test_a_right_input_trains(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that none of the above fails for another reason."""
    with pytest.raises(SystemExit) as stop:
        launch.main(tiny.trainer("folder").recipe(), description="", args=flags_for(root))
    assert stop.value.code == 0, capsys.readouterr().err
    assert (root.parent / "runs" / "folder" / "best").is_file()
