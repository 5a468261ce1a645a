"""The values of label PNGs and dense masks: recognised where that is certain, else asked, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import import_dataset
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import shards

HEIGHT, WIDTH = 12, 16
DENSE_HW = np.repeat(np.arange(HEIGHT) // 4, WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
"""Classes 0, 1, 2, a third of the rows each."""


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def brushed(*values: int, background: int = 0) -> np.ndarray:
    """A label map with two pixels of every value on the rows of the class of its place."""
    label_HW = np.full((HEIGHT, WIDTH), background, np.uint8)
    for k, value in enumerate(values):
        label_HW[4 * k + 1, 2:4] = value
    return label_HW


def raw_folder(
    root: Path, sparse: np.ndarray | None, mask_HW: np.ndarray = DENSE_HW, names: str = "ground sand rock"
) -> Path:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        save(root / "images" / split / f"{name}.png", np.full((HEIGHT, WIDTH, 3), ord(name), np.uint8))
        if split == "train" and sparse is not None:
            save(root / "labels" / split / f"{name}.png", sparse)
        if split == "val" or sparse is None:
            save(root / "masks" / split / f"{name}.png", mask_HW)
    (root / "classes.txt").write_text("\n".join(names.split()))
    return root


def labels_of(out: Path, split: str = "train") -> np.ndarray:
    return shards.decode_label(shards.open(out).splits[split][0]["label"]["bytes"])


def refused(root: Path, layout: str = "folder", **fields: Any) -> str:
    out = root.parent / "none"
    with pytest.raises(ValueError) as caught:
        import_dataset(layout, root, out, workers=0, **fields)
    assert not out.exists() and "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- 0 is unlabelled


def test_0_is_unlabelled_where_that_is_certain(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", brushed(1, 2, 3))
    report = import_dataset("folder", root, tmp_path / "out", workers=0)
    assert report.encoding.startswith("found: 0 = unlabelled, value v is class v-1 (0 covers most of 2 of 2 ")
    wanted = brushed(0, 1, 2, background=UNLABELLED)
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), wanted)
    np.testing.assert_array_equal(labels_of(tmp_path / "out", "val"), DENSE_HW)  # masks count from 0


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((1, 3), "ground sand rock"),  # 2 occurs nowhere
        ((1, 2, 3), "background sand rock"),  # a background may cover most of every image
    ],
)
def test_0_is_asked_about_where_it_is_not_and_the_flag_chooses(
    tmp_path: Path, values: tuple[int, ...], names: str
) -> None:
    root = raw_folder(tmp_path / "raw", brushed(*values), names=names)
    message = refused(root)
    assert "--data.unlabelled-code 0; or 0 is class" in message
    assert message.endswith("3 is unlabelled, say --data.unlabelled-code 3")
    report = import_dataset("folder", root, tmp_path / "from_1", workers=0, unlabelled_code=0)
    assert report.encoding == "declared: 0 = unlabelled, value v is class v-1, 255 = void"
    wanted = brushed(*(value - 1 for value in values), background=UNLABELLED)
    np.testing.assert_array_equal(labels_of(tmp_path / "from_1"), wanted)
    import_dataset("folder", root, tmp_path / "from_0", workers=0, unlabelled_code=3)
    wanted = brushed(*(UNLABELLED if value == 3 else value for value in values))
    np.testing.assert_array_equal(labels_of(tmp_path / "from_0"), wanted)


def test_agmms_code_k_stays_what_it_was(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", brushed(0, 1, 2, background=3))
    report = import_dataset("folder", root, tmp_path / "out", workers=0)
    assert report.encoding == "found: 3 = unlabelled, 255 = void (AGMM kind)"
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), brushed(0, 1, 2, background=UNLABELLED))


def test_brushes_of_the_first_classes_alone_name_the_flag_for_0(tmp_path: Path) -> None:
    message = refused(raw_folder(tmp_path / "raw", brushed(1, 2)))
    assert "no unlabelled pixel" in message and "say --data.unlabelled-code 0 if 0 is unlabelled" in message


def test_another_class_id_is_no_code(tmp_path: Path) -> None:
    message = refused(raw_folder(tmp_path / "raw", brushed(1, 2, 3)), unlabelled_code=1)
    assert "data.unlabelled_code=1 is a class id (0..2); no code can be one, but 0 where" in message


# ------------------------------------------------------------------------------------------ black and white

TWO = "background foreground"
WHITE_HW = np.where(DENSE_HW == 1, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("label", ["point", "full"])
def test_masks_of_0_and_255_are_asked_about_and_the_flag_chooses(tmp_path: Path, label: Any) -> None:
    sparse = brushed(0, 1, background=UNLABELLED) if label == "point" else None
    root = raw_folder(tmp_path / "raw", sparse, WHITE_HW, TWO)
    message = refused(root, label=label)
    assert (
        "255 occurs and the value 1 of class 'foreground' does not; say --data.mask-values binary" in message
    )
    assert "--data.mask-values from-0 if 255 is void" in message
    report = import_dataset("folder", root, tmp_path / "two", workers=0, label=label, mask_values="binary")
    np.testing.assert_array_equal(labels_of(tmp_path / "two", "val"), WHITE_HW // 255)
    assert "dense masks, as declared: 0 = background, 255 and 1 = foreground" in report.notes
    assert not any("255 = void" in note for note in report.notes)
    import_dataset("folder", root, tmp_path / "void", workers=0, label=label, mask_values="from-0")
    np.testing.assert_array_equal(labels_of(tmp_path / "void", "val"), WHITE_HW)
    assert WHITE_HW.max() == IGNORED


def test_two_classes_and_a_void_border_are_not_asked_about(tmp_path: Path) -> None:
    mask_HW = WHITE_HW.copy()
    mask_HW[0, 0] = 1
    root = raw_folder(tmp_path / "raw", brushed(0, 1, background=UNLABELLED), mask_HW, TWO)
    import_dataset("folder", root, tmp_path / "out", workers=0)
    np.testing.assert_array_equal(labels_of(tmp_path / "out", "val"), mask_HW)


def test_sparse_labels_of_0_and_255_are_asked_about(tmp_path: Path) -> None:
    mask_HW = np.minimum(DENSE_HW, 1)
    root = raw_folder(tmp_path / "raw", brushed(0, 255, background=UNLABELLED), mask_HW, TWO)
    assert "labels/train: 255 occurs and the value 1" in refused(root)
    report = import_dataset("folder", root, tmp_path / "out", workers=0, mask_values="binary")
    assert report.encoding == "found: 254 = unlabelled, 255 = foreground"
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), brushed(0, 1, background=UNLABELLED))


def test_black_and_white_are_two_classes(tmp_path: Path) -> None:
    message = refused(raw_folder(tmp_path / "raw", brushed(0, 1, 2, background=254)), mask_values="binary")
    assert "data.mask_values=binary needs two classes" in message and message.count("has 3") == 1


# ------------------------------------------------------------------------------------------- counted from 1


def laid_out_as_ade20k(root: Path, mask_HW: np.ndarray, info: str = "") -> Path:
    for split in ("training", "validation"):
        save(root / "images" / split / "a.png", np.full((HEIGHT, WIDTH, 3), len(split), np.uint8))
        save(root / "annotations" / split / "a.png", mask_HW)
    if info:
        (root / "objectInfo150.txt").write_text(info)
    else:
        (root / "classes.txt").write_text("ground\nsand\nrock\n")
    return root


def test_masks_laid_out_as_ade20k_that_count_from_0_are_asked_about(tmp_path: Path) -> None:
    root = laid_out_as_ade20k(tmp_path / "raw", DENSE_HW)
    message = refused(root, "ade20k", label="full")
    assert "but 3, class 'rock', occurs in none" in message
    assert message.endswith("say --data.mask-values from-1 or from-0")
    import_dataset("ade20k", root, tmp_path / "from_0", workers=0, label="full", mask_values="from-0")
    np.testing.assert_array_equal(labels_of(tmp_path / "from_0"), DENSE_HW)
    import_dataset("ade20k", root, tmp_path / "from_1", workers=0, label="full", mask_values="from-1")
    shifted = np.where(DENSE_HW == 0, IGNORED, DENSE_HW - 1)
    np.testing.assert_array_equal(labels_of(tmp_path / "from_1"), shifted)


def test_the_value_k_or_the_official_list_proves_that_masks_count_from_1(tmp_path: Path) -> None:
    root = laid_out_as_ade20k(tmp_path / "raw", DENSE_HW + 1)
    import_dataset("ade20k", root, tmp_path / "out", workers=0, label="full")
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), DENSE_HW)
    info = "Idx\tName\n1\twall\n2\tbuilding\n3\tsky\n"
    official = laid_out_as_ade20k(tmp_path / "official", np.minimum(DENSE_HW + 1, 2), info)
    import_dataset("ade20k", official, tmp_path / "official_out", workers=0, label="full")
    np.testing.assert_array_equal(labels_of(tmp_path / "official_out"), np.minimum(DENSE_HW, 1))


def test_masks_of_a_folder_may_count_from_1(tmp_path: Path) -> None:
    root = raw_folder(tmp_path / "raw", None, DENSE_HW + 1)
    assert "values 3 " in refused(root, label="full") and "--data.mask-values from-1" in refused(
        root, label="full"
    )
    import_dataset("folder", root, tmp_path / "out", workers=0, label="full", mask_values="from-1")
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), DENSE_HW)
