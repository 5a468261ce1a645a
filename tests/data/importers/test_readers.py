"""Readers of point and stroke files: hand-made files of the published schema, and what is refused."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseg import cli
from sparseg.config import IGNORED, UNLABELLED, ImportConfig
from sparseg.data import importers, shards
from sparseg.data.importers import layouts
from sparseg.data.importers.layouts.voc import VOC_NAMES
from sparseg.data.importers.readers import (
    coco,
    csv,
    cvat,
    detect_format,
    label_studio,
    labelme,
    points,
    read_strokes,
    scribblesup,
)
from sparseg.data.strokes import Stroke, draw, mask_stroke, stored

NAMES = ["ground", "tree", "wall, brick"]
MASK = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)


def point(k: int, y: float, x: float, width_px: float = 1.0) -> Stroke:
    return Stroke(k, "point", (y,), (x,), width_px)


def save(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# ------------------------------------------------------------------------------------ the published formats

POINTS = {
    "img_0": [{"x": 3.7, "y": 2.2, "cls": 1, "rank": 1}, {"x": 5, "y": 0, "cls": 0, "rank": 2}],
    "img_1": [],
}
SCRIBBLES = """<?xml version="1.0"?>
<annotation>
 <folder>scribbles</folder>
 <size><width>32</width><height>24</height><depth>3</depth></size>
 <polygon><tag>tree</tag><point><X>1</X><Y>2</Y></point><point><X>40</X><Y>-3</Y></point></polygon>
 <polygon><tag>ground</tag><point><X>7</X><Y>8</Y></point></polygon>
</annotation>
"""
CSV = (
    '\ufeffLabel,Name,Column,Row,Date\r\n"wall, brick",img_0.jpg,5,2,x\r\n'
    "tree,img_0.jpg,4.5,1,y\r\n\r\n0,img_1.png,1,0,\r\n"
)
LABELME: dict[str, Any] = {
    "version": "5.4.1",
    "flags": {},
    "imagePath": "img_0.jpg",
    "imageData": None,
    "imageHeight": 24,
    "imageWidth": 32,
    "shapes": [
        {"label": "tree", "points": [[3.5, 2.5]], "shape_type": "point", "group_id": None, "flags": {}},
        {"label": "ground", "points": [[0, 1], [4, 5], [9, 9]], "shape_type": "linestrip"},
        {"label": "ground", "points": [[0, 1], [4, 5]], "shape_type": "line"},
        {"label": "wall, brick", "points": [[1, 1], [5, 1], [5, 6]], "shape_type": "polygon"},
        {"label": "tree", "points": [[10, 12], [14, 18]], "shape_type": "rectangle"},
        {"label": "tree", "points": [[20, 12], [23, 16]], "shape_type": "circle"},
    ],
}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>t</name></task></meta>
  <image id="0" name="img_0.jpg" width="32" height="24">
    <tag label="tree" source="manual"/>
    <polygon label="ground" source="manual" occluded="0" points="1.0,2.0;9.5,2.0;9.5,8.0" z_order="2"/>
    <points label="tree" source="manual" occluded="0" points="3.50,2.50;6.00,7.25" z_order="0"/>
    <polyline label="tree" occluded="0" points="0,1;4,5;9,9"><attribute name="a">b</attribute></polyline>
    <box label="tree" occluded="0" xtl="10" ytl="12" xbr="14" ybr="18" z_order="0"/>
    <mask label="wall, brick" rle="1, 4, 1" left="5" top="3" width="3" height="2" z_order="1"/>
  </image>
  <image id="1" name="img_1.jpg" width="20" height="10"/>
</annotations>
"""
COCO: dict[str, Any] = {
    "info": {},
    "images": [
        {"id": 7, "file_name": "img_0.jpg", "height": 2, "width": 3},
        {"id": 8, "file_name": "img_1.jpg", "height": 10, "width": 20},
    ],
    "categories": [{"id": 90, "name": "tree"}, {"id": 3, "name": "ground"}, {"id": 4, "name": "unused"}],
    "annotations": [
        {"id": 1, "image_id": 8, "category_id": 90,
         "segmentation": [[1, 2, 9, 2, 9, 8.5], [0, 0, 1, 0, 1, 1]]},
        {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1,
         "segmentation": {"size": [2, 3], "counts": [1, 4, 1]}},
        {"id": 3, "image_id": 7, "category_id": 90, "segmentation": [],
         "keypoints": [1, 1.5, 2, 0, 0, 0, 2, 0, 1], "num_keypoints": 2},
        {"id": 4, "image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4], "keypoints": [0, 0, 0]},
    ],
}  # fmt: skip
LABEL_STUDIO: list[dict[str, Any]] = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-img_0.jpg"},
        "annotations": [
            {
                "id": 5,
                "was_cancelled": False,
                "created_at": "2026-03-09T22:16:08.728353Z",
                "result": [
                    {"id": "a", "type": "keypointlabels", "original_width": 32, "original_height": 24,
                     "image_rotation": 0,
                     "value": {"x": 12.5, "y": 25, "width": 0.5, "keypointlabels": ["tree"]}},
                    {"id": "b", "type": "polygonlabels", "original_width": 32, "original_height": 24,
                     "value": {"points": [[25, 50], [75, 50], [75, 100]], "polygonlabels": ["ground"]}},
                ],
            }
        ],
        "predictions": [],
    }
]  # fmt: skip
FORMATS: dict[str, tuple[Callable[..., Any], str, Any]] = {
    "whats-the-point": (points.read, "points.json", POINTS),
    "scribblesup": (scribblesup.read, "img_0.xml", SCRIBBLES),
    "csv": (csv.read, "points.csv", CSV),
    "labelme": (labelme.read, "img_0.json", LABELME),
    "cvat": (cvat.read, "annotations.xml", CVAT),
    "coco": (coco.read, "instances.json", COCO),
    "label-studio": (label_studio.read, "project.json", LABEL_STUDIO),
}


