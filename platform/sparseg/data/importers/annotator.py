"""The annotation of a training image, from whatever the import found: clicks to draw, files or label PNGs."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from sparseg.config import FieldError, ImportConfig, flag
from sparseg.data import sparsify
from sparseg.data.importers.files import nearest, some
from sparseg.data.importers.label_pngs import Annotation, BadFileError, read_label, sparse_encoding
from sparseg.data.importers.mask_values import refuse_doubtful_masks
from sparseg.data.importers.readers import read_strokes
from sparseg.data.importers.readers.image_names import resolve
from sparseg.data.importers.source import Item, Source, recipe_of
from sparseg.data.importers.tags_and_boxes import draw_boxes, draw_tags
from sparseg.data.importers.turning import Frame, fitted, refuse_other_size, remedy
from sparseg.data.label_places import resized_label
from sparseg.data.strokes import Annotations, stored
from sparseg.data.strokes import draw as draw_strokes
from sparseg.data.working_size import scaled

SPARSE_HINT = f"declare the unlabelled value with {flag('data.unlabelled_code')}, or correct classes.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotator:
    """Gives the training annotation of one image after another; made once, and sent to worker processes.

    At most one of `recipe`, `strokes` and `table` is there; without, the dense mask is the annotation.
    """

    label: str
    """Kind of annotation, as data.label."""
    encoding: str
    """How the annotation is read or drawn, for the report."""
    notes: tuple[str, ...] = ()
    """What else was found by reading all annotation files, for the report."""
    recipe: sparsify.Recipe | None = None
    """How clicks are drawn from the dense mask."""
    strokes: Annotations | None = None
    """Points, strokes, tags or boxes of every image by its id, as their files have them."""
    files: str = ""
    """Those files, as a message names them."""
    may_state_stored_size: bool = False
    """Whether the files may state the size of the stored pixels with positions in the upright picture, as
    Label Studio's COCO does."""
    is_stored: bool = False
    """Whether the stored pixels of images and label PNGs are taken, and not the upright picture."""
    table: dict[int, int] | None = None
    """Value in the sparse label PNGs -> class or code."""

    def __call__(
        self,
        item: Item,
        mask_HW: np.ndarray | None,
        frame: Frame,
        count: Counter[str],
        split: str = "train",
    ) -> Annotation:
        """Label (H, W) uint8 with codes, and the strokes it was drawn from, both of the frame's working size.

        `mask_HW` (H, W) is the dense mask of that size, where there is one; `frame` the image's; `count`
        receives what became of points, strokes, tags, boxes and label maps.  Raises BadFileError for an image
        that has no annotation, or an unreadable one; ValueError for one that cannot be right.
        """
        if self.recipe is not None:
            assert mask_HW is not None
            return self.recipe.draw(mask_HW, item.id)
        if self.strokes is not None:
            return self._draw(self.strokes, item, frame, count, key_of(item.id, split, self.strokes))
        if self.table is not None:
            assert item.label is not None
            label_HW = read_label(item.label, self.table, SPARSE_HINT, is_stored=self.is_stored)
            label_HW = fitted(label_HW, frame, count)
            refuse_other_size(label_HW.shape, frame, item.label, item.image)
            if frame.working != frame.size:
                label_HW = resized_label(label_HW, frame.working, dense=False)
            return label_HW, []
        assert mask_HW is not None
        return mask_HW, []

    def _draw(
        self, annotated: Annotations, item: Item, frame: Frame, count: Counter[str], key: str
    ) -> Annotation:
        if key not in annotated.strokes:
            what = {"tag": "tags", "box": "boxes"}.get(self.label, "clicks")
            raise BadFileError(f"{item.id}: no {what} in {self.files}")
        stated = annotated.sizes.get(key, frame.size)
        if stated != frame.size and stated == frame.stored and self.may_state_stored_size:
            count["stored_sizes"] += 1
        elif stated != frame.size:
            raise FieldError(
                f"{self.files}: image {item.id} was annotated at {stated[1]}x{stated[0]} pixels but "
                f"{item.image} is {frame.size[1]}x{frame.size[0]}; "
                f"{remedy(stated, frame, 'use the image that was annotated')}"
            )
        draw = {"tag": draw_tags, "box": draw_boxes}.get(self.label, draw_strokes)
        strokes = [scaled(stroke, frame.size, frame.working) for stroke in annotated.strokes[key]]
        label_HW, drawn = draw(strokes, frame.working, count)
        return label_HW, stored(drawn)


