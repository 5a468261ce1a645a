"""Images with an EXIF orientation: every click and label lies on the part of the scene it was made on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from importing import import_dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sparseg.config import UNLABELLED
from sparseg.data import shards
from sparseg.data.importers import format_report
from sparseg.data.shards.orientation import upright

NAMES = ["ground", "sand", "rock"]
COLOURS_K3 = np.array([[40, 120, 40], [220, 200, 90], [90, 90, 200]], np.uint8)
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""Orientation -> the one that undoes it."""
SCENE_HW = np.zeros((24, 40), np.uint8)
SCENE_HW[:8, :], SCENE_HW[16:, 24:] = 1, 2  # no turn or mirror leaves it as it is
CLICKS = [(2, 3), (3, 37), (12, 4), (20, 5), (14, 36), (18, 30), (22, 38)]
"""(row, column) in the scene as a viewer shows it."""


def save_image(file: Path, orientation: int) -> Path:
    """The scene in the colours of its classes, stored so that a viewer turns it upright."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright(COLOURS_K3[SCENE_HW], BACK[orientation])
    about = PngInfo()  # a file's own bytes: a training image that is also one of val would be left out
    about.add_text("Title", file.stem)
    own = {
        ".jpg": {"quality": 95, "comment": file.stem},
        ".png": {"pnginfo": about},
        ".tif": {"description": file.stem},
    }
    Image.fromarray(stored).save(file, exif=exif, **own[file.suffix])
    return file


def raw_folder(root: Path, orientation: int, suffix: str, mask_HW: np.ndarray = SCENE_HW) -> Path:
    for split in ("train", "val"):
        save_image(root / "images" / split / f"{split}0{suffix}", orientation)
    save_label(root / "masks" / "val" / "val0.png", mask_HW)
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def save_label(file: Path, label_HW: np.ndarray, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label_HW).save(file, **options)


def sparse_label() -> np.ndarray:
    label_HW = np.full_like(SCENE_HW, UNLABELLED)
    for row, column in CLICKS:
        label_HW[row, column] = SCENE_HW[row, column]
    return label_HW


def class_at(row: int, column: int) -> str:
    return NAMES[SCENE_HW[row, column]]


# ---------------------------------------------------- files of annotation tools, which show the scene upright


def as_csv(place: Path) -> Path:
    lines = [f"train0,{row},{column},{class_at(row, column)}" for row, column in CLICKS]
    file = place / "ann.csv"
    file.write_text("\n".join(["image,row,column,label", *lines]))
    return file


def as_labelme(place: Path, size: tuple[int, int] = SCENE_HW.shape) -> Path:
    points = [
        {"label": class_at(y, x), "shape_type": "point", "points": [[x + 0.5, y + 0.5]]} for y, x in CLICKS
    ]
    content = {"shapes": points, "imagePath": "train0.jpg", "imageHeight": size[0], "imageWidth": size[1]}
    file = place / "train0.json"
    file.write_text(json.dumps(content))
    return file


def as_cvat(place: Path) -> Path:
    points = [
        f'<points label="{class_at(y, x)}" points="{x + 0.5},{y + 0.5}" occluded="0"/>' for y, x in CLICKS
    ]
    height, width = SCENE_HW.shape
    file = place / "ann.xml"
    file.write_text(
        f'<annotations><image id="0" name="train0.jpg" width="{width}" height="{height}">'
        f"{''.join(points)}</image></annotations>"
    )
    return file


def as_label_png(place: Path) -> Path:
    save_label(place / "labels" / "train0.png", sparse_label())
    return place / "labels"


def as_coco(place: Path, size: tuple[int, int] = SCENE_HW.shape) -> Path:
    """A square of 3 pixels round every click."""
    annotations = []
    for number, (y, x) in enumerate(CLICKS):
        left, top, right, bottom = x - 1, y - 1, x + 2, y + 2
        outline = [left, top, right, top, right, bottom, left, bottom]
        category = int(SCENE_HW[y, x]) + 1
        annotations.append({"id": number, "image_id": 1, "category_id": category, "segmentation": [outline]})
    content = {
        "images": [{"id": 1, "file_name": "train0.jpg", "height": size[0], "width": size[1]}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    file = place / "ann.json"
    file.write_text(json.dumps(content))
    return file


def labelled_on_their_colour(dataset: Path) -> int:
    """Check every row's labelled pixels against the picture -> how many there are of train."""
    opened = shards.open(dataset)
    counts = {}
    for split, data in opened.splits.items():
        row = data[0]
        image_HW3 = shards.decode_image(row["image"]["bytes"])
        label_HW = shards.decode_label(row["label"]["bytes"])
        assert label_HW.shape == image_HW3.shape[:2] == (row["height"], row["width"])
        is_labelled_HW = label_HW < len(NAMES)
        distance_NK = np.abs(image_HW3[is_labelled_HW][:, None].astype(int) - COLOURS_K3).sum(2)
        np.testing.assert_array_equal(distance_NK.argmin(1), label_HW[is_labelled_HW])
        counts[split] = int(is_labelled_HW.sum())
    assert counts["val"] == SCENE_HW.size
    return counts["train"]


