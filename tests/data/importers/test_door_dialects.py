"""Labels as people and tools write them besides the plain forms: each lands on the part of the scene that it
was made on, or is refused in one line that says what helps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import import_dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sparseg.config import UNLABELLED
from sparseg.data import shards
from sparseg.data.importers import ImportReport
from sparseg.data.importers.readers import read_strokes
from sparseg.data.shards.orientation import upright
from sparseg.data.strokes import draw

NAMES = ["ground", "sand", "rock"]
LIST = "ground\nsand\nrock\n"
COLOURS_K3 = np.array([[40, 120, 40], [220, 200, 90], [90, 90, 200]], np.uint8)
SCENE_HW = np.zeros((24, 40), np.uint8)
SCENE_HW[:8], SCENE_HW[16:, 24:] = 1, 2  # no turn or mirror leaves it as it is
CLICKS = [(2, 3), (12, 4), (20, 30)]
"""(row, column) of one click a class."""
TRAIN = range(2)
Write = Callable[[Path], None]


def save_image(file: Path, orientation: int = 1, **options: Any) -> None:
    """The scene in the colours of its classes, stored so that a viewer turns it upright."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise_HW3 = np.random.default_rng(list(file.stem.encode())).integers(0, 9, (*SCENE_HW.shape, 3))
    shown_HW3 = (COLOURS_K3[SCENE_HW] + noise_HW3).astype(np.uint8)  # no two files are equal
    stored = upright(shown_HW3, {6: 8, 8: 6}.get(orientation, orientation))
    Image.fromarray(stored).save(file, **{"exif": exif, **options})


def about(text: str) -> PngInfo:
    """What makes a PNG's bytes its own."""
    info = PngInfo()
    info.add_text("Title", text)
    return info


def save_label(file: Path, label_HW: np.ndarray, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label_HW).save(file, **options)


def raw_folder(root: Path, *, classes: str | None = LIST, orientation: int = 1, suffix: str = ".png") -> Path:
    """images/train/ of im0 and im1, images/val/ of im2 with its dense mask, and classes.txt."""
    for name in ("train/im0", "train/im1", "val/im2"):
        save_image(root / "images" / f"{name}{suffix}", orientation)
    save_label(root / "masks" / "val" / "im2.png", SCENE_HW)
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def flat_folder(root: Path, count: int = 6) -> Path:
    for number in range(count):
        save_image(root / "images" / f"im{number}.png")
    (root / "classes.txt").write_text(LIST)
    (root / "labels").mkdir()
    (root / "labels" / "clicks.csv").write_text(table("image,row,column,label", names=range(count)))
    return root


def table(head: str, line: str = "im{i}.png,{y},{x},{label}", names: range = TRAIN) -> str:
    """A CSV of the clicks on those images."""
    rows = [
        line.format(i=i, y=y, x=x, k=SCENE_HW[y, x], label=NAMES[SCENE_HW[y, x]])
        for i in names
        for y, x in CLICKS
    ]
    return "\n".join([head, *rows]) + "\n"


def sparse_label(unlabelled: int = UNLABELLED, first: int = 0) -> np.ndarray:
    label_HW = np.full_like(SCENE_HW, unlabelled)
    for y, x in CLICKS:
        label_HW[y, x] = SCENE_HW[y, x] + first
    return label_HW


def imported(root: Path, out: Path, **fields: Any) -> tuple[ImportReport, dict[str, int]]:
    """Import; check every labelled pixel against the picture -> report, labelled pixels of every split."""
    report = import_dataset("folder", root, out, workers=0, **fields)
    counts: dict[str, int] = {}
    for split, data in shards.open(out).splits.items():
        for row in data:
            image_HW3 = shards.decode_image(row["image"]["bytes"])
            label_HW = shards.decode_label(row["label"]["bytes"])
            assert label_HW.shape == image_HW3.shape[:2] == (row["height"], row["width"])
            is_labelled_HW = label_HW < len(NAMES)
            distance_NK = np.abs(image_HW3[is_labelled_HW][:, None].astype(int) - COLOURS_K3).sum(2)
            np.testing.assert_array_equal(distance_NK.argmin(1), label_HW[is_labelled_HW])
            counts[split] = counts.get(split, 0) + int(is_labelled_HW.sum())
    return report, counts