def read(folder: Path, label_format: str, content: Any = None, width_px: float = 1.0) -> Any:
    reader, name, example = FORMATS[label_format]
    return reader([save(folder, name, example if content is None else content)], NAMES, width_px)


def test_whats_the_point(tmp_path: Path) -> None:
    found = read(tmp_path, "whats-the-point")
    assert found.strokes == {"img_0": [point(1, 2.2, 3.7), point(0, 0, 5)], "img_1": []}
    more = save(tmp_path, "more.json", {"img_1": [{"x": 754.5, "y": -2.0, "cls": 2}]})
    both = points.read([tmp_path / "points.json", more], NAMES, 3.0)
    assert both.strokes["img_1"] == [point(2, -2.0, 754.5, 3.0)] and len(both.strokes["img_0"]) == 2


def test_scribblesup(tmp_path: Path) -> None:
    found = read(tmp_path, "scribblesup", width_px=3)
    assert found.strokes == {
        "img_0": [Stroke(1, "line", (2, -3), (1, 40), 3), Stroke(0, "line", (8,), (7,), 3)]
    }
    assert found.sizes == {"img_0": (24, 32)}


def test_scribblesups_names_become_vocs(tmp_path: Path) -> None:
    names = VOC_NAMES
    theirs = "background plane bike bird boat bottle bus car cat chair cow table dog horse motorbike person"
    theirs += " plant sheep sofa train monitor"
    text = "".join(
        f"<polygon><tag>{name}</tag><point><X>1</X><Y>1</Y></point></polygon>" for name in theirs.split()
    )
    file = save(tmp_path, "2007_000001.xml", f"<annotation>{text}</annotation>")
    found = scribblesup.read([file], names)
    assert [stroke.class_id for stroke in found.strokes["2007_000001"]] == list(range(21))
    own = ["x", "plane", "aeroplane"]  # a dataset that has a class of that very name keeps it
    only = "<polygon><tag>plane</tag><point><X>1</X><Y>1</Y></point></polygon>"
    file = save(tmp_path, "a.xml", f"<annotation>{only}</annotation>")
    assert scribblesup.read([file], own).strokes["a"][0].class_id == 1


def test_csv_with_coralnets_names_quotes_bom_and_crlf(tmp_path: Path) -> None:
    found = read(tmp_path, "csv")
    assert found.strokes == {"img_0": [point(2, 2, 5), point(1, 1, 4.5)], "img_1": [point(0, 0, 1)]}
    assert found.notes == []


def test_csv_duplicates_are_counted(tmp_path: Path) -> None:
    text = "image,row,column,label\na.jpg,1,2,tree\na.jpg,1.0,2,1\na.jpg,1,2,ground\n"
    found = read(tmp_path, "csv", text)
    assert found.strokes == {"a": [point(1, 1, 2), point(0, 1, 2)]}
    assert found.notes == ["1 CSV rows repeat an earlier one and were left out"]


def test_a_class_named_by_a_number_goes_before_an_id(tmp_path: Path) -> None:
    file = save(tmp_path, "p.csv", "image,row,column,label\na,1,2,1\na,1,3,2\n")
    assert [s.class_id for s in csv.read([file], ["1", "x", "y"]).strokes["a"]] == [0, 2]


def test_labelme(tmp_path: Path) -> None:
    strokes = read(tmp_path, "labelme", width_px=3).strokes["img_0"]
    assert strokes[:5] == [
        point(1, 2.5, 3.5, 3),
        Stroke(0, "line", (1, 5, 9), (0, 4, 9), 3),
        Stroke(0, "line", (1, 5), (0, 4), 3),
        Stroke(2, "polygon", (1, 1, 6), (1, 5, 5)),
        Stroke(1, "polygon", (12, 12, 18, 18), (10, 14, 14, 10)),
    ]
    circle = strokes[5]
    radius = np.hypot(np.array(circle.y) - 12, np.array(circle.x) - 20)
    assert circle.kind == "polygon" and np.allclose(radius, 5) and len(circle.y) >= 64


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("img_0.jpg", "img_0"), ("other.png", "other"), ("sub/other.png", "sub/other"),
        (None, "img_0"), ("", "img_0"),
        ("../images/img_0.jpg", "/images/img_0"), ("..\\images\\img_0.jpg", "/images/img_0"),
    ],
)  # fmt: skip
def test_labelmes_image_path_names_the_image(tmp_path: Path, path: str | None, name: str) -> None:
    found = read(tmp_path, "labelme", {**LABELME, "imagePath": path})
    assert list(found.strokes) == [name] and found.sizes == {name: (24, 32)}


