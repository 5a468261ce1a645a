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
from sparseg.data.strokes import Annotations, Stroke

FLAT = {"train": ["a", "b"], "val": ["c"]}
BOTH = {"train": ["a", "x/a", "x/b"], "val": ["y/c", "y/d"]}
DEEP = {"train": ["s/x/a", "s/y/a", "s/y/b", "t/y/b"], "val": ["v/e"]}
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
]
Ids = dict[str, list[str]]


@pytest.mark.parametrize(("ids", "path", "name"), CASES)
def test_what_a_path_means(ids: Ids, path: str, name: str) -> None:
    strokes = [Stroke(1, "point", (1.0,), (2.0,))]
    found = resolve(Annotations({path: strokes}, {path: (3, 4)}, ["note"]), ids, "file")
    assert found == Annotations({name: strokes}, {name: (3, 4)}, ["note"])


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
