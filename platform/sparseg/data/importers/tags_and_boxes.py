"""Weak labels, which place no class at a pixel: tags of whole images, and boxes.

Tags: no pixel is labelled.  Boxes: nothing is known inside, what is outside of all of them is class 0.  Which
classes an image has is said by its strokes, and the absent-class term learns from that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from sparseg.config import IGNORED, PIXELLESS, UNLABELLED, FieldError, field, flag
from sparseg.data.importers.files import some
from sparseg.data.strokes import Annotations, Stroke, pixels, vertices_outside

Kind = Literal["strokes", "tag", "box"]
"""Says which annotation a reader takes from its files."""

BACKGROUND = "background"


def present(label: str, stored: Sequence[dict[str, Any]]) -> list[int]:
    """List the classes of a training image that may be there although no pixel shows them; of other label
    kinds none.

    Those that its strokes name, and with boxes the background: there may be some of it inside of each.  A
    stroke that others draw over names its class too, but clicks count by what is left of them.
    """
    if label not in PIXELLESS:
        return []
    return sorted({stroke["class"] for stroke in stored} | ({0} if label == "box" else set()))


# ------------------------------------------------------------------------------------------------ for readers


def tag(k: int) -> Stroke:
    """Make the tag of a whole image."""
    return Stroke(k, "tag", (), ())


def box(stroke: Stroke, names: Sequence[str], where: str) -> Stroke:
    """Give the box as it is.

    Raises ValueError for one of class 0, which is what lies outside of all boxes, and for one without area.
    """
    if stroke.class_id == 0:
        raise FieldError(
            f"{where}: a box of class 0, {names[0]!r}; with {field('data.label')}=box, class 0 must be the "
            "background, which is what lies outside of all boxes; put the background first in classes.txt, "
            "or remove the box"
        )
    y, x = np.array(stroke.y), np.array(stroke.x)
    if not abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) > 0:
        raise ValueError(
            f"{where}: a box without area, its sides are {np.ptp(x):g} x {np.ptp(y):g} pixels; correct or "
            "remove it"
        )
    return stroke


def not_a_box(what: str, where: str) -> ValueError:
    """Make the error for another shape where boxes are read: left out, its object would become background."""
    return FieldError(
        f"{where}: {what}, but {field('data.label')}=box reads boxes only, for what has none would be taught "
        f"to be background; draw a box instead, or import the file with {flag('data.label')} scribble"
    )


def with_note_of_bare(annotations: Annotations, label: str, names: Sequence[str], where: str) -> Annotations:
    """Give tags or boxes with a note of the listed images that have none.

    Raises ValueError if no image has any: the files hold something else.
    """
    bare = sorted(name for name, strokes in annotations.strokes.items() if not strokes)
    if bare and len(bare) == len(annotations.strokes):
        raise FieldError(
            f"{where}: {len(bare)} images and not one {label}; {field('data.label')}={label} reads nothing "
            f"else: set {flag('data.label')} or {flag('data.label_path')}"
        )
    if not bare:
        return annotations
    is_background = label == "box" or names[0].casefold() == BACKGROUND
    what = f"taken to be class 0, {names[0]!r}, as a whole" if is_background else "taught to hold no class"
    note = f"{len(bare)} listed images have no {label}, {what}: {some(bare)}"
    return Annotations(annotations.strokes, annotations.sizes, [*annotations.notes, note])


def presume_background(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """Give tags with those of a background that nobody thought of tagging, for else it would be taught to be
    absent."""
    tagged = {stroke.class_id for strokes in annotations.strokes.values() for stroke in strokes}
    if names[0].casefold() != BACKGROUND or 0 in tagged:
        return annotations
    note = f"class 0, {names[0]!r}, is tagged nowhere and was taken to be in every image"
    strokes = {name: [tag(0), *own] for name, own in annotations.strokes.items()}
    return Annotations(strokes, annotations.sizes, [*annotations.notes, note])


# ----------------------------------------------------------------------------------------------------- labels


def draw_tags(
    strokes: Iterable[Stroke], shape: tuple[int, int], count: Counter[str]
) -> tuple[np.ndarray, list[Stroke]]:
    """Draw tags -> label (H, W) uint8, all UNLABELLED, and the tags; `count` receives: tags."""
    tags = list(strokes)
    count["tags"] += len(tags)
    return np.full(shape, UNLABELLED, dtype=np.uint8), tags


def draw_boxes(
    strokes: Iterable[Stroke], shape: tuple[int, int], count: Counter[str]
) -> tuple[np.ndarray, list[Stroke]]:
    """Draw boxes -> label (H, W) uint8 with codes, and the boxes that hold a pixel of it.

    0 outside of all boxes, IGNORED inside those of void alone, UNLABELLED inside the others.  `count`
    receives: boxes; boxes_outside (dropped, no pixel of them lies in the image); boxes_clipped.
    """
    label_HW = np.zeros(shape, dtype=np.uint8)
    drawn = []
    for stroke in sorted(strokes, key=lambda stroke: stroke.class_id != IGNORED):
        is_there = False
        for rows, columns in () if _beside(stroke, shape) else pixels(stroke, shape):
            is_there = True
            label_HW[rows, columns] = IGNORED if stroke.class_id == IGNORED else UNLABELLED
        if not is_there:
            count["boxes_outside"] += 1
            continue
        count["boxes"] += 1
        if vertices_outside(stroke, shape):
            count["boxes_clipped"] += 1
        drawn.append(stroke)
    return label_HW, drawn


def _beside(stroke: Stroke, shape: tuple[int, int]) -> bool:
    """Say whether a box lies beside the image, if only by its edge, which `pixels` takes for a thin
    polygon's."""
    return any(max(at) <= 0 or min(at) >= side for at, side in zip((stroke.y, stroke.x), shape, strict=True))