def test_what_is_void_is_ignored(tmp_path: Path) -> None:
    for label in ("__ignore__", "void", "Ignore"):
        content = changed(LABELME, ["shapes", 3, "label"], label)
        strokes = read(tmp_path, "labelme", content).strokes["img_0"]
        assert strokes[3] == Stroke(IGNORED, "polygon", (1, 1, 6), (1, 5, 5))
        assert len(stored(strokes)) == len(strokes) - 1
    label, _ = draw([strokes[3]], (24, 32), Counter())
    assert set(np.unique(label)) == {UNLABELLED, IGNORED}
    file = save(
        tmp_path, "a.json", changed(LABELME, ["shapes"], [{**LABELME["shapes"][0], "label": "_background_"}])
    )
    assert labelme.read([file], ["background"]).strokes["img_0"][0].class_id == 0


def test_cvat(tmp_path: Path) -> None:
    found = read(tmp_path, "cvat")
    assert found.strokes["img_0"] == [
        point(1, 2.5, 3.5),
        point(1, 7.25, 6),
        Stroke(1, "line", (1, 5, 9), (0, 4, 9)),
        Stroke(1, "polygon", (12, 12, 18, 18), (10, 14, 14, 10)),
        mask_stroke(2, MASK, 3, 5),
        Stroke(0, "polygon", (2, 2, 8), (1, 9.5, 9.5)),  # the highest z_order last
    ]
    assert found.strokes["img_1"] == [] and found.sizes == {"img_0": (24, 32), "img_1": (10, 20)}
    assert found.notes == ["1 tags of whole images were left out"]


def test_cvats_box_turns_clockwise(tmp_path: Path) -> None:
    turned = CVAT.replace('ybr="18"', 'ybr="18" rotation="90"')
    box = read(tmp_path, "cvat", turned).strokes["img_0"][3]
    np.testing.assert_allclose(box.x, [15, 15, 9, 9], atol=1e-9)
    np.testing.assert_allclose(box.y, [13, 17, 17, 13], atol=1e-9)


def test_coco(tmp_path: Path) -> None:
    found = read(tmp_path, "coco")
    column_by_column = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)
    assert found.strokes == {
        "img_0": [mask_stroke(0, column_by_column), point(1, 1.5, 1), point(1, 0, 2)],
        "img_1": [Stroke(1, "polygon", (2, 2, 8.5), (1, 9, 9)), Stroke(1, "polygon", (0, 0, 1), (0, 1, 1))],
    }
    assert found.sizes == {"img_0": (2, 3), "img_1": (10, 20)}
    assert found.notes == [
        "1 COCO annotations without a segmentation or keypoints were left out",
        "2 COCO keypoints were read as points of their annotation's category",
    ]


def test_coco_keypoints_beside_a_segmentation(tmp_path: Path) -> None:
    both = {"image_id": 8, "category_id": 90, "segmentation": [[1, 2, 9, 2, 9, 8.5]], "keypoints": [4, 3, 1]}
    found = read(tmp_path, "coco", {**COCO, "annotations": [both]}, width_px=3)
    assert found.strokes["img_1"] == [Stroke(1, "polygon", (2, 2, 8.5), (1, 9, 9)), point(1, 3, 4, 3)]


def test_coco_keeps_its_order_where_masks_overlap(tmp_path: Path) -> None:
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]
    rle = {"size": [10, 20], "counts": [0, 2, 198]}
    shapes = [{"image_id": 8, "category_id": 90, "segmentation": square},
              {"image_id": 8, "category_id": 3, "segmentation": rle}]  # fmt: skip
    for order, wanted in ((shapes, 0), (shapes[::-1], 1)):
        strokes = read(tmp_path, "coco", {**COCO, "annotations": order}).strokes["img_1"]
        assert draw(strokes, (10, 20), Counter())[0][1, 0] == wanted


def with_rle(counts: Any, size: Any = (2, 3)) -> dict[str, Any]:
    annotation = {
        "id": 1,
        "image_id": 7,
        "category_id": 3,
        "segmentation": {"size": list(size), "counts": counts},
    }
    return {**COCO, "annotations": [annotation]}


def test_coco_packed_by_pycocotools(tmp_path: Path) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    packed = mask.encode(np.asfortranarray(MASK.astype(np.uint8)))["counts"].decode()
    assert read(tmp_path, "coco", with_rle(packed)).strokes["img_0"] == [mask_stroke(0, MASK)]
    rng = np.random.default_rng(0)
    large = rng.random((90, 70)).round().astype(np.uint8)
    large[:, 10:60] = 1  # runs of thousands: numbers of several characters
    packed = mask.encode(np.asfortranarray(large))["counts"].decode()
    content = with_rle(packed, large.shape)
    content["images"] = [{"id": 7, "file_name": "a.jpg", "height": 90, "width": 70}]
    assert read(tmp_path, "coco", content).strokes["a"] == [mask_stroke(0, large.astype(bool))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_packed_counts_are_those_of_pycocotools(seed: int, height: int, width: int, share: float) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    array = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    array[:, : seed % 7] = seed % 2  # long runs too
    packed = mask.encode(np.asfortranarray(array))["counts"].decode()
    runs = coco._unpacked(packed, "x")
    decoded = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width, order="F")
    np.testing.assert_array_equal(decoded, array)


# ------------------------------------------------------------------------------------------------ detection