WRITERS = [as_csv, as_labelme, as_cvat, as_label_png, as_coco]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", WRITERS)
def test_labels_of_the_upright_scene_lie_on_it(
    tmp_path: Path, write: Callable[[Path], Path], orientation: int
) -> None:
    root = raw_folder(tmp_path / "raw", orientation, ".png" if orientation % 2 else ".jpg")
    report = import_dataset("folder", root, tmp_path / "out", label_path=str(write(tmp_path)), workers=0)
    labelled = labelled_on_their_colour(tmp_path / "out")
    assert labelled == len(CLICKS) if write is not as_coco else labelled > len(CLICKS)
    told = [line for line in format_report(report).splitlines() if "EXIF" in line]
    assert len(told) == (0 if orientation == 1 else 2)
    assert all(
        "1 images carry an EXIF orientation" in line and "--orientation stored" in line for line in told
    )


@pytest.mark.parametrize("store", ["original", "fast", "raw"])
@pytest.mark.parametrize(("orientation", "suffix"), [(3, ".jpg"), (6, ".png"), (7, ".tif"), (8, ".jpg")])
def test_labels_of_stored_pixels_lie_on_them(
    tmp_path: Path, orientation: int, suffix: str, store: str
) -> None:
    as_stored_HW = upright(SCENE_HW, BACK[orientation])
    root = raw_folder(tmp_path / "raw", orientation, suffix, mask_HW=as_stored_HW)
    save_label(tmp_path / "labels" / "train0.png", upright(sparse_label(), BACK[orientation]))
    fields = {"label_path": str(tmp_path / "labels"), "orientation": "stored", "store": store}
    report = import_dataset("folder", root, tmp_path / "out", workers=0, **fields)
    assert labelled_on_their_colour(tmp_path / "out") == len(CLICKS)
    data = shards.open(tmp_path / "out").splits["train"][0]["image"]["bytes"]
    assert shards.orientation_of(data) == 1
    assert "EXIF" not in format_report(report)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_label_maps_of_the_stored_size_turn_with_their_image(tmp_path: Path, orientation: int) -> None:
    as_stored_HW = upright(SCENE_HW, BACK[orientation])
    root = raw_folder(tmp_path / "raw", orientation, ".jpg", mask_HW=as_stored_HW)
    save_label(tmp_path / "labels" / "train0.png", upright(sparse_label(), BACK[orientation]))
    report = import_dataset("folder", root, tmp_path / "out", label_path=str(tmp_path / "labels"), workers=0)
    assert labelled_on_their_colour(tmp_path / "out") == len(CLICKS)
    for split in ("train", "val"):
        assert f"note: {split}: 1 label maps have the size of the stored pixels" in format_report(report)


def test_a_label_png_with_an_orientation_of_its_own(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", 6, ".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_label(tmp_path / "labels" / "train0.png", upright(sparse_label(), BACK[6]), exif=exif)
    import_dataset("folder", root, tmp_path / "out", label_path=str(tmp_path / "labels"), workers=0)
    assert labelled_on_their_colour(tmp_path / "out") == len(CLICKS)
    root = raw_folder(tmp_path / "raw", 6, ".jpg", mask_HW=upright(SCENE_HW, BACK[6]))
    fields = {"label_path": str(tmp_path / "labels"), "orientation": "stored"}
    import_dataset("folder", root, tmp_path / "stored", workers=0, **fields)
    assert labelled_on_their_colour(tmp_path / "stored") == len(CLICKS)


def test_coco_may_state_the_stored_size_and_labelme_may_not(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", 6, ".jpg")
    stored = SCENE_HW.shape[::-1]
    label_path = str(as_coco(tmp_path, stored))
    report = import_dataset("folder", root, tmp_path / "out", label_path=label_path, workers=0)
    assert labelled_on_their_colour(tmp_path / "out") > len(CLICKS)
    assert "the annotation of 1 turned images states the stored size" in format_report(report)
    label_path = str(as_labelme(tmp_path, stored))
    with pytest.raises(
        ValueError, match=r"annotated at 24x40 pixels but .* is 40x24; .*--data.orientation stored$"
    ):
        import_dataset("folder", root, tmp_path / "no", label_path=label_path, workers=0)


def test_exchanged_sides_name_both_readings(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", 1, ".jpg", mask_HW=SCENE_HW.T.copy())
    label_path = str(as_csv(tmp_path))
    asked = (
        r"label is 24x40 pixels but its image .* is 40x24; .*--data.orientation upright where .*stored where"
    )
    with pytest.raises(ValueError, match=asked):
        import_dataset("folder", root, tmp_path / "out", label_path=label_path, workers=0)
