"""The classes that annotation files name, in their tool's order; masks in the colours of a labelmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_readers
from test_readers import save

from sparseg.config import IGNORED
from sparseg.data.importers.readers import class_names, labelmap

CVAT_LABELS = """<annotations><meta><{0}><labels>
 <label><name>tree</name></label><label><name>void</name></label><label><name>ground</name></label>
 <label><name>s</name><type>skeleton</type></label><label><name>1</name><parent>s</parent></label>
</labels></{0}></meta></annotations>"""
VOC = (
    "<annotation><object><name>{}</name><bndbox/></object><object><name>ignored</name></object></annotation>"
)
WANTED: list[tuple[str, Any, list[str]]] = [
    ("a.json", test_readers.POINTS, []),
    ("a.xml", test_readers.SCRIBBLES, ["ground", "tree"]),
    ("a.xml", VOC.format("zebra"), ["zebra"]),
    (
        "a.csv",
        "image,x,y,label\na,1,1,tree\na,1,2,Ground\na,1,3,TREE\na,1,4,void\na,1,5,\n",
        ["Ground", "tree"],
    ),
    ("a.csv", "image,row,column,label\na,1,1,0\na,1,2,12\n", []),  # class ids
    ("a.csv", "image,label\na,tree;ground\nb,wall\n", ["ground", "tree", "wall"]),
    ("a.json", test_readers.LABELME, ["ground", "tree", "wall, brick"]),
    ("a.xml", CVAT_LABELS.format("task"), ["tree", "ground", "s"]),
    ("a.xml", CVAT_LABELS.format("project"), ["tree", "ground", "s"]),
    ("a.xml", test_readers.CVAT, ["ground", "tree", "wall, brick"]),  # without a list
    ("a.json", test_readers.COCO, ["ground", "unused", "tree"]),  # ids 3, 4, 90
    ("a.json", test_readers.LABEL_STUDIO, ["ground", "tree"]),
]


@pytest.mark.parametrize(("name", "content", "wanted"), WANTED)
def test_every_format(tmp_path: Path, name: str, content: Any, wanted: list[str]) -> None:
    assert class_names([save(tmp_path, name, content)]) == wanted


@pytest.mark.parametrize("beside", [True, False])
def test_labelmes_labels_txt(tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    file = save(folder, "a.json", {**test_readers.LABELME, "shapes": []})
    save(folder if beside else tmp_path, "labels.txt", "__ignore__\n_background_\nsand\n\nrock\n")
    assert class_names([file]) == ["_background_", "sand", "rock"]


def test_labelmes_background_goes_first(tmp_path: Path) -> None:
    shapes = [
        {"label": label, "points": [[1, 1]]} for label in ("zebra", "__ignore__", "_background_", "Ape")
    ]
    file = save(tmp_path, "a.json", {**test_readers.LABELME, "shapes": shapes})
    assert class_names([file]) == ["_background_", "Ape", "zebra"]


def test_names_of_several_files_are_joined(tmp_path: Path) -> None:
    other = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "tree"}],
    }
    files = [save(tmp_path, "a.json", test_readers.COCO), save(tmp_path, "b.json", other)]
    assert class_names(files) == ["ground", "unused", "tree", "sky"]


# --------------------------------------------------------------------------------------------------- labelmap

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
sand:224, 64,10::
rock:0,0,128:head,tail:run
ignored:224,224,192::
"""


def test_a_labelmap(tmp_path: Path) -> None:
    file = save(tmp_path, "labelmap.txt", LABELMAP)
    labels = labelmap.read_labelmap(file)
    assert labels == {
        (0, 0, 0): "background",
        (224, 64, 10): "sand",
        (0, 0, 128): "rock",
        (224, 224, 192): "ignored",
    }
    names = labelmap.class_names(file)
    assert names == ["background", "sand", "rock"]
    mask = np.array([[[0, 0, 0], [224, 64, 10]], [[224, 224, 192], [0, 0, 128]]], dtype=np.uint8)
    ids = labelmap.to_ids(mask, labels, names, "a.png")
    assert ids.dtype == np.uint8 and ids.tolist() == [[0, 1], [IGNORED, 2]]
    reordered = labelmap.to_ids(mask, labels, ["rock", "background", "sand"], "a.png")
    assert reordered.tolist() == [[1, 2], [IGNORED, 0]]


def test_ids_of_random_masks_equal_a_plain_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = [tuple(int(v) for v in colour) for colour in rng.integers(0, 256, (40, 3))]
    lines = [f"c{at}:{','.join(map(str, colour))}::" for at, colour in enumerate(colours)]
    labels = labelmap.read_labelmap(save(tmp_path, "labelmap.txt", "\n".join(lines)))
    wanted = rng.integers(0, 40, (20, 30))
    found = labelmap.to_ids(np.array(colours, np.uint8)[wanted], labels, [f"c{at}" for at in range(40)], "x")
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "labelmap.txt: names no label"),
        ("sand\n", "line 1: must be name:red,green,blue::, got 'sand'"),
        ("sand:1,2::\n", "line 1: must be name"),
        (":1,2,3::\n", "line 1: must be name"),
        ("sand:1,2,256::\n", r"line 1, colour: must be a whole number in 0\.\.255"),
        ("sand:1,2,x::\n", "line 1, colour: 'x' is no number"),
        ("a:1,2,3::\nb:1,2,3::\n", "line 2: colour 1,2,3 is that of 'a' already"),
    ],
)
def test_a_wrong_labelmap(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        labelmap.read_labelmap(save(tmp_path, "labelmap.txt", text))
    assert "\n" not in str(caught.value)


def test_colours_that_the_labelmap_does_not_name(tmp_path: Path) -> None:
    labels = labelmap.read_labelmap(save(tmp_path, "labelmap.txt", LABELMAP))
    mask = np.zeros((2, 2, 3), dtype=np.uint8)
    mask[0] = (1, 2, 3)
    with pytest.raises(
        ValueError, match=r"^a\.png: 2 pixels of colours that labelmap.txt does not name: 1,2,3;"
    ):
        labelmap.to_ids(mask, labels, ["background", "sand", "rock"], "a.png")
    with pytest.raises(ValueError, match=r"a\.png, labelmap\.txt: unknown class 'rock'"):
        labelmap.to_ids(mask, labels, ["background", "sand"], "a.png")