@pytest.mark.parametrize("label_format", FORMATS)
def test_the_format_is_found(tmp_path: Path, label_format: str) -> None:
    _, name, content = FORMATS[label_format]
    file = save(tmp_path, name, content)
    assert detect_format(file) == detect_format(tmp_path) == label_format
    for declared in ("auto", label_format):
        found, annotations = read_strokes([file], declared, NAMES, 1.0)
        assert found == label_format and any(name.endswith("img_0") for name in annotations.strokes)
    for other in set(FORMATS) - {label_format}:
        with pytest.raises(ValueError, match=rf"({other} is read from|read as {other}, but it is a)"):
            read_strokes([file], other, NAMES, 1.0)


def test_an_xml_file_without_annotation_tells_no_format(tmp_path: Path) -> None:
    save(tmp_path, "a.xml", "<annotation><size><width>3</width><height>3</height></size></annotation>")
    assert detect_format(tmp_path) == "scribblesup"
    voc = "<annotation><object><name>tree</name><bndbox/></object></annotation>"
    for content, found in ((SCRIBBLES, "scribblesup"), (voc, "voc")):
        save(tmp_path, "b.xml", content)
        assert detect_format(tmp_path) == found


def test_a_folder_of_pngs_is_png(tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    save(tmp_path, ".hidden.json", "{")
    assert detect_format(tmp_path) == "png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", [1], r"a\.json: format not recognised.*Label Studio.*it is a list"),
        ("a.json", [], r"a\.json: format not recognised.*it is a list"),
        ("a.json", 3, r"a\.json: format not recognised.*it is a int"),
        ("a.json", {"type": "FeatureCollection"}, r"a\.json: format not recognised.*found 'type'"),
        ("a.xml", "<kml/>", r"a\.xml: format not recognised.*root is <kml>"),
        (
            "a.xml",
            "<annotation><object><polygon/></object></annotation>",
            r"a\.xml: format not recognised.*object",
        ),
    ],
)
def test_unknown_formats(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect_format(save(tmp_path, name, content))


# -------------------------------------------------------------------------------------------------- refused


def changed(content: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    """A copy of a JSON tree with one entry replaced."""
    copy = json.loads(json.dumps(content))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copy


def click(**values: Any) -> dict[str, Any]:
    return {"img_0": [{"x": 1, "y": 2, "cls": 1, **values}]}


BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
JSON_FORMATS = ("whats-the-point", "labelme", "coco", "label-studio")
SHAPE = ["shapes", 0]
SEG = ["annotations", 0, "segmentation"]
REFUSED: list[tuple[str, Any, str]] = [
    # files
    *((name, b"", "is empty") for name in FORMATS),
    *((name, codecs.BOM_UTF8 + b" \n ", "is empty") for name in FORMATS),
    *((name, b"\xff\xfe{\x00", "not UTF-8 text") for name in (*JSON_FORMATS, "csv")),
    *((name, '{"a": ', "no valid JSON") for name in JSON_FORMATS),
    *((name, "[" * 200_000, "JSON nested too deep") for name in JSON_FORMATS),
    *((name, "[1, 2]", "not a What's|must be an object") for name in JSON_FORMATS),
    *((name, '{"a": 1' + "0" * 9999 + "}", "no valid JSON") for name in JSON_FORMATS),
    ("whats-the-point", '{"a": [], "a": []}', "no valid JSON .*'a' occurs twice"),
    *(
        (name, text, "no valid XML")
        for name in ("scribblesup", "cvat")
        for text in ("<a>", b"<a>\xff</a>", "x")
    ),
    *(
        (name, '<?xml version="1.0" encoding="klingon"?><a/>', "no valid XML")
        for name in ("scribblesup", "cvat")
    ),
    *(
        (name, entity + root, "has a document type declaration .*remove the DOCTYPE")
        for name, root in (
            ("scribblesup", "<annotation>&b;</annotation>"),
            ("cvat", "<annotations>&a;</annotations>"),
        )
        for entity in (BOMB, EXTERNAL, "<!DOCTYPE a>", '<!DOCTYPE a SYSTEM "http://x/y.dtd">')
    ),
    # image names
    *(
        (name, content, "names no file; write its name")
        for path in ("..", "/", "C:", "../..")
        for name, content in (
            ("whats-the-point", {path: []}),
            ("csv", f"image,row,column,label\n{path},1,1,tree\n"),
            ("labelme", {**LABELME, "imagePath": path}),
            ("cvat", CVAT.replace("img_0.jpg", path)),
            ("coco", changed(COCO, ["images", 0, "file_name"], path)),
        )
    ),
    *(("whats-the-point", {path: []}, "control characters") for path in ("a\0b", "a\nb", "\ud800")),
    ("whats-the-point", {"": []}, "must be a text"),
    ("labelme", {**LABELME, "imagePath": 7}, "must be a text, got 7"),
    # twice
    ("whats-the-point", {"a": [], "a.jpg": []}, "'a.jpg' and 'a' are one image"),
    ("csv", "image,row,column,label\nx.jpg,1,1,tree\nx.png,1,1,tree\n", "have the same id x"),
    ("cvat", CVAT.replace("img_1.jpg", "img_0.png"), "image img_0 is annotated in .* already"),
    (
        "coco",
        changed(COCO, ["images", 1, "file_name"], "img_0.png"),
        "image img_0 is annotated in .* already",
    ),
    ("coco", changed(COCO, ["images", 1, "id"], 7), "id 7 occurs twice in images"),
    ("coco", changed(COCO, ["categories", 1, "id"], 90), "id 90 occurs twice in categories"),
    ("coco", changed(COCO, ["annotations", 1, "id"], 1), "id 1 occurs twice in annotations"),
    # classes
    (
        "csv",
        "image,row,column,label\na,1,1,trie\n",
        "unknown class 'trie'; did you mean 'tree'.*ground, tree, wall",
    ),
    ("csv", "image,row,column,label\na,1,1,3\n", r"line 2: class id 3; ids are 0\.\.2"),
    ("csv", "image,row,column,label\na,1,1,-1\n", "unknown class '-1'"),
    (
        "labelme",
        changed(LABELME, [*SHAPE, "label"], "Tree"),
        "shape 1: unknown class 'Tree'; did you mean 'tree'",
    ),
    ("labelme", changed(LABELME, [*SHAPE, "label"], [1]), r"shape 1: unknown class \[1\]"),
    ("scribblesup", SCRIBBLES.replace("tree", "plane"), "polygon 1: unknown class 'aeroplane'"),
    ("scribblesup", SCRIBBLES.replace("<tag>tree</tag>", ""), "polygon 1: unknown class ''"),
    ("cvat", CVAT.replace('polyline label="tree"', "polyline"), "shape 4: unknown class None"),
    ("coco", changed(COCO, ["categories", 0, "name"], "cat"), "annotation 1: unknown class 'cat'"),
    *(("whats-the-point", click(cls=k), "img_0: click of class") for k in (3, -1, True, 1.0, "1", None)),
    # numbers
    *(
        ("whats-the-point", click(x=v), "img_0, x: position")
        for v in (True, "1", None, [1], 1e7, -1e7, 10**40)
    ),
    *(
        (name, json.dumps(content).replace("12345", number), "position (nan|inf|-inf)")
        for number in ("NaN", "Infinity", "-Infinity", "1e999")
        for name, content in (
            ("whats-the-point", click(y=12345)),
            ("labelme", changed(LABELME, [*SHAPE, "points"], [[1, 12345]])),
            ("coco", changed(COCO, SEG, [[1, 2, 3, 4, 5, 12345]])),
        )
    ),
    *(
        ("csv", f"image,row,column,label\na,{v},1,tree\n", "line 2, row: .*(no number|position)")
        for v in ("-1", "nan", "inf", "1_0", "x", "", "1e400", "0x1", "١", "1e7")
    ),
    *(
        ("scribblesup", SCRIBBLES.replace("40", v), "polygon 1.*(no number|position)")
        for v in ("", "x", "nan", "1e9")
    ),
    *(
        ("cvat", CVAT.replace("9.5,2.0", v), "shape 2.*(no number|position|x, y)")
        for v in ("9", "1,2,3", "a,1", "")
    ),
    # shapes
    ("whats-the-point", {"img_0": [{"x": 1, "cls": 1}]}, "img_0: lacks 'y'; it has 'x', 'cls'"),
    ("whats-the-point", {"img_0": ["x"]}, "img_0: must be an object with 'y'"),
    (
        "csv",
        "image,row,label\na,1,tree\n",
        r"line 1: no columns row,column nor x,y.*found 'image,row,label'$",
    ),
    ("csv", "a,1,2,tree\n", "line 1: no columns row,column nor x,y; .*--data.label tag"),
    ("csv", "image,row,row,column,label\na,1,1,2,tree\n", "line 1: more than one column 'row'"),
    ("csv", "image,row,column,label\na,1,2\n", "line 2: 3 fields, but the header has 4"),
    ("csv", "image,row,column,label\na,1,2,wall, brick\n", "line 2: 5 fields.*quotes"),
    ("csv", 'image,row,column,label\na,1,2,"tree\n', "no valid CSV"),
    (
        "scribblesup",
        "<annotation><polygon><tag>tree</tag></polygon></annotation>",
        "polygon 1: has no <point>",
    ),
    ("scribblesup", SCRIBBLES.replace("<width>32", "<width>0"), "width: must be a whole number"),
    ("labelme", {"shapes": {}}, "'shapes' must be a list"),
    ("labelme", changed(LABELME, SHAPE, 3), "shape 1: must be an object with 'label'"),
    ("labelme", changed(LABELME, ["imageHeight"], "a"), "height: 'a' is no number"),
    ("labelme", changed(LABELME, ["imageHeight"], 0), "height: must be a whole number"),
    *(
        (
            "labelme",
            changed(LABELME, [*SHAPE, "shape_type"], v),
            "shape 1: shape_type .* is not read, only point",
        )
        for v in ("brush", "", 3, [])
    ),
    *(
        ("labelme", changed(LABELME, [*SHAPE, "points"], v), "shape 1: ")
        for v in ([], [[1, 2], [3, 4]], [[1]], [1, 2], {}, "ab", [[1, 2, 3]], [[1, None]])
    ),
    (
        "labelme",
        changed(LABELME, ["shapes", 4, "points"], [[1, 2], [3, 4], [5, 6]]),
        "shape 5: a rectangle of 3",
    ),
    ("labelme", changed(LABELME, ["shapes", 3, "points"], [[1, 2], [3, 4]]), "shape 4: a polygon needs .* 3"),
    ("cvat", CVAT.replace("<box", "<blob"), "shape 5: <blob> is not read, only points"),
    ("cvat", CVAT.replace('name="img_0.jpg" ', ""), "image '0': the image's name must be a text"),
    ("cvat", CVAT.replace(' width="32"', ""), "width: '' is no number"),
    ("cvat", CVAT.replace("1, 4, 1", "1, 4, 2"), "shape 6: rle counts 7 pixels but its box of 3x2 has 6"),
    ("cvat", CVAT.replace("1, 4, 1", "7, -1"), "shape 6, rle: must be a whole number"),
    ("cvat", CVAT.replace("1, 4, 1", ""), "shape 6, rle: '' is no number"),
    ("cvat", CVAT.replace('left="5"', 'left="-5"'), "shape 6, left: must be a whole number in 0"),
    (
        "cvat",
        CVAT.replace('width="3" height="2"', 'width="999999" height="999999"'),
        "at most 134217728 are read",
    ),
    ("cvat", CVAT.replace('z_order="2"', 'z_order="x"'), "z_order: 'x' is no number"),
    ("coco", {"images": [], "annotations": []}, "lacks 'categories'"),
    ("coco", changed(COCO, ["annotations", 0, "image_id"], 99), "annotation 1: image_id 99 is not among"),
    (
        "coco",
        changed(COCO, ["annotations", 0, "category_id"], True),
        "'category_id' must be a whole number or a text",
    ),
    (
        "coco",
        changed(COCO, ["annotations", 0, "image_id"], [7]),
        "'image_id' must be a whole number or a text",
    ),
    *(
        ("coco", changed(COCO, SEG, [v]), "annotation 1: a polygon must be")
        for v in ([1, 2], [1] * 7, 3, "abcdef")
    ),
    ("coco", changed(COCO, SEG, [[1, 2, 3, 4, 5, True]]), "annotation 1: position True"),
    ("coco", changed(COCO, SEG, 5), "segmentation must be polygons or RLE"),
    ("coco", with_rle([1, 4, 2]), r"RLE counts \[1, 4, 2\] give 7 pixels, its size has 6"),
    ("coco", with_rle([7, -1]), "RLE counts: must be a whole number"),
    ("coco", with_rle([1, 4, 1], (3, 2)), r"RLE size \[3, 2\] is not its image's \[2, 3\]"),
    ("coco", with_rle({}), "RLE counts must be a list or a packed string"),
    (
        "coco",
        changed(
            with_rle([10**12]), ["images", 0], {"id": 7, "file_name": "a", "height": 10**6, "width": 10**6}
        ),
        "is not its image's",
    ),
    *(
        ("coco", with_rle(v), "annotation 1: RLE counts")
        for v in ("", "0", "o", "0é", "1 4", "PPPPPPPP0", "999", "1411", "0Q0")
    ),
]


@pytest.mark.parametrize(
    ("label_format", "content", "message"), REFUSED, ids=[f"{n}-{r[0]}" for n, r in enumerate(REFUSED)]
)
def test_refused_in_one_line_that_names_the_file(
    tmp_path: Path, label_format: str, content: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, label_format, content)
    assert str(caught.value).startswith(str(tmp_path / FORMATS[label_format][1]))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_mask_of_too_many_pixels(tmp_path: Path) -> None:
    content = with_rle([10**12], (10**6, 10**6))
    content["images"] = [{"id": 7, "file_name": "a", "height": 10**6, "width": 10**6}]
    with pytest.raises(ValueError, match="a mask of 1000000000000 pixels; at most 134217728 are read"):
        read(tmp_path, "coco", content)


@pytest.mark.parametrize(
    ("label_format", "first", "second"),
    [("labelme", "a.json", "b.json"), ("scribblesup", "a/x.xml", "b/x.xml"), ("cvat", "a.xml", "b.xml"),
     ("coco", "a.json", "b.json")],
)  # fmt: skip
def test_two_files_for_one_image(tmp_path: Path, label_format: str, first: str, second: str) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path, name, FORMATS[label_format][2])
    with pytest.raises(ValueError, match=rf"{second}.*: image (x|img_0) is annotated in .*{first}.* already"):
        FORMATS[label_format][0]([tmp_path / first, tmp_path / second], NAMES)


@pytest.mark.parametrize("width_px", [0.5, float("nan"), float("inf"), 1001])
def test_widths(tmp_path: Path, width_px: float) -> None:
    file = save(tmp_path, "points.csv", CSV)
    with pytest.raises(ValueError, match=r"data\.stroke_px must be in 1\.\.1000"):
        read_strokes([file], "csv", NAMES, width_px)


# ---------------------------------------------------------------------------------------------- end to end


def dataset(root: Path) -> list[str]:
    """A folder dataset of four images with dense masks -> the ids of its training images."""
    fixtures.folder(root, count=4)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for file in (root / "labels").iterdir():
        file.unlink()
    return [
        file.stem
        for file in layouts.read_layout("folder", root, ImportConfig()).splits["train"]
        for file in [file.image]
    ]


def files_for(label_format: str, ids: list[str], place: Path) -> Path:
    """The same annotation in each format: what it can hold of a tree at (2, 3) and ground at y = 7."""
    size = {"height": fixtures.HEIGHT, "width": fixtures.WIDTH}
    place.mkdir()
    match label_format:
        case "whats-the-point":
            clicks = [{"x": 3.5, "y": 2.5, "cls": 1, "rank": 1}, {"x": 4.2, "y": 7.9, "cls": 0, "rank": 2}]
            return save(place, "points.json", dict.fromkeys(ids, clicks))
        case "csv":
            rows = [
                f"{name}.jpg,{row},{label}" for name in ids for row, label in (("2,3", "tree"), ("7,4", "0"))
            ]
            return save(place, "points.csv", "\n".join(["Name,Row,Column,Label", *rows]))
        case "scribblesup":
            for name in ids:
                strokes = [("tree", [(3, 2)]), ("ground", [(-4, 7), (40, 7)])]
                text = "".join(
                    f"<polygon><tag>{tag}</tag>"
                    + "".join(f"<point><X>{x}</X><Y>{y}</Y></point>" for x, y in at)
                    + "</polygon>" for tag, at in strokes
                )  # fmt: skip
                save(place, f"{name}.xml", f"<annotation>{text}</annotation>")
        case "labelme":
            for name in ids:
                shapes = [
                    {"label": "tree", "shape_type": "point", "points": [[3.5, 2.5]]},
                    {"label": "ground", "shape_type": "linestrip", "points": [[0, 7.5], [31.9, 7.5]]},
                    {"label": "wall, brick", "shape_type": "rectangle", "points": [[4, 10], [8, 14]]},
                ]
                head = {
                    "imageHeight": size["height"],
                    "imageWidth": size["width"],
                    "imagePath": f"{name}.jpg",
                }
                save(place, f"{name}.json", {**head, "shapes": shapes})
        case "cvat":
            images = "".join(
                f'<image id="0" name="{name}.jpg" width="32" height="24">'
                '<points label="tree" points="3.5,2.5"/>'
                '<polyline label="ground" points="0,7.5;31.9,7.5"/>'
                '<mask label="wall, brick" rle="0, 16" left="4" top="10" width="4" height="4"/></image>'
                for name in ids
            )
            save(place, "annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")
        case "label-studio":
            original = {"original_width": fixtures.WIDTH, "original_height": fixtures.HEIGHT}
            values = [
                ("keypointlabels", "tree", {"x": 100 * 3.5 / 32, "y": 100 * 2.5 / 24, "width": 0.4}),
                (
                    "rectanglelabels",
                    "wall, brick",
                    {"x": 12.5, "y": 1000 / 24, "width": 12.5, "height": 400 / 24},
                ),
            ]
            result = [{"type": t, **original, "value": {**value, t: [label]}} for t, label, value in values]
            tasks = [
                {
                    "data": {"image": f"/data/upload/1/0a1b2c3d-{name}.jpg"},
                    "annotations": [{"result": result}],
                }
                for name in ids
            ]
            return save(place, "project.json", tasks)
        case "coco":
            images = [{"id": n, "file_name": f"{name}.jpg", **size} for n, name in enumerate(ids)]
            segmentation: list[Any] = [
                (11, [[4, 10, 8, 10, 8, 14, 4, 14]]),
                (5, {"size": [24, 32], "counts": [3 * 24 + 2, 1, 29 * 24 - 3]}),
            ]
            annotations = [
                {"image_id": n, "category_id": k, "segmentation": s}
                for n in range(len(ids))
                for k, s in segmentation
            ]
            categories = [{"id": 5, "name": "tree"}, {"id": 11, "name": "wall, brick"}]
            content = {"images": images, "annotations": annotations, "categories": categories}
            return save(place, "instances.json", content)
    return place


@pytest.mark.parametrize("declare", [True, False])
@pytest.mark.parametrize("label_format", FORMATS)
def test_the_command_imports_every_format(
    tmp_path: Path, label_format: str, declare: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = dataset(tmp_path / "raw")
    place = files_for(label_format, ids, tmp_path / "annotation")
    command = ["import", "folder", str(tmp_path / "raw"), str(tmp_path / "out"), "--labels", str(place)]
    with pytest.raises(SystemExit) as caught:
        cli.main(command + ["--format", label_format] * declare)
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"encoding: {'declared' if declare else 'found'}: {label_format} in " in printed
    wanted = np.full((fixtures.HEIGHT, fixtures.WIDTH), UNLABELLED)
    wanted[2, 3] = 1
    match label_format:
        case "whats-the-point" | "csv":
            wanted[7, 4] = 0
        case "scribblesup" | "labelme" | "cvat":
            wanted[7] = 0
    if label_format in ("labelme", "cvat", "coco", "label-studio"):
        wanted[10:14, 4:8] = 2
    opened = shards.open(tmp_path / "out")
    assert (
        sorted(opened.splits["train"]["id"][:]) == sorted(ids) and len(ids) + len(opened.splits["val"]) == 4
    )
    for row in opened.splits["train"]:
        np.testing.assert_array_equal(shards.decode_label(row["label"]["bytes"]), wanted)
        assert len(row["strokes"]) == {"coco": 1, "labelme": 3}.get(label_format, 2)
        assert row["present"] == sorted(set(wanted[wanted < UNLABELLED].tolist()))
    for row in opened.splits["val"]:
        assert set(np.unique(shards.decode_label(row["label"]["bytes"]))) == {0, 1, 2, IGNORED}
    if label_format == "scribblesup":
        assert f"{2 * len(ids)} lines, polygons and masks drawn" in printed
        assert f"{2 * len(ids)} vertices outside" in printed


def test_the_width_is_drawn_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = dataset(tmp_path / "raw")
    place = files_for("scribblesup", ids, tmp_path / "raw" / "scribbles")
    command = ["import", "folder", str(tmp_path / "raw"), str(tmp_path / "out"), "--labels", "scribbles"]
    with pytest.raises(SystemExit):
        cli.main([*command, "--stroke-width", "3", "--label", "scribble"])
    assert place.is_dir() and "points and lines 3 px wide" in capsys.readouterr().out
    row = shards.open(tmp_path / "out").splits["train"][0]
    label = shards.decode_label(row["label"]["bytes"])
    assert (
        (label[6:9] == 0).all() and (label[1:4, 2:5] == 1).all() and (label < UNLABELLED).sum() == 3 * 32 + 9
    )
    assert [stroke["width"] for stroke in row["strokes"]] == [3.0, 3.0]


def test_import_refuses(tmp_path: Path) -> None:
    ids = dataset(tmp_path / "raw")
    place = files_for("labelme", ids, tmp_path / "annotation")

    def refused(message: str, **options: Any) -> None:
        options = {"label_path": str(place), **options}
        with pytest.raises(ValueError, match=message) as caught:
            importing.import_dataset("folder", tmp_path / "raw", tmp_path / "out", **options)
        assert not (tmp_path / "out").exists() and "\n" not in str(caught.value)

    refused(r"data\.label_format must be one of auto, png, .*; got 'xml'", label_format="xml")
    refused("read as coco, but it is a labelme file; give --data.label-format labelme", label_format="coco")
    refused(r"annotation: holds no \.xml file, from which cvat is read", label_format="cvat")
    refused(r"annotation: holds no \.png label", label_format="png")
    file = place / f"{ids[0]}.json"
    refused(r"is a file, but label PNGs are read from a folder", label_format="png", label_path=str(file))
    refused(r"photo_\d+\.json: 2 of 3 training images are without label|1 of 2", label_path=str(file))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "imageWidth": 24, "imageHeight": 32}))
    refused(
        rf"image {ids[0]} was annotated at 24x32 pixels but .*{ids[0]}\.jpg is 32x24; .*--data.orientation u"
    )
    save(place, "more.csv", CSV)
    refused(r"annotation: holds annotation files of several kinds .*more\.csv")


