"""Importers: what is read is what was meant, and everything else is refused in one line."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest
import tiny
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED, DataConfig
from sparseg.data import importers, shards, sparsify
from sparseg.data.importers.layouts.cityscapes import CITYSCAPES_IDS


def imported(layout: str, root: Path, **options: Any) -> tuple[shards.ShardedDataset, dict[str, Any]]:
    out = root.parent / f"out{len(list(root.parent.iterdir()))}"
    report = importing.import_dataset(layout, root, out, **options)
    return shards.open(out), report


def labels(dataset: shards.ShardedDataset, split: str, column: str = "label") -> dict[str, np.ndarray]:
    return {row["id"]: shards.decode_label(row[column]["bytes"]) for row in dataset.splits[split]}


def coded(mask: np.ndarray, void: int) -> np.ndarray:
    return np.where(mask == void, IGNORED, mask)


# ---------------------------------------------------------------------------------------------------- CamVid


@pytest.mark.parametrize("segnet", [False, True])
def test_camvid_full(tmp_path: Path, segnet: bool) -> None:
    dataset, report = imported(
        "camvid", fixtures.camvid(tmp_path / "raw", segnet=segnet, test=1), label="full"
    )
    assert (len(dataset.names), dataset.names[3]) == (11, "road")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {"train": 4, "val": 2, "test": 1}
    for split in dataset.splits:
        for name, label in labels(dataset, split).items():
            np.testing.assert_array_equal(label, coded(fixtures.dense_mask(name, 11, 11), 11))
    counts = report.splits["train"]
    pixels = 4 * fixtures.HEIGHT * fixtures.WIDTH
    assert (counts["labelled"], counts["ignored"]) == (pixels - 4 * fixtures.WIDTH, 4 * fixtures.WIDTH)
    assert sum(counts["pixels"]) == counts["labelled"] and max(counts["images"]) <= 4


def test_camvid_clicks_are_drawn_in_train_only(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    dataset, report = imported("camvid", root, label="clicks", random_pixels=7, label_seed=3)
    masks = labels(dataset, "train", "mask")
    for name, label in labels(dataset, "train").items():
        np.testing.assert_array_equal(label, sparsify.random_pixels(masks[name], 7, seed=3, key=name))
    assert all((label < UNLABELLED).mean() > 0.9 for label in labels(dataset, "val").values())
    assert report.splits["train"]["labelled"] == 4 * 7
    assert dataset.splits["val"][0]["mask"] is None
    by_class, _ = imported("camvid", root, label="clicks", clicks_per_class=2)
    assert all((label < UNLABELLED).sum() == 6 for label in labels(by_class, "train").values())


def test_camvid_uses_its_lists_and_its_class_names(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    (root / "splits" / "train.txt").write_text("train_002\ntrain_000\n")
    (root / "classes.txt").write_text("".join(f"{k} name{k}\n" for k in range(11)) + "11 void (ignore)\n")
    dataset, _ = imported("auto", root, label="full")
    assert dataset.splits["train"]["id"][:] == ["train_002", "train_000"]
    assert dataset.names == [f"name{k}" for k in range(11)]


# ------------------------------------------------------------------------------------------------------- VOC


def test_voc_points_from_json(tmp_path: Path) -> None:
    dataset, report = imported("voc", fixtures.voc(tmp_path / "raw"))
    for label in labels(dataset, "train").values():
        wanted = np.full(label.shape, UNLABELLED)
        wanted[1, 30], wanted[2, 3], wanted[9, 20] = (
            0,
            5,
            7,
        )  # the click of class 5 wins over the background's
        np.testing.assert_array_equal(label, wanted)
    counts = report.splits["train"]
    assert (counts["points"], counts["points_outside"], counts["points_overdrawn"]) == (4 * 4, 1, 4)
    row = dataset.splits["train"][1]
    assert {"class": 5, "width": 1.0, "y": [2.2], "x": [3.7]} in row["strokes"]
    assert row["present"] == [0, 5, 7]
    for name, label in labels(dataset, "val").items():
        np.testing.assert_array_equal(label, coded(fixtures.dense_mask(name, 21, 255), 255))
    text = importers.format_report(report)
    assert "1 outside" in text and "aeroplane" in text and "refused rows: 0" in text


def test_voc_points_from_pngs_are_those_of_the_json(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw")
    drawn, _ = imported("voc", root)
    for place in ("PointAnnotations", str(root / "PointAnnotations")):
        read, report = imported("voc", root, label_path=place)
        assert "255 = unlabelled" in report.encoding
        for name, label in labels(read, "train").items():
            np.testing.assert_array_equal(label, labels(drawn, "train")[name])
    one, _ = imported("voc", root, label_path="points/voc_whats_the_point.json")
    assert one.splits["train"][0]["present"] == [5, 7]


def test_voc_validation_images_never_train(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").write_text(
        "2008_000001\n2007_000001\n/JPEGImages/2007_000003.jpg /x/2007_000003.png\n"
    )
    (root / "ImageSets" / "SegmentationAug_full").mkdir()
    (root / "ImageSets" / "SegmentationAug_full" / "train_aug.txt").write_text("2009_000001\n")
    dataset, report = imported("auto", root)
    assert dataset.splits["train"]["id"][:] == ["2007_000001", "2007_000003"]
    assert any("1 validation images left out" in note and "2008_000001" in note for note in report.notes)


# ------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(("code", "kind"), [(21, "AGMM"), (255, "ScribbleSup"), (254, "254 = unlabelled")])
@pytest.mark.parametrize("declare", [False, True])
def test_unlabelled_codes(tmp_path: Path, code: int, kind: str, declare: bool) -> None:
    root = fixtures.voc(tmp_path / "raw", scribbles=code)
    dataset, report = imported("voc", root, label="scribble", unlabelled_code=code if declare else None)
    assert (f"declared: {code}" if declare else kind) in report.encoding
    for name, label in labels(dataset, "train").items():
        wanted = fixtures.sparse_label(fixtures.dense_mask(name, 21, 255), UNLABELLED)
        np.testing.assert_array_equal(label, wanted)


def test_void_beside_an_unlabelled_code_of_its_own_stays_void(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw", scribbles=21)
    file = root / "scribbles" / "2007_000000.png"
    array = np.array(Image.open(file))
    array[5] = 255
    fixtures.save_label(file, array)
    dataset, _ = imported("voc", root, label="scribble")
    label = labels(dataset, "train")["2007_000000"]
    assert (label[5] == IGNORED).all() and (label[6] == UNLABELLED).all()


@pytest.mark.parametrize(
    ("code", "declared", "message"),
    [
        (255, 21, r"unlabelled_code=21 occurs in none of 4 label files .*255 \(\d+ pixels\)"),
        (21, 255, r"unlabelled_code=255 occurs in none"),
        (255, 20, r"unlabelled_code=20 is a class id \(0\.\.20\)"),
        (77, None, r"2007_000000\.png: values 77 .* allowed: 0\.\.20 \(classes\).*--data\.unlabelled-code"),
    ],
)
def test_wrong_codes_are_refused(tmp_path: Path, code: int, declared: int | None, message: str) -> None:
    root = fixtures.voc(tmp_path / "raw", scribbles=code)
    with pytest.raises(ValueError, match=message):
        importing.import_dataset("voc", root, tmp_path / "out", label="scribble", unlabelled_code=declared)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ Cityscapes


def test_cityscapes_ids_are_mapped(tmp_path: Path) -> None:
    table = dict(zip(CITYSCAPES_IDS, range(19), strict=True))
    dataset, report = imported("cityscapes", fixtures.cityscapes(tmp_path / "raw", train=6), label="full")
    for name, label in labels(dataset, "train").items():
        raw = fixtures.dense_mask(name, 34, 0)
        np.testing.assert_array_equal(label, np.vectorize(lambda value: table.get(value, IGNORED))(raw))
    assert "gtFine labelIds" in report.notes[0] and dataset.palette[0] == (128, 64, 128)
    ids = fixtures.cityscapes(tmp_path / "train_ids", kind="labelTrainIds")
    dataset, _ = imported("auto", ids, label="full")
    name, label = next(iter(labels(dataset, "train").items()))
    np.testing.assert_array_equal(label, fixtures.dense_mask(name, 19, 255))


@pytest.mark.parametrize("code", [19, 255])
def test_cityscapes_sparse_labels_from_a_folder(tmp_path: Path, code: int) -> None:
    root = fixtures.cityscapes(tmp_path / "raw", kind="labelTrainIds")
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        label = fixtures.sparse_label(fixtures.dense_mask(name, 19, 255), code)
        fixtures.save_label(tmp_path / "points" / "train" / "ulm" / f"{name}_gtFine_points.png", label)
    dataset, _ = imported("cityscapes", root, label="point", label_path=str(tmp_path / "points"))
    for name, label in labels(dataset, "train").items():
        wanted = fixtures.sparse_label(fixtures.dense_mask(name, 19, 255), UNLABELLED)
        np.testing.assert_array_equal(label, wanted)


def test_cityscapes_without_a_split(tmp_path: Path) -> None:
    root = fixtures.cityscapes(tmp_path / "raw", train=0)
    with pytest.raises(ValueError, match="split 'train' is absent"):
        importing.import_dataset("cityscapes", root, tmp_path / "out", label="full")


# --------------------------------------------------------------------------------------------------- folders


def test_folder_is_split_by_name_and_stays_so(tmp_path: Path) -> None:
    small, report = imported("folder", fixtures.folder(tmp_path / "a", count=20))
    large, _ = imported("auto", fixtures.folder(tmp_path / "b", count=40))
    val = {split: set(data["id"][:]) for split, data in small.splits.items()}["val"]
    assert 0 < len(val) < 20 and val == set(large.splits["val"]["id"][:]) & {
        f"photo_{k:02d}" for k in range(20)
    }
    assert "80/20 by a hash" in report.notes[0]
    assert small.names == ["class a", "class b", "class c"]
    for name, label in labels(small, "train").items():
        dense = fixtures.dense_mask(name, 3, 255)
        np.testing.assert_array_equal(label, fixtures.sparse_label(dense, UNLABELLED))
        np.testing.assert_array_equal(labels(small, "train", "mask")[name], dense)
    assert all((label == UNLABELLED).sum() == 0 for label in labels(small, "val").values())


def test_folder_with_its_own_splits_and_other_kinds(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", splits=True, unlabelled=3)
    sparse, report = imported("folder", root, label="scribble")
    assert len(sparse.splits["val"]) == 2 and "3 = unlabelled" in report.encoding
    full, _ = imported("folder", root, label="full")
    assert (labels(full, "train")["photo_01"] == fixtures.dense_mask("photo_01", 3, 255)).all()
    drawn, _ = imported("folder", root, label="clicks", random_pixels=5)
    assert (labels(drawn, "train")["photo_01"] < UNLABELLED).sum() == 5


@pytest.mark.parametrize("code", [3, 255])
def test_sparse_labels_are_not_taken_for_dense_ones(tmp_path: Path, code: int) -> None:
    root = fixtures.folder(tmp_path / "raw", masks=False, unlabelled=code)
    with pytest.raises(
        ValueError, match=r"sparse labels, train on them with --data\.label point|masks/ beside labels/"
    ):
        importing.import_dataset("folder", root, tmp_path / "out", label="full")


# ----------------------------------------------------------------------------------------------- wrong input


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def resize_label(root: Path) -> None:
    file = root / "masks" / "photo_03.png"
    fixtures.save_label(file, fixtures.dense_mask("photo_03", 3, 255, height=30, width=40))


def colour_label(root: Path) -> None:
    Image.new("RGB", (fixtures.WIDTH, fixtures.HEIGHT), (128, 0, 0)).save(root / "masks" / "photo_03.png")


def strange_value(root: Path) -> None:
    fixtures.save_label(root / "masks" / "photo_03.png", np.full((fixtures.HEIGHT, fixtures.WIDTH), 9))


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "missing root": (shutil.rmtree, {}, r"raw is not a folder; give the dataset's folder with --data\.root"),
    "empty root": (
        lambda root: (shutil.rmtree(root), root.mkdir()),
        {"layout": "auto"},
        "layout not recognised .*an empty folder.*--data.layout",
    ),
    "unknown layout": (lambda root: None, {"layout": "ade"}, "unknown layout 'ade'; known: voc"),
    "other layout": (lambda root: None, {"layout": "voc"}, "no JPEGImages/"),
    "unknown label": (lambda root: None, {"label": "boxes"}, "must be one of point"),
    "image without label": (
        lambda root: (root / "masks" / "photo_03.png").unlink(),
        {},
        r"1 of \d+ images are without label: photo_03",
    ),
    "label of another size": (
        resize_label,
        {},
        r"photo_03\.png: label is 40x30 pixels .*photo_03\.jpg is 32x24",
    ),
    "colours for ids": (colour_label, {}, "photo_03.png: a label must hold class ids in one channel.*RGB"),
    "strange value": (
        strange_value,
        {},
        r"photo_03\.png: values 9 \(768 pixels\) .* allowed: 0\.\.2 .*classes\.txt",
    ),
    "class count": (lambda root: None, {"num_classes": 7}, r"has 3 classes \(class a.*num_classes=7"),
    "no class names": (
        lambda root: (root / "classes.txt").unlink(),
        {},
        "no classes.txt.*--data.num-classes",
    ),
    "class numbers": (
        lambda root: (root / "classes.txt").write_text("0 a\n2 b\n"),
        {},
        "classes.txt, line 2: index 2 of 'b' should be 1",
    ),
    "truncated image": (
        lambda root: truncate(root / "images" / "photo_03.jpg"),
        {},
        r"photo_03\.jpg: unreadable or truncated image .*--data\.skip-bad",
    ),
    "truncated label": (
        lambda root: truncate(root / "masks" / "photo_03.png"),
        {},
        r"photo_03\.png: unreadable or truncated label",
    ),
    "no images": (
        lambda root: [file.unlink() for file in (root / "images").iterdir()],
        {},
        "no rows in split 'train'",
    ),
    "label path": (lambda root: None, {"label": "point", "label_path": "nowhere"}, "nowhere does not exist"),
    "empty label path": (
        lambda root: (root / "none").mkdir(),
        {"label": "point", "label_path": "none"},
        "none: holds no .png label",
    ),
    "clicks of points": (
        lambda root: None,
        {"label": "point", "random_pixels": 3},
        "needs data.label=clicks",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    damage, options, message = WRONG[case]
    root = fixtures.folder(tmp_path / "raw")
    damage(root)
    options = {"layout": "folder", "label": "full", **options}
    with pytest.raises(ValueError, match=message) as caught:
        importing.import_dataset(options.pop("layout"), root, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"points\.json: no valid JSON"),
        ("[1, 2]", "format not recognised, neither What's-the-Point"),
        ('{"2007_000000": [{"x": 1}]}', "image 2007_000000: lacks 'y'; it has 'x'"),
        ('{"2007_000000": [{"x": 1, "y": 2, "cls": 33}]}', "2007_000000: click of class 33"),
        ('{"2007_000000": [{"x": NaN, "y": 2, "cls": 3}]}', "x: position nan; positions are finite numbers"),
        ('{"2007_000000": []}', "3 of 4 training images are without label: 2007_000001"),
    ],
)
def test_wrong_point_files(tmp_path: Path, text: str, message: str) -> None:
    root = fixtures.voc(tmp_path / "raw")
    (tmp_path / "points.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        importing.import_dataset("voc", root, tmp_path / "out", label_path=str(tmp_path / "points.json"))


def test_a_recipe_of_raw_data_takes_what_was_imported(tmp_path: Path) -> None:
    """`sparseg import folder`, then `trainers/folder.py` on its output, whose layout it names."""
    tiny.dataset(tmp_path)
    for layout in ("folder", "voc", "shards", "auto"):
        data = DataConfig(root=str(tmp_path / "data"), layout=layout)  # type: ignore[arg-type]
        assert importers.prepare(data, tmp_path / "runs") == tmp_path / "data"


@pytest.mark.parametrize("layout", ["auto", "shards", "folder", "voc"])
@pytest.mark.parametrize(
    ("field", "value"), [("label_path", "clicks.csv"), ("unlabelled_code", 21), ("label_format", "csv")]
)
def test_annotation_is_read_at_import_only(tmp_path: Path, layout: Any, field: str, value: Any) -> None:
    tiny.dataset(tmp_path)
    data = DataConfig(root=str(tmp_path / "data"), layout=layout, **{field: value})
    flag = f"--data.{field.replace('_', '-')}"
    with pytest.raises(ValueError, match=f"data\\.{field}=.*{value}.* read at import: leave {flag} out"):
        importers.prepare(data, tmp_path / "runs")


LABEL_ASKED = {
    # imported as -> what a run may ask, and gets with a note; what is refused
    "point": ("clicks", "scribble block tag box"),
    "scribble": ("point clicks", "block tag box"),
    "clicks": ("point", "scribble block tag box"),
    "block": ("point clicks", "scribble tag box"),
    "tag": ("", "point clicks scribble block box"),
    "box": ("", "point clicks scribble block tag"),
    "full": ("", "point clicks scribble block tag box"),
}


@pytest.mark.parametrize("made", LABEL_ASKED)
def test_a_run_that_names_another_kind_than_was_imported(
    tmp_path: Path, made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe's point or clicks means the sparse labels that there are; who names another kind wants it."""
    rows = {split: lambda: iter([fixtures.row("a", fixtures.coded_label())]) for split in ("train", "val")}
    shards.write(tmp_path / "set", rows, ["a", "b", "c"], report={"label": made})
    noted, refused = (text.split() for text in LABEL_ASKED[made])
    for label in (made, *noted):
        data = DataConfig(root=str(tmp_path / "set"), label=label)  # type: ignore[arg-type]
        assert importers.prepare(data, tmp_path / "runs") == tmp_path / "set"
        note = f"note: the dataset's labels are of kind {made}, and trained on; data.label={label}\n"
        assert (note in capsys.readouterr().out) == (label != made)
    for label in refused:
        data = DataConfig(root=str(tmp_path / "set"), label=label, layout="voc")  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match=rf"with label {made}, but data\.label={label}; set --data\.label"
        ):
            importers.prepare(data, tmp_path / "runs")


