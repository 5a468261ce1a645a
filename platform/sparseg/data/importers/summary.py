"""An import's report for people, and the same for datasets that were not made by an import."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from sparseg.config import PIXELLESS, UNLABELLED
from sparseg.data import shards
from sparseg.data.importers.files import some
from sparseg.data.importers.report import ImportReport
from sparseg.data.importers.rows import Summary
from sparseg.data.importers.source import READ_KINDS
from sparseg.data.shards import Description, ShardedDataset

REFUSED_SHOWN = 20
SAMPLED_ROWS = 500  # labels decoded for the distribution per image, where the counts are known already
QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "max": 1.0}
MANY_OUTSIDE = 0.05  # share of the clicks
MADE_ON_STORED = "; labels that were made on the stored pixels want `sparseg import --orientation stored`"
DENSE_LOOKS = 0.5  # share of labelled pixels above which a sparse kind of label is doubted


def _share(part: int, whole: int) -> str:
    """Write a share as percent with three significant digits: 20 pixels of an image are 0.0116 %."""
    text = f"{100 * part / max(1, whole):.3g}"
    return ">99.9 %" if text == "100" and part < whole else f"{text} %"


def describe(dataset: Description) -> str:
    """Describe a dataset in one line: path, label kind, rows and labelled share of every split, refused
    rows."""
    report = ImportReport.from_dict(dataset.report, layout="shards")
    texts = []
    for split, num_rows in dataset.rows.items():
        text = f"{split} {num_rows} rows"
        if counts := report.splits.get(split):
            whole = sum(counts[name] for name in ("labelled", "unlabelled", "ignored"))
            text += f", {_share(counts['labelled'], whole)} labelled"
        texts.append(text)
    if report.refused:
        texts.append(f"{len(report.refused)} rows refused, the first: {report.refused[0]['reason']}")
    kind = f"{report.layout}, label {report.label}: " if report.label is not None else ""
    return f"{dataset.source} ({kind}{'; '.join(texts)})"


# ------------------------------------------------------------------------------------------ from the labels


def inspected(dataset: ShardedDataset) -> ImportReport:
    """Make the dataset's report, with "per_image" (labelled pixels and classes of an image) for every split.

    Counts that the dataset does not bring along are made by reading all its labels.  Raises ValueError naming
    split and row for a label that cannot be decoded.
    """
    brought = ImportReport.from_dict(
        dataset.report,
        layout="dataset",
        root=str(dataset.path),
        classes=dataset.names,
        encoding="254 = unlabelled, 255 = ignored",
    )
    splits, notes = dict(brought.splits), list(brought.notes)
    for split, data in dataset.splits.items():
        known = splits.get(split, {}).get("rows") == len(data)
        step = max(1, -(-len(data) // SAMPLED_ROWS)) if known else 1
        total, labelled, classes = _read_labels(dataset, split, range(0, len(data), step))
        if not known:
            splits[split] = total.as_dict()
            notes += _foreign_values(split, total)
        per_image = {
            "images": len(labelled),
            "labelled pixels": np.quantile(labelled, list(QUANTILES.values())).tolist() if labelled else [],
            "classes": np.quantile(classes, list(QUANTILES.values())).tolist() if classes else [],
        }
        splits[split] = {**splits[split], "per_image": per_image}
    return dataclasses.replace(brought, splits=splits, notes=tuple(notes))


def _read_labels(dataset: ShardedDataset, split: str, rows: range) -> tuple[Summary, list[int], list[int]]:
    """Count those rows' labels -> (all counts; labelled pixels of each; classes, with a pixel or without, of
    each)."""
    K = len(dataset.names)
    total, labelled, classes = Summary(K), [], []
    data = dataset.splits[split].select_columns(["id", "label", "present"])
    for number, index in enumerate(rows, 1):
        row = data[index]
        try:
            label_HW = shards.decode_label(row["label"]["bytes"])
        except (ValueError, OSError, TypeError) as error:
            raise ValueError(
                f"{dataset.path}, split {split!r}, row {row['id']}: label cannot be read ({error})"
            ) from error
        total.add(label_HW, row["present"])
        count_K = np.bincount(label_HW.ravel(), minlength=256)[:K]
        labelled.append(int(count_K.sum()))
        classes.append(len({*np.flatnonzero(count_K).tolist(), *row["present"]}))
        if sys.stderr.isatty() and number % 500 == 0:
            print(f"\rreading labels: {split} {number}/{len(rows)}", end="\r", file=sys.stderr, flush=True)
    return total, labelled, classes


def _foreign_values(split: str, total: Summary) -> list[str]:
    values = np.flatnonzero(total.count_256[total.num_classes : UNLABELLED]) + total.num_classes
    count = int(total.count_256[values].sum())
    what = f"{split}: values {some(values, 8)} ({count} pixels) are neither a class nor 254 or 255"
    return [f"{what}; import the data again"] if len(values) else []


# ------------------------------------------------------------------------------------------------- as text


def _drawn(counts: dict[str, Any]) -> list[str]:
    """Say what became of the points, strokes, tags and boxes of a split."""
    texts = [f"{counts['tags']} tags"] if "tags" in counts else []
    if "boxes" in counts or "boxes_outside" in counts:
        texts.append(
            f"{counts.get('boxes', 0)} boxes, {counts.get('boxes_clipped', 0)} of them clipped to their "
            f"image, {counts.get('boxes_outside', 0)} without a pixel in their image dropped"
        )
    if "points" in counts or "points_outside" in counts:
        texts.append(
            f"{counts.get('points', 0)} clicks drawn, {counts.get('points_outside', 0)} outside their image "
            f"dropped, {counts.get('points_overdrawn', 0)} on a pixel of another class's click"
        )
    if "strokes" in counts or "strokes_outside" in counts:
        texts.append(
            f"{counts.get('strokes', 0)} lines, polygons and masks drawn, {counts.get('strokes_outside', 0)} "
            f"without a pixel in their image dropped, {counts.get('vertices_outside', 0)} vertices outside, "
            f"{counts.get('strokes_overdrawn', 0)} pixels of another class drawn over"
        )
    return texts


def _cut(counts: dict[str, Any], unit: str) -> list[str]:
    """Say what became of images that are larger than a tile."""
    if "images_cut" not in counts:
        return []
    left_out, kept = counts.get("tiles_left_out", 0), counts.get("tiles", 0)
    without = f"; {left_out:,} more have no {unit} and are left out" if left_out else ""
    return [f"{counts['images_cut']:,} images are cut into {kept:,} tiles (rows){without}"]


def _outside(counts: dict[str, Any]) -> list[str]:
    """Raise the alarm if more clicks lie outside of their images than annotators set there."""
    outside = counts.get("points_outside", 0)
    whole = outside + counts.get("points", 0)
    if outside <= MANY_OUTSIDE * whole:
        return []
    return [
        f"ALARM: {_share(outside, whole)} of the clicks lie outside of their images; are rows and columns "
        "swapped, counted from 1, or made on images of another size?"
    ]


def _white(report: ImportReport, split: str, counts: dict[str, Any]) -> list[str]:
    """Say which classes occur in no dense mask of a split although void does: one may be written as void."""
    if split == "train" and report.label != "full":
        return []
    never = [name for name, pixels in zip(report.classes, counts["pixels"], strict=True) if not pixels]
    if not never or not counts["ignored"]:
        return []
    return [
        f"no pixel of {some(never, 12)}, but {counts['ignored']:,} void ones; is a class written as void?"
    ]


def _traits(counts: dict[str, Any]) -> list[str]:
    """Say what is legal with images and label maps of a split, and yet may surprise."""
    texts = [
        f"{counts[f'images_{trait}']:,} images {what}" + (MADE_ON_STORED if trait == "turned" else "")
        for trait, what in shards.TRAITS.items()
        if counts.get(f"images_{trait}")
    ]
    if counts.get("labels_turned"):
        texts.append(
            f"{counts['labels_turned']:,} label maps have the size of the stored pixels and are turned with "
            "their images"
        )
    if counts.get("stored_sizes"):
        texts.append(
            f"the annotation of {counts['stored_sizes']:,} turned images states the stored size; its "
            f"positions are taken for those of the upright picture, as Label Studio exports them"
        )
    return texts


def format_report(report: ImportReport) -> str:
    """Write an import's report as text: a line a split, the class histogram, the encoding, notes, refused
    rows."""
    kind = f", label {report.label}" if report.label is not None else ""
    lines = [f"{report.layout} at {report.root}{kind}", f"encoding: {report.encoding}", ""]
    lines += [*_split_table(report), *_per_image_table(report), "", *_class_table(report), ""]
    lines += [f"note: {note}" for note in notes_of(report)]
    refused = report.refused
    lines.append(f"refused rows: {len(refused)}")
    lines += [f"  {row['split']}: {row['reason']}" for row in refused[:REFUSED_SHOWN]]
    if len(refused) > REFUSED_SHOWN:
        lines.append(f"  and {len(refused) - REFUSED_SHOWN} more, listed in the dataset's sparseg.json")
    return "\n".join(lines)


def notes_of(report: ImportReport) -> list[str]:
    """List what somebody should know before training: what the counts say, then what the import noted."""
    return [*_remarks(report), *report.notes]


def _split_table(report: ImportReport) -> list[str]:
    width = max(8, *(len(split) + 2 for split in report.splits))
    head = f"{'split':<{width}}{'rows':>8}{'labelled':>12}{'unlabelled':>12}{'ignored':>12}"
    lines = [f"{head}   {'height, px':<12}width, px"]
    for split, counts in report.splits.items():
        whole = counts["labelled"] + counts["unlabelled"] + counts["ignored"]
        names = ("labelled", "unlabelled", "ignored")
        shares = "".join(f"{_share(counts[name], whole):>12}" for name in names)
        height, wide = ("..".join(map(str, sorted(set(counts[name])))) for name in ("height", "width"))
        lines.append(f"{split:<{width}}{counts['rows']:>8,}{shares}   {height:<12}{wide}")
    return lines


def _per_image_table(report: ImportReport) -> list[str]:
    lines = []
    for split, counts in report.splits.items():
        known = counts.get("per_image", {})
        for what in ("labelled pixels", "classes"):
            if known.get(what):
                cells = "".join(f"{value:>12,.0f}" for value in known[what])
                sampled = known["images"] < counts["rows"]
                note = f"   ({known['images']} images, evenly spread)" if sampled else ""
                lines.append(f"{f'{split}, {what}':<28}{cells}{note}")
    head = f"{'in one image':<28}" + "".join(f"{name:>12}" for name in QUANTILES)
    return ["", head, *lines] if lines else []


def _class_table(report: ImportReport) -> list[str]:
    splits = report.splits
    width = max(16, *(len(f"{k} {name}") + 1 for k, name in enumerate(report.classes)))
    lines = [
        f"{'class':<{width}}" + "".join(f"{f'{s}: pixels':>18}{'share':>9}{'images':>8}" for s in splits)
    ]
    for k, name in enumerate(report.classes):
        cells = ""
        for counts in splits.values():
            share = 100 * counts["pixels"][k] / max(1, counts["labelled"])
            cells += f"{counts['pixels'][k]:>18,}{share:>7.2f} %{counts['images'][k]:>8,}"
        lines.append(f"{f'{k} {name}':<{width}}{cells}")
    return lines


def _remarks(report: ImportReport) -> list[str]:
    """Say what somebody should know before training, read from the counts."""
    remarks = []
    for split, counts in report.splits.items():
        unit = "labelled pixel"
        if split == "train" and report.label in PIXELLESS:
            unit += f" or {report.label}"
        if counts["rows_without_label"]:
            remarks.append(f"{split}: {counts['rows_without_label']:,} rows have no {unit}")
        remarks += [f"{split}: {text}" for text in [*_cut(counts, unit), *_drawn(counts), *_traits(counts)]]
        remarks += [f"{split}: {text}" for text in [*_outside(counts), *_white(report, split, counts)]]
        if resized := counts.get("images_resized"):
            remarks.append(
                f"{split}: {resized:,} images are resized to a long side of {report.long_side_px} pixels"
            )
        never = [name for name, images in zip(report.classes, counts["images"], strict=True) if not images]
        if never and split == "train":
            remarks.append(f"train: no {unit} of {some(never, 12)}; no network can learn them")
    train = report.splits.get("train")
    if train and report.label in READ_KINDS and report.label not in PIXELLESS:
        whole = train["labelled"] + train["unlabelled"] + train["ignored"]
        if train["labelled"] > DENSE_LOOKS * whole:
            remarks.append(
                f"train: {_share(train['labelled'], whole)} of the pixels are labelled, much for "
                f"{report.label} labels; if they are dense masks, import them with "
                "`sparseg import --label full`"
            )
    return remarks
