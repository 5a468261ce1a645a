"""No bytes make a reader raise anything but ValueError, in one line that names the file."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_boxes
import test_readers
import test_readers_label_studio
import test_readers_labelme
import test_tags
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import strokes
from sparseg.data.importers import tags_and_boxes
from sparseg.data.importers.readers import (
    coco,
    csv,
    cvat,
    detect_format,
    label_studio,
    labelme,
    points,
    scribblesup,
    voc,
)
from sparseg.data.importers.tags_and_boxes import draw_boxes, draw_tags
from sparseg.data.strokes import Stroke, draw, stored

NAMES = test_readers.NAMES
READERS = (coco, csv, cvat, label_studio, labelme, points, scribblesup, voc)
SHAPE = (24, 32)
FORMATS = {
    **test_readers.FORMATS,
    **{f"{name} tags": found for name, found in test_tags.FORMATS.items()},
    **{f"{name} boxes": found for name, found in test_boxes.FORMATS.items()},
}
each_format = pytest.mark.parametrize("label_format", FORMATS)
JSON_FORMATS = [
    *("whats-the-point", "labelme", "coco", "coco tags", "coco boxes", "labelme boxes", "label-studio")
]
XML_FORMATS = ["scribblesup", "cvat", "cvat tags", "cvat boxes", "voc tags", "voc boxes"]
fuzz = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = [
    *(
        "shapes",
        "label",
        "points",
        "shape_type",
        "imagePath",
        "imageHeight",
        "imageWidth",
        "x",
        "y",
        "cls",
        "tree",
    ),
    *(
        "images",
        "annotations",
        "categories",
        "id",
        "file_name",
        "height",
        "width",
        "image_id",
        "category_id",
        "name",
    ),
    *(
        "segmentation",
        "bbox",
        "size",
        "counts",
        "img_0.jpg",
        "polygon",
        "point",
        "..",
        "a/b.jpg",
        "\0",
        "\ud800",
        "",
        "0",
    ),
]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


def survives(folder: Path, label_format: str, data: bytes) -> None:
    """Read, detect and draw: a ValueError of one line with the file's name, or a label with codes only."""
    reader, name, _ = FORMATS[label_format]
    file = folder / name
    file.write_bytes(data)
    for action in (lambda: detect_format(file), lambda: reader([file], NAMES, 2.0)):
        try:
            found = action()
        except ValueError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error) and len(str(error)) < 800
            continue
        if isinstance(found, str):
            continue
        whole = {"tags": draw_tags, "boxes": draw_boxes}.get(label_format.split(" ")[-1], draw)
        for image, own in found.strokes.items():
            assert image.strip("/") and not set(image) & set("\\\0\n") and ".." not in image.split("/")
            for stroke in own:
                assert stroke.class_id in (*range(len(NAMES)), IGNORED) and len(stroke.y) == len(stroke.x)
                assert (len(stroke.y) == 0) == (whole is draw_tags)
                assert np.isfinite([*stroke.y, *stroke.x]).all()
            label, drawn = whole(own, SHAPE, Counter())
            assert set(np.unique(label)) <= {*range(len(NAMES)), UNLABELLED, IGNORED}
            assert len(stored(drawn)) <= len(own)


def example_of(label_format: str) -> bytes:
    content = FORMATS[label_format][2]
    return (content if isinstance(content, str) else json.dumps(content)).encode()


@each_format
@fuzz
@given(data=st.binary(max_size=200))
@example(data=b"\x00")
@example(data=b"\xef\xbb\xbf")
def test_random_bytes(tmp_path: Path, label_format: str, data: bytes) -> None:
    survives(tmp_path, label_format, data)


TOKENS = [
    b"",
    b"-",
    b"\0",
    b"\n",
    b'"',
    b"<",
    b">",
    b",",
    b"NaN",
    b"1e999",
    b"9" * 30,
    b"-1",
    b"null",
    b"{}",
    b"[]",
]
TOKENS += [
    b"../",
    b"\\",
    b"&amp;",
    b"&x;",
    b"<a>",
    b"\xff",
    b"true",
    b"[[[[",
    b"0.5",
    "é".encode(),
    b"<!DOCTYPE a>",
]


