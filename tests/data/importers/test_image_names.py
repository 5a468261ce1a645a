"""Which image a path in an annotation file means, and an import of annotated images in folders."""

from __future__ import annotations

from pathlib import Path

import fixtures
import importing
import numpy as np
import pytest

from sparseg.config import UNLABELLED
from sparseg.data import shards
from sparseg.data.importers.readers.image_names import resolve
from sparseg.data.importers.readers.parsing import image_id
from sparseg.data.strokes import Annotations, Stroke

FLAT = {"train": ["a", "b"], "val": ["c"]}
BOTH = {"train": ["a", "x/a", "x/b"], "val": ["y/c", "y/d"]}
DEEP = {"train": ["s/x/a", "s/y/a", "s/y/b", "t/y/b"], "val": ["v/e"]}
SPELT = {"train": ["im0", "IM1", "Im1", "x/B\u00e4che \u00e9", "x/b", "1a2b3c4d-x"], "val": ["y/c", "a%20b"]}
TWINS = {"train": ["a", "x/b"], "val": ["a", "x/b", "train/a"]}

CASES = [
    # images, path in the file -> id
    (FLAT, "a", "a"),
    (FLAT, "any/a", "a"),
    (FLAT, "images/train/a", "a"),
    (FLAT, "val/a", "a"),  # b/c: no split has such a folder, for the images were split by a hash
    (FLAT, "c", "c"),
    (FLAT, "train/c", "c"),
    (FLAT, "other", "other"),
    (FLAT, "any/other", "any/other"),
    (BOTH, "a", "a"),
    (BOTH, "x/a", "x/a"),
    (BOTH, "images/train/x/a", "x/a"),
    (BOTH, "train/a", "a"),
    (BOTH, "z/a", "a"),
    (BOTH, "b", "x/b"),
    (BOTH, "c", "y/c"),
    (BOTH, "z/b", "z/b"),  # of another folder than the only b
    (DEEP, "x/a", "s/x/a"),
    (DEEP, "s/y/b", "s/y/b"),
    (DEEP, "train/t/y/b", "t/y/b"),
    (DEEP, "e", "v/e"),
    (TWINS, "a", "a"),
    (TWINS, "val/a", "val/a"),  # not train's
    (TWINS, "val/x/b", "val/x/b"),
    (TWINS, "train/x/b", "x/b"),
    (TWINS, "images/val/train/a", "train/a"),
]
REFUSED = [
    (DEEP, ["a"], "'a' may mean image s/x/a or s/y/a; write the path below images/"),
    (DEEP, ["y/b"], "'y/b' may mean image s/y/b or t/y/b;"),
    (TWINS, ["train/a"], "'train/a' may mean image a or train/a;"),
    (FLAT, ["a", "any/a"], "'a' and 'any/a' both mean image a; write the path below images/"),
    (BOTH, ["b", "x/b"], "'b' and 'x/b' both mean image x/b;"),
    (SPELT, ["iM1"], "'iM1' may mean image IM1 or Im1;"),
    (BOTH, ["/home/u/a"], "'/home/u/a' may mean image a or x/a;"),
    (DEEP, ["/home/u/b"], "'/home/u/b' may mean image s/y/b or t/y/b;"),
    (FLAT, ["a", "/up/1a2b3c4d-A"], "'a' and '/up/1a2b3c4d-A' both mean image a;"),
]
Ids = dict[str, list[str]]

