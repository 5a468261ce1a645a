"""The checks of what a run may ask of a dataset that was imported before, and what was settled by its
import."""

from __future__ import annotations

from sparseg.config import PIXELLESS, DataConfig, FieldError, field, flag
from sparseg.data import shards
from sparseg.data.importers.report import ImportReport
from sparseg.data.importers.source import READ_KINDS, tiles_of

RECIPES_LABELS = ("point", "clicks")
"""Recipes say so where they mean the sparse labels that a dataset has: not refused, but noted."""


def refuse_settled(given: shards.Description, data: DataConfig) -> None:
    """Raise ValueError for fields that count at import only, and here say something else."""
    made = ImportReport.from_dict(given.report).tiles
    if data.tile_px and tiles_of(data) != made:
        how = "tiles of {tile_px} px, {tile_overlap_px} px overlap".format(**made) if made else "no tiles"
        raise FieldError(
            f"{given.source}: was imported with {how}, but {field('data.tile_px')}={data.tile_px}, "
            f"{field('data.tile_overlap_px')}={data.tile_overlap_px}; tiles are cut at import: leave these "
            "out, or import the raw data again"
        )
    side = ImportReport.from_dict(given.report).long_side_px or 0
    if data.long_side_px not in (0, side):
        how = f"resized to a long side of {side} pixels" if side else "as they are"
        raise FieldError(
            f"{given.source}: its images were imported {how}, but {field('data.long_side_px')}="
            f"{data.long_side_px}; images are resized at import: leave {flag('data.long_side_px')} out, or "
            "import the raw data again"
        )
    read_at_import = {
        "data.label_path": (data.label_path, None),
        "data.unlabelled_code": (data.unlabelled_code, None),
        "data.label_format": (data.label_format, "auto"),
    }
    for name, (value, default) in read_at_import.items():
        if value != default:
            raise FieldError(
                f"{given.source}: is an imported dataset, but {field(name)}={value!r}; annotation is read at "
                f"import: leave {flag(name)} out, or import the raw data again"
            )


def to_derive(given: shards.Description, data: DataConfig) -> bool:
    """Say whether the run wants other labels than the dataset has; prints a note where it gets these in any
    case.

    Raises ValueError if it cannot have what it wants.
    """
    made = ImportReport.from_dict(given.report).label
    if data.label == "full" and made not in (None, "full"):
        train = shards.open(given.source, cache=data.cache).splits[data.train_split]
        if "mask" not in train.features or train.data.column("mask").null_count:
            raise FieldError(
                f"{given.source}: imported with label {made} and without dense masks, so "
                f"{field('data.label')}=full is not to be had; import the data again with dense masks"
            )
    if data.draws_clicks or data.label == "full":
        refuse_lost_tiles(given, data.train_split, f"{field('data.label')}={data.label}")
    elif made not in (None, data.label):
        if data.label not in RECIPES_LABELS or made in ("full", *PIXELLESS):
            draw = f", draw clicks with {flag('data.label')} clicks {flag('data.clicks_per_class')} N"
            raise FieldError(
                f"{given.source}: imported with label {made}, but {field('data.label')}={data.label}; set "
                f"{flag('data.label')} {made}{draw if made == 'full' else ''}, or import the data again with "
                f"`sparseg import --label {data.label}`"
            )
        print(f"note: the dataset's labels are of kind {made}, and trained on; data.label={data.label}")
    return data.draws_clicks  # for `full` the loader reads the masks


def refuse_few_of_tiles(report: ImportReport, data: DataConfig) -> None:
    """Raise ValueError if labels of whole images, since cut into tiles, are to be dropped tile by tile.

    The report is the dataset's, or what is known of it before it is imported.
    """
    drawn = data.draws_clicks or report.labels_were_drawn
    if data.keep_labels == 1 or not report.tiles or drawn or "full" in (data.label, report.label):
        return
    raise FieldError(
        f"{field('data.keep_labels')}={data.keep_labels} keeps at least one click of every tile, and a class "
        "that is dropped from a tile would be taught to be absent, though it is annotated in the image; set "
        f"{flag('data.keep_labels')} 1, or thin the annotation before it is imported"
    )


def refuse_lost_tiles(given: shards.Description, train_split: str, wanted: str) -> None:
    """Raise ValueError if other labels are wanted, and tiles without the dataset's own were left out."""
    report = ImportReport.from_dict(given.report)
    lost = report.splits.get(train_split, {}).get("tiles_left_out", 0)
    if lost and report.label in READ_KINDS and not report.labels_were_drawn:
        raise FieldError(
            f"{given.source}: {lost} training tiles without a label of kind {report.label} were left out "
            f"at import, and would be missing from {wanted}; import the data again with `sparseg import "
            "--label full`, from which `sparseg sparsify` draws labels"
        )
