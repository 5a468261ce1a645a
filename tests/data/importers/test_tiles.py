"""Large images as tiles: every pixel where it was, every label as on the whole image, none counted twice."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import importing
import numpy as np
import pytest
import tiny
import torch
from fixtures import png_header
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sparseg import cli
from sparseg.common.tiling import tile_starts
from sparseg.config import IGNORED, UNLABELLED, DataConfig, ImportConfig
from sparseg.config.data import MOST_TILE_PX
from sparseg.data import importers, shards, sparsify
from sparseg.data.importers import build, layouts, tiles
from sparseg.data.importers.source import fingerprint
from sparseg.data.strokes import draw, restored
from sparseg.evaluation import metrics
from sparseg.inference import predict
from sparseg.inference.images import read_image
from sparseg.train import loop

TILE = 64
SIZES = {
    "train": {"site/a": (150, 231), "site/small": (50, 64), "b": (64, 100)},
    "val": {"c": (130, 203), "d": (40, 64), "e": (90, 64)},
}
CSV = """image,row,column,label
a,10,10,ground
a,100,200,red
a,100,90,green
a,65,129,red
a,54,30,red
a,20,108,green
b,20,20,ground
b,30,80,ground
small,5,5,green
"""


def scene(root: Path, *, flat: bool = False) -> Path:
    """A raw folder: three training images, three of validation; clicks as PNGs in labels/, and as CSV
    for images without folders (`flat`)."""
    for split, sizes in SIZES.items():
        for seed, (name, size) in enumerate(sizes.items()):
            image, label_HW, mask_HW = tiny.picture(2 * seed, size)
            if name == "c":
                mask_HW[:TILE, :TILE] = IGNORED  # a tile of validation that counts for nothing, and stays
            name = name.rsplit("/", 1)[-1] if flat else name
            files = {kind: root / kind / split / f"{name}.png" for kind in ("images", "masks", "labels")}
            for file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
            files["images"].write_bytes(image)
            Image.fromarray(mask_HW).save(files["masks"])
            if split == "train":
                Image.fromarray(label_HW).save(files["labels"])
    (root / "classes.txt").write_text("\n".join(tiny.NAMES) + "\n")
    (root / "clicks.csv").write_text(CSV)
    return root


def imported(root: Path, **options: Any) -> tuple[shards.ShardedDataset, dict[str, Any]]:
    out = root.parent / f"out{len(list(root.parent.iterdir()))}"
    report = importing.import_dataset("folder", root, out, workers=options.pop("workers", 0), **options)
    return shards.open(out), report


def decoded(row: dict[str, Any]) -> dict[str, np.ndarray]:
    """image, label and, of training rows, mask."""
    found = {"image": shards.decode_image(row["image"]["bytes"])}
    columns = [column for column in ("label", "mask") if row[column] is not None]
    return found | {column: shards.decode_label(row[column]["bytes"]) for column in columns}


def place(row: dict[str, Any]) -> tuple[str, tuple[slice, slice]]:
    """The image that a row is of, and where it lies in it."""
    match = re.fullmatch(r"(.+)_y(\d{5})_x(\d{5})", row["id"])
    name, top, left = (match[1], int(match[2]), int(match[3])) if match else (row["id"], 0, 0)
    return name, (slice(top, top + row["height"]), slice(left, left + row["width"]))


def wholes(dataset: shards.ShardedDataset, split: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in dataset.splits[split]}


# ----------------------------------------------------------------------------------------------------- pixels


@given(length=st.integers(1, 500), tile=st.integers(64, 200), share=st.floats(0, 0.5))
def test_tiles_of_training_cover_and_those_of_validation_partition(
    length: int, tile: int, share: float
) -> None:
    overlap = int(tile * share)
    config = ImportConfig(tile_px=tile, tile_overlap_px=overlap)
    train_spans = tiles.spans(length, config, is_train=True)
    assert {stop - start for start, stop in train_spans} == {min(tile, length)}
    assert train_spans[0][0] == 0 and train_spans[-1][1] == length
    assert all(one[1] - two[0] >= overlap for one, two in itertools.pairwise(train_spans))
    val_spans = tiles.spans(length, config, is_train=False)
    assert [pixel for start, stop in val_spans for pixel in range(start, stop)] == list(range(length))
    assert all(stop - start >= min(length, tile / 2) for start, stop in val_spans)
    assert all(stop - start < 1.5 * tile for start, stop in val_spans)
    assert tile_starts(length, tile) == [start for start, _ in val_spans]


@pytest.mark.parametrize(("overlap", "store"), [(0, "original"), (20, "fast"), (32, "raw")])
def test_rows_are_crops_of_the_whole_images(tmp_path: Path, overlap: int, store: str) -> None:
    root = scene(tmp_path / "raw")
    whole, _ = imported(root, label="full")
    cut, report = imported(root, label="full", tile_px=TILE, tile_overlap_px=overlap, store=store)
    for split in ("train", "val"):
        originals = {name: decoded(row) for name, row in wholes(whole, split).items()}
        seen = {name: np.zeros(arrays["label"].shape, int) for name, arrays in originals.items()}
        for row in cut.splits[split]:
            name, area = place(row)
            for column, array in decoded(row).items():
                np.testing.assert_array_equal(array, originals[name][column][area])
            seen[name][area] += 1
        once = {name: bool((count == 1).all()) for name, count in seen.items()}
        assert all((count >= 1).all() for count in seen.values())
        assert split == "train" or all(once.values())
    train_rows = [row for row in cut.splits["train"] if row["id"] != "site/small"]
    assert {(row["height"], row["width"]) for row in train_rows} == {(TILE, TILE)}
    ids = [row["id"] for row in cut.splits["train"]]
    assert len(set(ids)) == len(ids) and "site/a_y00086_x00167" in ids
    tiles_of_a = [name for name in ids if name.startswith("site/a_")]
    assert tiles_of_a == sorted(tiles_of_a)
    assert {row["id"]: (row["height"], row["width"]) for row in cut.splits["val"]} == {
        **{f"c_y{top:05}_x{left:05}": (66 if top else 64, 75 if left == 128 else 64) for top, left in GRID_C},
        "d": (40, 64),
        "e": (90, 64),  # less than a tile and a half stays as it is
    }
    assert report.tiles == {"tile_px": TILE, "tile_overlap_px": overlap}


GRID_C = [(top, left) for top in (0, 64) for left in (0, 64, 128)]


def test_images_that_fit_a_tile_keep_their_bytes(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    cut, report = imported(root, label="full", tile_px=TILE)
    small = wholes(cut, "train")["site/small"]
    assert small["image"]["bytes"] == (root / "images" / "train" / "site" / "small.png").read_bytes()
    assert report.splits["train"]["images_cut"] == 2
    text = importers.format_report(report)
    assert "train: 2 images are cut into 14 tiles (rows)" in text


def test_counts_over_tiles_are_those_of_the_whole_images(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")

    def counted(dataset: shards.ShardedDataset) -> torch.Tensor:
        total = torch.zeros(3, 3, dtype=torch.int64)
        for arrays in map(decoded, dataset.splits["val"]):
            guess_HW = arrays["image"].argmax(2).astype(np.int64)  # of a pixel's own colour
            truth_HW = torch.from_numpy(arrays["label"].copy())
            total += metrics.confusion(torch.from_numpy(guess_HW)[None], truth_HW[None], 3)
        return total

    whole = counted(imported(root)[0])
    assert whole.diag().sum() > 0 and whole.sum() > 25_000
    assert torch.equal(counted(imported(root, tile_px=TILE, tile_overlap_px=30)[0]), whole)


# ------------------------------------------------------------------------------------------------- annotation


def test_sparse_labels_are_cut_and_classes_of_the_whole_image_stay_known(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    whole, before = imported(root)
    cut, report = imported(root, tile_px=TILE, tile_overlap_px=16)
    originals = wholes(whole, "train")
    rows = list(cut.splits["train"])
    for row in rows:
        name, area = place(row)
        label_HW = decoded(row)["label"]
        np.testing.assert_array_equal(label_HW, decoded(originals[name])["label"][area])
        assert (label_HW < UNLABELLED).any()
        assert row["present"] == originals[name]["present"]
    own = [set(np.unique(label[label < UNLABELLED])) for label in (decoded(row)["label"] for row in rows)]
    assert any(len(classes) < len(row["present"]) for classes, row in zip(own, rows, strict=True))
    counts = report.splits["train"]
    assert counts["tiles_left_out"] > 0 and counts["tiles"] + counts["tiles_left_out"] == 17
    assert counts["rows"] == len(rows) == counts["tiles"] + 1
    assert f"{counts['tiles_left_out']} more have no labelled pixel and are left out" in (
        importers.format_report(report)
    )
    assert before.splits["train"]["rows"] == 3


@pytest.mark.parametrize("width_px", [1.0, 7.0])
def test_strokes_follow_their_tile(tmp_path: Path, width_px: float) -> None:
    root = scene(tmp_path / "raw", flat=True)
    options: dict[str, Any] = {"label_path": str(root / "clicks.csv"), "stroke_px": width_px}
    whole, _ = imported(root, **options)
    cut, _ = imported(root, tile_px=TILE, tile_overlap_px=10, **options)
    originals = wholes(whole, "train")
    reaching_in = 0
    for row in cut.splits["train"]:
        name, area = place(row)
        label_HW = decoded(row)["label"]
        np.testing.assert_array_equal(label_HW, decoded(originals[name])["label"][area])
        assert row["present"] == originals[name]["present"]
        wanted = []
        for stroke in originals[name]["strokes"]:
            size = originals[name]["height"], originals[name]["width"]
            alone_HW, _ = draw([restored(stroke)], size, Counter())
            if (alone_HW[area] < UNLABELLED).any():
                top, left = area[0].start, area[1].start
                y, x = [y - top for y in stroke["y"]], [x - left for x in stroke["x"]]
                wanted.append({**stroke, "y": y, "x": x})
                reaching_in += not (0 <= y[0] < row["height"] and 0 <= x[0] < row["width"])
        assert row["strokes"] == wanted and wanted
    assert (reaching_in > 0) == (width_px > 1)


def test_lines_and_polygons_drawn_on_a_tile_are_the_crop_of_the_whole(tmp_path: Path) -> None:
    shape = SIZES["train"]["site/a"]
    strokes = [
        {"class": 1, "width": 3.0, "y": [5.5, 140.2, 90.0], "x": [3.0, 200.7, 20.1]},
        {"class": 2, "width": 0.0, "y": [20.0, 120.0, 60.0], "x": [100.0, 150.0, 225.0]},
    ]
    label_HW, drawn = draw([restored(stroke) for stroke in strokes], shape, Counter())
    assert len(drawn) == 2
    row = {"id": "a", "label": label_HW, "mask": None, "height": shape[0], "width": shape[1]}
    config = ImportConfig(tile_px=TILE)
    image_HW3 = np.zeros((*shape, 3), np.uint8)
    found = list(tiles.cut({**row, "strokes": strokes}, image_HW3, config, Counter(), is_train=True))
    assert {len(tile["strokes"]) for tile in found} == {1, 2} and 5 < len(found) <= 12
    for tile in found:
        again_HW, _ = draw(map(restored, tile["strokes"]), (TILE, TILE), Counter())
        inner = (slice(1, -1), slice(1, -1))  # a pen outside does not reach in, the whole image's did
        np.testing.assert_array_equal(again_HW[inner], tile["label"][inner])


def test_clicks_are_drawn_in_every_tile_as_sparsify_does(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    drawn, report = imported(root, label="clicks", clicks_per_class=2, label_seed=5, tile_px=TILE)
    full, _ = imported(root, label="full", tile_px=TILE)
    recipe = sparsify.Recipe(kind="clicks", budget=2, seed=5)
    derived = importers.sparsify_dataset(full.path, tmp_path / "derived", recipe)
    again = wholes(shards.open(tmp_path / "derived"), "train")
    assert again.keys() == wholes(drawn, "train").keys()
    for name, row in wholes(drawn, "train").items():
        arrays = decoded(row)
        np.testing.assert_array_equal(arrays["label"], decoded(again[name])["label"])
        counts = {k: int((arrays["label"] == k).sum()) for k in np.unique(arrays["mask"]) if k < UNLABELLED}
        assert set(counts.values()) == {2}
        assert row["present"] == sorted(counts)  # the tile's own
    assert report.encoding.endswith("; each tile of 64 px is an image of its own")
    assert report.splits["train"]["tiles"] == 14 and derived.tiles == report.tiles
    dense = [row["present"] for row in full.splits["train"]]
    assert dense == [row["present"] for row in drawn.splits["train"]]


def boxes_of(root: Path) -> Path:
    """COCO's file of the boxes of all objects in the training masks; each of tiny's objects fills its own."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, file in enumerate(sorted((root / "masks" / "train").rglob("*.png"))):
        mask_HW = np.asarray(Image.open(file))
        size = {"height": mask_HW.shape[0], "width": mask_HW.shape[1]}
        images.append({"id": number, "file_name": f"{file.stem}.png", **size})
        for k in (1, 2):
            y, x = np.nonzero(mask_HW == k)
            bbox = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            entry = {"id": len(annotations), "image_id": number, "category_id": k, "bbox": bbox}
            annotations.append(entry)
    categories = [{"id": k, "name": name} for k, name in enumerate(tiny.NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return root / "boxes.json"


@pytest.mark.parametrize("overlap", [0, 20])
def test_a_tile_has_the_classes_of_its_own_boxes(tmp_path: Path, overlap: int) -> None:
    """As when boxes are drawn from the tiles' masks, also of a tile that lies inside of a box."""
    root = scene(tmp_path / "raw", flat=True)
    image, _, mask_HW = tiny.picture(0, (330, 330))
    (root / "images" / "train" / "b.png").write_bytes(image)
    Image.fromarray(mask_HW).save(root / "masks" / "train" / "b.png")
    tiling = {"tile_px": TILE, "tile_overlap_px": overlap}
    cut, report = imported(root, label="box", label_path=str(boxes_of(root)), **tiling)
    full, _ = imported(root, label="full", **tiling)
    recipe = sparsify.Recipe(kind="box", budget=0)
    importers.sparsify_dataset(full.path, tmp_path / "derived", recipe)
    found, wanted = wholes(cut, "train"), wholes(shards.open(tmp_path / "derived"), "train")
    assert found.keys() == wanted.keys()
    for name, row in found.items():
        assert row["present"] == wanted[name]["present"], name
        assert {s["class"] for s in row["strokes"]} == {s["class"] for s in wanted[name]["strokes"]}
        mine_HW, drawn_HW = decoded(row)["label"], decoded(wanted[name])["label"]
        np.testing.assert_array_equal(mine_HW[drawn_HW != IGNORED], drawn_HW[drawn_HW != IGNORED])
    assert any((decoded(row)["label"] >= UNLABELLED).all() for row in found.values())
    assert {len(row["present"]) for row in found.values()} == {1, 2, 3}
    counts = report.splits["train"]
    assert counts["images"] == [sum(k in row["present"] for row in found.values()) for k in range(3)]
    assert counts["rows_without_label"] == 0 and "tiles_left_out" not in counts


def test_an_import_without_any_labelled_tile_is_refused(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    for name in ("site/small", "b"):
        for kind in ("images", "labels", "masks"):
            (root / kind / "train" / f"{name}.png").unlink()
    label = np.full(SIZES["train"]["site/a"], UNLABELLED, np.uint8)
    Image.fromarray(label).save(root / "labels" / "train" / "site" / "a.png")
    with pytest.raises(ValueError, match="none of the 12 tiles of split 'train' has a labelled pixel"):
        imported(root, tile_px=TILE)


# ------------------------------------------------------------------------------------------- what is refused


def test_the_largest_tile_can_be_read_again() -> None:
    """One of validation, with the rest of its image that made no tile of its own."""
    config = ImportConfig(tile_px=MOST_TILE_PX)
    most = max(
        stop - start
        for length in range(MOST_TILE_PX, 3 * MOST_TILE_PX, 7)
        for start, stop in tiles.spans(length, config, is_train=False)
    )
    assert 1.4 * MOST_TILE_PX < most and most**2 <= shards.MAX_PIXELS


@pytest.mark.parametrize(
    ("tile_px", "overlap", "message"),
    [
        (63, 0, r"tile_px must be 0 \(off\) or 64\.\.4096 pixels, got 63"),
        (4097, 0, r"64\.\.4096 pixels, got 4097"),
        (-64, 0, "tile_px must be 0"),
        (100, 100, r"tile_overlap_px must be in 0\.\.50 \(half of data\.tile_px=100\), got 100"),
        (100, 51, r"in 0\.\.50"),
        (100, -1, r"in 0\.\.50"),
        (0, 8, "tile_overlap_px=8 has no meaning without data.tile_px"),
    ],
)
def test_tiles_that_cannot_be(tmp_path: Path, tile_px: int, overlap: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        DataConfig(tile_px=tile_px, tile_overlap_px=overlap)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        imported(scene(tmp_path / "raw"), tile_px=tile_px, tile_overlap_px=overlap)


def test_tags_of_a_scene_say_nothing_of_its_tiles() -> None:
    with pytest.raises(ValueError, match=r"data\.label=tag .* data\.tile_px is 100; leave that out"):
        DataConfig(tile_px=100, label="tag")


def test_an_image_that_is_named_as_a_tile_is_refused(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    for kind in ("images", "labels", "masks"):
        (root / kind / "train" / "b.png").rename(root / kind / "train" / "site" / "a_y00064_x00000.png")
    imported(root)
    with pytest.raises(ValueError, match="image site/a_y00064_x00000 is named as a tile of image site/a "):
        imported(root, tile_px=TILE)


def test_large_images_are_taken_for_tiles_and_bombs_are_not(tmp_path: Path) -> None:
    large, bomb = png_header(10_000, 10_000), png_header(17_000, 17_000)
    (tmp_path / "large.png").write_bytes(large)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="truncated"):
            shards.decode_image(large, shards.MAX_SCENE_PIXELS)
        with pytest.raises(ValueError, match=r"at most 268435456 \(16384x16384\) are decoded"):
            shards.decode_image(bomb, shards.MAX_SCENE_PIXELS)
        with pytest.raises(ValueError, match="truncated"):
            read_image(tmp_path / "large.png")
    assert Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < 10_000**2


def test_tiffs_are_imported_and_those_of_other_bands_refused(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    wanted, _ = imported(root, tile_px=TILE)
    png = root / "images" / "train" / "site" / "a.png"
    rgb = Image.open(png).convert("RGB")
    rgb.save(png.with_suffix(".tif"), compression="tiff_lzw")
    png.unlink()
    found, _ = imported(root, tile_px=TILE)
    for name, row in wholes(wanted, "train").items():
        np.testing.assert_array_equal(decoded(wholes(found, "train")[name])["image"], decoded(row)["image"])
    rgb.convert("RGBX").save(png.with_suffix(".tif"))  # near infrared, not alpha
    with pytest.raises(ValueError, match=r"a\.tif: image is a TIFF of 4 bands of 8 bits.*gdal_translate"):
        imported(root, tile_px=TILE)


@pytest.mark.parametrize("ready", [False, True])
def test_labels_of_scenes_are_not_dropped_tile_by_tile(tmp_path: Path, ready: bool) -> None:
    """What is dropped from one tile is annotated in others of its scene; drawn clicks are each tile's."""
    root = scene(tmp_path / "raw")
    config = DataConfig(root=str(root), tile_px=TILE, keep_labels=0.5)
    drawn = dataclasses.replace(config, label="clicks", clicks_per_class=2)
    full = dataclasses.replace(config, label="full")
    if ready:
        path = imported(root, tile_px=TILE)[0].path
        config = dataclasses.replace(config, root=str(path), tile_px=0)
        path = imported(root, tile_px=TILE, label="clicks", clicks_per_class=2)[0].path
        drawn = DataConfig(root=str(path), label="clicks", keep_labels=0.5)
        path = imported(root, tile_px=TILE, label="full")[0].path
        full = DataConfig(root=str(path), label="full", keep_labels=0.5)
    with pytest.raises(ValueError, match=r"data\.keep_labels=0\.5 .* every tile.*--data\.keep-labels 1"):
        importers.prepare(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    importers.prepare(dataclasses.replace(config, keep_labels=1.0), tmp_path / "runs")
    for taken in (drawn, full):
        importers.prepare(taken, tmp_path / "runs")


def test_tiles_left_out_are_missed_by_other_labels(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    few, _ = imported(root, tile_px=TILE)
    full, _ = imported(root, tile_px=TILE, label="full")
    recipe = sparsify.Recipe(kind="clicks", budget=2)
    message = (
        r"training tiles without a label of kind point were left out.*"
        r"import the data again with `sparseg import --label"
    )
    for options in ({"label": "full"}, {"label": "clicks", "clicks_per_class": 2}):
        with pytest.raises(ValueError, match=message):
            importers.prepare(DataConfig(root=str(few.path), **options), tmp_path / "runs")
        importers.prepare(DataConfig(root=str(full.path), **options), tmp_path / "runs")
    with pytest.raises(ValueError, match=message):
        importers.sparsify_dataset(few.path, tmp_path / "derived", recipe)
    for number, opened in enumerate((few, full)):
        report = build.derive(opened, recipe, tmp_path / f"derived{number}", train_split="train", name="name")
        for split, counts in opened.report["splits"].items():
            wanted = {name: counts[name] for name in tiles.COUNTS if name in counts}
            assert wanted and wanted.items() <= report.splits[split].items()


# -------------------------------------------------------------------------------------------------- the cache


def test_the_name_of_an_import_follows_its_tiles_and_stays_without_them(tmp_path: Path) -> None:
    root = scene(tmp_path / "raw")
    names = set()
    for tile_px, overlap in ((0, 0), (64, 0), (64, 8), (80, 0)):
        config = ImportConfig(label="full", tile_px=tile_px, tile_overlap_px=overlap)
        names.add(fingerprint(layouts.read_layout("folder", root, config), config))
    assert len(names) == 4
    config = ImportConfig(label="full")
    source = layouts.read_layout("folder", root, config)
    before = (
        "label",
        "label_path",
        "label_format",
        "stroke_px",
        "unlabelled_code",
        "random_pixels",
    )
    before += ("clicks_per_class", "label_seed", "skip_bad", "store")
    asked = {"layout": "folder"} | {name: getattr(config, name) for name in before} | {"recipe": None}
    files = [f for items in source.splits.values() for i in items for f in (i.image, i.mask, i.label)]
    facts = [[str(f), f and f.stat().st_size, f and f.stat().st_mtime_ns] for f in files]
    ids = {split: [item.id for item in items] for split, items in source.splits.items()}
    text = json.dumps([shards.VERSION, asked, str(root.resolve()), source.names, ids, facts])
    assert fingerprint(source, config) == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_a_second_run_finds_the_tiles_and_another_size_imports_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(root=str(scene(tmp_path / "raw")), tile_px=TILE, tile_overlap_px=8)
    first = importers.prepare(data, tmp_path)
    assert importers.prepare(data, tmp_path) == first
    assert capsys.readouterr().out.count("imported") == 1
    assert importers.prepare(dataclasses.replace(data, tile_px=80), tmp_path) != first
    ready = dataclasses.replace(data, root=str(first))
    assert importers.prepare(ready, tmp_path) == first
    assert importers.prepare(dataclasses.replace(ready, tile_px=0, tile_overlap_px=0), tmp_path) == first
    with pytest.raises(ValueError, match=r"imported with tiles of 64 px, 8 px overlap, but data\.tile_px=80"):
        importers.prepare(dataclasses.replace(ready, tile_px=80), tmp_path)


def test_worker_processes_give_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "PART_ITEMS", 1)
    root = scene(tmp_path / "raw")
    here, _ = imported(root, tile_px=TILE, tile_overlap_px=8)
    there, _ = imported(root, tile_px=TILE, tile_overlap_px=8, workers=2)
    files = {file.relative_to(here.path) for file in Path(here.path).rglob("*.arrow")}
    assert len(files) == 2
    for file in files:
        assert (Path(here.path) / file).read_bytes() == (Path(there.path) / file).read_bytes()


# ------------------------------------------------------------------------------------------------- end to end


def test_trained_on_tiles_predicts_the_whole_image(tmp_path: Path) -> None:
    root, data = scene(tmp_path / "raw"), tmp_path / "data"
    arguments = ["import", "folder", str(root), str(data), "--tile-px", "64", "--tile-overlap-px", "16"]
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([*arguments, "--workers", "0"])
    loop.run(tiny.config(tmp_path, {"optim.max_steps": 2}))
    lines = [json.loads(line) for line in (tmp_path / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["total"]) for line in lines if "total" in line)
    out = tmp_path / "masks"
    scene_file = root / "images" / "train" / "site" / "a.png"
    assert predict.predict_folder(tmp_path / "runs" / "tiny", scene_file, out, window_px=TILE).failures == 0
    predicted = shards.decode_label((out / "a.png").read_bytes())
    assert predicted.shape == SIZES["train"]["site/a"] and predicted.max() < len(tiny.NAMES)