@each_format
@fuzz
@given(data=st.data())
def test_mutated_files(tmp_path: Path, label_format: str, data: st.DataObject) -> None:
    content = example_of(label_format)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 8)))
        content = content[:start] + data.draw(st.sampled_from(TOKENS)) + content[end:]
    survives(tmp_path, label_format, content)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every entry of a JSON tree."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from places(value)


@pytest.mark.parametrize("label_format", JSON_FORMATS)
@fuzz
@given(number=st.integers(0, 2**32), value=trees, drop=st.booleans())
def test_a_json_entry_replaced_or_dropped(
    tmp_path: Path, label_format: str, number: int, value: Any, drop: bool
) -> None:
    content = json.loads(example_of(label_format))
    container, key = random.Random(number).choice(list(places(content)))
    if drop:
        del container[key]
    else:
        container[key] = value
    survives(tmp_path, label_format, json.dumps(content).encode())


@pytest.mark.parametrize("label_format", JSON_FORMATS)
@fuzz
@given(tree=trees)
def test_random_json(tmp_path: Path, label_format: str, tree: Any) -> None:
    survives(tmp_path, label_format, json.dumps(tree).encode())


attribute = st.sampled_from(
    [
        "tree",
        "1",
        "-1",
        "0",
        "3.5",
        "1,2",
        "1,2;3,4",
        "1,2;3,4;9,9",
        "1, 4, 1",
        "6",
        "nan",
        "",
        "x",
        "999999",
        "../a",
    ]
)
ATTRIBUTES = [
    "label",
    "points",
    "rle",
    "left",
    "top",
    "width",
    "height",
    "xtl",
    "ytl",
    "xbr",
    "ybr",
    "name",
    "z_order",
]
TAGS = [
    "annotation",
    "annotations",
    "image",
    "polygon",
    "polyline",
    "points",
    "box",
    "mask",
    "tag",
    "point",
    "X",
    "Y",
    "object",
    "bndbox",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
]
elements = st.recursive(
    st.builds("<{0}>{1}</{0}>".format, st.sampled_from(TAGS), attribute),
    lambda inner: st.builds(
        lambda tag, attributes, children: (
            f"<{tag} {' '.join(f'{n}={chr(34)}{v}{chr(34)}' for n, v in attributes.items())}>"
            f"{''.join(children)}</{tag}>"
        ),
        st.sampled_from(TAGS),
        st.dictionaries(st.sampled_from(ATTRIBUTES), attribute, max_size=8),
        st.lists(inner, max_size=4),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("label_format", XML_FORMATS)
@fuzz
@given(children=st.lists(elements, max_size=4), image=st.booleans())
def test_random_xml(tmp_path: Path, label_format: str, children: list[str], image: bool) -> None:
    text = "".join(children)
    if image:
        text = f'<image name="a.jpg" width="32" height="24">{text}</image>'
    root = "annotations" if label_format.startswith("cvat") else "annotation"
    survives(tmp_path, label_format, f"<{root}>{text}</{root}>".encode())


@pytest.mark.parametrize("label_format", XML_FORMATS)
def test_deep_xml(tmp_path: Path, label_format: str) -> None:
    root = "annotations" if label_format.startswith("cvat") else "annotation"
    deep = "<a>" * 10_000 + "</a>" * 10_000
    survives(tmp_path, label_format, f"<{root}>{deep}</{root}>".encode())
    survives(tmp_path, label_format, deep.encode())


cells = st.one_of(
    st.sampled_from(["tree", "1", "-1", "0", "3.5", "", "nan", "a.jpg", "../a", chr(34), "1e400"]),
    st.text(max_size=4),
)


@pytest.mark.parametrize("header", [["image", "row", "column", "label"], ["image", "label"]])
@fuzz
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=5), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_random_csv(tmp_path: Path, header: list[str], rows: list[list[str]], end: str) -> None:
    rows = [row[4 - len(header) :] for row in rows]
    text = end.join(",".join(row) for row in [header, *rows])
    survives(tmp_path, "csv" if len(header) > 2 else "csv tags", text.encode("utf-8", "surrogatepass"))


# ------------------------------------------------------------------------- damaged in one place, and counted

ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2.5, 1e6, -1e7, 10**40, float("nan"), float("inf")),
    *(
        "",
        "tree",
        "ground",
        "x",
        "1,2;3,4;9,9",
        "rectangle",
        "circle",
        "mask",
        "brush",
        "..",
        "a\\b.jpg",
        "\0",
    ),
    *([], {}, [[1, 1]], [[1, 1], [5, 5], [9, 2]], [1, 4, 1], [0, 0, 0, 60, 57, 27, 252], {"x": 1, "y": 1}),
]
ODD_TEXTS = [
    *("", "1", "-1", "2.5", "1e6", "nan", "tree", "x", "1,2;3,4;9,9"),
    *("6", "0", "999999", "..", "a\\b", "\u0661"),
]
MORE_CVAT = """
 <ellipse label="tree" cx="9" cy="8" rx="4" ry="3" rotation="30"/>
 <skeleton label="tree"><points outside="0" points="3,2"/><points outside="1"/></skeleton>
 <cuboid label="tree" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="7" ytr1="2" xbr1="7" ybr1="9"
  xtl2="3" ytl2="1" xbl2="3" ybl2="8" xtr2="9" ytr2="1" xbr2="9" ybr2="8"/>
</image><track label="tree"><box frame="0" keyframe="1" xtl="1" ytl="1" xbr="5" ybr="5"/></track>"""
BRUSH = {
    **{"type": "brushlabels", "original_width": 5, "original_height": 3},
    "value": {"format": "rle", "rle": test_readers_label_studio.TINY, "brushlabels": ["tree"]},
}
RICH: dict[str, Any] = {
    "labelme": {
        **test_readers.LABELME,
        "shapes": [
            *test_readers.LABELME["shapes"],
            {"label": "tree", **test_readers_labelme.mask([[5, 3], [7, 4]])},
            {"label": "tree", "shape_type": "oriented_rectangle", "points": [[4, 1], [8, 5], [6, 7], [2, 3]]},
        ],
    },
    "cvat": test_readers.CVAT.replace("</image>", MORE_CVAT, 1),
    "label-studio": [
        *test_readers.LABEL_STUDIO,
        {"data": {"image": "img_1.jpg"}, "annotations": [{"result": [BRUSH]}]},
    ],
}


