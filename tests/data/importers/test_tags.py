"""Tags of whole images: read from files, drawn from masks, what a run learns from them, what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest
import test_readers
import tiny
import torch
from commands import run
from hypothesis import given, settings
from masks import fixed_mask, masks

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, Config, DataConfig, with_overrides
from sparseg.data import importers, shards, sparsify
from sparseg.data.importers.readers import coco, csv, cvat, read_strokes
from sparseg.data.importers.readers.voc import read
from sparseg.data.importers.tags_and_boxes import presume_background, tag
from sparseg.data.loader import TrainingSamples, collate
from sparseg.data.strokes import Annotations
from sparseg.reports import dataset_page
from sparseg.train import loop

NAMES = test_readers.NAMES

CSV = 'Label,Image\r\n"wall, brick;tree",img_0.jpg\r\n0,img_0.jpg\r\ntree;,img_0.jpg\r\n,img_1.png\r\n'
VOC = """<annotation><filename>img_0.jpg</filename>
<size><width>32</width><height>24</height><depth>3</depth></size>
<object><name>tree</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
 <part><name>leaf</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
<object><name>tree</name><bndbox><xmin>20</xmin><ymin>2</ymin><xmax>32.5</xmax><ymax>24</ymax></bndbox></object>
</annotation>"""
FORMATS: dict[str, tuple[Callable[..., Any], str, Any]] = {
    "csv": (csv.read_tags, "tags.csv", CSV),
    "coco": (partial(coco.read, kind="tag"), "instances.json", test_readers.COCO),
    "cvat": (partial(cvat.read, kind="tag"), "annotations.xml", test_readers.CVAT),
    "voc": (partial(read, kind="tag"), "img_0.xml", VOC),
}
WANTED = {
    "csv": {"img_0": [2, 1, 0], "img_1": []},
    "coco": {"img_0": [0, 1], "img_1": [1, 0]},  # the second without a segmentation
    "cvat": {"img_0": [1], "img_1": []},
    "voc": {"img_0": [1]},
}


# ---------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("label_format", FORMATS)
def test_every_format(tmp_path: Path, label_format: str) -> None:
    _, name, content = FORMATS[label_format]
    file = test_readers.save(tmp_path, name, content)
    for declared in ("auto", label_format):
        found, annotations = read_strokes([file], declared, NAMES, 1.0, "tag")
        assert found == label_format
        assert annotations.strokes == {
            image: [tag(k) for k in classes] for image, classes in WANTED[label_format].items()
        }
    bare = "1 listed images have no tag, taught to hold no class: img_1"
    notes = {"csv": [bare], "cvat": ["5 shapes were left out", bare]}
    assert annotations.notes == notes.get(label_format, [])


@pytest.mark.parametrize("label", ["tag", "box"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, label: str) -> None:
    boxed = '<box label="tree" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    other = {"tag": boxed, "box": '<tag label="tree"/>'}[label]
    image = f'<image id="0" name="a.jpg" width="20" height="10">{other}</image>'
    file = test_readers.save(tmp_path, "cvat.xml", f"<annotations>{image}</annotations>")
    with pytest.raises(ValueError, match=rf"cvat.xml: 1 images and not one {label}"):
        read_strokes([file], "auto", NAMES, 1.0, label)


def test_a_name_with_the_separator_is_one_tag(tmp_path: Path) -> None:
    file = test_readers.save(tmp_path, "tags.csv", "image,label\na.jpg,sky;sea\na.jpg,1\n")
    assert csv.read_tags([file], ["land", "sky;sea"]).strokes == {"a": [tag(1)]}


def test_a_background_that_nobody_tags_is_presumed_and_said() -> None:
    objects = Annotations({"a": [tag(1)], "b": []}, {"a": (2, 3)}, ["x"])
    found = presume_background(objects, ["Background", "cat"])
    assert found.strokes == {"a": [tag(0), tag(1)], "b": [tag(0)]} and found.sizes == objects.sizes
    assert found.notes == ["x", "class 0, 'Background', is tagged nowhere and was taken to be in every image"]
    tagged = Annotations({"a": [tag(1), tag(0)], "b": []})
    assert presume_background(tagged, ["background", "cat"]) is tagged
    assert presume_background(objects, ["sky", "cat"]) is objects


@pytest.mark.parametrize(
    ("label_format", "content", "message"),
    [
        ("csv", "image,row,column,label\na,1,1,tree\n", r"of points, .* row and column.*data\.label point"),
        ("csv", "image,row,label\na,1,tree\n", "a CSV of points, for it has a column row,"),
        ("csv", "image,kind\na,tree\n", "no column 'label code' for .* image,label, found 'image,kind'$"),
        ("csv", "image,x,y,label\na,1,1,tree\n", "a CSV of points, for it has a column y and x,"),
        ("csv", "image,label\na,trie\n", r"line 2: unknown class 'trie'; did you mean 'tree'"),
        ("csv", "image,label\na,tree;3\n", r"line 2: class id 3; ids are 0\.\.2"),
        ("csv", "image,label\nx.jpg,tree\nx.png,tree\n", "line 3: images .* have the same id x"),
        ("csv", "image,label\n..,tree\n", "line 2: image '..' names no file"),
        ("csv", "image,label\na,tree,wall\n", "line 2: 3 fields, but the header has 2"),
        ("coco", {**test_readers.COCO, "categories": []}, "annotation 1: category_id 90 is not among"),
        ("cvat", test_readers.CVAT.replace('tag label="tree"', 'tag label="x"'), "shape 1: unknown class"),
        ("voc", VOC.replace("<name>tree", "<name>dog"), "object 1: unknown class 'dog'"),
        ("voc", VOC.replace("<name>tree</name>", ""), "object 1: unknown class None"),
        ("voc", test_readers.SCRIBBLES, "read as voc, but it is a scribblesup file"),
        ("voc", "<kml/>", "not a VOC file: expected <annotation> with <object>, found <kml>"),
        ("voc", VOC.replace("<width>32", "<width>0"), "width: must be a whole number"),
    ],
)  # fmt: skip
def test_refused_in_one_line_that_names_the_file(
    tmp_path: Path, label_format: str, content: Any, message: str
) -> None:
    reader, name, _ = FORMATS[label_format]
    file = test_readers.save(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        reader([file], NAMES)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_formats_and_label_kinds_that_do_not_fit(tmp_path: Path) -> None:
    tags = test_readers.save(tmp_path, "tags.csv", CSV)
    with pytest.raises(
        ValueError,
        match=r"no columns row,column nor x,y.*'label,image' \(tags of whole images: --data\.label tag\)",
    ):
        read_strokes([tags], "auto", NAMES, 1.0, "point")
    labelme = test_readers.save(tmp_path, "img_0.json", test_readers.LABELME)
    with pytest.raises(
        ValueError, match=r"a labelme file, but data\.label=tag is read from csv, coco, cvat, voc;"
    ):
        read_strokes([labelme], "auto", NAMES, 1.0, "tag")
    voc = test_readers.save(tmp_path, "img_0.xml", VOC)
    with pytest.raises(
        ValueError, match=r"a voc file has boxes, and no data\.label=scribble; .*--data\.label box or tag"
    ):
        read_strokes([voc], "auto", NAMES, 1.0, "scribble")


# ----------------------------------------------------------------------------------------------------- import


def raw(folder: Path, tags: dict[int, str]) -> tuple[Path, dict[str, str]]:
    """A folder dataset and tags.csv for its training images, by their place in the list -> (root, tags)."""
    ids = test_readers.dataset(folder / "raw")
    told = {name: tags.get(number, "ground;tree") for number, name in enumerate(ids)}
    lines = [f'{name}.jpg,"{text}"' for name, text in told.items()]
    test_readers.save(folder, "tags.csv", "\n".join(["image,label", *lines]))
    return folder / "raw", told


def test_from_the_command_to_the_samples_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, told = raw(tmp_path, {1: "wall, brick", 2: ""})
    out = tmp_path / "out"
    assert run(f"import folder {root} {out} --label tag --labels {tmp_path}/tags.csv --workers 0") == 0
    printed = capsys.readouterr().out
    assert "encoding: found: csv in tags.csv; tags of whole images" in printed
    assert "note: train: 1 rows have no labelled pixel or tag" in printed and "note: train: 3 tags" in printed
    opened = shards.open(out)
    counts = opened.report["splits"]["train"]
    assert (counts["images"], counts["pixels"], counts["labelled"]) == ([1, 1, 1], [0, 0, 0], 0)
    assert counts["rows_without_label"] == 1 and shards.label_counts(opened, "train") == {
        "images": 3,
        "pixels": 0,
    }

    data = DataConfig(root=str(out), label="tag", crop_px=32)
    assert importers.prepare(data, tmp_path / "runs") == out
    samples = TrainingSamples(opened.splits["train"], 3, data, seed=0)
    batch = collate([samples[0, row] for row in range(3)])
    by_id = {"ground;tree": [True, True, False], "wall, brick": [False, False, True], "": [False] * 3}
    assert batch.present_BK.tolist() == [by_id[told[name]] for name in opened.splits["train"]["id"][:]]
    assert not (batch.label_BHW < UNLABELLED).any() and (batch.label_BHW == UNLABELLED).any()
    assert (batch.num_slots, batch.num_present) == (0, 2)
    for row in opened.splits["train"]:
        label = shards.decode_label(row["label"]["bytes"])
        assert label.shape == (fixtures.HEIGHT, fixtures.WIDTH) and (label == UNLABELLED).all()

    assert run(f"inspect {out} --html {tmp_path}/a.html --rows 9") == 0
    shown = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert shown["train, classes"][-5:] == ["0", "0", "1", "2", "2"]
    page = (tmp_path / "a.html").read_text()
    assert "wall, brick</li></ul></figcaption>" in page and "0 px labelled<ul" in page


def test_images_that_the_file_does_not_list_are_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, told = raw(tmp_path, {})
    first = next(iter(told))
    file = test_readers.save(tmp_path, "tags.csv", f"image,label\n{first},tree\nother,tree\n")
    options = {"label": "tag", "label_path": str(file)}
    with pytest.raises(ValueError, match=r"2 of 3 training images are without label.*--data\.skip-bad"):
        importing.import_dataset("folder", root, tmp_path / "out", **options)
    assert run(f"import folder {root} {tmp_path}/out --label tag --labels {file} --workers 0") == 2
    told = capsys.readouterr().err
    assert "leave them out with --skip-bad" in told and "--data." not in told
    report = importing.import_dataset("folder", root, tmp_path / "out", skip_bad=True, **options)
    assert len(report.refused) == 2 and report.splits["train"]["images"] == [0, 1, 0]
    assert all("no tags in" in row["reason"] for row in report.refused)
    assert any("1 annotated images are not in train, not used: other" in note for note in report.notes)


def test_places_without_tags(tmp_path: Path) -> None:
    root, _ = raw(tmp_path, {})
    shards_of = partial(importing.import_dataset, "folder", root, tmp_path / "out", label="tag")
    with pytest.raises(
        ValueError, match=r"no tag annotation.* name its csv, coco, cvat, voc files .*--kind tag"
    ):
        importing.import_dataset("camvid", fixtures.camvid(tmp_path / "c"), tmp_path / "out", label="tag")
    with pytest.raises(ValueError, match=r"masks: holds no file of csv, coco, cvat, voc, from which"):
        shards_of(label_path=str(root / "masks"))
    with pytest.raises(ValueError, match=r"holds no file of csv.*--data\.label-format"):
        shards_of(label_path=str(tmp_path / "tags.csv"), label_format="png")


def test_a_run_and_its_data_agree_on_the_kind(tmp_path: Path) -> None:
    root, _ = raw(tmp_path, {})
    out, file = tmp_path / "out", str(tmp_path / "tags.csv")
    importing.import_dataset("folder", root, out, label="tag", label_path=file)
    with pytest.raises(ValueError, match=r"imported with label tag, but data\.label=point; set --data"):
        importers.prepare(DataConfig(root=str(out)), tmp_path / "runs")
    clicks = DataConfig(root=str(out), label="clicks", random_pixels=2)  # drawn from the masks that it has
    assert shards.open(importers.prepare(clicks, tmp_path / "runs")).report["label"] == "clicks"
    assert importers.prepare(DataConfig(root=str(out), label="full"), tmp_path / "runs") == out


# --------------------------------------------------------------------------------------------------- sparsify


@settings(max_examples=80, deadline=None)
@given(masks)
def test_drawn_tags_are_the_classes_that_are_seen(mask: np.ndarray) -> None:
    for share in (0.0, 0.1, 0.6):
        label, strokes = sparsify.tags(mask, min_share=share)
        sizes = {k: int((mask == k).sum()) for k in range(250) if (mask == k).any()}
        largest = max(sizes.values(), default=0)
        wanted = [k for k, size in sizes.items() if size >= share * mask.size or size == largest]
        assert strokes == [{"class": k, "width": 0.0, "y": [], "x": []} for k in wanted]
        np.testing.assert_array_equal(label, np.where(mask == IGNORED, IGNORED, UNLABELLED))


def test_sparsify_to_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importing.import_dataset("camvid", fixtures.camvid(tmp_path / "raw"), tmp_path / "set", label="full")
    assert run(f"sparsify {tmp_path}/set {tmp_path}/out --kind tag --budget 0") == 0
    assert "the classes from 0.03% of the image on" in capsys.readouterr().out
    source, made = shards.open(tmp_path / "set"), shards.open(tmp_path / "out")
    images = np.zeros(11, int)
    for old, new in zip(source.splits["train"], made.splits["train"], strict=True):
        mask, label = (
            shards.decode_label(row[name]["bytes"]) for row, name in ((old, "mask"), (new, "label"))
        )
        classes = np.unique(mask[mask < UNLABELLED])
        assert new["present"] == classes.tolist() and not (label < UNLABELLED).any()
        images[classes] += 1
    assert made.report["label"] == "tag" and made.report["splits"]["train"]["images"] == images.tolist()
    assert made.report["splits"]["train"]["rows_without_label"] == 0
    assert made.splits["val"]["present"][:] == source.splits["val"]["present"][:]
    with pytest.raises(ValueError, match=r"budget of tag must be in 0\.\.0 \(0 = all classes.*got 2"):
        sparsify.Recipe(kind="tag", budget=2)
    drawn = sparsify.Recipe(kind="tag", budget=0, seed=3).draw(fixed_mask(), "x")[1]
    assert [stroke["class"] for stroke in drawn] == [0, 1, 2, 3, 4]  # frozen: published draws hang on it


# ------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("label", ["tag", "box"])
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({}, r"data\.label={} labels no pixel .*loss\.method=ce .*--loss\.method ce\+absent"),
        ({"loss.method": "tel"}, r"data\.label={} .*loss\.method=tel"),
        ({"loss.method": "agmm", "loss.absent_weight": 0.0}, r"loss\.absent_weight=0\.0 has nothing"),
        ({"loss.method": "agmm", "data.keep_labels": 0.5}, r"data\.keep_labels=0\.5 .*label={} .*labels 1"),
    ],
)  # fmt: skip
def test_runs_that_could_learn_nothing_are_refused(label: str, overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named.format(label)) as caught:
        with_overrides(Config(), {"data.label": label, **overrides})
    assert "\n" not in str(caught.value)
    for method in ("ce+absent", "agmm", "agmm+tel", "agmm+gated-crf"):
        assert with_overrides(Config(), {"data.label": label, "loss.method": method}).data.label == label


@pytest.mark.filterwarnings("ignore:model.weights=none")
@pytest.mark.parametrize("kind", ["tag", "box"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"loss.method": "ce+absent", "loss.class_balance": 0.5, "data.crop_choice": "labelled"},
        {"loss.method": "agmm", "loss.centroids": "memory", "loss.target": "posterior"},
    ],
    ids=["ce+absent", "agmm"],
)
def test_a_run_learns_which_classes_are_absent(tmp_path: Path, kind: str, overrides: dict[str, Any]) -> None:
    tiny.dataset(tmp_path)
    out = tmp_path / kind
    importers.sparsify_dataset(tmp_path / "data", out, sparsify.Recipe(kind=kind, budget=0))
    more = {"data.root": str(out), "data.label": kind, "optim.max_steps": 24, "optim.epochs": 20}
    config = tiny.config(
        tmp_path, {**more, "run.validate_every": 12.0, "optim.optimizer": "adamw", **overrides}
    )
    loop.run(config)
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert len(steps) == 24 and np.isfinite([line["total"] for line in steps]).all()
    assert all((line["seg"] == 0) == (kind == "tag") and line["absent"] > 0 for line in steps)
    if overrides["loss.method"] == "ce+absent":
        absent = [line["absent"] for line in steps]
        assert sum(absent[-6:]) < 0.7 * sum(absent[:6])


def test_weights_of_classes_without_a_labelled_pixel() -> None:
    assert losses.class_weights([0, 0, 0], 0.5).tolist() == [1.0, 1.0, 1.0]


def test_all_terms_are_finite_without_a_labelled_pixel() -> None:
    torch.manual_seed(0)
    feature, logits = torch.randn(2, 8, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    label = torch.full((2, 16, 16), UNLABELLED, dtype=torch.uint8)
    present = torch.tensor([[True, False, True], [False, True, False]])
    config = with_overrides(Config(), {"loss.method": "agmm"}).loss
    terms = losses.objective(feature, logits, label, present, config, num_slots=0)
    terms["total"].backward()
    assert all(torch.isfinite(value) for value in terms.values()) and terms["absent"] > 0
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and (logits.grad != 0).any()


def test_a_sheet_counts_no_tag_as_a_click(tmp_path: Path) -> None:
    row = fixtures.row("a", np.full((8, 8), UNLABELLED, np.uint8))
    row |= {"present": [1], "strokes": [{"class": 1, "width": 0.0, "y": [], "x": []}]}
    shards.write(tmp_path / "set", {"train": lambda: iter([copy.copy(row)])}, NAMES, report={"label": "tag"})
    dataset_page.write_contact_sheet(shards.open(tmp_path / "set"), tmp_path / "a.html", [])
    page = (tmp_path / "a.html").read_text()
    assert "8 × 8 · 0 px labelled<ul" in page and "tree</li></ul></figcaption>" in page