def test_kinds_that_a_layout_does_not_have(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"no point annotation.*--data.label clicks --data.random-pixels"):
        importing.import_dataset("camvid", root, tmp_path / "out", label="point")
    with pytest.raises(ValueError, match=r"no clicks annotation.*--data\.random-pixels N"):
        importing.import_dataset("camvid", root, tmp_path / "out", label="clicks")


def test_skip_bad_counts_and_lists(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw", train=5)
    truncate(root / "JPEGImages" / "2007_000001.jpg")
    (root / "JPEGImages" / "2007_000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 5 listed images do not exist.*2007_000002.*--data\.skip-bad"):
        importing.import_dataset("voc", root, tmp_path / "out")
    dataset, report = imported("voc", root, skip_bad=True)
    assert dataset.splits["train"]["id"][:] == ["2007_000000", "2007_000003", "2007_000004"]
    assert [row["id"] for row in report.refused] == ["2007_000001", "2007_000002"]
    text = importers.format_report(report)
    assert "refused rows: 2" in text and "2007_000001.jpg: unreadable or truncated image" in text


# --------------------------------------------------------------------------------------------------- prepare


def test_prepare_imports_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    config = DataConfig(root=str(root), label="clicks", random_pixels=5)
    first = importers.prepare(config, tmp_path / "runs")
    stamp = (first / "sparseg.json").stat().st_mtime_ns
    assert first.parent == tmp_path / "runs" / "datasets" and first.name.startswith("camvid-clicks-")
    assert importers.prepare(config, tmp_path / "runs") == first
    assert (first / "sparseg.json").stat().st_mtime_ns == stamp
    told = capsys.readouterr().out.splitlines()
    lines = [line for line in told if line.startswith("dataset: ")]
    assert len(lines) == 2 and "imported" in lines[0] and "imported" not in lines[1]
    assert [line for line in told if line not in lines and not line.startswith("note: ")] == []
    assert "train 4 rows" in lines[1] and "0.651 % labelled" in lines[1]  # 5 of 24 x 32 pixels
    others = [dataclasses.replace(config, label_seed=1), dataclasses.replace(config, random_pixels=6)]
    assert len({first, *(importers.prepare(other, tmp_path / "runs") for other in others)}) == 3
    fixtures.save_label(root / "masks" / "train" / "train_000.png", fixtures.dense_mask("other", 11, 11))
    assert importers.prepare(config, tmp_path / "runs") != first


def test_prepare_of_shards_and_labels_drawn_anew(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    importing.import_dataset("camvid", root, tmp_path / "set", label="clicks", random_pixels=5)
    same = importers.prepare(DataConfig(root=str(tmp_path / "set")), tmp_path / "runs")
    assert same == tmp_path / "set" and not (tmp_path / "runs").exists()
    config = DataConfig(root=str(tmp_path / "set"), label="clicks", clicks_per_class=1)
    derived = importers.prepare(config, tmp_path / "runs")
    assert derived == importers.prepare(config, tmp_path / "runs") != same
    direct = importers.prepare(dataclasses.replace(config, root=str(root)), tmp_path / "runs")
    for split in ("train", "val"):
        wanted = labels(shards.open(direct), split)
        for name, label in labels(shards.open(derived), split).items():
            np.testing.assert_array_equal(label, wanted[name])


def test_prepare_of_shards_without_masks_draws_nothing(tmp_path: Path) -> None:
    rows = {split: lambda: iter([fixtures.row("a", fixtures.coded_label())]) for split in ("train", "val")}
    shards.write(tmp_path / "set", rows, ["a", "b", "c"], report={"label": "point"})
    for options in ({"label": "clicks", "random_pixels": 3}, {"label": "full"}):
        with pytest.raises(ValueError, match="dense mask"):
            importers.prepare(DataConfig(root=str(tmp_path / "set"), **options), tmp_path / "runs")


def test_prepare_into_a_named_folder(tmp_path: Path) -> None:
    config = DataConfig(
        root=str(fixtures.camvid(tmp_path / "raw")), label="full", shards=str(tmp_path / "set")
    )
    assert importers.prepare(config, tmp_path / "runs") == tmp_path / "set"
    assert importers.prepare(config, tmp_path / "runs") == tmp_path / "set"
    with pytest.raises(ValueError, match="imported with other settings"):
        importers.prepare(dataclasses.replace(config, label="clicks", random_pixels=2), tmp_path / "runs")
    for field, message in [({"num_classes": 5}, "11 classes"), ({"val_split": "dev"}, "'dev' is not among")]:
        with pytest.raises(ValueError, match=message):
            importers.prepare(dataclasses.replace(config, **field), tmp_path / "runs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.root is not set"):
        importers.prepare(DataConfig(), tmp_path)


def test_two_prepares_at_once_share_one_result(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw", train=40)
    script = (
        "import sys; from sparseg.data import importers; from sparseg.config import DataConfig;"
        "sys.stdin.readline();"
        f"print(importers.prepare(DataConfig(root={str(root)!r}, label='full'), {str(tmp_path / 'runs')!r}))"
    )
    command = [sys.executable, "-c", script]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    (path,) = {out.splitlines()[-1] for out, _ in results}
    assert len(shards.open(path).splits["train"]) == 40
    assert [file.name for file in (tmp_path / "runs" / "datasets").iterdir()] == [Path(path).name]


# ------------------------------------------------------------------------------------------------- real data


@pytest.mark.shared
def test_real_voc_points_and_their_pngs_agree(tmp_path: Path, shared_data: Path) -> None:
    config = DataConfig(root=str(shared_data / "voc_subset"))
    drawn = shards.open(importers.prepare(config, tmp_path))
    read = shards.open(
        importers.prepare(dataclasses.replace(config, label_path="PointAnnotations"), tmp_path)
    )
    assert {split: len(data) for split, data in drawn.splits.items()} == {"train": 29, "val": 22}
    first, second = labels(drawn, "train"), labels(read, "train")
    assert all((first[name] == second[name]).all() for name in first) and len(first) == 29
    clicks = json.loads((shared_data / "voc_subset" / "points" / "voc_whats_the_point.json").read_text())
    assert sum(len(clicks[name]) for name in first) == 70
    assert drawn.report["splits"]["train"]["points"] == 156


@pytest.mark.shared
def test_real_cityscapes_pair(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "cityscapes_samples"
    for kind in ("labelTrainIds", "labelIds"):
        for split in ("train", "val"):
            for part in ("leftImg8bit", "gtFine"):
                shutil.copytree(source / part / "val", tmp_path / kind / part / split)
    for file in (tmp_path / "labelIds").rglob("*labelTrainIds.png"):
        file.unlink()
    trained, mapped = (
        imported("cityscapes", tmp_path / kind, label="full")[0] for kind in ("labelTrainIds", "labelIds")
    )
    (a,), (b,) = labels(trained, "train").values(), labels(mapped, "train").values()
    assert set(np.unique(a)) == {0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 255}
    assert (a == b).mean() > 0.997  # the samples' two files were shrunk apart: they differ along some edges


@pytest.mark.shared
def test_a_killed_import_leaves_no_dataset(tmp_path: Path, shared_data: Path) -> None:
    script = (
        "from sparseg.data import importers; from sparseg.config import DataConfig;"
        f"config = DataConfig(root={str(shared_data / 'camvid')!r}, label='full');"
        f"importers.prepare(config, {str(tmp_path)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None and not list(tmp_path.glob("datasets/.*.parts-*/*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = list((tmp_path / "datasets").iterdir())
    assert left and all(file.name.startswith(".") for file in left)


def test_every_form_of_storage_keeps_every_pixel_and_opens_anywhere(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "source", count=6)
    rng = np.random.default_rng(0)
    for file in sorted((root / "images").glob("*.jpg"))[::2]:  # half of them PNGs larger than a tile
        name, size = file.stem, (150, 260)
        file.unlink()
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / "images" / f"{name}.png")
        mask = fixtures.dense_mask(name, 3, 255, height=size[0], width=size[1])
        fixtures.save_label(root / "masks" / f"{name}.png", mask)
        fixtures.save_label(root / "labels" / f"{name}.png", fixtures.sparse_label(mask, 255))
    stored = {}
    for store in ("original", "fast", "raw"):
        importing.import_dataset("folder", root, tmp_path / store, store=store)
        opened = shards.open(tmp_path / store)
        rows = [row for split in opened.splits.values() for row in split]
        stored[store] = {row["id"]: row["image"]["bytes"] for row in rows}
    assert stored["original"].keys() == stored["fast"].keys() and len(stored["fast"]) == 6
    for name, original in stored["original"].items():
        fast = stored["fast"][name]
        assert np.array_equal(shards.decode_image(fast), shards.decode_image(original))
        assert (fast == original) == original.startswith(b"\xff\xd8")
        assert np.array_equal(shards.decode_image(stored["raw"][name]), shards.decode_image(original))
        pixels = np.asarray(Image.open(io.BytesIO(stored["raw"][name])))
        assert np.array_equal(pixels, shards.decode_image(original))
        assert Image.open(io.BytesIO(fast)).format in ("JPEG", "TIFF")
