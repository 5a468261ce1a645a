"""Layouts on disk: what is found where, in which encoding, and what is refused by name."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import sys
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
from sparseg.data.importers import files, layouts
from sparseg.data.importers.layouts.ade20k import sparse_rule as ade20k_rule
from sparseg.data.importers.layouts.cityscapes import sparse_rule as cityscapes_rule


def imported(layout: str, root: Path, **options: Any) -> tuple[shards.ShardedDataset, dict[str, Any]]:
    out = root.parent / f"out{len(list(root.parent.iterdir()))}"
    report = importing.import_dataset(layout, root, out, **options)
    return shards.open(out), report


def labels(dataset: shards.ShardedDataset, split: str, column: str = "label") -> dict[str, np.ndarray]:
    return {row["id"]: shards.decode_label(row[column]["bytes"]) for row in dataset.splits[split]}


def refused(layout: str, root: Path, message: str, **options: Any) -> None:
    """The import fails with ValueError, one line that matches, and nothing is written."""
    with pytest.raises(ValueError, match=message) as caught:
        importing.import_dataset(layout, root, root.parent / "refused", **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in root.parent.glob("*refused*")] in ([], [".refused.lock"])


# ------------------------------------------------------------------------------------------------------- VOC


@pytest.mark.parametrize("place", ["scribble/seginst", "scribbles", "pascal_2012_scribble"])
@pytest.mark.parametrize("code", [21, 255])
def test_voc_scribbles_of_several_releases(tmp_path: Path, place: str, code: int) -> None:
    root = fixtures.voc(tmp_path / "raw", scribbles=code)
    if place != "scribbles":
        (root / place).parent.mkdir(exist_ok=True)
        (root / "scribbles").rename(root / place)
    dataset, report = imported("voc", root, label="scribble")
    assert f"{code} = unlabelled" in report.encoding
    for name, label in labels(dataset, "train").items():
        wanted = fixtures.sparse_label(fixtures.dense_mask(name, 21, 255), UNLABELLED)
        np.testing.assert_array_equal(label, wanted)


def test_voc_points_of_the_agmm_release(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw")
    wanted = labels(imported("voc", root)[0], "train")
    shutil.rmtree(root / "points")
    for file in sorted((root / "PointAnnotations").iterdir()):
        array = np.array(Image.open(file))
        array[array == 255] = 21
        array[5] = 255  # void beside 21 = unlabelled
        fixtures.save_label(root / "point" / "segcls" / file.name, array)
    shutil.rmtree(root / "PointAnnotations")
    dataset, report = imported("voc", root)
    assert "21 = unlabelled, 255 = void" in report.encoding
    for name, label in labels(dataset, "train").items():
        assert (label[5] == IGNORED).all()
        np.testing.assert_array_equal(np.delete(label, 5, 0), np.delete(wanted[name], 5, 0))


@pytest.mark.parametrize(
    "line",
    ["{0}", "{0}.jpg {0}.png", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "JPEGImages/{0}.jpg"],
)
def test_voc_lists_of_every_kind_name_the_same_images(tmp_path: Path, line: str) -> None:
    root = fixtures.voc(tmp_path / "raw")
    lists = root / "ImageSets" / "SegmentationAug"
    lists.mkdir()
    (lists / "train_aug.txt").write_text(
        "\ufeff" + "\r\n".join(line.format(f"2007_00000{k}") for k in (3, 1, 3)) + "\r\n", encoding="utf-8"
    )
    dataset, report = imported("voc", root)
    assert dataset.splits["train"]["id"][:] == ["2007_000003", "2007_000001"]
    assert any("1 ids stand more than once" in note and "2007_000003" in note for note in report.notes)


HOSTILE_LINES = [
    ("../../secret", "'../../secret' is no image id"),
    ("/etc/passwd", "'/etc/passwd' is no image id"),
    ("/JPEGImages/../../x.jpg", "is no image id"),
    ("..\\\\secret", "is no image id"),
    ("C:secret", "is no image id"),
    ("a/b", "'a/b' is not in JPEGImages/"),
    ("/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000002.png", "are not of one name"),
    ("2009_999999", r"1 of 5 listed images do not exist: .*2009_999999\.jpg"),
]


@pytest.mark.parametrize(("line", "message"), HOSTILE_LINES)
def test_hostile_lines_of_a_list(tmp_path: Path, line: str, message: str) -> None:
    root = fixtures.voc(tmp_path / "raw")
    file = root / "ImageSets" / "Segmentation" / "train.txt"
    file.write_text(file.read_text() + line + "\n")
    refused("voc", root, message if "exist" in message else rf"train\.txt, line 5: .*{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.txt: the list is empty"),
        (b"\n \n", "train.txt: the list is empty"),
        (b"2007_\xff0000\n", "train.txt: not UTF-8 text .byte 5 is 0xff"),
        (b"2008_000000\n2008_000001\n", "train.txt: all its images are validation images"),
    ],
)
def test_lists_without_use(tmp_path: Path, content: bytes, message: str) -> None:
    root = fixtures.voc(tmp_path / "raw")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(content)
    refused("voc", root, message)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_no_list_leaves_the_folder_or_raises_another_error(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    file.write_bytes(content)
    try:
        ids, _ = files.read_ids(file, "JPEGImages")
    except ValueError as error:
        assert str(file) in str(error) and "\n" not in str(error)
        return
    home = Path("/data/JPEGImages")
    assert all(Path(os.path.normpath(home / f"{name}.jpg")).parent == home for name in ids)


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    root = fixtures.voc(tmp_path / "raw")
    picture = root / "JPEGImages" / "2007_000001.jpg"
    picture.unlink()
    picture.symlink_to(picture)
    refused("voc", root, r"1 of 4 listed images do not exist: .*2007_000001\.jpg")
    (root / "PointAnnotations" / "loop").symlink_to(root / "PointAnnotations")
    dataset, report = imported("voc", root, label_path="PointAnnotations", skip_bad=True)
    assert len(dataset.splits["train"]) == 3 and report.refused[0]["id"] == "2007_000001"


# ------------------------------------------------------------------------------- images that nobody annotated


@pytest.mark.parametrize("kind", ["json", "png", "mask"])
def test_images_without_label_are_refused_or_left_out_and_listed(tmp_path: Path, kind: str) -> None:
    root = fixtures.voc(tmp_path / "raw")
    options: dict[str, Any] = {}
    if kind == "json":
        for file in (root / "points").iterdir():
            clicks = json.loads(file.read_text())
            clicks["2007_000002x"] = clicks.pop("2007_000002")
            file.write_text(json.dumps(clicks))
    elif kind == "png":
        options = {"label_path": "PointAnnotations"}
        place = root / "PointAnnotations"
        (place / "2007_000002.png").rename(place / "2007_000002x.png")
    else:
        options = {"label": "full"}
        (root / "SegmentationClass" / "2007_000002.png").rename(
            root / "SegmentationClass" / "2007_000002x.png"
        )
    hint = r"without label: 2007_000002.*nearest to 2007_000002 is '2007_000002x'.*--data\.skip-bad"
    refused("voc", root, r"1 of 4 (training )?images are " + hint, **options)
    dataset, report = imported("voc", root, skip_bad=True, **options)
    assert dataset.splits["train"]["id"][:] == ["2007_000000", "2007_000001", "2007_000003"]
    assert [(row["split"], row["id"]) for row in report.refused] == [("train", "2007_000002")]
    assert "2007_000002: no " in importers.format_report(report)


@pytest.mark.parametrize("value", [0, 7])
def test_sparse_labels_without_an_unlabelled_value_are_refused(tmp_path: Path, value: int) -> None:
    # As in masks with "a few points and zero elsewhere": taken as they are, they train on background.
    root = fixtures.voc(tmp_path / "raw", scribbles=value)
    refused(
        "voc", root, rf"no unlabelled pixel in 4 label files \(value {value} covers 9\d", label="scribble"
    )


# ------------------------------------------------------------------------------------------------ Cityscapes

CLICK_PLACES = [
    ("clicks", "100clicks", "{0}_gtFine_labelTrainIds.png"),  # AGMM: flat
    ("clicks", "clicks/20clicks/train/ulm", "{0}_gtFine_labelTrainIds.png"),
    ("point", "random_50clicks", "{0}_gtFine_labelTrainIds.png"),
    ("block", "block", "{0}_leftImg8bit.png"),  # AGMM's block.txt
    ("block", "train/sparse_label/block20", "{0}_leftImg8bit.png"),  # TEL
    ("block", "sparse_label/block50", "{0}.png"),
]


@pytest.mark.parametrize(("label", "place", "pattern"), CLICK_PLACES)
@pytest.mark.parametrize("code", [19, 255])
def test_cityscapes_finds_clicks_and_blocks(
    tmp_path: Path, label: str, place: str, pattern: str, code: int
) -> None:
    root = fixtures.cityscapes(tmp_path / "raw", kind="labelTrainIds")
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        sparse = fixtures.sparse_label(fixtures.dense_mask(name, 19, 255), code)
        fixtures.save_label(root / place / pattern.format(name), sparse)
    for options in ({}, {"label_path": place.removesuffix("/train/ulm")}):
        dataset, report = imported("auto", root, label=label, **options)
        assert f"{code} = unlabelled" in report.encoding
        for name, got in labels(dataset, "train").items():
            wanted = fixtures.sparse_label(fixtures.dense_mask(name, 19, 255), UNLABELLED)
            np.testing.assert_array_equal(got, wanted)


def test_cityscapes_does_not_choose_among_click_sets(tmp_path: Path) -> None:
    root = fixtures.cityscapes(tmp_path / "raw", kind="labelTrainIds")
    for count, places in {20: "20clicks", 50: "clicks/50clicks"}.items():
        for name in ("ulm_000000_000019", "ulm_000001_000019"):
            sparse = np.full((fixtures.HEIGHT, fixtures.WIDTH), 19)
            sparse.flat[:count] = 3
            fixtures.save_label(root / places / f"{name}_gtFine_labelTrainIds.png", sparse)
    refused(
        "cityscapes",
        root,
        r"2 folders of clicks labels \(20clicks, clicks/50clicks\); choose",
        label="clicks",
    )
    dataset, _ = imported("cityscapes", root, label="clicks", label_path="clicks/50clicks")
    assert all((label == 3).sum() == 50 for label in labels(dataset, "train").values())


@pytest.mark.parametrize(("code", "declared"), [(0, None), (255, None), (255, 255), (0, 0), (4, 4)])
def test_cityscapes_sparse_labels_with_the_original_ids(
    tmp_path: Path, code: int, declared: int | None
) -> None:
    root = fixtures.cityscapes(tmp_path / "raw")
    ids = np.full((fixtures.HEIGHT, fixtures.WIDTH), code)
    ids[2, :6] = [7, 33, 19, 26, 3, 21]  # road, bicycle, traffic light, car, void, vegetation
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        fixtures.save_label(root / "block10" / f"{name}_leftImg8bit.png", ids)
    dataset, report = imported("cityscapes", root, label="block", unlabelled_code=declared)
    assert f"original ids (0..33), {code} = unlabelled" in report.encoding
    label = labels(dataset, "train")["ulm_000000_000019"]
    assert label[2, :6].tolist() == [0, 18, 6, 13, IGNORED, 8]
    assert (np.delete(label, 2, 0) == UNLABELLED).all()
    if declared is None:
        refused(
            "cityscapes", root, "unlabelled_code=19 is 'traffic light'", label="block", unlabelled_code=19
        )


# ---------------------------------------------------------------------------------------------------- ADE20K


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_ade20k_masks_are_value_minus_one(tmp_path: Path, below: str) -> None:
    fixtures.ade20k(tmp_path / "raw" / below)
    root = tmp_path / "raw"
    assert layouts.detect(root) == "ade20k"
    dataset, report = imported("auto", root, label="full")
    assert dataset.names == [f"thing {k}" for k in range(5)]
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {"train": 4, "val": 2}
    for split in dataset.splits:
        for name, label in labels(dataset, split).items():
            np.testing.assert_array_equal(label, fixtures.dense_mask(name, 5, IGNORED))
    assert "dense masks: value v is class v-1 (1..5), 0 = void" in report.notes


def test_ade20k_class_names(tmp_path: Path) -> None:
    root = fixtures.ade20k(tmp_path / "raw", info=False)
    assert len(layouts.read_layout("ade20k", root, ImportConfig()).names) == 150
    assert layouts.read_layout("ade20k", root, ImportConfig(num_classes=7)).names[6] == "class_6"
    (root / "classes.txt").write_text("wall\nsky\n")
    assert layouts.read_layout("ade20k", root, ImportConfig()).names == ["wall", "sky"]
    info = root / "objectInfo150.txt"
    info.write_text("Idx\tRatio\tName\n1\t0.2\tscreen, door\n2\t0.1\tscreen, silver\n3\t0.1\tsky\n")
    names = layouts.read_layout("ade20k", root, ImportConfig()).names
    assert names == ["screen, door", "screen, silver", "sky"]
    info.write_text("Idx\tRatio\tName\n1\t0.2\twall\n3\t0.1\tsky\n")
    refused("ade20k", root, r"objectInfo150\.txt, line 3: expected number 2", label="full")


def test_ade20k_masks_that_count_from_zero_are_refused(tmp_path: Path) -> None:
    root = fixtures.ade20k(tmp_path / "raw")
    for file in (root / "annotations" / "training").iterdir():
        fixtures.save_label(file, fixtures.dense_mask(file.stem, 5, 255))
    refused("ade20k", root, r"values 255 .*ade20k masks hold 1\.\.5 and 0 = void", label="full")


ADE_SPARSE = [
    # code, offset of the classes, declared, what the report says
    (0, 1, None, "value v is class v-1, 0 = unlabelled"),
    (0, 1, 0, "declared: value v is class v-1, 0 = unlabelled"),
    (255, 1, 255, "declared: value v is class v-1, 255 = unlabelled"),
    (254, 0, None, "254 = unlabelled"),
    (5, 0, 5, "declared: 5 = unlabelled"),
]


@pytest.mark.parametrize(("code", "offset", "declared", "said"), ADE_SPARSE)
def test_ade20k_sparse_labels(
    tmp_path: Path, code: int, offset: int, declared: int | None, said: str
) -> None:
    root = fixtures.ade20k(tmp_path / "raw")
    for file in (root / "images" / "training").iterdir():
        sparse = np.full((fixtures.HEIGHT, fixtures.WIDTH), code)
        sparse[1, :5] = np.arange(5) + offset
        fixtures.save_label(root / "clicks" / "training" / f"{file.stem}.png", sparse)
    dataset, report = imported("ade20k", root, label="clicks", unlabelled_code=declared)
    assert said in report.encoding
    for label in labels(dataset, "train").values():
        assert label[1, :5].tolist() == [0, 1, 2, 3, 4]
        assert (np.delete(label, 1, 0) == UNLABELLED).all()


@pytest.mark.parametrize(("code", "values"), [(255, [0, 1, 2]), (255, [1, 2, 3]), (5, [0, 1, 2])])
def test_ade20k_sparse_labels_that_can_be_read_in_two_ways(
    tmp_path: Path, code: int, values: list[int]
) -> None:
    root = fixtures.ade20k(tmp_path / "raw")
    for file in (root / "images" / "training").iterdir():
        sparse = np.full((fixtures.HEIGHT, fixtures.WIDTH), code)
        sparse[1, :3] = values
        fixtures.save_label(root / "clicks" / f"{file.stem}.png", sparse)
    refused(
        "ade20k", root, r"count from 1.*or from 0; say which with --data\.unlabelled-code", label="clicks"
    )


@given(
    st.dictionaries(st.sampled_from([0, 3, 5, 6, 19, 21, 33, 34, 99, 254, 255]), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(0, 255)),
    st.sampled_from(["ade", "city"]),
)
@settings(max_examples=200, deadline=None)
def test_rules_give_classes_and_codes_or_one_line(
    counts: list[int], declared: int | None, which: str
) -> None:
    count_256, K = np.zeros(256, np.int64), 5 if which == "ade" else 19
    count_256[list(counts)] = list(counts.values())
    try:
        if which == "ade":
            found = ade20k_rule(K, count_256, declared, "there")
        else:
            found = cityscapes_rule(count_256, declared, "there")
    except ValueError as error:
        assert str(error).startswith("there: ") and "\n" not in str(error)
        return
    if found is not None:
        table, _ = found
        assert set(table.values()) == {*range(K), UNLABELLED, IGNORED}
        assert sum(code == UNLABELLED for code in table.values()) == 1  # one meaning for one value
        assert declared is None or table[declared] == UNLABELLED


# --------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("count", [250, 251])
def test_folder_takes_250_classes_and_no_more(tmp_path: Path, count: int) -> None:
    root = fixtures.folder(tmp_path / "raw", num_classes=count)
    if count > 250:
        return refused(
            "folder", root, r"classes\.txt: needs 1 to 250 different class names.*found 251", label="full"
        )
    dataset, _ = imported("folder", root, label="full")
    assert len(dataset.names) == 250
    for name, label in labels(dataset, "train").items():
        np.testing.assert_array_equal(label, fixtures.dense_mask(name, 250, 255))
    assert max(label[label < UNLABELLED].max() for label in labels(dataset, "train").values()) > 200


def test_folder_follows_subfolders_and_mixed_suffixes(tmp_path: Path) -> None:
    flat = fixtures.folder(tmp_path / "flat", count=12)
    root = tmp_path / "raw"
    for number, file in enumerate(sorted((flat / "images").iterdir())):
        site = f"site{number % 2}"
        for part in ("labels", "masks"):
            (root / part / site).mkdir(parents=True, exist_ok=True)
            shutil.copy(flat / part / f"{file.stem}.png", root / part / site / f"{file.stem}.png")
        (root / "images" / site).mkdir(parents=True, exist_ok=True)
        suffix = (".png", ".JPG", ".bmp", ".tif")[number % 4]
        Image.open(file).save(root / "images" / site / f"{file.stem}{suffix}")
    shutil.copy(flat / "classes.txt", root)
    (root / "images" / "notes.docx").write_text("x")
    dataset, report = imported("folder", root)
    ids = [name for split in dataset.splits.values() for name in split["id"][:]]
    assert sorted(ids) == sorted(f"site{k % 2}/photo_{k:02d}" for k in range(12))
    for name, label in labels(dataset, "train").items():
        dense = fixtures.dense_mask(name.split("/")[1], 3, 255)
        np.testing.assert_array_equal(label, fixtures.sparse_label(dense, UNLABELLED))
        np.testing.assert_array_equal(labels(dataset, "train", "mask")[name], dense)
    assert any("notes.docx" in note for note in report.notes)


def rename_all(folder: Path, ending: str) -> None:
    for file in list(folder.iterdir()):
        file.rename(file.with_name(f"{file.stem}{ending}.png"))


def test_folder_takes_one_ending_of_all_labels(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", splits=True)
    plain = labels(imported("folder", root)[0], "train")
    for split in ("train", "val"):
        rename_all(root / "masks" / split, "_mask")
        rename_all(root / "labels" / split, "_sparse.v2")
    dataset, report = imported("folder", root)
    for name, label in labels(dataset, "train").items():
        np.testing.assert_array_equal(label, plain[name])
    assert any("IMAGE_sparse.v2.png" in note for note in report.notes)
    (root / "labels" / "train" / "photo_01_sparse.v2.png").rename(
        root / "labels" / "train" / "photo_01_other.png"
    )
    refused("folder", root, "8 of 8 images are without label: photo_01")


def test_folder_names_the_nearest_label(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw")
    (root / "masks" / "photo_03.png").rename(root / "masks" / "phto_03.png")
    refused(
        "folder",
        root,
        r"1 of \d+ images are without label: photo_03.*nearest to photo_03 is 'phto_03'",
        label="full",
    )


def misleading_name(root: Path) -> None:
    shutil.copy(root / "images" / "photo_03.jpg", root / "images" / "a\\..\\x.jpg")


def twins(root: Path) -> None:
    shutil.copy(root / "images" / "photo_03.jpg", root / "images" / "photo_03.jpeg")


def classes_not_utf8(root: Path) -> None:
    (root / "classes.txt").write_bytes("straße".encode("latin-1"))


def two_labels(root: Path) -> None:
    for name in "ab":
        (root / "labels" / name).mkdir()
        shutil.copy(root / "labels" / "photo_03.png", root / "labels" / name)
    (root / "labels" / "photo_03.png").unlink()


FOLDER_DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (misleading_name, r"is no image id"),
    (twins, r"photo_03\.jpeg and .*photo_03\.jpg have the same stem"),
    (classes_not_utf8, r"classes\.txt: not UTF-8 text"),
    (two_labels, r"labels: 2 label files for image photo_03: "),
]


@pytest.mark.parametrize(("damage", "message"), FOLDER_DAMAGE)
def test_folders_that_are_not_clear(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = fixtures.folder(tmp_path / "raw")
    damage(root)
    refused("folder", root, message)


def test_camvid_images_of_val_and_test_never_train(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    for part, suffix in (("images", ".png"), ("masks", ".png")):
        shutil.copy(root / part / "val" / f"val_001{suffix}", root / part / "train")
    with (root / "splits" / "train.txt").open("a") as file:
        file.write("val_001\ntrain_001\n")
    dataset, report = imported("camvid", root, label="full")
    assert dataset.splits["train"]["id"][:] == [f"train_00{k}" for k in range(4)]
    assert any("1 images of val left out of train: val_001" in note for note in report.notes)


# ------------------------------------------------------------------------------------------------- real data


@pytest.mark.shared
@pytest.mark.slow
def test_all_genuine_clicks_against_the_official_lists(tmp_path: Path, shared_data: Path) -> None:
    """Every image of the lists is listed; every 25th, and all with a strange click, is imported.

    The pictures are 500x500 stand-ins.  tests/benchmarks/import_voc.py imports all of them.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import import_voc  # the stand-in tree is made there

    root = import_voc.make_tree(tmp_path / "raw", shared_data)
    clicks = import_voc.genuine_clicks(shared_data)
    source = layouts.read_layout("voc", root, ImportConfig())
    ids = {split: [item.id for item in items] for split, items in source.splits.items()}
    assert (len(clicks), len(ids["train"]), len(ids["val"])) == (12180, 10582, 1449)
    assert not set(ids["train"]) & set(ids["val"])
    assert set(ids["train"]) | set(ids["val"]) <= set(clicks)  # 149 more have clicks, but are in no list
    assert len(set(clicks) - set(ids["train"]) - set(ids["val"])) == 149

    outside = {name for name in ids["train"] if import_voc.count_outside(clicks[name])}
    chosen = [name for k, name in enumerate(ids["train"]) if k % 25 == 0 or name in outside]
    lists = root / "ImageSets" / "SegmentationAug"
    (lists / "train_aug.txt").write_text("\n".join([*chosen, *ids["val"][:30]]))
    dataset, report = imported("voc", root)
    assert dataset.splits["train"]["id"][:] == chosen
    assert any("30 validation images left out" in note for note in report.notes)
    counts = report.splits["train"]
    assert counts["points_outside"] == sum(import_voc.count_outside(clicks[name]) for name in chosen) > 0
    assert counts["points"] + counts["points_outside"] == sum(len(clicks[name]) for name in chosen)
    assert report.refused == ()


@pytest.mark.shared
def test_the_real_subset_end_to_end_through_the_command(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out, page = shared_data / "voc_subset", tmp_path / "set", tmp_path / "sheet.html"
    for words in (["import", "auto", str(root), str(out)], ["inspect", str(out), "--html", str(page)]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.count("156 clicks drawn") == 2 and "no labelled pixel of pottedplant, sheep" in shown
    pictures = re.findall(r"base64,([^\"]+)", page.read_text())
    assert len(pictures) >= 24
    assert {max(Image.open(io.BytesIO(base64.b64decode(data))).size) for data in pictures} == {480}
