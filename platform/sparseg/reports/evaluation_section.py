"""What an examination found, as HTML: scores, confusion, calibration, the worst and the best images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sparseg.config import UNLABELLED
from sparseg.data import drawing, shards
from sparseg.data.drawing import Array
from sparseg.inference import predict
from sparseg.reports.html import Points, bar_list, heat_table, line_chart, picture
from sparseg.runs import checkpoint as checkpoints
from sparseg.runs.log import on_sparse_labels

CELL_PX = 300
Draw = Callable[[Array, Array, Array, Sequence[drawing.Colour]], dict[str, Array]]
SCORES = (
    ("mIoU", "miou"),
    ("pixel accuracy", "pixel_accuracy"),
    ("mean accuracy", "mean_accuracy"),
    ("frequency-weighted IoU", "frequency_weighted_iou"),
    ("boundary IoU", "boundary_iou"),
    ("calibration error", "calibration_error"),
)


def html_of(
    found: Mapping[str, Any], sheets: Mapping[str, bytes], taught: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The section of a run's page: ``found`` of `evaluate.evaluate`, ``sheets`` of `sheets_of`, ``taught`` of
    `evaluate.training_labels`."""
    tiles = "".join(
        f'<div class="tile"><b>{"-" if found[key] is None else f"{100 * found[key]:.1f}"}</b>'
        f"<span>{name}, %</span></div>"
        for name, key in SCORES
    )
    names = list(found["iou"])
    bars = [
        (
            f"{name} ({taught[name]})" if name in taught else name,
            [(0, found["iou"][name]), (1, found["boundary_iou_per_class"][name])],
        )
        for name in names
    ]
    caption = "IoU (first) and boundary IoU of each class, %" + "; its labels in training" * bool(taught)
    curve = ""
    if found["calibration"] is not None:
        right: Points = [
            (100 * sure, 100 * share) for _, share, sure in found["calibration"] if share is not None
        ]
        ideal: Points = [(0.0, 0.0), (100.0, 100.0)]
        series = [("bins", 0, right), ("ideal", 7, ideal)]
        curve = line_chart("Share right over confidence, %", series, "confidence")
    where = on_sparse_labels(found)
    return (
        f"<h3>{escape(found['split'])}: {len(found['images'])} whole images{where}</h3>"
        f'<div class="tiles">{tiles}</div><div class="charts">'
        f"{bar_list(caption, bars)}{curve}</div>"
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
    scored = [image for image in found["images"] if image["miou"] is not None]
    ranked = sorted(scored, key=lambda image: image["miou"])
    split, chosen = data.splits[found["split"]], dict[str, tuple[list[Any], Draw]]()
    draw = _sparse_row if found["labels"] == "sparse" else _dense_row  # nobody sees a tint of single pixels
    for caption, images in (("worst", ranked[:count]), ("best", ranked[::-1][:count])):
        scores = ", ".join(f"{image['id']} {100 * image['miou']:.1f}" for image in images)
        records = [split[image["row"]] for image in images]
        chosen[f"The {caption} of {found['split']}, mIoU in %: {scores}"] = records, draw
    if train_split in data.splits:
        some = data.splits[train_split]
        records = [some[row] for row in spread_over(len(some), count)]
        chosen[f"Images of {train_split} with what was annotated"] = records, _sparse_row
    legend, sheets = dict(zip(loaded.names, loaded.palette, strict=True)), {}
    for caption, (records, draw_row) in chosen.items():
        rows = [_row(loaded, record, found["views"], draw_row) for record in records]
        if rows:
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            sheets[caption] = drawing.sheet(columns, cell_px=CELL_PX, legend=legend)
    return sheets


def spread_over(length: int, count: int) -> Sequence[int]:
    """At most `count` rows, evenly over 0..length-1."""
    count = min(count, length)
    return [length * number // count for number in range(count)]


def _row(
    loaded: checkpoints.Loaded, record: Mapping[str, Any], views: Mapping[str, Any], draw: Draw
) -> dict[str, Array]:
    image_HW3 = shards.decode_image(record["image"]["bytes"])
    device = str(next(loaded.model.parameters()).device)
    long_side_px = loaded.config.data.long_side_px
    p_KHW = predict.predict_image(loaded.model, image_HW3, device, long_side_px=long_side_px, **views)
    label_HW = shards.decode_label(record["label"]["bytes"])
    return draw(image_HW3, label_HW, p_KHW.argmax(0).astype(np.uint8), loaded.palette)


def _dense_row(
    image_HW3: Array, truth_HW: Array, predicted_HW: Array, palette: Sequence[drawing.Colour]
) -> dict[str, Array]:
    wrong_HW = np.where((predicted_HW != truth_HW) & (truth_HW < len(palette)), 0, UNLABELLED)
    return {
        "image": image_HW3,
        "truth": drawing.overlay(image_HW3, truth_HW, palette),
        "prediction": drawing.overlay(image_HW3, predicted_HW, palette),
        "wrong": drawing.overlay(image_HW3, wrong_HW.astype(np.uint8), [(230, 0, 60)], 0.8),
    }


def _sparse_row(
    image_HW3: Array, label_HW: Array, predicted_HW: Array, palette: Sequence[drawing.Colour]
) -> dict[str, Array]:
    return {
        "image, annotated": drawing.draw_clicks(image_HW3, label_HW, palette, zoom=2),
        "prediction": drawing.overlay(image_HW3, predicted_HW, palette),
    }