def key_of(name: str, split: str, annotated: Annotations) -> str:
    """Say what the annotations call an image: as its id, or with the split before it where train has that
    id, too (see `resolve`)."""
    return f"{split}/{name}" if f"{split}/{name}" in annotated.strokes else name


def annotator(source: Source, config: ImportConfig) -> Annotator:
    """Read what says how the training images of a source are annotated: all point and stroke files, or the
    values of all label PNGs.

    Raises ValueError for points or encodings that cannot be right, or could be right in two ways.
    """
    refuse_doubtful_masks(source, config)
    if recipe := recipe_of(config):
        encoding = f"drawn from dense masks: {recipe.describe()}"
        if config.tile_px:
            encoding += f"; each tile of {config.tile_px} px is an image of its own"
        return Annotator(label=config.label, encoding=encoding, recipe=recipe)
    if config.label == "full":
        return Annotator(label=config.label, encoding="dense masks")
    if source.point_files:
        return _stroke_annotator(source, config)
    files = [item.label for items in source.splits.values() for item in items if item.label is not None]
    table, encoding = sparse_encoding(files, source.names, config, source.sparse_rule)
    is_stored = config.orientation == "stored"
    return Annotator(label=config.label, encoding=encoding, table=table, is_stored=is_stored)


def _stroke_annotator(source: Source, config: ImportConfig) -> Annotator:
    files = source.point_files
    taken_format, by_path = read_strokes(
        files, config.label_format, source.names, config.stroke_px, config.label
    )
    names = some(file.name for file in files)
    ids = {split: [item.id for item in items] for split, items in source.splits.items()}
    annotated = resolve(by_path, ids, names)
    train, whose = set(ids["train"]), "training images"
    if source.val_from_labels:
        train = {key_of(name, split, annotated) for split, own in ids.items() for name in own}
        whose = "images"
    absent = sorted(train - set(annotated.strokes))
    if absent and (not (config.skip_bad or config.unannotated == "keep") or len(absent) == len(train)):
        what = f"{some(files)}: {len(absent)} of {len(train)} {whose} are without label: {some(absent)}"
        if len(absent) == len(train) and annotated.strokes:
            noted = f" ({'; '.join(annotated.notes)})" if annotated.notes else ""
            raise FieldError(
                f"{what}; the files annotate {some(annotated.strokes)}{noted}; call the images there as here"
            )
        raise FieldError(
            f"{what}{nearest(absent, annotated.strokes)}; annotate them, keep them aside with "
            f"{flag('data.unannotated')} keep, or leave them out with {flag('data.skip_bad')}"
        )
    how = "found" if config.label_format == "auto" else "declared"
    drawn_as = {"tag": "tags of whole images", "box": "boxes, class 0 outside of them"}.get(
        config.label, f"points and lines {config.stroke_px:g} px wide"
    )
    notes = []
    if others := sorted(set(annotated.strokes) - train):
        where = "not among the images" if source.val_from_labels else "not in train"
        notes.append(f"{len(others)} annotated images are {where}, not used: {some(others)}")
    return Annotator(
        label=config.label,
        encoding=f"{how}: {taken_format} in {names}; {drawn_as}",
        notes=(*notes, *annotated.notes),
        strokes=annotated,
        files=some(files),
        may_state_stored_size=taken_format == "coco",
    )
