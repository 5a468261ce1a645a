"""All genuine clicks of VOC 2012 against the official lists: import them, and compare what was counted.

    PYTHONPATH=platform python tests/benchmarks/import_voc.py ../shared/data WORK_FOLDER

The pictures, which are not at hand, are links to one blank picture of 500x500 pixels (VOC's are smaller),
so fewer clicks lie outside than with the real ones.  Takes minutes.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 500
LISTS = Path("voc_subset", "ImageSets", "SegmentationAug_full")
CLICKS = Path("annotations", "whats_the_point")


def make_tree(root: Path, shared_data: Path) -> Path:
    """VOC's folders with all 12,031 listed images as hard links, the official lists, the genuine clicks."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/SegmentationAug", "points"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (SIDE_PX, SIDE_PX), (120, 130, 140)).save(root / "blank.jpg")
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX), np.uint8)).save(root / "blank.png")
    for split in ("train_aug", "val"):
        text = (shared_data / LISTS / f"{split}.txt").read_text()
        (root / "ImageSets" / "SegmentationAug" / f"{split}.txt").write_text(text)
        for name in text.split():
            os.link(root / "blank.jpg", root / "JPEGImages" / f"{name}.jpg")
            if split == "val":
                os.link(root / "blank.png", root / "SegmentationClass" / f"{name}.png")
    for file in (shared_data / CLICKS).glob("*.json"):
        (root / "points" / file.name).symlink_to(file.resolve())
    return root


def genuine_clicks(shared_data: Path) -> dict[str, list[dict[str, float]]]:
    """Image id -> clicks of both files."""
    clicks: dict[str, list[dict[str, float]]] = {}
    for file in (shared_data / CLICKS).glob("*.json"):
        for name, found in json.loads(file.read_text()).items():
            clicks.setdefault(name, []).extend(found)
    return clicks


def count_outside(clicks: list[dict[str, float]]) -> int:
    """Clicks outside a picture of SIDE_PX."""
    return sum(not (0 <= c["x"] < SIDE_PX and 0 <= c["y"] < SIDE_PX) for c in clicks)


def main(shared_data: Path, work: Path) -> None:
    """Import everything, print the report and the comparison.  Fails with AssertionError if they differ."""
    from sparseg.data import importers, shards

    shutil.rmtree(work / "voc", ignore_errors=True)
    root = make_tree(work / "voc", shared_data)
    start_s = time.perf_counter()
    report = importers.import_dataset("voc", root, work / "imported")
    seconds = time.perf_counter() - start_s
    dataset, clicks = shards.open(work / "imported"), genuine_clicks(shared_data)
    ids = {split: set(data["id"][:]) for split, data in dataset.splits.items()}
    counts = report.splits["train"]
    assert {split: len(found) for split, found in ids.items()} == {"train": 10582, "val": 1449}
    assert not ids["train"] & ids["val"] and ids["train"] | ids["val"] <= set(clicks)
    assert counts["points_outside"] == sum(count_outside(clicks[name]) for name in ids["train"])
    assert counts["points"] + counts["points_outside"] == sum(len(clicks[name]) for name in ids["train"])
    print(importers.format_report(report))
    in_no_list = len(set(clicks) - ids["train"] - ids["val"])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts = [f"{len(ids['train']):,} in train", f"{len(ids['val']):,} in val (clicks not used)"]
    parts += [f"{in_no_list} in no list; {seconds:.0f} s, peak {peak_mb:.0f} MB"]
    print(f"\n{len(clicks):,} ids with clicks: {', '.join(parts)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