def damaged(data: bytes, suffix: str, rng: random.Random) -> bytes:
    """The file with one or two of its values, cells or attributes replaced by odd ones, or dropped."""
    if suffix == ".json":
        content = json.loads(data)
        for _ in range(rng.randint(1, 2)):
            container, key = rng.choice(list(places(content)))
            if rng.random() < 0.2:
                del container[key]
            else:
                container[key] = rng.choice(ODD_VALUES)
        return json.dumps(content).encode()
    pattern = r"[^,;\t\n]+" if suffix == ".csv" else r'"[^"]*"|(?<=>)[^<>\n]+(?=<)'
    text = data.decode()
    for _ in range(rng.randint(1, 2)):
        found = rng.choice(list(re.finditer(pattern, text)))
        odd = rng.choice(ODD_TEXTS)
        text = text[: found.start()] + (f'"{odd}"' if found.group()[0] == '"' else odd) + text[found.end() :]
    return text.encode()


@each_format
def test_300_damaged_files(tmp_path: Path, label_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stroke] = []

    def counted(*arguments: Any, **named: Any) -> Stroke:
        made.append(Stroke(*arguments, **named))
        return made[-1]

    for module in (strokes, tags_and_boxes, *READERS):
        monkeypatch.setattr(module, "Stroke", counted)
    content = RICH.get(label_format, FORMATS[label_format][2])
    data = (content if isinstance(content, str) else json.dumps(content)).encode()
    rng = random.Random(label_format)
    reached = 0
    for _ in range(300):
        made.clear()
        survives(tmp_path, label_format, damaged(data, Path(FORMATS[label_format][1]).suffix, rng))
        reached += bool(made)
    assert reached >= 60, "damage so great that no geometry is reached tests the parser alone"
