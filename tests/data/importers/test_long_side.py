"""An import at a working resolution: images are resized, and every click, stroke, box and mask with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import import_dataset
from PIL import Image

from sparseg.config import UNLABELLED, DataConfig, ImportConfig
from sparseg.data import importers, shards
from sparseg.data.importers import format_report
from sparseg.data.label_places import resized_label
from sparseg.data.shards.orientation import upright

NAMES = ["ground", "sand", "rock"]
COLOURS_K3 = np.array([[40, 120, 40], [220, 200, 90], [90, 90, 200]], np.uint8)
SCENE_HW = np.zeros((96, 160), np.uint8)
SCENE_HW[:40], SCENE_HW[60:, 80:] = 1, 2
SMALL = (38, 64)  # with a long side of 64 px
CLICKS = [(2, 3), (8, 150), (50, 10), (90, 20), (70, 100), (95, 159), (0, 0), (50, 159)]
"""(row, column) in the scene as viewers show it; no two meet in a pixel of the small one."""
BACK = {1: 1, 6: 8}
"""EXIF orientation -> the one that undoes it."""


def raw(root: Path, orientation: int = 1) -> Path:
    for number, split in enumerate(("train", "val")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = COLOURS_K3[SCENE_HW]
        picture[0, 50] = number  # no two images are equal
        (root / "images" / split).mkdir(parents=True)
        Image.fromarray(upright(picture, BACK[orientation])).save(
            root / "images" / split / f"{split}0.png", exif=exif
        )
    save_label(root / "masks" / "val" / "val0.png", SCENE_HW)
    save_label(root / "masks" / "train" / "train0.png", SCENE_HW)
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def save_label(file: Path, label_HW: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label_HW).save(file)


def as_csv(place: Path) -> Path:
    lines = [f"train0,{row},{column},{NAMES[SCENE_HW[row, column]]}" for row, column in CLICKS]
    (place / "clicks.csv").write_text("\n".join(["image,row,column,label", *lines]))
    return place / "clicks.csv"


def as_labelme(place: Path, shapes: list[dict[str, Any]] | None = None) -> Path:
    points = [
        {"label": NAMES[SCENE_HW[y, x]], "shape_type": "point", "points": [[x + 0.5, y + 0.5]]}
        for y, x in CLICKS
    ]
    content = {"shapes": shapes or points, "imagePath": "train0.png", "imageHeight": 96, "imageWidth": 160}
    (place / "train0.json").write_text(json.dumps(content))
    return place / "train0.json"


def as_pngs(place: Path) -> Path:
    label_HW = np.full_like(SCENE_HW, UNLABELLED)
    for row, column in CLICKS:
        label_HW[row, column] = SCENE_HW[row, column]
    save_label(place / "labels" / "train0.png", label_HW)
    return place / "labels"


def imported(tmp_path: Path, **fields: Any) -> tuple[importers.ImportReport, Any]:
    report = import_dataset(
        "folder", tmp_path / "raw", tmp_path / "out", workers=0, long_side_px=64, **fields
    )
    return report, shards.open(tmp_path / "out")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("annotate", [as_csv, as_labelme, as_pngs])
def test_every_click_arrives_on_its_part_of_the_upright_image(
    tmp_path: Path, annotate: Callable[[Path], Path], orientation: int
) -> None:
    raw(tmp_path / "raw", orientation)
    place = annotate(tmp_path)
    _, opened = imported(tmp_path, label_path=str(place))
    row = opened.splits["train"][0]
    assert (row["height"], row["width"]) == SMALL
    image_HW3 = shards.decode_image(row["image"]["bytes"])
    label_HW = shards.decode_label(row["label"]["bytes"])
    assert image_HW3.shape == (*SMALL, 3) and label_HW.shape == SMALL
    assert shards.orientation_of(row["image"]["bytes"]) == 1
    expected = {(y * 38 // 96, x * 64 // 160): SCENE_HW[y, x] for y, x in CLICKS}
    labelled = {(int(y), int(x)): label_HW[y, x] for y, x in np.argwhere(label_HW < UNLABELLED)}
    if annotate is as_pngs:  # the pixel in which the centre of the label's pixel lies
        expected = {((2 * y + 1) * 38 // 192, (2 * x + 1) * 64 // 320): SCENE_HW[y, x] for y, x in CLICKS}
    assert labelled == expected and len(expected) == len(CLICKS)
    for (y, x), k in labelled.items():
        assert np.abs(image_HW3[y, x].astype(int) - COLOURS_K3[k]).max() < 60
    strokes = sorted((stroke["y"][0], stroke["x"][0]) for stroke in row["strokes"])
    assert len(strokes) == (0 if annotate is as_pngs else len(CLICKS))
    assert all(y < 38 and x < 64 for y, x in strokes)


def test_masks_are_nearest_and_drawn_clicks_are_drawn_at_the_working_size(tmp_path: Path) -> None:
    raw(tmp_path / "raw")
    report, opened = imported(tmp_path, label="clicks", random_pixels=7)
    small = resized_label(SCENE_HW, SMALL, dense=True)
    assert set(np.unique(small)) == {0, 1, 2}
    train, val = opened.splits["train"][0], opened.splits["val"][0]
    assert np.array_equal(shards.decode_label(val["label"]["bytes"]), small)
    assert np.array_equal(shards.decode_label(train["mask"]["bytes"]), small)
    label_HW = shards.decode_label(train["label"]["bytes"])
    assert np.count_nonzero(label_HW < UNLABELLED) == 7
    assert np.array_equal(label_HW[label_HW < UNLABELLED], small[label_HW < UNLABELLED])
    assert report.long_side_px == 64 and report.splits["train"]["images_resized"] == 1
    assert "train: 1 images are resized to a long side of 64 pixels" in format_report(report)


def test_boxes_polygons_and_tags_are_mapped_as_geometry(tmp_path: Path) -> None:
    raw(tmp_path / "raw")
    box = {"label": "rock", "shape_type": "rectangle", "points": [[80, 60], [160, 96]]}
    place = str(as_labelme(tmp_path, [box]))
    _, opened = imported(tmp_path, label="box", label_path=place)
    label_HW = shards.decode_label(opened.splits["train"][0]["label"]["bytes"])
    inside = np.zeros(SMALL, bool)
    inside[24:, 32:] = True  # centres below 60 * 38 / 96 = 23.75 and right of 32
    assert np.array_equal(label_HW == UNLABELLED, inside) and np.all(label_HW[~inside] == 0)
    polygon = ImportConfig(label="scribble", label_path=place, long_side_px=64)
    importers.import_dataset("folder", tmp_path / "raw", tmp_path / "filled", polygon, workers=0)
    filled_HW = shards.decode_label(shards.open(tmp_path / "filled").splits["train"][0]["label"]["bytes"])
    assert np.array_equal(filled_HW == 2, inside)
    (tmp_path / "tags.csv").write_text("image,label\ntrain0,rock\n")
    tags = ImportConfig(label="tag", label_path=str(tmp_path / "tags.csv"), long_side_px=64)
    importers.import_dataset("folder", tmp_path / "raw", tmp_path / "tagged", tags, workers=0)
    row = shards.open(tmp_path / "tagged").splits["train"][0]
    assert row["present"] == [2] and shards.decode_label(row["label"]["bytes"]).shape == SMALL


def test_smaller_images_stay_as_their_files_are(tmp_path: Path) -> None:
    raw(tmp_path / "raw")
    place = as_csv(tmp_path)
    config = ImportConfig(label_path=str(place), long_side_px=160)
    report = importers.import_dataset("folder", tmp_path / "raw", tmp_path / "out", config, workers=0)
    row = shards.open(tmp_path / "out").splits["train"][0]
    assert row["image"]["bytes"] == (tmp_path / "raw" / "images" / "train" / "train0.png").read_bytes()
    assert "images_resized" not in report.splits["train"]


def test_a_run_takes_the_resolution_of_its_dataset(tmp_path: Path) -> None:
    raw(tmp_path / "raw")
    imported(tmp_path, label_path=str(as_csv(tmp_path)))
    root = str(tmp_path / "out")
    for side in (0, 64):
        importers.prepare(DataConfig(root=root, long_side_px=side), tmp_path / "runs")
    with pytest.raises(ValueError, match=r"imported resized to a long side of 64 .*data\.long_side_px=128"):
        importers.prepare(DataConfig(root=root, long_side_px=128), tmp_path / "runs")
    prepared = {
        importers.prepare(
            DataConfig(
                root=str(tmp_path / "raw"),
                layout="folder",
                label_path=str(tmp_path / "clicks.csv"),
                long_side_px=side,
            ),
            tmp_path / "runs",
        )
        for side in (0, 64, 0)
    }
    assert len(prepared) == 2  # each resolution is an import of its own


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"long_side_px": 63}, "must be 0 .off. or 64..4096 pixels, got 63"),
        ({"long_side_px": 4097}, "got 4097"),
        ({"long_side_px": 512, "tile_px": 256}, "resizes the images that data.tile_px=256 would cut"),
    ],
)
def test_wrong_resolutions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportConfig(**fields)
