"""labelme JSON: a file an image, {"imagePath", "shapes": [{"label", "shape_type", "points": [[x, y], ...]}]}.

The image is named by `imagePath`, or by the file's stem where that is absent.  Whole numbers are corners of
pixels.  A `mask` is a PNG in base64 beside the two corners of its box, both inside.  X-AnyLabeling's
`rotation` is a box of four corners, as labelme's `oriented_rectangle`.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparseg.data.importers.readers import outlines
from sparseg.data.importers.readers.parsing import (
    MAX_MASK_PIXELS,
    class_id,
    expect,
    field,
    image_id,
    is_void,
    json_format,
    once,
    positions,
    read_json,
    read_text,
    shown,
    size,
)
from sparseg.data.importers.tags_and_boxes import Kind, box, not_a_box
from sparseg.data.strokes import Annotations, Stroke, mask_stroke

LEAST = {
    **{"point": 1, "points": 1, "linestrip": 2, "line": 2, "polygon": 3, "oriented_rectangle": 4},
    **{"rectangle": 2, "circle": 2, "mask": 2, "rotation": 4, "quadrilateral": 4},
}
"""Shape type -> its fewest positions."""
MOST = {
    **{"point": 1, "line": 2, "circle": 2, "mask": 2},
    **{"oriented_rectangle": 4, "rotation": 4, "quadrilateral": 4},
}
BACKGROUND = "_background_"
"""labelme's own name of class 0."""
PILLOWS_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What damaged bytes make its PNG reader raise."""
LABELS_FILE = "labels.txt"
"""What labelme is started with (--labels): a name a line, among them __ignore__ and _background_."""


def read(
    files: Sequence[Path], names: list[str], width_px: float = 1.0, kind: Kind = "strokes"
) -> Annotations:
    """The shapes of every file, in their order: points and lines of the width, the others filled.

    Positions may lie outside.  Of kind `box`, shapes other than rectangles are refused.  Raises ValueError
    naming file and shape.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    for file in files:
        content = read_json(file)
        expect(file, json_format(content), "labelme")
        shapes = field(content, "shapes", list, str(file))
        path = content.get("imagePath")
        name = image_id(path, f"{file}, imagePath") if path else image_id(file.stem, str(file))
        once(name, seen, str(file))
        height, width = content.get("imageHeight"), content.get("imageWidth")
        if height is not None and width is not None:
            sizes[name] = size(height, width, str(file))
        strokes[name] = []
        for number, shape in enumerate(shapes, 1):
            where = f"{file}, shape {number}"
            own = _strokes(shape, names, width_px, where)
            strokes[name] += [_box(own[0], shape, names, where)] if kind == "box" else own
    return Annotations(strokes, sizes)


def class_names(files: Sequence[Path]) -> list[str]:
    """The labels in the order of a labels.txt beside the files or one folder up, else of the alphabet.

    `_background_` goes first, void labels are left out.  Raises ValueError naming the file.
    """
    if (listed := labels_file(files)) is not None:
        lines = [line.strip() for line in read_text(listed).splitlines()]
        return list(dict.fromkeys(line for line in lines if line and not is_void(line)))
    found: set[str] = set()
    for file in files:
        for number, shape in enumerate(field(read_json(file), "shapes", list, str(file)), 1):
            found.add(field(shape, "label", str, f"{file}, shape {number}").strip())
    labels = sorted(label for label in found if not is_void(label))
    return sorted(labels, key=lambda label: label != BACKGROUND)


def labels_file(files: Sequence[Path]) -> Path | None:
    """The labels.txt beside the files or one folder up, if there is one."""
    folders = dict.fromkeys(place for file in files for place in (file.parent, file.parent.parent))
    return next((place / LABELS_FILE for place in folders if (place / LABELS_FILE).is_file()), None)


def _box(stroke: Stroke, shape: Any, names: list[str], where: str) -> Stroke:
    if shape.get("shape_type") != "rectangle":
        raise not_a_box(f"a {shape.get('shape_type') or 'polygon'}", where)
    return box(stroke, names, where)


def _strokes(shape: Any, names: list[str], width_px: float, where: str) -> list[Stroke]:
    label = field(shape, "label", object, where)
    kind = shape.get("shape_type")
    kind = "polygon" if kind is None else kind  # files of labelme 2 have polygons only and do not say so
    if not isinstance(kind, str) or kind not in LEAST:
        raise ValueError(
            f"{where}: shape_type {shown(kind)} is not read, only {', '.join(LEAST)}; redraw it as a "
            "polygon in labelme, or export masks as label PNGs"
        )
    if label == BACKGROUND and label not in names:
        label = "background"
    k = class_id(label, names, where)
    y, x = positions(field(shape, "points", list, where), where, LEAST[kind], kind)
    if len(y) > MOST.get(kind, len(y)) or (kind == "rectangle" and len(y) not in (2, 4)):
        raise ValueError(f"{where}: a {kind} of {len(y)} positions; it has {MOST.get(kind, '2 or 4')}")
    match kind:
        case "point" | "points":
            return [Stroke(k, "point", (a,), (b,), width_px) for a, b in zip(y, x, strict=True)]
        case "line" | "linestrip":
            return [Stroke(k, "line", y, x, width_px)]
        case "mask":
            return [_mask(shape, k, y, x, where)]
        case "rectangle" if len(y) == 2:
            y, x = outlines.box(y[0], x[0], y[1], x[1])
        case "circle":  # centre, and a position on the circle
            radius = math.hypot(y[1] - y[0], x[1] - x[0])
            y, x = outlines.ellipse(y[0], x[0], radius, radius)
    return [Stroke(k, "polygon", y, x)]


def _mask(shape: Any, k: int, y: tuple[float, ...], x: tuple[float, ...], where: str) -> Stroke:
    """A mask from its PNG, at its box's first corner; what lies above or left of the image is cut off.

    Whole corners cut a larger PNG to their box, as labelme does; fractional ones are rounded one by one, so
    that the PNG's own size counts.
    """
    mask_hw = _png(field(shape, "mask", str, where), where)
    top, left = round(y[0]), round(x[0])
    if all(at == int(at) for at in (*y, *x)):
        height, width = int(y[1]) - top + 1, int(x[1]) - left + 1
        if not (0 < height <= mask_hw.shape[0] and 0 < width <= mask_hw.shape[1]):
            raise ValueError(
                f"{where}: a mask of {mask_hw.shape[1]}x{mask_hw.shape[0]} pixels in a box of {width}x"
                f"{height}; its points must be the box's upper left and lower right pixel"
            )
        mask_hw = mask_hw[:height, :width]
    mask_hw = mask_hw[max(-top, 0) :, max(-left, 0) :]
    return mask_stroke(k, mask_hw, max(top, 0), max(left, 0))


def _png(text: str, where: str) -> np.ndarray:
    """A PNG in base64 -> (H, W) bool, where it is not 0."""
    try:
        data = base64.b64decode(text, validate=True)
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        pixels = image.width * image.height
        if pixels > MAX_MASK_PIXELS:
            raise ValueError(f"{pixels} pixels; at most {MAX_MASK_PIXELS} are read")
        if image.mode not in ("1", "L", "P", "I;16", "I"):
            raise ValueError(f"its pixels are {image.mode}, not of one channel")
        return np.asarray(image) != 0
    except (*PILLOWS_ERRORS, binascii.Error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: mask is no readable PNG in base64 ({reason})") from error
