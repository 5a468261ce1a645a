"""Budgets of a sweep that differ in their drawn clicks alone share the images of one import."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import fixtures
import pytest
from PIL import Image

from sparseg.config import DataConfig
from sparseg.data import importers, shards

DRAWS: list[dict[str, Any]] = [
    {"random_pixels": 3},
    {"random_pixels": 7, "label_seed": 2},
    {"clicks_per_class": 1},
]
KINDS: dict[str, Callable[[Path], Path]] = {
    "camvid": fixtures.camvid,
    "voc": fixtures.voc,
    "cityscapes": fixtures.cityscapes,
    "ade20k": fixtures.ade20k,
    "folder": lambda root: fixtures.folder(root, splits=True),
}


def data(root: Path, **fields: Any) -> DataConfig:
    return DataConfig(root=str(root), label="clicks", store="raw", **fields)


def rows(dataset: str | Path) -> dict[str, list[dict[str, Any]]]:
    return {split: list(rows) for split, rows in shards.open(dataset, verify=True).splits.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_the_one_that_an_import_of_its_own_has(tmp_path: Path, kind: str) -> None:
    root = KINDS[kind](tmp_path / "raw")
    for number, draw in enumerate(DRAWS):
        own = importers.prepare(data(root, **draw), tmp_path / f"own{number}")
        shared = importers.prepare(data(root, **draw), tmp_path / "shared", share_images=True)
        assert rows(shared) == rows(own)
        told, known = (shards.describe(path).report for path in (shared, own))
        assert told["splits"] == known["splits"] and told["fingerprint"] == known["fingerprint"]
        assert shards.open(shared).names == shards.open(own).names
    assert len(list((tmp_path / "shared" / "datasets").glob("*-full-*"))) == 1


def test_the_images_are_on_the_disk_once(tmp_path: Path) -> None:
    root, size = fixtures.camvid(tmp_path / "raw"), (320, 240)
    for file in [*(root / "images").rglob("*.png"), *(root / "masks").rglob("*.png")]:
        Image.open(file).resize(size, Image.Resampling.NEAREST).save(file)
    used = []
    for draw in DRAWS:
        importers.prepare(data(root, **draw), tmp_path, share_images=True)
        used.append(sum(file.stat().st_size for file in (tmp_path / "datasets").rglob("*.arrow")))
    images = 6 * 320 * 240 * 3  # store=raw
    assert used[0] > images and used[2] - used[0] < images / 10


def test_an_import_of_its_own_is_taken_where_there_is_one_and_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain run of the best trial finds the sweep's, and a sweep what an earlier version imported."""
    root = fixtures.camvid(tmp_path / "raw")
    for place, first in (("a", True), ("b", False)):
        made = importers.prepare(data(root, **DRAWS[0]), tmp_path / place, share_images=first)
        capsys.readouterr()
        assert importers.prepare(data(root, **DRAWS[0]), tmp_path / place, share_images=not first) == made
        assert "imported" not in capsys.readouterr().out


def test_an_imported_dataset_gives_its_images_too(tmp_path: Path) -> None:
    root = fixtures.camvid(tmp_path / "raw")
    given = importers.prepare(DataConfig(root=str(root), label="full"), tmp_path / "given")
    own = importers.prepare(data(Path(given), **DRAWS[0]), tmp_path / "own")
    shared = importers.prepare(data(Path(given), **DRAWS[0]), tmp_path / "shared", share_images=True)
    assert rows(shared) == rows(own)
    again = importers.prepare(data(Path(shared), **DRAWS[1]), tmp_path / "again", share_images=True)
    shutil.rmtree(shared)
    assert len(rows(again)["train"]) == 4, "of labels alone nothing is shared"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    root = fixtures.camvid(tmp_path / "raw", train=8)
    return Path(importers.prepare(data(root, **DRAWS[0]), tmp_path / "runs", share_images=True))


def home_of(shared: Path) -> Path:
    return shared / json.loads((shared / shards.MANIFEST).read_text())["images"]["folder"]


def test_storage_may_move_and_hugging_face_opens_the_labels(shared: Path, tmp_path: Path) -> None:
    before = rows(shared)
    moved = tmp_path / "elsewhere" / "runs"
    shutil.move(tmp_path / "runs", moved)
    shared = moved / "datasets" / shared.name
    assert rows(shared) == before
    assert datasets.load_from_disk(str(shared))["train"].column_names == [
        *("id", "label", "mask", "present", "height", "width", "strokes")
    ]


def test_a_part_of_the_rows_has_its_own_images(tmp_path: Path) -> None:
    """A node reads some shards alone (data.sharding=node), and those behind them may be cut otherwise."""
    root = fixtures.camvid(tmp_path / "raw", train=8)
    importers.import_dataset(
        "camvid", root, tmp_path / "home", DataConfig(label="full"), num_shards=3, workers=0
    )
    home, labels = shards.open(tmp_path / "home"), tmp_path / "labels"
    manifest = shards.read_manifest(home.path)
    assert manifest is not None
    shards.build(
        str(labels),
        {split: range(len(rows)) for split, rows in home.splits.items()},
        functools.partial(reader_of, str(home.path)),
        home.names,
        fingerprint="x",
        report_of=lambda facts: {},
        palette=home.palette,
        num_shards=2,
        workers=0,
        images=shards.ImagesElsewhere("../home", manifest.identity),
    )
    part = shards.open(labels, only={"train": range(1, 2)})
    assert part.parts["train"] == range(4, 8)
    assert list(part.splits["train"]) == rows(home.path)["train"][4:]


def reader_of(path: str) -> shards.Reader:
    """Rows as they are."""
    splits = shards.open(path).splits

    def read(split: str, numbers: Sequence[int], facts: dict[str, Any]) -> Iterator[shards.Row]:
        for number in numbers:
            row = splits[split][number]
            decoded = {
                name: row[name] and shards.decode_label(row[name]["bytes"]) for name in ("label", "mask")
            }
            yield {**row, "image": row["image"]["bytes"], **decoded}

    return read


@pytest.mark.parametrize("what", ["gone", "another"])
def test_images_that_are_gone_or_others_are_told(shared: Path, what: str) -> None:
    manifest = home_of(shared) / shards.MANIFEST
    if what == "gone":
        shutil.rmtree(home_of(shared))
    else:
        manifest.write_text(manifest.read_text() + " ")
    told = {"gone": "which is not there", "another": "which was imported anew since"}[what]
    with pytest.raises(ValueError, match=rf"its images are those of .*-full-.*, {told}; .* remove {shared}"):
        shards.open(shared)


def test_damaged_images_are_found_by_their_checksum(shared: Path) -> None:
    shard = next((home_of(shared) / "train").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"is altered: its checksum"):
        shards.open(shared, verify=True)


def test_tiles_have_images_of_their_own(tmp_path: Path) -> None:
    """Clicks are drawn tile by tile there, and tiles without any are left out."""
    root = fixtures.camvid(tmp_path / "raw")
    made = importers.prepare(data(root, tile_px=64, **DRAWS[0]), tmp_path, share_images=True)
    assert "images" not in json.loads((Path(made) / shards.MANIFEST).read_text())
