"""Class lists: what is a name, what names no class, where the classes come from without a list."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from importing import import_dataset
from PIL import Image

from sparseg.config import UNLABELLED, DataConfig
from sparseg.data import shards
from sparseg.data.importers import format_report, prepare
from sparseg.data.importers.class_list import read_class_list
from sparseg.data.importers.files import is_void, list_images

HEIGHT, WIDTH = 12, 16


def listed(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    (tmp_path / "classes.txt").write_text(text)
    found = read_class_list(tmp_path / "classes.txt")
    return found.names, found.notes


@pytest.mark.parametrize(
    "word", ["void", "Void", "ignore", "ignored", "unlabeled", "Unlabelled", "__ignore__"]
)
def test_bare_words_name_no_class_and_are_noted(tmp_path: Path, word: str) -> None:
    names, notes = listed(tmp_path, f"{word}\n_background_\nsand\n")
    assert names == ["_background_", "sand"] and is_void(word)
    assert notes == [f"classes.txt: {word!r} left out, no class; class 0 is '_background_'"]


def test_names_that_begin_with_such_a_word_are_classes(tmp_path: Path) -> None:
    assert listed(tmp_path, "void space\nIgnored trash\nunlabelled_box\n") == (
        ["void space", "Ignored trash", "unlabelled_box"],
        [],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ground,sand,rock\n",
            r"classes\.txt: holds one name, 'ground,sand,rock', with , in it; write one name a",
        ),
        ('["ground", "sand"]', r"holds one name, .* write one name a line"),
        ("ground\nsand\nground\n", r"classes\.txt, line 3: class 'ground' stands there twice"),
        ("void\n", r"needs 1 to 250 different class names, one a line; found 0"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(tmp_path, text)


def test_names_with_commas_stay_where_there_are_several(tmp_path: Path) -> None:
    assert listed(tmp_path, "wall, indoor\nsky\n")[0] == ["wall, indoor", "sky"]


# ------------------------------------------------------------------------------------------ without a list


def raw_folder(root: Path, names: str | None) -> Path:
    for split, name in (("train", "a"), ("val", "b")):
        for folder, array in (
            ("images", np.full((HEIGHT, WIDTH, 3), ord(name), np.uint8)),
            ("masks", mask()),
        ):
            file = root / folder / split / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(file)
    if names is not None:
        (root / "classes.txt").write_text(names)
    return root


def mask() -> np.ndarray:
    return np.repeat(np.arange(HEIGHT) // 6, WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)


def clicks(root: Path, *rows: str) -> str:
    (root / "ann.csv").write_text("\n".join(["image,row,column,label", *rows]))
    return str(root / "ann.csv")


def test_classes_of_the_annotation_file_where_there_is_no_list(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", None)
    shutil.rmtree(root / "masks")
    label_path = clicks(tmp_path, "a,1,1,sand", "a,2,2,rock", "b,1,1,sand")
    report = import_dataset("folder", root, tmp_path / "out", label_path=label_path, workers=0)
    assert list(report.classes) == ["rock", "sand"]
    assert "no classes.txt: the classes are those of ann.csv" in report.notes


def test_a_list_goes_before_the_annotation_file(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", "__ignore__\nsand\nrock\n")
    label_path = clicks(tmp_path, "a,1,1,sand", "a,2,2,rock", "a,3,3,__ignore__")
    report = import_dataset("folder", root, tmp_path / "out", label_path=label_path, workers=0)
    assert list(report.classes) == ["sand", "rock"]
    assert report.splits["train"]["ignored"] == 1
    assert "note: classes.txt: '__ignore__' left out, no class; class 0 is 'sand'" in format_report(report)


def test_masks_in_the_colours_of_a_labelmap(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", None)
    colours_K3 = np.array([[0, 0, 0], [250, 50, 83]], np.uint8)
    for split, name in (("train", "a"), ("val", "b")):
        Image.fromarray(colours_K3[mask()]).save(root / "masks" / split / f"{name}.png")
    labelmap = root / "labelmap.txt"
    labelmap.write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nrock:250,50,83::\nvoid:1,1,1::\n"
    )
    report = import_dataset("folder", root, tmp_path / "out", label="full", workers=0)
    assert list(report.classes) == ["background", "rock"]
    assert f"no classes.txt: the classes are those of {labelmap.absolute()}" in report.notes
    stored = shards.open(tmp_path / "out").splits["val"][0]["label"]["bytes"]
    np.testing.assert_array_equal(shards.decode_label(stored), mask())
    labelmap.write_text("background:0,0,0::\nrock:250,50,84::\n")
    with pytest.raises(ValueError, match=r"a\.png: .* of colours that labelmap.txt does not name: 250,50,83"):
        import_dataset("folder", root, tmp_path / "none", label="full", workers=0)


# ---------------------------------------------------------------------------------------------- their colours


def test_a_colour_may_stand_behind_a_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("0 bare ground #1A2b3C\ncoral\t#f80\nvoid #000\nsand\n")
    found = read_class_list(tmp_path / "classes.txt")
    assert found.names == ["bare ground", "coral", "sand"]
    assert found.colours == ((0x1A, 0x2B, 0x3C), (0xFF, 0x88, 0x00), None)
    assert found.notes == ["classes.txt: 'void' left out, no class; class 0 is 'bare ground'"]


@pytest.mark.parametrize(
    "name", ["C#", "plot #12", "#12 plot", "plot#ffffff", "a #12345", "a #12345g", "a # fff"]
)
def test_a_name_with_a_hash_and_no_colour_is_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "classes.txt").write_text(f"0 {name}\n1 sand\n")
    found = read_class_list(tmp_path / "classes.txt")
    assert (found.names, found.colours) == ([name, "sand"], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a #f00\nb\nc #FF0000\n",
            r"classes.txt, line 3: class 'c' has the colour #ff0000, which that of line 1 has",
        ),
        (
            "a #282828\nb\n",
            r", line 1: class 'a' has the colour #282828, .* that are not labelled; choose",
        ),
        (
            "a\nb #e0e0c0\n",
            r", line 2: class 'b' has the colour #e0e0c0, .* ignored \(void\); choose",
        ),
        (
            "plot #101\nplot #102\n",
            r", line 2: class 'plot' stands there twice \(#102 behind it is read as a col",
        ),
    ],
)
def test_colours_that_mean_something_else_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_list(tmp_path / "classes.txt")


def test_colours_reach_the_data_set_and_its_label_pngs_but_not_its_name(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", "rock\nsand\n")
    plain = import_dataset("folder", root, tmp_path / "plain", label="full", workers=0)
    (root / "classes.txt").write_text("rock\nsand #ff8800\n")
    coloured = import_dataset("folder", root, tmp_path / "coloured", label="full", workers=0)
    assert coloured.fingerprint == plain.fingerprint
    assert list(coloured.classes) == ["rock", "sand"]
    opened = shards.open(tmp_path / "coloured")
    assert opened.palette == [shards.default_palette(1)[0], (255, 136, 0)]
    label = Image.open(io.BytesIO(opened.splits["val"][0]["label"]["bytes"]))
    assert label.getpalette()[3:6] == [255, 136, 0]
    np.testing.assert_array_equal(np.asarray(label), mask())
    assert shards.open(tmp_path / "plain").palette == shards.default_palette(2)


def test_a_run_says_that_an_earlier_import_keeps_its_colours(tmp_path: Path, capsys) -> None:
    root = raw_folder(tmp_path / "raw", "rock\nsand #ff8800\n")
    data = DataConfig(root=str(root), layout="folder", label="full")
    prepare(data, tmp_path / "storage")
    assert "colours" not in capsys.readouterr().out
    (root / "classes.txt").write_text("rock\nsand #0088ff\n")
    place = prepare(data, tmp_path / "storage")
    told = f"note: {place} has other colours than classes.txt now, those of its import"
    assert told in capsys.readouterr().out
    assert shards.open(place).palette[1] == (255, 136, 0)
    (root / "classes.txt").write_text("rock\nsand #ff8800\n")
    prepare(data, tmp_path / "storage")
    assert "colours" not in capsys.readouterr().out


# ------------------------------------------------------------------------- what else is not passed in silence


@pytest.mark.parametrize(("outside", "is_told"), [(1, False), (2, True)])
def test_many_clicks_outside_raise_the_alarm(tmp_path: Path, outside: int, is_told: bool) -> None:
    root = raw_folder(tmp_path / "raw", "rock\nsand\n")
    inside = [f"a,{row},{column},rock" for row in range(5) for column in range(5)]
    label_path = clicks(tmp_path, *inside, *(f"a,{HEIGHT},{column},sand" for column in range(outside)))
    report = import_dataset("folder", root, tmp_path / "out", label_path=label_path, workers=0)
    told = (
        "note: train: ALARM: 7.41 % of the clicks lie outside of their images; are rows and columns swapped"
    )
    assert (told in format_report(report)) == is_told


def test_a_class_in_no_mask_beside_void_is_noted(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", "rock\nsand\nice\n")
    void_HW = mask()
    void_HW[0, :3] = 255
    Image.fromarray(void_HW).save(root / "masks" / "val" / "b.png")
    label_HW = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    label_HW[0, :3] = 0, 1, 2
    (root / "labels").mkdir()
    Image.fromarray(label_HW).save(root / "labels" / "a.png")
    report = import_dataset("folder", root, tmp_path / "out", workers=0)
    assert "note: val: no pixel of ice, but 3 void ones; is a class written as void?" in format_report(report)


def test_pictures_that_are_not_read_are_named_with_the_remedy(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", "rock\nsand\n")
    images = root / "images" / "train"
    (
        (images / "c.jfif").write_bytes(b""),
        (images / "d.HEIC").write_bytes(b""),
        (images / "e.txt").write_text(""),
    )
    files, notes = list_images(images)
    assert [file.name for file in files] == ["a.png", "c.jfif"]
    assert notes == [f"2 files of {images} are no images by their suffix: d.HEIC, e.txt; convert to JPEG"]
    for file in files:
        file.unlink()
    with pytest.raises(
        ValueError, match=r"no rows in split 'train'; 2 files of .*: d\.HEIC, e\.txt; convert to"
    ):
        import_dataset("folder", root, tmp_path / "out", label="full", workers=0)