ALL = {"train": len(TRAIN) * len(CLICKS), "val": SCENE_HW.size}


def with_labels(root: Path, name: str, content: Any) -> str:
    file = root / name
    file.write_bytes(content if isinstance(content, bytes) else as_text(content).encode())
    return str(file)


def as_text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


# ----------------------------------------------------------------------------------- clicks alone, some masks


def masks_in_val(root: Path) -> None:
    save_label(root / "masks" / "val" / "im1.png", SCENE_HW)


def masks_as_tiff(root: Path) -> None:
    save_label(root / "masks" / "im1.TIF", SCENE_HW)


def masks_with_an_ending(root: Path) -> None:
    save_label(root / "masks" / "im1_mask.png", SCENE_HW)


def masks_of_hidden_files(root: Path) -> None:
    (root / "masks" / "val").mkdir(parents=True)
    for name in (".gitkeep", "README.txt", "val/.DS_Store"):
        (root / "masks" / name).write_text("")


def split_folders_in_capitals(root: Path) -> None:
    for number in range(6):
        split = root / "images" / ("Val" if number == 1 else "Training")
        split.mkdir(exist_ok=True)
        (root / "images" / f"im{number}.png").rename(split / f"im{number}.png")


@pytest.mark.parametrize(
    ("change", "val"),
    [
        (masks_in_val, SCENE_HW.size),
        (masks_as_tiff, SCENE_HW.size),
        (masks_with_an_ending, SCENE_HW.size),
        (masks_of_hidden_files, len(CLICKS)),
        (split_folders_in_capitals, len(CLICKS)),
    ],
)
def test_val_is_the_masks_of_some_or_else_clicks(tmp_path: Path, change: Write, val: int) -> None:
    root = flat_folder(tmp_path / "raw")
    change(root)
    report, counts = imported(root, tmp_path / "out")
    assert counts == {"train": 5 * len(CLICKS), "val": val}
    if val == SCENE_HW.size or change is split_folders_in_capitals:
        assert list(shards.open(tmp_path / "out").splits["val"]["id"]) == ["im1"]
    assert report.val_labels == ("sparse" if val == len(CLICKS) else "dense")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: Image.fromarray(SCENE_HW).save(root / "masks" / "im1.jpg"),
            r"masks: no \.png mask \(or \.tif\), but im1\.jpg; save masks as PNG, for JPEG changes class ids",
        ),
        (
            lambda root: np.save(root / "masks" / "im1.npy", SCENE_HW),
            r"masks: no \.png mask \(or \.tif\), but im1\.npy; save masks as PNG",
        ),
        (
            lambda root: save_label(root / "masks" / "other.png", SCENE_HW),
            r"images are without label: .*\(looked in .*masks\).* keep these images aside with --data",
        ),
    ],
)
def test_masks_that_cannot_be_read_are_not_passed_over(tmp_path: Path, change: Write, message: str) -> None:
    root = flat_folder(tmp_path / "raw")
    (root / "masks").mkdir()
    change(root)
    with pytest.raises(ValueError, match=message):
        imported(root, tmp_path / "out")


# ----------------------------------------------------------------------------------- nothing wrong in silence


def coco(line: Callable[[int, int], dict[str, Any]], first: int = 1, extra: list[Any] | None = None) -> Any:
    """A COCO file whose categories are `extra` and then the classes from the id `first`."""
    return {
        "images": [{"id": i, "file_name": f"im{i}.png", "height": 24, "width": 40} for i in TRAIN],
        "categories": [*(extra or []), *({"id": k + first, "name": name} for k, name in enumerate(NAMES))],
        "annotations": [
            {"image_id": i, "category_id": int(SCENE_HW[y, x]) + first, **line(y, x)}
            for i in TRAIN
            for y, x in CLICKS
        ],
    }


def keypoint(y: int, x: int) -> dict[str, Any]:
    return {"keypoints": [x + 0.5, y + 0.5, 2], "num_keypoints": 1}


