"""A message advises flags that the command has: the same wrong input to `sparseg import` and to a trainer."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fixtures
import numpy as np
import pytest
import tiny
from commands import run

from sparseg import launch
from sparseg.cli.data import IMPORT_FLAGS
from sparseg.config import FieldError, ImportConfig, command_line, field, flag

FLAG = re.compile(r"--[a-z][a-z.-]*[a-z]")
OF_ANOTHER_COMMAND = re.compile(r"`sparseg ([a-z]+)([^`]*)`")
PACKAGE = tiny.ROOT / "platform" / "sparseg"


def photos(root: Path) -> Path:
    return fixtures.folder(root, count=6, splits=True)


def photos_with(name: str, text: str) -> Callable[[Path], Path]:
    """Images, and instead of label PNGs one file."""

    def make(root: Path) -> Path:
        photos(root)
        (root / name).write_text(text)
        return root

    return make


def damaged(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        change(photos(root))
        return root

    return make


def all_labelled(root: Path) -> None:
    for file in (root / "labels" / "train").iterdir():
        fixtures.save_label(file, np.ones((fixtures.HEIGHT, fixtures.WIDTH)))


def two_click_sets(root: Path) -> Path:
    fixtures.cityscapes(root)
    for count in (20, 50):
        (root / f"{count}clicks").mkdir()
    return root


def either_count(root: Path) -> Path:
    """ADE20K whose clicks may count from 0 or from 1."""
    fixtures.ade20k(root)
    for file in (root / "images" / "training").iterdir():
        label = np.full((fixtures.HEIGHT, fixtures.WIDTH), 255, np.uint8)
        label[0, :3] = 1
        fixtures.save_label(root / "points" / f"{file.stem}.png", label)
    return root


def empty(root: Path) -> Path:
    root.mkdir()
    return root


COCO = json.dumps({"images": [], "annotations": [], "categories": []})
BOXES = "<annotation><object><name>class a</name><bndbox/></object></annotation>"
CLASS_0 = {"category_id": 1, "image_id": 1, "bbox": [1, 1, 5, 5]}
CLASS_0_BOX = {
    "images": [{"id": 1, "file_name": "photo_01.jpg", "height": 24, "width": 32}],
    "annotations": [CLASS_0],
    "categories": [{"id": 1, "name": "class a"}],
}
CVAT_POINT = (
    '<annotations><image id="0" name="photo_01.jpg" width="32" height="24">'
    '<points label="class b" points="1,1"/></image></annotations>'
)

# what is wrong -> (layout, how the raw data is made, fields of the configuration, words of the message)
CASES: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any], str]] = {
    "no such folder": ("folder", lambda root: root, {}, "is not a folder"),
    "no layout": ("auto", empty, {}, "layout not recognised"),
    "another layout": ("voc", photos, {}, "no VOC layout"),
    "no ADE20K": ("ade20k", photos, {}, "no ADE20K layout"),
    "class count": ("folder", photos, {"num_classes": 5}, "has 3 classes"),
    "too many classes": ("folder", photos, {"num_classes": 300}, "must be in 2..250"),
    "no class names": ("folder", damaged(lambda root: (root / "classes.txt").unlink()), {}, "no classes.txt"),
    "no annotation": ("voc", fixtures.voc, {"label": "scribble"}, "no scribble annotation"),
    "no boxes": ("folder", damaged(lambda r: None), {"label": "box"}, "holds no file of coco"),
    "no tags": ("voc", fixtures.voc, {"label": "tag"}, "no tag annotation"),
    "two sets": ("cityscapes", two_click_sets, {"label": "clicks"}, "choose one"),
    "no such labels": ("folder", photos, {"label_path": "nowhere"}, "does not exist"),
    "a file for a folder": (
        "folder",
        photos_with("a.txt", ""),
        {"label_path": "a.txt"},
        "label PNGs are read from a folder",
    ),
    "labels of dense masks": ("folder", photos, {"label": "full", "label_path": "labels"}, "has no meaning"),
    "another format": (
        "folder",
        photos_with("a.json", COCO),
        {"label_path": "a.json", "label_format": "labelme"},
        "it is a coco file",
    ),
    "no file of the format": (
        "folder",
        photos_with("a.json", COCO),
        {"label_path": "a.json", "label_format": "csv"},
        "no .csv file",
    ),
    "several formats": (
        "folder",
        damaged(lambda r: [(r / "labels" / "train" / f"a.{s}").write_text("") for s in ("csv", "xml")]),
        {},
        "several kinds",
    ),
    "unknown format": ("folder", photos_with("a.json", "[]"), {"label_path": "a.json"}, "not recognised"),
    "boxes for strokes": ("folder", photos_with("a.xml", BOXES), {"label_path": "a.xml"}, "has boxes"),
    "a format without tags": (
        "folder",
        photos_with("a.json", '{"photo_01": []}'),
        {"label": "tag", "label_path": "a.json"},
        "is read from",
    ),
    "points for tags": (
        "folder",
        photos_with("a.csv", "image,row,column,label\n"),
        {"label": "tag", "label_path": "a.csv"},
        "a CSV of points",
    ),
    "tags for points": (
        "folder",
        photos_with("a.csv", "image,label\n"),
        {"label_path": "a.csv"},
        "tags of whole images",
    ),
    "a box of class 0": (
        "folder",
        photos_with("a.json", json.dumps(CLASS_0_BOX)),
        {"label": "box", "label_path": "a.json"},
        "a box of class 0",
    ),
    "no box": (
        "folder",
        photos_with("a.xml", CVAT_POINT),
        {"label": "box", "label_path": "a.xml"},
        "reads boxes only",
    ),
    "not one box": (
        "folder",
        photos_with("a.json", json.dumps({**CLASS_0_BOX, "annotations": []})),
        {"label": "box", "label_path": "a.json"},
        "not one box",
    ),
    "few annotated": (
        "folder",
        photos_with("a.json", '{"photo_01": [{"x": 1, "y": 1, "cls": 1}]}'),
        {"label_path": "a.json"},
        "without label",
    ),
    "wide strokes": (
        "folder",
        photos_with("a.json", '{"photo_01": []}'),
        {"label_path": "a.json", "stroke_px": 2000.0},
        "must be in 1..1000",
    ),
    "thin strokes": ("folder", photos, {"stroke_px": 0.5}, "must be >= 1"),
    "image without label": (
        "folder",
        damaged(lambda r: (r / "labels" / "train" / "photo_03.png").unlink()),
        {},
        "without label",
    ),
    "truncated image": (
        "folder",
        damaged(lambda r: (r / "images" / "train" / "photo_03.jpg").write_bytes(b"\xff\xd8\xff")),
        {},
        "leave such files out",
    ),
    "listed image is gone": (
        "voc",
        lambda r: [fixtures.voc(r), (r / "JPEGImages" / "2007_000001.jpg").unlink()][0],
        {},
        "do not exist",
    ),
    "code that occurs nowhere": ("folder", photos, {"unlabelled_code": 9}, "occurs in none"),
    "code that is a class": ("folder", photos, {"unlabelled_code": 1}, "is a class id"),
    "no code": ("folder", photos, {"unlabelled_code": 300}, "must be in 0..255"),
    "neither class nor code": (
        "folder",
        damaged(lambda r: fixtures.save_label(r / "labels/train/photo_03.png", np.full((24, 32), 77))),
        {},
        "neither a class",
    ),
    "dense labels": ("folder", damaged(all_labelled), {}, "no unlabelled pixel"),
    "classes from 0 or 1": ("ade20k", either_count, {}, "may count from 1"),
    "clicks of points": ("folder", photos, {"random_pixels": 5}, "draws clicks"),
    "both drawings": (
        "folder",
        photos,
        {"label": "clicks", "random_pixels": 5, "clicks_per_class": 1},
        "not both",
    ),
    "fewer than no clicks": ("folder", photos, {"label": "clicks", "random_pixels": -5}, "must be >= 0"),
    "tiny tiles": ("folder", photos, {"tile_px": 8}, "must be 0"),
    "tiles of tags": ("folder", photos, {"tile_px": 64, "label": "tag"}, "of a whole image"),
    "overlap alone": ("folder", photos, {"tile_overlap_px": 8}, "has no meaning without"),
    "much overlap": ("folder", photos, {"tile_px": 64, "tile_overlap_px": 60}, "must be in 0..32"),
    "a decompression bomb": (
        "folder",
        damaged(
            lambda r: (r / "images" / "train" / "photo_03.jpg").write_bytes(fixtures.png_header(9000, 9000))
        ),
        {},
        "decompression bomb",
    ),
}


def flags_of(help_text: str) -> set[str]:
    return set(FLAG.findall(help_text))


@pytest.fixture(scope="module")
def trainer_flags() -> set[str]:
    return {f"--{name}" for name in ("config", "dry-run")} | {
        f"--{section.name}.{entry.name.replace('_', '-')}"
        for section in dataclasses.fields(command_line.Config)
        for entry in dataclasses.fields(section.default)  # type: ignore[arg-type]
    }


def command_flags(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert run(f"{command} --help") == 0
    return flags_of(capsys.readouterr().out)


def check(message: str, own: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in OF_ANOTHER_COMMAND.findall(message):
        assert set(FLAG.findall(words)) <= command_flags(command, capsys), message
    assert set(FLAG.findall(OF_ANOTHER_COMMAND.sub("", message))) <= own, message


def words_of(fields: dict[str, Any], called: Callable[[str], str]) -> list[str]:
    return [word for name, value in fields.items() for word in (f"{called(name)}={value}",)]


@pytest.mark.parametrize("case", CASES)
def test_a_message_names_the_flags_of_its_command(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], trainer_flags: set[str]
) -> None:
    layout, make, fields, said = CASES[case]
    root = make(tmp_path / "raw")

    words = words_of(fields, lambda name: IMPORT_FLAGS[f"data.{name}"])
    assert run(" ".join(["import", layout, str(root), str(tmp_path / "out"), *words, "--workers=0"])) == 2
    told = capsys.readouterr().err
    assert re.search(said, told) and "\0" not in told and len(told.splitlines()) == 1, told
    assert not re.search(r"(?<![\w/])data\.[a-z_]{3,}", told), told
    check(told, command_flags("import", capsys), capsys)

    words = words_of(fields, lambda name: f"--data.{name.replace('_', '-')}")
    words += [f"--data.root={root}", f"--data.layout={layout}", f"--run.storage={tmp_path}/runs"]
    words += ["--model.backbone=test_efficientnet", "--model.feature-channels=8", "--data.crop-px=32"]
    words += ["--loss.method=agmm", "--model.aspp-dilations", "1", "--resources.workers=0", "--dry-run"]
    with pytest.raises(SystemExit) as stop:
        launch.main(tiny.trainer("folder").recipe(), description="", args=words)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert re.search(said, told) and "\0" not in told and len(told.splitlines()) == 1, told
    check(told, trainer_flags, capsys)


def test_datasets_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (f"inspect {tmp_path}/x", f"sparsify {tmp_path}/x {tmp_path}/y --kind point --budget 1"):
        assert run(words) == 2
        told = capsys.readouterr().err
        assert "no such dataset folder" in told and "set the argument dataset" in told
        check(told, command_flags(words.split()[0], capsys), capsys)


def test_import_has_every_field_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {f"data.{entry.name}" for entry in dataclasses.fields(ImportConfig)}
    assert IMPORT_FLAGS.keys() == fields | {"data.root", "data.layout"}
    assert {name for name in IMPORT_FLAGS.values() if name[0] == "-"} <= command_flags("import", capsys)


def test_a_field_is_called_as_the_command_calls_it() -> None:
    error = FieldError(f"{field('data.label_path')}: gone; set {flag('data.label_path')} or {flag('data.x')}")
    assert str(error) == "data.label_path: gone; set --data.label-path or --data.x"
    assert error.told({"data.label_path": "--labels"}) == "--labels: gone; set --labels or data.x"
    longer = FieldError(f"{error.message}!")
    assert longer.told({"data.label_path": "--labels"}) == "--labels: gone; set --labels or data.x!"


def texts(node: ast.AST, docstrings: set[ast.AST]) -> Iterator[str]:
    """The strings of a syntax tree, an f-string as one with * for its values."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in child.values)
        elif isinstance(child, ast.Constant):
            if isinstance(child.value, str) and child not in docstrings:
                yield child.value
        else:
            yield from texts(child, docstrings)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_messages_about_data_name_flags_by_their_field(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstrings: set[ast.AST] = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    written = [OF_ANOTHER_COMMAND.sub("", text) for text in texts(tree, docstrings)]
    sparsify_only = path.name == "recipe.py"  # a recipe with a width comes from `sparseg sparsify`
    assert [text for text in written if FLAG.search(text) and not sparsify_only] == []
