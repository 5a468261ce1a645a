"""The name of an import: another one for the same data would import every dataset again."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from sparseg.config import ImportConfig
from sparseg.data.importers import layouts, source
from sparseg.data.importers.source import attach, fingerprint

TIME_NS = 10**18


def files_of_fixed_size_and_time(root: Path) -> Path:
    """A folder layout; nothing is decoded, so the files need not be images."""
    for folder, suffix, splits in (
        ("images", "jpg", ("train", "val")),
        ("masks", "png", ("train", "val")),
        ("labels", "png", ("train",)),
    ):
        for split in splits:
            for number in (1, 2):
                file = root / folder / split / f"{number}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"{folder} {split} {number}".encode())
                os.utime(file, ns=(TIME_NS, TIME_NS + number))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same relative path wherever the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "resolve", lambda path, strict=False: path)
    return files_of_fixed_size_and_time(Path("raw"))


def name_of(root: Path, config: ImportConfig) -> str:
    return fingerprint(attach(layouts.read_layout("folder", root, config), config), config)


SCRIBBLES = {"label": "scribble", "label_path": "labels", "label_format": "png", "stroke_px": 3.0}
LITERALS: list[tuple[dict[str, Any], str]] = [
    ({}, "e3bc063e47"),
    ({"label": "clicks", "random_pixels": 5, "label_seed": 3, "num_classes": 3}, "b2b8fab8fd"),
    ({"label": "full", "tile_px": 64, "store": "fast"}, "07ff2cff84"),
    ({**SCRIBBLES, "unlabelled_code": 9, "skip_bad": True}, "671ea637df"),
]


@pytest.mark.parametrize(("fields", "name"), LITERALS)
def test_imports_keep_the_name_that_they_always_had(root: Path, fields: dict[str, Any], name: str) -> None:
    assert name_of(root, ImportConfig(**fields)) == name


def test_the_number_of_classes_is_not_in_the_name(root: Path) -> None:
    assert name_of(root, ImportConfig(num_classes=3)) == name_of(root, ImportConfig())


def test_a_new_field_counts_where_it_is_not_at_its_default(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(ImportConfig):
        rotate_deg: int = 0

    monkeypatch.setattr(source, "ImportConfig", Later)
    assert name_of(root, Later()) == LITERALS[0][1]
    assert len({name_of(root, Later(rotate_deg=degrees)) for degrees in (0, 90, 180)}) == 3