def test_annotated_images_outside_train_are_reported_and_unused(tmp_path: Path) -> None:
    ids = dataset(tmp_path / "raw")
    others = sorted({f"photo_{k:02d}" for k in range(4)} - set(ids))
    place = files_for("csv", [*ids, *others, "gone"], tmp_path / "annotation")
    report = importing.import_dataset("folder", tmp_path / "raw", tmp_path / "out", label_path=str(place))
    note = f"{1 + len(others)} annotated images are not in train, not used: gone, {others[0]}"
    assert any(text.startswith(note) for text in report.notes)
    assert report.splits["val"]["rows"] == len(others) and "points" not in report.splits["val"]


# ------------------------------------------------------------------------------------------------- real data


@pytest.mark.shared
def test_genuine_labelme_files(tmp_path: Path, shared_data: Path) -> None:
    files = sorted((shared_data / "annotations" / "labelme").glob("*.json"))
    names = list(VOC_NAMES)
    found = labelme.read(files, names)
    assert {name: len(strokes) for name, strokes in found.strokes.items()} == {
        file.stem: len(json.loads(file.read_text())["shapes"]) for file in files
    }
    assert found.sizes == {"2011_000003": (338, 500), "2011_000006": (375, 500), "2011_000025": (375, 500)}
    config = importers.DataConfig(
        root=str(shared_data / "voc_subset"), label_path=str(shared_data / "annotations" / "labelme")
    )
    with pytest.raises(ValueError, match="of 29 training images are without label"):
        importers.prepare(config, tmp_path)
    assert detect_format(files[0].parent) == "labelme"


