"""The contact sheet and `sparseg inspect`: every class is seen, clicks are large, the page needs nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sparseg import cli
from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import importers, shards
from sparseg.reports import dataset_page

PALETTE = [(10, 10, 10), (250, 20, 20), (20, 240, 20), (30, 30, 250)]
NAMES = ["road", "<b>tree</b>", "sky & sea", "never"]


def dataset(folder: Path, *, report: dict[str, Any] | None = None, rows: int = 5) -> shards.ShardedDataset:
    """Sparse train rows (class 2 in the last only), dense val rows."""

    def train() -> Any:
        for number in range(rows):
            label = np.full((60, 90), UNLABELLED, np.uint8)
            label[10, 20], label[30, 50] = 0, 1
            if number == rows - 1:
                label[50, 70], label[-1] = 2, IGNORED
            row = fixtures.row(f"a<{number}>", label)
            yield {**row, "strokes": [{"class": 0, "width": 1.0, "y": [10.0], "x": [20.0]}]}

    def val() -> Any:
        for number in range(2):
            yield fixtures.row(f"v{number}", np.full((60, 90), number, np.uint8))

    shards.write(folder / "set", {"train": train, "val": val}, NAMES, palette=PALETTE, report=report)
    return shards.open(folder / "set")


def inspect(words: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


# ------------------------------------------------------------------------------------------------------ rows


@given(st.lists(st.lists(st.integers(0, 8), max_size=4), max_size=30), st.integers(1, 12))
def test_chosen_rows_show_every_class(present: list[list[int]], count: int) -> None:
    rows = dataset_page.choose_rows(present, count)
    assert rows == sorted(set(rows)) and all(0 <= row < len(present) for row in rows)
    assert {k for row in rows for k in present[row]} == {k for classes in present for k in classes}
    assert len(rows) >= min(count, len(present))
    assert len(rows) <= max(count, len({k for classes in present for k in classes}))


def test_rows_beyond_the_classes_are_spread() -> None:
    assert dataset_page.choose_rows([[0]] * 100, 5) == [0, 13, 38, 62, 87]


# -------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("height", "width"), [(1024, 2048), (375, 500), (60, 90)])
def test_a_click_of_one_pixel_is_a_disc_with_a_rim(height: int, width: int) -> None:
    label = np.full((height, width), UNLABELLED, np.uint8)
    y, x = height // 3, width // 2 + 1  # an odd column: no nearest-neighbour thumbnail would keep it
    label[y, x] = 1
    picture = dataset_page.picture_of(np.full((height, width, 3), 128, np.uint8), label, PALETTE)
    h, w, _ = picture.shape
    assert max(h, w) in (450, 480) and abs(h / w - height / width) < 0.01
    disc = np.abs(picture.astype(int) - PALETTE[1]).sum(2) < 60
    assert disc[(2 * y + 1) * h // (2 * height), (2 * x + 1) * w // (2 * width)]
    diameter = 2 * np.sqrt(disc.sum() / np.pi)
    assert diameter >= min(8, 0.03 * min(h, w)) and diameter < 0.1 * max(h, w)
    around = picture[~disc & (np.abs(picture.astype(int) - 128).sum(2) > 60)]
    assert (around.min(1) > 200).any() and (around.max(1) < 60).any()  # a white and a black ring


def test_a_stroke_is_thick_and_has_no_rings_inside() -> None:
    label = np.full((300, 400), UNLABELLED, np.uint8)
    label[150, 50:350] = 2
    picture = dataset_page.picture_of(np.full((300, 400, 3), 128, np.uint8), label, PALETTE).astype(int)
    middle = np.abs(picture[150, 60:340] - PALETTE[2]).sum(1)
    assert (middle < 30).all()
    column = np.abs(picture[:, 200] - PALETTE[2]).sum(1) < 30
    assert 3 <= column.sum() <= 25


def test_dense_labels_are_laid_over_and_void_is_not() -> None:
    label = np.full((100, 100), 3, np.uint8)
    label[:, 50:] = IGNORED
    picture = dataset_page.picture_of(np.full((100, 100, 3), 128, np.uint8), label, PALETTE)
    assert picture.shape == (400, 400, 3)
    assert picture[200, 100, 2] > 180 and picture[200, 300].tolist() == [128, 128, 128]


# ------------------------------------------------------------------------------------------------------ page


class Page(HTMLParser):
    """Collects tags, sources and text, and checks that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    dataset_page.write_contact_sheet(data, tmp_path / "new" / "a.html", [("from", "<x>")], rows_per_split=2)
    text = (tmp_path / "new" / "a.html").read_text()
    page = Page(text)
    assert page.open == [] and not {"script", "link", "iframe", "b>"} & set(page.tags)
    assert len(page.sources) == 2 + 2 and all(s.startswith("data:image/jpeg;base64,") for s in page.sources)
    assert not re.search(r"https?://|@import|url\(", text)
    assert (
        'name="viewport"' in text
        and "<b>tree</b>" in page.text
        and "a<4>" in page.text
        and "<x>" in page.text
    )
    assert "2 of 5 images" in page.text and "not labelled in it: never" in page.text
    assert "3 px labelled" in page.text and "1 click" in page.text and "1.7% ignored" in page.text
    for source in page.sources:
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).load()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.html"]


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    with pytest.raises(ValueError, match="--rows must be at least 1, got 0"):
        dataset_page.write_contact_sheet(data, tmp_path / "a.html", [], rows_per_split=0)
    with pytest.raises(ValueError, match=r"a\.html: cannot be written"):
        (tmp_path / "a.html").mkdir()
        dataset_page.write_contact_sheet(data, tmp_path / "a.html", [])
    broken = data.splits["val"].map(lambda row: {"image": {"bytes": b"no image", "path": None}})
    data.splits["val"] = broken
    with pytest.raises(ValueError, match=r"split 'val', row v0: unreadable or truncated image"):
        dataset_page.write_contact_sheet(data, tmp_path / "b.html", [])
    assert not (tmp_path / "b.html").exists()


