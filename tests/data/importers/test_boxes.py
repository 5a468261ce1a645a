"""Boxes as labels: read from files, drawn from masks, the label map that they make, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest
import test_readers
import test_tags
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import fixed_mask, masks, parts
from PIL import Image
from test_readers import changed

from sparseg.config import IGNORED, UNLABELLED, DataConfig
from sparseg.data import importers, shards, sparsify
from sparseg.data.importers.readers import cvat, labelme, read_strokes, voc
from sparseg.data.importers.readers.coco import read
from sparseg.data.importers.tags_and_boxes import draw_boxes, present
from sparseg.data.loader import TrainingSamples, collate
from sparseg.data.strokes import Stroke, stored

NAMES = test_readers.NAMES

COCO: dict[str, Any] = {
    **test_readers.COCO,
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 12, 4, 6], "segmentation": "not looked at"},
        {"id": 2, "image_id": 8, "category_id": 90, "bbox": [-1.5, 2, 4, 1e3], "iscrowd": 1},
    ],
}
LABELME = {
    **test_readers.LABELME,
    "shapes": [
        {"label": "tree", "points": [[14, 18], [10, 12]], "shape_type": "rectangle"},
        {"label": "void", "points": [[1, 1], [4, 1], [4, 4], [1, 4]], "shape_type": "rectangle"},
    ],
}
CVAT = """<annotations><image id="0" name="img_0.jpg" width="32" height="24"><tag label="ground"/>
<box label="tree" xtl="10" ytl="12" xbr="14" ybr="18" z_order="1"/>
<box label="wall, brick" xtl="0" ytl="0" xbr="2" ybr="2"/></image></annotations>"""
FORMATS: dict[str, tuple[Callable[..., Any], str, Any]] = {
    "coco": (partial(read, kind="box"), "instances.json", COCO),
    "labelme": (partial(labelme.read, kind="box"), "img_0.json", LABELME),
    "cvat": (partial(cvat.read, kind="box"), "annotations.xml", CVAT),
    "voc": (voc.read, "img_0.xml", test_tags.VOC),
}


def box(k: int, top: float, left: float, bottom: float, right: float) -> Stroke:
    return Stroke(k, "polygon", (top, top, bottom, bottom), (left, right, right, left))


WANTED = {
    "coco": {"img_0": [box(1, 12, 10, 18, 14)], "img_1": [box(1, 2, -1.5, 1002, 2.5)]},
    "labelme": {
        "img_0": [
            Stroke(1, "polygon", (18, 18, 12, 12), (14, 10, 10, 14)),
            Stroke(IGNORED, "polygon", (1, 1, 4, 4), (1, 4, 4, 1)),
        ]
    },
    "cvat": {"img_0": [box(2, 0, 0, 2, 2), box(1, 12, 10, 18, 14)]},
    "voc": {"img_0": [box(1, 1, 2, 8, 9), box(1, 1, 19, 24, 32.5)]},  # pixels 3..9 from 1 are 2..8 from 0
}


# ---------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("label_format", FORMATS)
def test_every_format(tmp_path: Path, label_format: str) -> None:
    _, name, content = FORMATS[label_format]
    file = test_readers.save(tmp_path, name, content)
    for declared in ("auto", label_format):
        found, annotations = read_strokes([file], declared, NAMES, 1.0, "box")
        assert (found, annotations.strokes) == (label_format, WANTED[label_format])
    assert annotations.notes == (["1 tags of whole images were left out"] if label_format == "cvat" else [])


BBOX = ["annotations", 0, "bbox"]
VOC_BOX = "<xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"
REFUSED: list[tuple[str, Any, str]] = [
    # class 0, which is outside
    ("coco", changed(COCO, ["annotations", 1, "category_id"], 3), "annotation 2: a box of class 0, 'ground'"),
    ("labelme", changed(LABELME, ["shapes", 0, "label"], "ground"), "shape 1: a box of class 0"),
    ("cvat", CVAT.replace('box label="tree"', 'box label="ground"'), "shape 2: a box of class 0"),
    ("voc", test_tags.VOC.replace("<name>tree", "<name>ground"), "object 1: a box of class 0"),
    # no area
    ("coco", changed(COCO, BBOX, [1, 2, 0, 3]), "annotation 1: a box without area, its sides are 0 x 3"),
    ("labelme", changed(LABELME, ["shapes", 0, "points"], [[1, 2], [5, 2]]), "shape 1: a box without area"),
    ("cvat", CVAT.replace('xbr="14"', 'xbr="10"'), "shape 2: a box without area"),
    ("voc", test_tags.VOC.replace("<xmax>9", "<xmax>2"), "object 1: a box without area"),
    ("coco", changed(COCO, BBOX, [1, 2, -1, 3]), r"annotation 1: bbox .* negative side in \[1, 2, -1, 3\]"),
    ("voc", test_tags.VOC.replace("<ymax>8", "<ymax>0"), r"object 1: xmax or ymax lies before .*y 2\.\.0"),
    # other shapes, whose objects would be taught to be background
    ("labelme", changed(LABELME, ["shapes", 1, "shape_type"], "polygon"), "shape 2: a polygon, but"),
    ("cvat", CVAT.replace("<box", '<polygon points="1,1;2,2;3,1"'), "shape 2: a <polygon>, but .*boxes only"),
    ("coco", test_readers.COCO, "annotation 1: lacks 'bbox'"),
    # numbers
    ("coco", changed(COCO, BBOX, [1, 2, 3]), r"annotation 1: bbox must be \[x, y, width, height\]"),
    ("coco", changed(COCO, BBOX, [1, 2, 3, True]), "annotation 1, bbox: position True"),
    ("coco", changed(COCO, BBOX, "1234"), "'bbox' must be a list"),
    ("coco", json.dumps(COCO).replace("[10,", "[NaN,"), "annotation 1, bbox: position nan"),
    ("voc", test_tags.VOC.replace(VOC_BOX, ""), "object 1, xmin: '' is no number"),
    ("voc", test_tags.VOC.replace(f"<bndbox>{VOC_BOX}</bndbox>", ""), "object 1: lacks <bndbox>"),
    ("voc", test_tags.VOC.replace("<ymin>2", "<ymin>1e9"), "object 1, ymin: position"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label_format", "content", "message"), REFUSED, ids=[f"{n}-{r[0]}" for n, r in enumerate(REFUSED)]
)
def test_refused_in_one_line_that_names_the_file(
    tmp_path: Path, label_format: str, content: Any, message: str
) -> None:
    reader, name, _ = FORMATS[label_format]
    file = test_readers.save(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        reader([file], NAMES)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    if "class 0" in message:
        assert "class 0 must be the background" in str(caught.value)


def test_a_csv_has_no_boxes(tmp_path: Path) -> None:
    file = test_readers.save(tmp_path, "points.csv", test_readers.CSV)
    with pytest.raises(
        ValueError, match=r"a csv file, but data\.label=box is read from coco, labelme, cvat, voc"
    ):
        read_strokes([file], "auto", NAMES, 1.0, "box")


# ------------------------------------------------------------------------------------------------- label maps

edges, sides = st.integers(-6, 18), st.integers(1, 9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, IGNORED]), edges, edges, sides, sides), max_size=5))
def test_inside_is_unknown_and_outside_is_background(boxes: list[tuple[int, int, int, int, int]]) -> None:
    H, W = 10, 13
    wanted, known, dropped, clipped = np.zeros((H, W), np.uint8), set(), 0, 0
    for k, top, left, height, width in sorted(boxes, key=lambda b: b[0] != IGNORED):
        rows, columns = range(top, top + height), range(left, left + width)
        inside = [(y, x) for y in rows for x in columns if 0 <= y < H and 0 <= x < W]
        dropped += not inside
        clipped += 0 < len(inside) < height * width
        known |= {k} if inside and k != IGNORED else set()
        for y, x in inside:
            wanted[y, x] = IGNORED if k == IGNORED else UNLABELLED
    count: Counter[str] = Counter()
    strokes = [box(k, top, left, top + height, left + width) for k, top, left, height, width in boxes]
    label, drawn = draw_boxes(strokes, (H, W), count)
    np.testing.assert_array_equal(label, wanted)
    # there may be background inside of any box
    assert present("box", stored(drawn)) == sorted(known | {0}) and present("scribble", stored(drawn)) == []
    assert (count["boxes"], count["boxes_outside"]) == (len(boxes) - dropped, dropped)
    assert count["boxes_clipped"] == clipped


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, 0.05]))
def test_drawn_boxes_are_those_of_the_components(mask: np.ndarray, a: int, b: int, min_share: float) -> None:
    drawn = {n: sparsify.boxes(mask, n, min_share=min_share) for n in (a, b, 0)}
    for budget, (label, strokes) in drawn.items():
        wanted = []
        for k in range(1, 5):
            number, count = parts(mask, k)
            found = []
            for n in range(1, count + 1):
                y, x = np.nonzero(number == n)
                found.append((-len(y), n, (k, y.min(), x.min(), y.max() + 1, x.max() + 1)))
            least = min(min_share * mask.size, -min(found)[0]) if found else 0
            wanted += [at for size, _, at in sorted(found) if -size >= least][: budget or None]
        assert [(s["class"], s["y"][0], s["x"][0], s["y"][2], s["x"][2]) for s in strokes] == wanted
        label_of_them, same = draw_boxes([box(*at) for at in wanted], mask.shape, Counter())
        np.testing.assert_array_equal(label, np.where(mask >= UNLABELLED, mask, label_of_them))
        assert stored(same) == strokes
    few, many = sorted((a, b))
    outlines = [[json.dumps(stroke) for stroke in drawn[n][1]] for n in (few, many, 0)]
    assert set(outlines[0]) <= set(outlines[1]) <= set(outlines[2])


def test_drawn_boxes_stay_the_same_for_ever() -> None:
    recipe = sparsify.Recipe(kind="box", budget=1, seed=9)
    label, strokes = recipe.draw(fixed_mask(), "x")
    found = [(s["class"], s["y"][0], s["x"][0], s["y"][2], s["x"][2]) for s in strokes]
    assert found == [(1, 6, 6, 35, 35), (2, 41, 0, 52, 65), (3, 0, 40, 60, 76), (4, 30, 5, 34, 9)]
    assert np.bincount(label.ravel(), minlength=256)[[0, UNLABELLED, IGNORED]].tolist() == [1115, 3445, 240]


# ----------------------------------------------------------------------------------------------------- import


def test_from_the_command_to_the_samples_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = test_readers.dataset(tmp_path / "raw")
    size = {"height": fixtures.HEIGHT, "width": fixtures.WIDTH}
    sides = {0: [[4, 2, 8, 10], [-3, 20, 5, 50], [40, 2, 3, 3]], 1: [], 2: [[0, 0, 32, 24]]}
    coco = {
        "images": [{"id": n, "file_name": f"{name}.jpg", **size} for n, name in enumerate(ids)],
        "categories": [{"id": 5, "name": "tree"}, {"id": 6, "name": "wall, brick"}],
        "annotations": [
            {"image_id": n, "category_id": 5 + (n == 2), "bbox": side}
            for n, own in sides.items()
            for side in own
        ],
    }
    file, out = test_readers.save(tmp_path, "boxes.json", coco), tmp_path / "out"
    assert run(f"import folder {tmp_path}/raw {out} --label box --labels {file} --workers 0") == 0
    printed = capsys.readouterr().out
    assert "encoding: found: coco in boxes.json; boxes, class 0 outside of them" in printed
    assert "3 boxes, 1 of them clipped to their image, 1 without a pixel in their image dropped" in printed
    assert "much for box labels" not in printed
    opened = shards.open(out)
    wanted = np.zeros((3, fixtures.HEIGHT, fixtures.WIDTH), np.uint8)
    wanted[0, 2:12, 4:12] = wanted[0, 20:, :2] = wanted[2] = UNLABELLED
    rows = {row["id"]: row for row in opened.splits["train"]}
    for name, label, present_, count in zip(ids, wanted, ([0, 1], [0], [0, 2]), (2, 0, 1), strict=True):
        np.testing.assert_array_equal(shards.decode_label(rows[name]["label"]["bytes"]), label)
        assert rows[name]["present"] == present_ and len(rows[name]["strokes"]) == count
        assert all(stroke["width"] == 0 and len(stroke["y"]) == 4 for stroke in rows[name]["strokes"])
    assert opened.report["splits"]["train"]["images"] == [3, 1, 1]
    assert "note: 1 listed images have no box, taken to be class 0, 'ground', as a whole" in printed

    data = DataConfig(root=str(out), label="box", crop_px=32)
    assert importers.prepare(data, tmp_path / "runs") == out
    samples = TrainingSamples(opened.splits["train"], 3, data, seed=0)
    batch = collate([samples[0, row] for row in range(3)])
    told = dict(zip(ids, ([True, True, False], [True, False, False], [True, False, True]), strict=True))
    assert batch.present_BK.tolist() == [told[name] for name in opened.splits["train"]["id"][:]]
    assert set(batch.label_BHW.unique().tolist()) <= {0, UNLABELLED, IGNORED}


def test_voc_keeps_its_boxes_in_annotations(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw", train=3)
    (root / "Annotations").mkdir()
    for number in range(3):
        objects = test_tags.VOC.replace("<name>tree", "<name>tvmonitor" if number > 1 else "<name>cat")
        (root / "Annotations" / f"2007_{number:06d}.xml").write_text(objects)
    (root / "Annotations" / "2007_000000.xml").write_text("<annotation></annotation>")  # tells no format
    box_report = importing.import_dataset("voc", root, tmp_path / "box", label="box")
    assert box_report.encoding.startswith("found: voc in 2007_000000.xml, 2007_000001.xml, 2007_000002.xml;")
    rows = shards.open(tmp_path / "box").splits["train"]
    assert rows["present"][:] == [[0], [0, 8], [0, 20]]
    inside = shards.decode_label(rows[1]["label"]["bytes"]) == UNLABELLED
    assert inside[1:8, 2:9].all() and inside[1:, 19:].all() and inside.sum() == 7 * 7 + 23 * 13
    tag_report = importing.import_dataset("voc", root, tmp_path / "tag", label="tag")
    assert shards.open(tmp_path / "tag").splits["train"]["present"][:] == [[0], [0, 8], [0, 20]]
    assert any("'background', is tagged nowhere" in note for note in tag_report.notes)


def test_sparsify_and_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[10:40, 20:60] = 2
    row = fixtures.row("a", mask, mask)
    shards.write(
        tmp_path / "set",
        {"train": lambda: iter([dict(row)]), "val": lambda: iter([{**row, "mask": None}])},
        NAMES,
        report={"label": "full"},
        palette=[(0, 0, 250), (250, 0, 0), (0, 250, 0)],
    )
    assert run(f"sparsify {tmp_path}/set {tmp_path}/out --kind box --budget 0") == 0
    assert "also an object without a box" in capsys.readouterr().out
    made = shards.open(tmp_path / "out")
    assert made.splits["train"][0]["present"] == [0, 2] and made.report["label"] == "box"
    assert made.report["splits"]["train"]["images"] == [1, 0, 1]
    assert run(f"inspect {tmp_path}/out --html {tmp_path}/a.html") == 0
    assert "no labelled pixel or box of tree" in capsys.readouterr().out
    page = (tmp_path / "a.html").read_text()
    assert " · 1 box<ul" in page and "1 stroke" not in page
    data = re.search(r"base64,([^\"]+)", page)
    assert data is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1])))).astype(int)
    scale = picture.shape[0] // 60
    green = picture[..., 1] - picture[..., 2] > 80
    for y, x in ((10, 40), (40, 40), (25, 20), (25, 60)):  # the middle of each side
        assert green[y * scale - 2 : y * scale + 3, x * scale - 2 : x * scale + 3].any()
    assert not green[12 * scale : 38 * scale, 22 * scale : 58 * scale].any()