def labelme(place: Path, **more: Any) -> str:
    place.mkdir()
    for i in TRAIN:
        shapes = [
            {"label": NAMES[SCENE_HW[y, x]], "shape_type": "point", "points": [[x + 0.5, y + 0.5]]}
            for y, x in CLICKS
        ]
        (place / f"im{i}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"im{i}.png", **more}))
    return str(place)


def test_masks_do_not_take_the_alphabet_for_their_order(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", classes=None)
    path = with_labels(tmp_path, "p.csv", table("image,row,column,label"))
    with pytest.raises(
        ValueError, match=r"no classes\.txt, and p\.csv has the classes in no order.* ground, "
    ):
        imported(root, tmp_path / "out", label_path=path)
    place = labelme(tmp_path / "ann")
    with pytest.raises(ValueError, match="no order"):
        imported(root, tmp_path / "out", label_path=place)
    (tmp_path / "ann" / "labels.txt").write_text(LIST)
    report, counts = imported(root, tmp_path / "out", label_path=place)
    assert counts == ALL and list(report.classes) == NAMES
    assert any(
        note.endswith("masks/ are taken for them in their order: 0 ground, 1 sand, 2 rock")
        for note in report.notes
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", table("image,x,y,label", "im{i}.png,0.{x:02},0.{y:02},{label}")),
        ("p.csv", table("image,row,column,label", "im{i}.png,0.{y:02},0.{x:02},{label}")),
        ("p.json", coco(lambda y, x: {"keypoints": [x / 40, y / 24, 2]})),
        ("p.json", {f"im{i}": [{"x": x / 40, "y": y / 24, "cls": 0} for y, x in CLICKS] for i in TRAIN}),
        (
            "p.json",
            {
                "imagePath": "im0.png",
                "shapes": [{"label": "sand", "points": [[0.1, 0.2], [0.4, 0.2], [0.4, 0.6]]}],
            },
        ),
    ],
)
def test_shares_of_the_sides_are_not_taken_for_pixels(tmp_path: Path, name: str, content: Any) -> None:
    root = raw_folder(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"positions lie in 0\.\.1.* multiply x by the width and y by the"):
        imported(root, tmp_path / "out", label_path=with_labels(tmp_path, name, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ground sand rock\n", "holds one name, 'ground sand rock', with spaces in it"),
        ('[\n"ground",\n"sand",\n"rock"\n]\n', r"holds JSON or a list in brackets, as in '\['"),
        ('{"0": "ground",\n"1": "sand",\n"2": "rock"}\n', "holds JSON or a list in brackets"),
        ("- ground\n- sand\n- rock\n", "holds a list of YAML, as in '- ground'; write one bare name a line"),
        ('"ground"\n"sand"\n"rock"\n', "holds names in quotes"),
        ("ground,\nsand,\nrock\n", "holds names with a comma behind them"),
        ("ground:0,0,0::\nsand:1,1,1::\nrock:2,2,2::\n", r"holds colours of a labelmap\.txt, which belongs"),
    ],
)
def test_class_lists_of_other_forms_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = raw_folder(tmp_path / "raw", classes=text)
    save_label(root / "labels" / "train" / "im0.png", sparse_label())
    with pytest.raises(ValueError, match=message):
        imported(root, tmp_path / "out")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize(("unlabelled", "first"), [(0, 1), (3, 0), (254, 0), (255, 0)])
def test_every_unlabelled_code_in_tiffs_of_every_depth(
    tmp_path: Path, dtype: Any, unlabelled: int, first: int
) -> None:
    root = raw_folder(tmp_path / "raw")
    for i in TRAIN:
        save_label(root / "labels" / "train" / f"im{i}.tif", sparse_label(unlabelled, first).astype(dtype))
    assert imported(root, tmp_path / "out")[1] == ALL


# ----------------------------------------------------------------------------------------------- which way up


@pytest.mark.parametrize(
    ("suffix", "options", "fields"),
    [
        (".jpg", {}, {}),
        (".jpg", {}, {"store": "raw"}),
        (".png", {}, {"store": "fast"}),
        (".jpg", {}, {"tile_px": 64}),
        (".webp", {"lossless": True}, {}),
        (".jpg", {"exif": b"", "xmp": b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'}, {}),
    ],
)
def test_pictures_of_every_kind_are_taken_upright(
    tmp_path: Path, suffix: str, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    root = raw_folder(tmp_path / "raw", suffix=suffix)
    options = {**options, **({"quality": 95, "subsampling": 0} if suffix == ".jpg" else {})}
    for name, orientation in (("train/im0", 6), ("val/im2", 6)):  # im1 has none: a set is often mixed
        save_image(root / "images" / f"{name}{suffix}", orientation, **options)
    path = with_labels(
        tmp_path, "p.csv", table("Name,Row,Column,Label code", f"im{{i}}{suffix},{{y}},{{x}},{{label}}")
    )
    report, counts = imported(root, tmp_path / "out", label_path=path, **fields)
    assert counts == ALL
    assert report.splits["train"]["images_turned"] == report.splits["val"]["images_turned"] == 1


# --------------------------------------------------------------------------------------------------- overlaps


def drawn(place: Path, names: list[str] = NAMES, width_px: float = 1.0) -> np.ndarray:
    """The label (8, 8) of image `a`."""
    strokes = read_strokes([place], "auto", names, width_px)[1].strokes["a"]
    return draw(strokes, (8, 8), Counter())[0]


def polygon(label: str, low: int, high: int) -> dict[str, Any]:
    return {"label": label, "points": [[low, low], [high, low], [high, high], [low, high]]}


def click(label: str) -> dict[str, Any]:
    return {"label": label, "shape_type": "point", "points": [[4.5, 4.5]]}


@pytest.mark.parametrize(
    ("shapes", "at_4_4"),
    [
        ([polygon("ground", 0, 8), click("sand")], 1),
        ([click("sand"), polygon("ground", 0, 8)], 0),  # the later one, though it is of class 0
        ([polygon("sand", 2, 6), polygon("ground", 0, 8)], 0),
        ([click("sand"), click("ground")], 1),  # clicks have no order, and an object's goes before class 0
        ([click("sand"), polygon("rock", 0, 8), click("ground")], 0),
        ([click("rock"), click("ground"), click("sand")], 1),
    ],
)
def test_shapes_keep_their_order_and_clicks_put_class_0_below(
    tmp_path: Path, shapes: list[Any], at_4_4: int
) -> None:
    place = Path(with_labels(tmp_path, "a.json", {"shapes": shapes, "imagePath": "a.png"}))
    assert drawn(place)[4, 4] == at_4_4


def test_a_wide_click_of_class_0_leaves_its_neighbours_click(tmp_path: Path) -> None:
    text = "image,row,column,label\na,4,4,sand\na,4,6,ground\n"
    label_HW = drawn(Path(with_labels(tmp_path, "a.csv", text)), width_px=5)
    assert label_HW[4, 4] == label_HW[4, 6] == 1 and label_HW[4, 7] == 0


@pytest.mark.parametrize(
    ("orders", "at_4_4"), [(("0", "0"), 2), (("1", "0"), 1), (("-1", "-2"), 1), (("0", "1"), 2)]
)
def test_cvats_layers(tmp_path: Path, orders: tuple[str, str], at_4_4: int) -> None:
    shapes = "".join(
        f'<polygon label="{label}" points="0,0;8,0;8,8;0,8" z_order="{z}"/>'
        for label, z in zip(("sand", "rock"), orders, strict=True)
    )
    text = f'<annotations><image id="0" name="a.png" width="8" height="8">{shapes}</image></annotations>'
    assert drawn(Path(with_labels(tmp_path, "a.xml", text)))[4, 4] == at_4_4


# ---------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "sep=;\n" + table("image;row;column;label", "im{i}.png;{y};{x};{label}")),
        ("p.csv", "SEP=,\r\n" + table("image,row,column,label")),
        ("p.tsv", table("image\trow\tcolumn\tlabel", "im{i}.png\t{y}\t{x}\t{label}")),
        ("p.csv", table('"image", "x", "y", "label"', '"im{i}.png", {x}, {y}, "{label}"')),
        ("p.csv", table("image,x (px),y (px),label", "im{i}.png,{x},{y},{label}")),
        ("p.csv", table("image_id,x_px,y_px,label", "im{i},{x},{y},{label}")),
        ("p.csv", table("image,X coord,Y coord,class", "im{i}.png,{x},{y},{label}")),
        ("p.csv", table("filename,image_id,x,y,class,class_id", "im{i}.png,7,{x},{y},{label},9")),
        ("p.csv", table("image,x,y,class_id", "im{i}.png,{x}.0,{y}.0,{k}.0")),  # ids of a table with gaps
        ("p.csv", table(",ImageName,x,y,label", "3,C:\\data\\IM{i}.PNG,{x},{y},{label}")),
        ("p.csv", table("image,x,y,label", "https://a.org/b/im{i}.png?raw=1,{x},{y},{label}")),
        ("p.json", coco(lambda y, x: {**keypoint(y, x), "segmentation": [[]]})),
        ("p.json", coco(lambda y, x: {**keypoint(y, x), "keypoints": [0, 0, 0, x, y, 1.0]})),
        ("p.json", coco(keypoint, extra=[{"id": 0, "name": "things", "supercategory": "none"}])),
    ],
)
def test_clicks_as_tools_and_spreadsheets_write_them(tmp_path: Path, name: str, content: Any) -> None:
    root = raw_folder(tmp_path / "raw")
    assert imported(root, tmp_path / "out", label_path=with_labels(tmp_path, name, content))[1] == ALL


@pytest.mark.parametrize("path", ["..\\images\\train\\im{}.png", "/home/me/im{}.png", "C:\\photos\\im{}.PNG"])
def test_labelmes_paths_of_other_machines(tmp_path: Path, path: str) -> None:
    root = raw_folder(tmp_path / "raw")
    place = labelme(tmp_path / "ann")
    for i in TRAIN:
        file = tmp_path / "ann" / f"im{i}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "imagePath": path.format(i)}))
    assert imported(root, tmp_path / "out", label_path=place)[1] == ALL


@pytest.mark.parametrize("kind", ["rotation", "quadrilateral", "oriented_rectangle"])
def test_boxes_of_four_corners_are_filled(tmp_path: Path, kind: str) -> None:
    shape = {"shape_type": kind, "direction": 0.5, **polygon("rock", 2, 6)}
    label_HW = drawn(Path(with_labels(tmp_path, "a.json", {"shapes": [shape], "imagePath": "a.png"})))
    assert (label_HW == 2).sum() == 16 and (label_HW[2:6, 2:6] == 2).all()


@pytest.mark.parametrize("column", ["x (px)", "Y_px", "row", "x coord"])
def test_positions_under_any_name_are_no_tags(tmp_path: Path, column: str) -> None:
    root = raw_folder(tmp_path / "raw")
    path = with_labels(tmp_path, "p.csv", f"image,{column},label\nim0.png,3,sand\nim1.png,3,rock\n")
    with pytest.raises(ValueError, match="a CSV of points, for it has a column"):
        imported(root, tmp_path / "out", label_path=path, label="tag")


def test_a_folders_case_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for number, name in enumerate(("a/im0", "b/im0", "c/im0")):
        save_image(root / "images" / f"{name}.png", pnginfo=about(str(number)))
    (root / "classes.txt").write_text(LIST)
    rows = [f"D:\\data\\{site}\\im0.png,2,3,sand" for site in "AbC"]
    path = with_labels(tmp_path, "p.csv", "\n".join(["image,row,column,label", *rows]))
    assert imported(root, tmp_path / "out", label_path=path, val_split="none")[1] == {"train": 3}


def test_frames_of_a_video_that_mean_no_image_say_the_way_out(tmp_path: Path) -> None:
    shape = '<points frame="0" outside="0" keyframe="1" points="3.5,2.5"/>'
    path = with_labels(tmp_path, "a.xml", f'<annotations><track label="sand">{shape}</track></annotations>')
    message = (
        r"without label: im0, im1; the files annotate frame_000000 \(.*export 'CVAT for images 1\.1'\); call"
    )
    with pytest.raises(ValueError, match=message):
        imported(raw_folder(tmp_path / "raw"), tmp_path / "out", label_path=path)


@pytest.mark.parametrize("record", [{"lead_time": 1.0, "annotator": 1}, {}])
def test_label_studios_json_min_of_older_and_newer_versions(tmp_path: Path, record: dict[str, Any]) -> None:
    size = {"original_width": 40, "original_height": 24}
    tasks = [
        {
            "image": f"/data/upload/1/0a1b2c3d-im{i}.png",
            "annotation_id": i,
            **record,
            "kp": [
                {
                    "x": 2.5 * x + 1,
                    "y": 100 * (y + 0.5) / 24,
                    "keypointlabels": [NAMES[SCENE_HW[y, x]]],
                    **size,
                }
                for y, x in CLICKS
            ],
        }
        for i in TRAIN
    ]
    root = raw_folder(tmp_path / "raw")
    assert imported(root, tmp_path / "out", label_path=with_labels(tmp_path, "p.json", tasks))[1] == ALL