# --------------------------------------------------------------------------------------------------- inspect


def test_inspect_of_a_dataset_that_no_import_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain `save_to_disk`: everything is counted from the labels."""
    import datasets

    data = dataset(tmp_path)
    datasets.load_from_disk(str(data.path)).save_to_disk(str(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "sparseg.json").exists()
    assert inspect([str(tmp_path / "plain"), "--html", str(tmp_path / "a.html"), "--rows", "1"]) == 0
    shown = capsys.readouterr()
    lines = {line.split("  ")[0]: line for line in shown.out.splitlines()}
    assert lines["train"].split()[1:3] == ["5", "0.0407"]
    assert lines["train, labelled pixels"].split()[-5:] == ["2", "2", "2", "2", "3"]
    assert lines["val, classes"].split()[-5:] == ["1"] * 5
    assert lines["2 sky & sea"].split()[-8:-4] == ["1", "9.09", "%", "1"]
    assert "note: train: no labelled pixel of never" in shown.out
    assert (tmp_path / "a.html").read_text().count("<img ") == 1 + 2  # row 4 of train has every class


def test_inspect_counts_as_the_import_did(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw", test=1)
    report = importing.import_dataset("camvid", root, tmp_path / "set", label="clicks", random_pixels=7)
    opened = shards.open(tmp_path / "set")
    found = importers.inspected(opened)
    for split, counts in found.splits.items():
        per_image = counts.pop("per_image")
        assert counts == report.splits[split] and per_image["images"] == len(opened.splits[split])
    opened.report.clear()
    scanned = importers.inspected(opened)
    for split, counts in scanned.splits.items():
        counts.pop("per_image")
        assert counts == report.splits[split]


def test_inspect_names_values_that_are_neither_class_nor_code(tmp_path: Path) -> None:
    import datasets

    data = dataset(tmp_path)
    foreign = shards.encode_label(np.full((60, 90), 77, np.uint8))
    opened = datasets.load_from_disk(str(data.path))
    changed = {
        split: rows.cast_column("label", datasets.Image(decode=False)).map(
            lambda row: {"label": {"bytes": foreign, "path": None}}
        )
        for split, rows in opened.items()
    }
    datasets.DatasetDict(changed).save_to_disk(str(tmp_path / "plain"))
    report = importers.inspected(shards.open(tmp_path / "plain"))
    assert any("val: values 77 (10800 pixels) are neither a class nor" in note for note in report.notes)


def test_findings_of_a_report() -> None:
    counts = {"labelled": 900, "unlabelled": 100, "ignored": 0, "rows": 1200, "rows_without_label": 3}
    counts |= {"pixels": [900, 0], "images": [1197, 0], "height": [5, 9], "width": [7, 7]}
    refused = [{"split": "train", "id": f"i{k}", "reason": f"i{k}: gone"} for k in range(25)]
    report = importers.ImportReport(
        layout="folder",
        root="/r",
        label="point",
        encoding="e",
        splits={"train": counts},
        classes=("a", "b"),
        notes=("n",),
        refused=tuple(refused),
    )
    text = importers.format_report(report)
    assert "1,200" in text and "5..9" in text and "train: 3 rows have no labelled pixel" in text
    assert "no labelled pixel of b" in text and "90 % of the pixels are labelled, much for point" in text
    assert (
        "refused rows: 25" in text
        and "i19: gone" in text
        and "i20: gone" not in text
        and "and 5 more" in text
    )