# What tools write, with suffix -> id.  The ids on the left are as the file system has them.
WRITTEN = [
    (FLAT, "images\\a.jpg", "a"),  # Label Studio's COCO export on Windows
    (FLAT, "images/a.JPG", "a"),
    (FLAT, "..\\..\\label-studio\\media\\upload\\4\\a.jpg", "a"),
    (FLAT, "../../label-studio/data/media/upload/4/a.jpg", "a"),
    (FLAT, "/home/u/data/images/train/a.jpg", "a"),
    (FLAT, "C:\\data\\a.jpg", "a"),
    (FLAT, "/data/upload/1/1a2b3c4d-a.jpg", "a"),
    (FLAT, "images/1a2b3c4d-a.jpg", "a"),
    (FLAT, "1a2b3c4d-a.jpg", "a"),
    (FLAT, "/data/local-files/?d=some/where/a.jpg", "a"),
    (FLAT, "s3://bucket/some/where/a.jpg", "a"),
    (FLAT, "https://host.example/x/a.jpg?size=full#top", "a"),
    (
        FLAT,
        "/data/upload/1/deadbeef-other.jpg",
        "data/upload/1/deadbeef-other",
    ),  # means none, and keeps its name
    (FLAT, "/data/upload/1/12345-a.jpg", "data/upload/1/12345-a"),  # no prefix of eight hexadecimal digits
    (BOTH, "/home/u/z/b.jpg", "x/b"),  # the only b
    (BOTH, "/home/u/images/a.jpg", "a"),  # not x/a, whose path is images/x/a
    (BOTH, "/home/u/images/x/a.jpg", "x/a"),
    (DEEP, "/home/u/s/x/a.jpg", "s/x/a"),
    (DEEP, "/home/u/t/y/b.jpg", "t/y/b"),
    (SPELT, "IM0.JPG", "im0"),
    (SPELT, "IM1.jpg", "IM1"),
    (SPELT, "Im1.jpg", "Im1"),
    (SPELT, "Ba\u0308che e\u0301.jpg", "x/B\u00e4che \u00e9"),  # decomposed, as a Mac writes it
    (SPELT, "BA\u0308CHE \u00c9.jpg", "x/B\u00e4che \u00e9"),
    (SPELT, "B%C3%A4che%20%C3%A9.jpg", "x/B\u00e4che \u00e9"),
    (SPELT, "1a2b3c4d-x.jpg", "1a2b3c4d-x"),  # its own name
    (SPELT, "/up/0123abcd-1a2b3c4d-x.jpg", "1a2b3c4d-x"),
    (SPELT, "a%20b.png", "a%20b"),
    (SPELT, "TRAIN/im0.jpg", "im0"),
]


@pytest.mark.parametrize(("ids", "path", "name"), CASES)
def test_what_a_path_means(ids: Ids, path: str, name: str) -> None:
    strokes = [Stroke(1, "point", (1.0,), (2.0,))]
    found = resolve(Annotations({path: strokes}, {path: (3, 4)}, ["note"]), ids, "file")
    assert found == Annotations({name: strokes}, {name: (3, 4)}, ["note"])


@pytest.mark.parametrize(("ids", "written", "name"), WRITTEN)
def test_paths_as_tools_write_them(ids: Ids, written: str, name: str) -> None:
    found = resolve(Annotations({image_id(written, "file"): []}), ids, "file")
    assert list(found.strokes) == [name]


def test_a_decomposed_name_on_disk_is_found_by_a_composed_one() -> None:
    on_disk = "Ba\u0308che e\u0301"
    assert list(resolve(Annotations({"B\u00e4che \u00e9": []}), {"train": [on_disk]}, "x").strokes) == [
        on_disk
    ]


@pytest.mark.parametrize(
    "name", ["", " ", "/", "..", "../..", "C:", "C:\\", "a\0b", "a\nb", "\ud800", None, 3]
)
def test_what_names_no_file(name: object) -> None:
    with pytest.raises(ValueError, match=r"^file: .*(must be a text|names no file|control characters)"):
        image_id(name, "file")


@pytest.mark.parametrize(("ids", "paths", "message"), REFUSED)
def test_paths_that_may_mean_two_images_or_one_twice(ids: Ids, paths: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolve(Annotations({path: [] for path in paths}), ids, "clicks.csv")
    assert str(caught.value).startswith(f"clicks.csv: {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_clicks_of_images_in_folders(tmp_path: Path, workers: int) -> None:
    root, mask = tmp_path / "raw", fixtures.dense_mask("a", 3, 255)
    for name in ("train/a", "train/site/a", "train/site/b", "val/site/c", "val/a"):
        fixtures.save_image(root / "images" / f"{name}.png", mask)
        fixtures.save_label(root / "masks" / f"{name}.png", mask)
    (root / "classes.txt").write_text("ground\ntree\nwall\n")
    table = "image,row,column,label\na.png,1,1,0\nsite/a.png,2,2,1\nb.png,3,3,2\nimages/val/a.png,9,9,2\n"
    (root / "clicks.csv").write_text(table)
    report = importing.import_dataset(
        "folder", root, tmp_path / "out", label_path=str(root / "clicks.csv"), workers=workers
    )
    assert "1 annotated images are not in train, not used: val/a" in report.notes
    rows = shards.open(tmp_path / "out").splits["train"]
    for name, at, k in (("a", 1, 0), ("site/a", 2, 1), ("site/b", 3, 2)):
        row = next(row for row in rows if row["id"] == name)
        wanted = np.full(mask.shape, UNLABELLED, np.uint8)
        wanted[at, at] = k
        np.testing.assert_array_equal(shards.decode_label(row["label"]["bytes"]), wanted)
