"""Clicks alone suffice: folders without dense masks, held-out groups, images that nobody annotated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fixtures
import importing
import numpy as np
import pytest

from sparseg.config import UNLABELLED, DataConfig
from sparseg.data import importers, shards, sparsify
from sparseg.data.importers.held_out import groups, held_out

NAMES = [f"photo_{number:02d}" for number in range(10)]


def clicks_only(root: Path, names: list[str] = NAMES, annotated: list[str] | None = None) -> Path:
    """images/, classes.txt and labels/clicks.csv with a click of every class on each annotated image."""
    for name in names:
        fixtures.save_image(root / "images" / f"{name}.jpg", fixtures.dense_mask(name, 3, 255))
    (root / "classes.txt").write_text("ground\nsand\nrock\n")
    lines = ["image,row,column,label"]
    for name in names if annotated is None else annotated:
        lines += [f"{name}.jpg,{3 + k},{4 + k},{label}" for k, label in enumerate(("ground", "sand", "rock"))]
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "clicks.csv").write_text("\n".join(lines) + "\n")
    return root


def ids(out: Path) -> dict[str, list[str]]:
    return {split: list(data["id"]) for split, data in shards.open(out).splits.items()}


def imported(root: Path, out: Path, **fields: Any) -> dict[str, list[str]]:
    importing.import_dataset("folder", root, out, workers=0, **fields)
    return ids(out)


def labelled(out: Path, split: str) -> list[int]:
    rows = shards.open(out).splits[split]
    return [int((shards.decode_label(row["label"]["bytes"]) < UNLABELLED).sum()) for row in rows]


@pytest.mark.parametrize("form", ["csv in labels/", "csv named", "PNGs", "PNGs named", "PNGs, 255"])
def test_clicks_alone_make_a_dataset_whose_val_is_scored_on_clicks(tmp_path: Path, form: str) -> None:
    root, fields = tmp_path / "raw", {}
    if "PNGs" in form:
        fixtures.folder(root, masks=False, unlabelled=255 if form.endswith("255") else 254)
    else:
        clicks_only(root)
    if "named" in form:
        name = "clicks.csv" if "csv" in form else ""
        shutil.move(root / "labels" / name, tmp_path / "given")
        shutil.rmtree(root / "labels", ignore_errors=True)
        file = tmp_path / "given"
        fields["label_path"] = str(file.rename(tmp_path / "clicks.csv") if "csv" in form else file)
    split = imported(root, tmp_path / "out", **fields)
    assert sorted(split["train"] + split["val"]) == NAMES
    assert set(split["val"]) == held_out({name: name for name in NAMES})
    per_image = 32 if "PNGs" in form else 3
    assert labelled(tmp_path / "out", "val") == [per_image] * len(split["val"])
    report = importers.ImportReport.from_dict(shards.open(tmp_path / "out").report)
    assert report.val_labels == "sparse" and not report.refused
    assert any("val is scored on the labelled pixels" in note for note in report.notes)


def test_masks_make_a_dense_val_as_ever(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", unlabelled=254)
    report = importing.import_dataset("folder", root, tmp_path / "out", workers=0)
    assert report.val_labels == "dense"
    (root / "labels" / "masks").mkdir()
    for name in ("masks", "empty"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "masks").mkdir()  # an empty folder is none
    assert importing.import_dataset("folder", root, tmp_path / "sparse", workers=0).val_labels == "sparse"


def test_images_that_have_a_mask_are_val(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", unlabelled=254)
    kept = {"photo_01", "photo_05", "photo_09"}
    for file in (root / "masks").iterdir():
        if file.stem not in kept:
            file.unlink()
    split = imported(root, tmp_path / "out")
    assert set(split["val"]) == kept and set(split["train"]) == set(NAMES) - kept


def test_without_validation_all_images_train(tmp_path: Path) -> None:
    root = clicks_only(tmp_path / "raw")
    assert imported(root, tmp_path / "out", val_split="none") == {"train": NAMES}


@pytest.mark.parametrize("label", ["tag", "box"])
def test_labels_without_pixels_cannot_validate(tmp_path: Path, label: str) -> None:
    root = clicks_only(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"cannot be validated on it.*--data\.val-split none"):
        importing.import_dataset("folder", root, tmp_path / "out", label=label)


# ----------------------------------------------------------------------------------------------------- groups


def test_groups_are_named_by_folder_or_pattern() -> None:
    names = ["siteA/2024/a", "siteA/b", "siteB/c"]
    assert groups(names, "folder") == {"siteA/2024/a": "siteA", "siteA/b": "siteA", "siteB/c": "siteB"}
    assert groups(["p1_a", "p2_b"], r"^(p\d+)_") == {"p1_a": "p1", "p2_b": "p2"}
    assert groups(["p1_a", "p2_b"], r"p\d") == {"p1_a": "p1", "p2_b": "p2"}
    with pytest.raises(ValueError, match=r"finds nothing in 1 of 2 image ids: q"):
        groups(["p1", "q"], r"p\d")


def test_whole_groups_are_held_out_and_nobody_moves_when_images_or_clicks_are_added(tmp_path: Path) -> None:
    names = [f"site{number}/a{image}" for number in range(12) for image in range(2)]
    few = imported(clicks_only(tmp_path / "few", names), tmp_path / "out_few", val_group="folder")
    sides = [{name.split("/")[0] for name in few[split]} for split in ("train", "val")]
    assert not sides[0] & sides[1] and sides[1]
    more_names = [*names, *(f"site{number}/b" for number in range(15))]
    more = imported(clicks_only(tmp_path / "more", more_names), tmp_path / "out_more", val_group="folder")
    assert set(few["val"]) <= set(more["val"]) and set(few["train"]) <= set(more["train"])


def test_one_group_cannot_be_on_both_sides(tmp_path: Path) -> None:
    root = clicks_only(tmp_path / "raw", [f"site/a{number}" for number in range(4)])
    with pytest.raises(ValueError, match=r"all 4 images are of one group, 'site'"):
        importing.import_dataset("folder", root, tmp_path / "out", val_group="folder")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"val_group": "("}, r"data\.val_group must be folder or a regular expression"),
        ({"val_group": "folder", "val_split": "none"}, r"leave one of them out"),
    ],
)
def test_wrong_groups_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)


# -------------------------------------------------------------------------------------- nobody annotated them


def test_images_that_nobody_annotated_are_refused_or_kept_in_a_pool(tmp_path: Path) -> None:
    root = clicks_only(tmp_path / "raw", annotated=NAMES[:6])
    with pytest.raises(ValueError, match=r"4 of 10 images are without label.*--data\.unannotated keep.*skip"):
        imported(root, tmp_path / "out")
    split = imported(root, tmp_path / "out", unannotated="keep")
    assert split["pool"] == NAMES[6:] and sorted(split["train"] + split["val"]) == NAMES[:6]
    assert labelled(tmp_path / "out", "pool") == [0] * 4
    assert all(not row["present"] for row in shards.open(tmp_path / "out").splits["pool"])


def test_label_images_of_some_leave_the_others_in_the_pool(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", masks=False, unlabelled=254)
    for name in NAMES[6:]:
        (root / "labels" / f"{name}.png").unlink()
    split = imported(root, tmp_path / "out", unannotated="keep")
    assert split["pool"] == NAMES[6:] and sorted(split["train"] + split["val"]) == NAMES[:6]


# ------------------------------------------------------------------------------------------ folders of splits


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_the_val_folder(tmp_path: Path, name: str) -> None:
    root = fixtures.folder(tmp_path / "raw", splits=True, unlabelled=254)
    for kind in ("images", "masks", "labels"):
        (root / kind / "val").rename(root / kind / name)
    split = imported(root, tmp_path / "out")
    assert split["val"] == ["photo_00", "photo_05"]
    (root / "images" / "val").mkdir()
    with pytest.raises(ValueError, match=rf"val/ and {name}/ are the folder of split 'val'; keep one"):
        imported(root, tmp_path / "again")


def test_an_image_of_val_does_not_train_under_another_name(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", splits=True, unlabelled=254)
    shutil.copy(root / "images" / "val" / "photo_00.jpg", root / "images" / "train" / "copy.jpg")
    for kind in ("labels", "masks"):
        shutil.copy(root / kind / "val" / "photo_00.png", root / kind / "train" / "copy.png")
    report = importing.import_dataset("folder", root, tmp_path / "out", workers=0)
    assert "copy" not in ids(tmp_path / "out")["train"]
    assert any("copy = photo_00" in note for note in report.notes)


# ------------------------------------------------------------------------------------------- nothing labelled


@pytest.mark.parametrize("value", [254, 255])
def test_labels_without_a_class_are_refused(tmp_path: Path, value: int) -> None:
    root = fixtures.folder(tmp_path / "raw", unlabelled=254)
    for file in (root / "labels").iterdir():
        fixtures.save_label(file, np.full((fixtures.HEIGHT, fixtures.WIDTH), value))
    with pytest.raises(ValueError, match=r"no image of split 'train' has a labelled pixel"):
        imported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_points_outside_of_every_image_are_refused(tmp_path: Path) -> None:
    root = clicks_only(tmp_path / "raw")
    text = "image,row,column,label\n" + "".join(f"{name}.jpg,900,900,sand\n" for name in NAMES)
    (root / "labels" / "clicks.csv").write_text(text)
    with pytest.raises(ValueError, match=r"no image of split 'train' has a labelled pixel.*points outside"):
        imported(root, tmp_path / "out")


def test_a_coco_file_without_annotations_names_the_export_that_has_points(tmp_path: Path) -> None:
    root = fixtures.folder(tmp_path / "raw", unlabelled=254)
    images = ", ".join(
        f'{{"id": {number}, "file_name": "{name}.jpg", "height": 24, "width": 32}}'
        for number, name in enumerate(NAMES, 1)
    )
    file = tmp_path / "instances.json"
    file.write_text(
        f'{{"images": [{images}], "annotations": [], "categories": [{{"id": 1, "name": "class a"}}]}}'
    )
    with pytest.raises(ValueError, match=r"no training image has a labelled pixel.*CVAT for images 1\.1"):
        imported(root, tmp_path / "out", label_path=str(file))


def test_labels_drawn_anew_leave_the_pool_as_it_is(tmp_path: Path) -> None:
    root = clicks_only(tmp_path / "raw", annotated=NAMES[:8])
    for name in NAMES:
        fixtures.save_label(root / "masks" / f"{name}.png", fixtures.dense_mask(name, 3, 255))
    before = imported(root, tmp_path / "out", unannotated="keep")
    assert before["pool"] and not set(before["pool"]) & set(NAMES[:8])
    importers.sparsify_dataset(tmp_path / "out", tmp_path / "drawn", sparsify.Recipe(kind="point", budget=2))
    assert ids(tmp_path / "drawn") == before
    assert set(labelled(tmp_path / "drawn", "train")) == {2} and set(
        labelled(tmp_path / "drawn", "pool")
    ) == {0}
    assert all(row["mask"] is None for row in shards.open(tmp_path / "drawn").splits["pool"])