@pytest.mark.shared
def test_genuine_labelme_shapes_agree_with_the_masks(shared_data: Path) -> None:
    names = list(VOC_NAMES)
    found = labelme.read(sorted((shared_data / "annotations" / "labelme").glob("*.json")), names)
    compared = 0
    for name, strokes in found.strokes.items():
        file = shared_data / "voc_subset" / "SegmentationClass" / f"{name}.png"
        if file.is_file():
            label, _ = draw(strokes, found.sizes[name], Counter())
            mask = np.asarray(Image.open(file))
            both = (label < UNLABELLED) & (mask != IGNORED)
            assert both.sum() > 1000 and (label == mask)[both].mean() > 0.9
            compared += 1
    assert compared


@pytest.mark.shared
def test_genuine_clicks_of_all_of_voc(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "whats_the_point"
    names = VOC_NAMES
    assert detect_format(folder) == "whats-the-point"
    clicks = points.read([folder / "voc_whats_the_point.json"], names).strokes
    assert (len(clicks), sum(map(len, clicks.values()))) == (12_180, 32_697)
    both = points.read(sorted(folder.glob("*.json")), names).strokes
    assert sum(map(len, both.values())) == 32_697 + 32_614
    first = next(iter(clicks))
    genuine = json.loads((folder / "voc_whats_the_point.json").read_text())[first]
    assert clicks[first] == [point(c["cls"], c["y"], c["x"]) for c in genuine]
