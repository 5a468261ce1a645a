"""Each command ends with the next one, which runs as it is printed; what came out is named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import run
from PIL import Image

from sparseg import cli, launch
from sparseg.config import UNLABELLED
from sparseg.data import shards
from sparseg.evaluation import evaluate
from sparseg.inference import predict
from sparseg.reports import gallery_page
from sparseg.train import loop

SMALL = "--model.backbone test_efficientnet --data.crop-px 32 --model.aspp-dilations 1"
pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def photos(folder: Path) -> Path:
    """Write three small photographs in two folders."""
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        file = folder / "my photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tiny.picture(number, (48, 64))[0])
    return folder / "my photos"


def the_line(text: str, start: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(start)]
    assert len(lines) == 1, text
    return lines[0].removeprefix(start)


def test_after_a_run_comes_the_prediction_and_it_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.dataset(tmp_path)
    config = tiny.config(tmp_path, {"optim.max_steps": 2, "run.storage": str(tmp_path / "my runs")})
    launch.finish(config)
    words = shlex.split(the_line(capsys.readouterr().out, "next: sparseg "))
    assert words[:3] == ["predict", str(config.folder), "photos/*.jpg"]
    photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    words[2] = "my photos/*/*.png"
    for again in (False, True):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
        told = capsys.readouterr().err
        assert the_line(told, "see ") == (
            "masks/predictions.csv: how sure each image is, cover of each class; "
            "masks/index.html: 3 of 3 images, least sure first"
        )
        assert ("3 of 3 images are there already" in told) == again
        page = Path("masks/index.html").read_text()
        assert all(f'data-name="{name}.png"' in page for name in ("a/1", "a/2", "b/1"))
        Path("masks/index.html").unlink()
    assert Path("masks/b/1_overlay.jpg").is_file()
    assert run("predict my*runs/tiny x y") == 2 and not list(Path("masks").glob("*.html"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--gallery-images 5", "--gallery-images 5 needs --html FILE"),
        ("--html page.html --gallery-images 0", "--gallery-images must be at least 1, got 0"),
        ("--html out/predictions.csv", "--html out/predictions.csv: a page's name ends in .html"),
        ("--html a.txt/page.html", "--html a.txt/page.html: lies below a file"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_predicted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").touch()
    monkeypatch.setattr(predict, "predict_folder", lambda *args, **options: pytest.fail("it predicted"))
    assert run(f"predict run images out {flags}") == 2
    assert message in capsys.readouterr().err


def test_without_a_page_predict_says_how_to_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"unsure": "0.1"}
    done = predict.Predictions(tmp_path, [row], 1, ["a"], [(0, 0, 0)])
    monkeypatch.setattr(predict, "predict_folder", lambda *args, **options: done)
    assert run(f"predict run images {tmp_path}") == 1
    told = capsys.readouterr().err
    assert the_line(told, "see ").endswith(f"a page shows them with --html {tmp_path}/index.html")
    assert "1 images have no mask" in told


def test_a_page_whose_making_is_stopped_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> str:
        raise KeyboardInterrupt

    done = predict.Predictions(tmp_path, [{"unsure": "0.1"}], 0, ["a"], [(0, 0, 0)])
    monkeypatch.setattr(predict, "predict_folder", lambda *args, **options: done)
    monkeypatch.setattr(gallery_page, "html_of", stopped)
    (tmp_path / "index.html").write_text("before")
    assert run(f"predict run images {tmp_path} --html {tmp_path}/index.html") == 130
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("index.html", "before")]


def raw_folder(root: Path) -> Path:
    """A raw data set: four images, sparse labels and dense masks of two classes."""
    for part in ("images", "labels", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(4):
        image, label, mask = tiny.picture(number, (48, 48))
        (root / "images" / f"{number}.png").write_bytes(image)
        Image.fromarray(np.where(label > 2, UNLABELLED, label)).save(root / "labels" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(tiny.NAMES))
    return root


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", ""),
        ("--label clicks --random-pixels 3", ""),
        ("--label full", " --data.label full"),
        ("--label scribble --val-split none", " --data.label scribble --data.val-split none"),
    ],
)
def test_after_an_import_comes_the_training_with_the_flags_that_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, expected: str
) -> None:
    root = raw_folder(tmp_path / "raw")
    assert run(f"import folder {root} {tmp_path}/out {flags} --workers 0") == 0
    command = the_line(capsys.readouterr().out, "next: sparseg ")
    assert command == f"train folder --data.root {tmp_path}/out{expected}"
    extra = f"--run.storage {tmp_path}/runs --resources.workers 0 --dry-run"
    assert run(f"{command} {extra} {SMALL}") == 0, capsys.readouterr().err


def test_evaluation_says_what_was_taught_of_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = raw_folder(tmp_path / "raw")
    assert run(f"import folder {root} {tmp_path}/data --workers 0") == 0
    config = tiny.config(tmp_path, {"optim.max_steps": 1})
    loop.run(config)
    pixels = shards.labelled_pixels(shards.open(tmp_path / "data"), "train")
    labels = json.loads((config.folder / "environment.json").read_text())["labels"]
    assert (labels["unit"], list(labels["per_class"].values())) == ("click", pixels)
    assert evaluate.training_labels(config.folder)["ground"] == f"{pixels[0]} clicks"
    labels["per_class"] |= {"red": 1, "green": 0}
    (config.folder / "environment.json").write_text(json.dumps({"labels": labels}))
    capsys.readouterr()
    assert run(f"evaluate {config.folder} {tmp_path}/data") == 0
    rows = capsys.readouterr().out.splitlines()
    assert any("red" in row and "1 click " in row for row in rows)
    assert any("green" in row and "no click " in row for row in rows)
    assert run(f"report {config.folder} --dataset {tmp_path}/data --html {tmp_path}/page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "red (1 click)" in page and "of each class, %; its labels in training" in page
    (config.folder / "environment.json").write_text("{")
    assert run(f"evaluate {config.folder} {tmp_path}/data") == 2
    assert "environment.json: damaged" in capsys.readouterr().err
