"""Files on disk as every layout meets them: label maps found by name, whatever their suffix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseg.config import UNLABELLED
from sparseg.data.importers.files import label_files
from sparseg.data.importers.label_pngs import BadFileError, read_raw

IDS = np.array([[0, 1, 2], [3, UNLABELLED, 0]], np.uint8)


def save(path: Path, array: np.ndarray = IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".TIFF"])
def test_labels_are_found_whatever_their_suffix(tmp_path: Path, suffix: str) -> None:
    files = [save(tmp_path / f"{name}{suffix}") for name in ("a", "train/b", "site/c", "deep/er/d")]
    found, notes = label_files(tmp_path, ["a", "b", "site/c", "d", "e"])
    assert found == dict(zip(("a", "b", "site/c", "d", "e"), [*files, None], strict=True))
    assert notes == []
    np.testing.assert_array_equal(read_raw(files[0]), IDS)


def test_an_ending_that_all_share_is_told_with_the_suffix(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{name}_mask.TIF") for name in "ab"]
    found, notes = label_files(tmp_path, ["a", "b"])
    assert [*found.values()] == files
    assert notes == [f"label files of {tmp_path} are named IMAGE_mask.TIF"]


def test_beside_label_pngs_a_tiff_is_no_label(tmp_path: Path) -> None:
    label = save(tmp_path / "a.png")
    save(tmp_path / "a.tif", np.stack([IDS] * 3, 2))
    assert label_files(tmp_path, ["a"]) == ({"a": label}, [])


def test_a_folder_without_labels_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match=r"holds no \.png label \(or \.tif\)"):
        label_files(tmp_path, ["a"])
    save(tmp_path / "x" / "a.png"), save(tmp_path / "y" / "a.PNG")
    with pytest.raises(ValueError, match=r"2 label files for image a: .*x/a\.png, .*y/a\.PNG; keep one"):
        label_files(tmp_path, ["a"])


def test_a_label_that_is_damaged_or_no_map_names_its_file(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_raw(save(tmp_path / "equal.png", np.stack([IDS] * 3, 2))), IDS)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(BadFileError, match=r"bad\.png: unreadable or truncated label"):
        read_raw(tmp_path / "bad.png")
    with pytest.raises(BadFileError, match=r"none\.png: unreadable label \(No such file"):
        read_raw(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"colour\.png: a label must hold class ids") as caught:
        read_raw(save(tmp_path / "colour.png", np.stack([IDS, IDS, IDS + 1], 2)))
    assert not isinstance(caught.value, BadFileError)
