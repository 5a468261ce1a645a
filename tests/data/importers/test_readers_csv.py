"""CSV of points under the names, separators and positions that tools and spreadsheets write."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_readers import NAMES, point, save

from sparseg.data.importers.readers import csv, read_strokes
from sparseg.data.strokes import Stroke, draw

ONE = {"a": [point(1, 3, 4)]}


def read(folder: Path, text: str | bytes, names: list[str] = NAMES) -> dict[str, list[Stroke]]:
    return csv.read([save(folder, "points.csv", text)], names).strokes


@pytest.mark.parametrize(
    "text",
    [
        "image,row,column,label\na.jpg,3,4,tree\n",
        "Name,Row,Column,Label\na.jpg,3,4,tree\n",
        "Name,Row,Column,Label code\na.jpg,3,4,TREE\n",  # CoralNet since 2024; its codes ignore case
        "Name,Row,Column,Label code,Label ID\na.jpg,3,4,Tree,87\n",
        "Name,Row,Column,Label ID,Label code\na.jpg,3,4,87,Tree\n",
        "image;row;column;label\na.jpg;3;4;tree\n",
        "image\trow\tcolumn\tlabel\na.jpg\t3\t4\ttree\n",
        "\ufeffimage;row;column;label\r\na.jpg;3;4;tree\r\n",
        "image,x,y,label\na.jpg,4,3,tree\n",
        "image,X,Y,label\na.jpg,4,3,tree\n",
        "label,y,x,file_name\ntree,3,4,a.jpg\n",
        "filename,x,y,class\na.jpg,4,3,tree\n",
        "file,row,col,category\na.jpg,3,4,tree\n",
        "Image Name,Row,Column,class_name,score\na.jpg,3,4,tree,0.5\n",
        "image,x,y,label,name\na.jpg,4,3,tree,somebody\n",  # `name` is an image's only where nothing else is
        "image;x;y;label\na.jpg;4,0;3,0;tree\n",  # the decimal comma of a spreadsheet
    ],
)
def test_a_point_at_row_3_column_4(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ONE


@pytest.mark.parametrize(
    ("header", "position", "pixel"),
    [
        ("row,column", "2.6,4.4", (2, 4)),  # whole numbers are the upper left corners of pixels: floor
        ("y,x", "2.6,4.4", (2, 4)),
        ("axis-0,axis-1", "2.6,4.4", (3, 4)),  # napari: they are the centres: round
        ("axis-0,axis-1", "2,4", (2, 4)),
        ("axis-0,axis-1", "2.4,3.6", (2, 4)),
    ],
)
def test_the_pixel_of_a_position(tmp_path: Path, header: str, position: str, pixel: tuple[int, int]) -> None:
    strokes = read(tmp_path, f"image,{header},label\na.jpg,{position},tree\n")["a"]
    label, _ = draw(strokes, (8, 8), Counter())
    assert np.argwhere(label == 1).tolist() == [list(pixel)]


def test_naparis_table_is_named_as_its_image(tmp_path: Path) -> None:
    text = "index,axis-0,axis-1,label\n0.0,10.0,20.0,tree\n1.0,0.0,0.0,ground\n"
    file = save(tmp_path, "0001TP_006690.csv", text)
    assert csv.read([file], NAMES).strokes == {"0001TP_006690": [point(1, 10.5, 20.5), point(0, 0.5, 0.5)]}
    assert read_strokes([file], "auto", NAMES, 1.0)[0] == "csv"


def test_points_that_nobody_annotated_are_left_out_and_counted(tmp_path: Path) -> None:
    file = save(tmp_path, "p.csv", "Name,Row,Column,Label code\na.jpg,1,2,\na.jpg,3,4,tree\nb.jpg,5,6, \n")
    found = csv.read([file], NAMES)
    assert found.strokes == {**ONE, "b": []}
    assert found.notes == ["2 CSV rows have no label, for nobody annotated them yet, and were left out"]


def test_case_counts_where_classes_differ_in_it_alone(tmp_path: Path) -> None:
    text = "image,row,column,label\na,3,4,{}\n"
    assert read(tmp_path, text.format("Rock"), ["rock", "Rock"])["a"] == [point(1, 3, 4)]
    with pytest.raises(ValueError, match="line 2: unknown class 'ROCK'"):
        read(tmp_path, text.format("ROCK"), ["rock", "Rock"])


def test_coralnets_ids_are_read_as_class_names_only(tmp_path: Path) -> None:
    text = "Name,Row,Column,Label ID\na.jpg,3,4,1\n"
    assert read(tmp_path, text, ["210", "1"])["a"] == [point(1, 3, 4)]
    with pytest.raises(ValueError, match=r"line 2: '1' is one of CoralNet's own label ids.*label codes"):
        read(tmp_path, text)  # class 1 would be another one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,row,column,x,y,label\na,1,2,2,1,tree\n",
            "line 1: row,column and y,x may both be the position",
        ),
        ("image,row,y,label\na,1,2,tree\n", "line 1: no columns row,column nor x,y"),
        (
            "image,file,row,column,label\na,b,1,2,tree\n",
            "line 1: columns 'image' and 'file' may both be the image",
        ),
        (
            "image,row,column,label,class\na,1,2,x,y\n",
            "line 1: columns 'label' and 'class' may both be the label",
        ),
        ("image,row,column\na,1,2\n", "line 1: no column 'label code' for the label"),
        ("row,column,label\n1,2,tree\n", "line 1: no column 'image' for the image"),
        ("image,axis-0,axis-1,axis-2,label\na,1,2,3,tree\n", "points of a stack with axis-2"),
        (
            "image;row;column;label\na;1;2;tree;x\n",
            "line 2: 5 fields, but the header has 4; put names with ';'",
        ),
        ("image,row,column,label\na,1,2,\n\na,-1,2,tree\n", "line 4, row: position -1"),
        ("image;x;y;label\na;1,5,2;3;tree\n", "line 2, column: '1,5,2' is no number"),
        ("image,x,x,y,label\na,1,1,2,tree\n", "line 1: more than one column 'x'"),
        (b"\xff\xfei\0m\0", "not UTF-8 text"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "points.csv")) and "\n" not in str(caught.value)


def test_tags_are_separated_by_semicolons_also_where_fields_are(tmp_path: Path) -> None:
    file = save(tmp_path, "tags.csv", 'File;Category\na.jpg;"tree;ground"\n')
    strokes = csv.read_tags([file], NAMES).strokes["a"]
    assert [stroke.class_id for stroke in strokes] == [1, 0]
