"""What a run may ask of a dataset that was imported before, and what was settled by its import."""

from __future__ import annotations

from typing import Any

from sparseg.config import PIXELLESS, DataConfig
from sparseg.data import shards
from sparseg.data.importers.source import READ_KINDS, Settings

RECIPES_LABELS = ("point", "clicks")
"""What recipes say where they mean the sparse labels that a dataset has: not refused, but noted."""


def refuse_settled(given: shards.Description, data: DataConfig) -> None:
    """Raise ValueError for fields that count at import only, and here say something else."""
    asked = {"tile_px": data.tile_px, "tile_overlap_px": data.tile_overlap_px}
    found = given.report.get("tiles")
    if data.tile_px and asked != found:
        how = "tiles of {tile_px} px, {tile_overlap_px} px overlap".format(**found) if found else "no tiles"
        raise ValueError(
            f"{given.source}: was imported with {how}, but data.tile_px={data.tile_px}, data.tile_overlap_px="
            f"{data.tile_overlap_px}; tiles are cut at import: leave these out, or import the raw data again"
        )
    left_as_is = {"label_path": None, "unlabelled_code": None, "label_format": "auto"}
    for name, value in left_as_is.items():
        if getattr(data, name) != value:
            flag = f"--data.{name.replace('_', '-')}"
            raise ValueError(
                f"{given.source}: is an imported dataset, but data.{name}={getattr(data, name)!r}; "
                f"annotation is read at import: leave {flag} out, or import the raw data again"
            )


def to_derive(given: shards.Description, settings: Settings, data: DataConfig) -> bool:
    """Whether the run wants other labels than the dataset has; prints a note where it gets these in any case.

    Raises ValueError if it cannot have what it wants.
    """
    made = given.report.get("label")
    if settings.label == "full" and given.report.get("label", "full") != "full":
        train = shards.open(given.source, cache=data.cache).splits[data.train_split]
        if "mask" not in train.features or train.data.column("mask").null_count:
            raise ValueError(
                f"{given.source}: imported with label {made} and without dense masks, so "
                "data.label=full is not to be had; import the data again with dense masks"
            )
    if settings.drawn or settings.label == "full":
        refuse_lost_tiles(given, data.train_split, f"data.label={settings.label}")
    elif made not in (None, settings.label):
        if settings.label not in RECIPES_LABELS or made in ("full", *PIXELLESS):
            draw = (
                ", draw clicks with --data.label clicks --data.clicks-per-class N" if made == "full" else ""
            )
            raise ValueError(
                f"{given.source}: imported with label {made}, but data.label={settings.label}; set --data."
                f"label {made}{draw}, or import the data again with --label {settings.label}"
            )
        print(f"note: the dataset's labels are of kind {made}, and trained on; data.label={settings.label}")
    return settings.drawn  # for `full` the loader reads the masks


def refuse_few_of_tiles(report: dict[str, Any], data: DataConfig) -> None:
    """Raise ValueError if labels of whole images, since cut into tiles, are to be dropped tile by tile.

    report: of the dataset, or what is known of it before it is imported.
    """
    drawn = data.random_pixels or data.clicks_per_class or _was_drawn(report)
    if data.keep_labels == 1 or not report.get("tiles") or drawn or data.label == "full":
        return
    if report.get("label") == "full":
        return
    raise ValueError(
        f"data.keep_labels={data.keep_labels} keeps at least one click of every tile, and a class that is "
        "dropped from a tile would be taught to be absent, though it is annotated in the image; set "
        "--data.keep-labels 1, or thin the annotation before it is imported"
    )


def refuse_lost_tiles(given: shards.Description, train_split: str, wanted: str) -> None:
    """Raise ValueError if other labels are wanted, and tiles without the dataset's own were left out."""
    report = given.report
    lost = report.get("splits", {}).get(train_split, {}).get("tiles_left_out", 0)
    if lost and report.get("label") in READ_KINDS and not _was_drawn(report):
        raise ValueError(
            f"{given.source}: {lost} training tiles without a label of kind {report['label']} were left out "
            f"at import, and would be missing from {wanted}; import the data again with --label full, from "
            "which `sparseg sparsify` draws labels"
        )


def _was_drawn(report: dict[str, Any]) -> bool:
    """Whether the dataset's labels were drawn from dense masks, in every tile."""
    settings = report.get("settings", {})
    return "drawn" in report or bool(settings.get("random_pixels") or settings.get("clicks_per_class"))
