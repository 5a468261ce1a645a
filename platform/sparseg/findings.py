"""What an examination found, as HTML: scores, confusion, calibration, the worst and the best images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparseg import checkpoint as checkpoints
from sparseg import pictures, predict, shards
from sparseg.charts import Points, bar_list, heat_table, line_chart, picture
from sparseg.config import UNLABELLED
from sparseg.pictures import Array

CELL_PX = 300
SCORES = (
    ("mIoU", "miou"),
    ("pixel accuracy", "pixel_accuracy"),
    ("mean accuracy", "mean_accuracy"),
    ("frequency-weighted IoU", "frequency_weighted_iou"),
    ("boundary IoU", "boundary_iou"),
    ("calibration error", "calibration_error"),
)


def html_of(found: Mapping[str, Any], sheets: Mapping[str, bytes]) -> str:
    """The section of a run's page: ``found`` of `examination.examine`, ``sheets`` of `sheets_of`."""
    tiles = "".join(
        f'<div class="tile"><b>{100 * found[key]:.1f}</b><span>{name}, %</span></div>' for name, key in SCORES
    )
    names = list(found["iou"])
    bars = [(name, [(0, found["iou"][name]), (1, found["boundary_iou_per_class"][name])]) for name in names]
    right: Points = [
        (100 * sure, 100 * share) for _, share, sure in found["calibration"] if share is not None
    ]
    ideal: Points = [(0.0, 0.0), (100.0, 100.0)]
    curve = line_chart(
        "Share right over confidence, %", [("bins", 0, right), ("ideal", 7, ideal)], "confidence"
    )
    return (
        f"<h3>{escape(found['split'])}: {len(found['images'])} whole images</h3>"
        f'<div class="tiles">{tiles}</div><div class="charts">'
        f"{bar_list('IoU (first) and boundary IoU of each class, %', bars)}{curve}</div>"
        f"{heat_table('Confusion: truth in rows, % of its pixels', names, found['confusion'])}"
        + "".join(picture(caption, png) for caption, png in sheets.items())
    )


def sheets_of(
    checkpoint: str | Path, dataset: str | Path, found: Mapping[str, Any], *, count: int, train_split: str
) -> dict[str, bytes]:
    """Caption -> PNG: the worst and the best images of an examination, and training images with their clicks.

    ``count`` images each; views as in the examination.
    """
    loaded, data = checkpoints.load_model(checkpoint), shards.open(dataset)
    ranked = sorted(found["images"], key=lambda image: image["miou"] if image["miou"] is not None else 2.0)
    ranked = [image for image in ranked if image["miou"] is not None]
    legend = dict(zip(loaded.names, loaded.palette, strict=True))
    split, sheets = data.splits[found["split"]], {}
    for caption, images in (("worst", ranked[:count]), ("best", ranked[::-1][:count])):
        rows = [_dense_row(loaded, split[image["row"]], found["views"]) for image in images]
        scores = ", ".join(f"{image['id']} {100 * image['miou']:.1f}" for image in images)
        if rows:
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            sheets[f"The {caption} of {found['split']}, mIoU in %: {scores}"] = pictures.sheet(
                columns, cell_px=CELL_PX, legend=legend
            )
    if train_split in data.splits and count:
        some = data.splits[train_split]
        rows = [_sparse_row(loaded, some[row], found["views"]) for row in spread_over(len(some), count)]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        sheets[f"Images of {train_split} with what was annotated"] = pictures.sheet(
            columns, cell_px=CELL_PX, legend=legend
        )
    return sheets


def spread_over(length: int, count: int) -> Sequence[int]:
    """At most `count` rows, evenly over 0..length-1."""
    count = min(count, length)
    return [length * number // count for number in range(count)]


def _dense_row(
    loaded: checkpoints.Loaded, record: Mapping[str, Any], views: Mapping[str, Any]
) -> dict[str, Array]:
    image_HW3 = shards.decode_image(record["image"]["bytes"])
    truth_HW = shards.decode_label(record["label"]["bytes"])
    predicted_HW = _predicted(loaded, image_HW3, views)
    wrong_HW = np.where((predicted_HW != truth_HW) & (truth_HW < len(loaded.names)), 0, UNLABELLED)
    return {
        "image": image_HW3,
        "truth": pictures.overlay(image_HW3, truth_HW, loaded.palette),
        "prediction": pictures.overlay(image_HW3, predicted_HW, loaded.palette),
        "wrong": pictures.overlay(image_HW3, wrong_HW.astype(np.uint8), [(230, 0, 60)], 0.8),
    }


def _sparse_row(
    loaded: checkpoints.Loaded, record: Mapping[str, Any], views: Mapping[str, Any]
) -> dict[str, Array]:
    image_HW3 = shards.decode_image(record["image"]["bytes"])
    label_HW = shards.decode_label(record["label"]["bytes"])
    predicted_HW = _predicted(loaded, image_HW3, views)
    return {
        "image, annotated": pictures.draw_clicks(image_HW3, label_HW, loaded.palette, zoom=2),
        "prediction": pictures.overlay(image_HW3, predicted_HW, loaded.palette),
    }


def _predicted(loaded: checkpoints.Loaded, image_HW3: Array, views: Mapping[str, Any]) -> Array:
    device = str(next(loaded.model.parameters()).device)
    with torch.inference_mode():
        return predict.predict_image(loaded.model, image_HW3, device, **views).argmax(0).astype(np.uint8)
