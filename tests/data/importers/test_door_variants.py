"""One scene, annotated as many tools would: each label lies on its own class, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import importing
import numpy as np
import pytest
from PIL import Image

from sparseg.config import UNLABELLED
from sparseg.data import shards

NAMES = ["ground", "sand", "rock"]
COLOURS_K3 = np.array([(40, 120, 40), (220, 200, 90), (90, 90, 200)], np.uint8)
SCENE_HW = np.zeros((24, 36), np.uint8)
SCENE_HW[:8], SCENE_HW[16:, 20:] = 1, 2
PLACES = {"ground": (12, 4), "sand": (3, 30), "rock": (20, 30)}
"""Class -> (row, column) of its click."""
IMAGES = [f"im{number}" for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """images/ and classes.txt."""
    folder = tmp_path / "raw"
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(IMAGES):
        image_HW3 = COLOURS_K3[SCENE_HW]
        image_HW3[0, 0] = number  # no two files are equal
        Image.fromarray(image_HW3).save(folder / "images" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def check_labels(root: Path, **fields: Any) -> None:
    """Import, and see three labels on every image, each on a pixel of its class."""
    out = root.parent / "out"
    importing.import_dataset("folder", root, out, workers=0, **fields)
    splits = shards.open(out).splits
    labels = [shards.decode_label(row["label"]["bytes"]) for rows in splits.values() for row in rows]
    assert len(labels) == len(IMAGES)
    for label_HW in labels:
        drawn = label_HW < UNLABELLED
        assert drawn.sum() == 3
        np.testing.assert_array_equal(label_HW[drawn], SCENE_HW[drawn])


def clicks(record: str) -> list[str]:
    """A line for every click: {f} file, {n} stem, {r} row, {c} column, {l} class, {i} its number."""
    return [
        record.format(f=f"{name}.png", n=name, r=row, c=column, l=label, i=NAMES.index(label))
        for name in IMAGES
        for label, (row, column) in PLACES.items()
    ]


@pytest.mark.parametrize(
    ("header", "record"),
    [
        ("Name,Row,Column,Label code,Label ID,Annotator", "{f},{r},{c},{l},{i},me"),
        ("name,row,column,label code", "{f},{r},{c},{l}"),
        ('"Name","Row","Column","Label"', '"{f}","{r}","{c}","{l}"'),
        ('"filename";"x";"y";"class"', '"{f}";"{c}";"{r}";"{l}"'),
        ("image\trow\tcolumn\tlabel", "{f}\t{r}\t{c}\t{l}"),
        ("filename;x;y;class", "{f};{c};{r};{l}"),
        ("Image,X,Y,Label", "{f},{c},{r},{l}"),
        ("image, row, column, label", "{f}, {r}, {c}, {l}"),
        ("image,row,column,label", "{f},{r}.0,{c}.0,{l}"),
        ("image,row,column,label", "{f},{r},{c},{i}"),
        ("image,row,column,label", "{n},{r},{c},{l}"),
        ("image,row,col,label", "{f},{r},{c},{l}"),
        ("image_path,x,y,class_name", "images/{f},{c},{r},{l}"),
        ("image,width,height,x,y,label", "{f},36,24,{c},{r},{l}"),
        ("image,row,column,label", "C:\\data\\images\\{f},{r},{c},{l}"),
    ],
)
def test_a_table_of_clicks(root: Path, header: str, record: str) -> None:
    file = root / "clicks.csv"
    file.write_text("\n".join([header, *clicks(record)]))
    check_labels(root, label_path=str(file))


@pytest.mark.parametrize(("end", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig")])
def test_a_table_of_clicks_from_windows(root: Path, end: str, encoding: str) -> None:
    file = root / "clicks.csv"
    lines = ["image,row,column,label", *clicks("{f},{r},{c},{l}")]
    file.write_bytes(end.join(lines).encode(encoding))
    check_labels(root, label_path=str(file))


@pytest.mark.parametrize(
    ("header", "record", "message"),
    [
        ("image|row|column|label", "{f}|{r}|{c}|{l}", "must name image,row,column,label"),
        ("file_name,point_x,point_y,label", "{f},{c},{r},{l}", "must name image,row,column,label"),
        ("im0.png,12,4,ground", "{f},{r},{c},{l}", "must name image,row,column,label"),
        ('"image,row,column,label', "{f},{r},{c},{l}", "no valid CSV"),
    ],
)
def test_a_table_that_is_none(root: Path, header: str, record: str, message: str) -> None:
    file = root / "clicks.csv"
    file.write_text("\n".join([header, *clicks(record)]))
    with pytest.raises(ValueError, match=message):
        check_labels(root, label_path=str(file))


def label(unlabelled: int, first: int) -> np.ndarray:
    """The clicks as a label map whose classes count from `first`."""
    label_HW = np.full(SCENE_HW.shape, unlabelled, np.uint8)
    for name, place in PLACES.items():
        label_HW[place] = NAMES.index(name) + first
    return label_HW


def save(
    root: Path, picture: Image.Image, place: str = "labels", suffix: str = ".png", count: int = 6
) -> None:
    (root / place).mkdir()
    for name in IMAGES[:count]:
        picture.save(root / place / f"{name}{suffix}")


def paletted() -> Image.Image:
    picture = Image.fromarray(label(0, 1), "P")
    picture.putpalette([0, 0, 0, *COLOURS_K3.ravel().tolist()])
    return picture


@pytest.mark.parametrize(
    ("picture", "suffix"),
    [
        (paletted(), ".png"),
        (Image.fromarray(label(254, 0)), ".png"),
        (Image.fromarray(label(255, 0)), ".png"),
        (Image.fromarray(label(255, 1)), ".png"),
        (Image.fromarray(label(0, 1).astype(np.uint16)), ".png"),
        (Image.fromarray(label(254, 0)).convert("RGBA"), ".png"),
        (Image.fromarray(label(254, 0)), ".tif"),
        (Image.fromarray(label(254, 0).astype(np.float32)), ".tif"),
    ],
    ids=["palette 0", "254", "255", "255 from 1", "16 bits", "RGBA", "TIFF", "TIFF of floats"],
)
def test_labels_as_pictures(root: Path, picture: Image.Image, suffix: str) -> None:
    save(root, picture, suffix=suffix)
    check_labels(root)


def test_labels_whose_unlabelled_may_be_a_class_are_asked_about(root: Path) -> None:
    save(root, Image.fromarray(label(0, 0)))
    with pytest.raises(ValueError, match=r"value 0 covers 99\.\d%.* 0 if 0 is unlabelled"):
        check_labels(root)


def test_labels_from_1_on_255_with_a_class_missing_are_asked_about(root: Path) -> None:
    label_HW = label(255, 1)
    label_HW[label_HW == 2] = 255  # no sand
    save(root, Image.fromarray(label_HW))
    with pytest.raises(ValueError, match=r"v is class v-1, say .* 255; or 3 is unlabelled"):
        check_labels(root)
    out = root.parent / "declared"
    importing.import_dataset("folder", root, out, workers=0, unlabelled_code=255)
    for row in shards.open(out).splits["train"]:
        label_HW = shards.decode_label(row["label"]["bytes"])
        assert (label_HW[PLACES["ground"]], label_HW[PLACES["rock"]]) == (0, 2)


def test_black_and_white_masks_of_three_classes_are_asked_about(root: Path) -> None:
    save(root, Image.fromarray(label(254, 0)))
    save(root, Image.fromarray(((SCENE_HW > 0) * 255).astype(np.uint8)), "masks", count=2)
    with pytest.raises(ValueError, match=r"0 and 255 are the only values.* from-0 if 255 really is void"):
        check_labels(root)
    importing.import_dataset("folder", root, root.parent / "void", workers=0, mask_values="from-0")


def test_one_image_cannot_train_and_validate(root: Path) -> None:
    for name in IMAGES[1:]:
        (root / "images" / f"{name}.png").unlink()
    (root / "clicks.csv").write_text("image,row,column,label\nim0.png,12,4,ground\n")
    with pytest.raises(ValueError, match="one image cannot train and validate"):
        check_labels(root, label_path=str(root / "clicks.csv"))


@pytest.mark.parametrize(
    "text", ["0 ground\n1 sand\n2 rock", "0: ground\n1: sand\n2: rock", "ground\n\nsand\n\nrock\nunlabeled\n"]
)
def test_lists_of_classes(root: Path, text: str) -> None:
    (root / "classes.txt").write_text(text)
    save(root, Image.fromarray(label(254, 0)))
    check_labels(root)
    assert shards.open(root.parent / "out").names == NAMES
