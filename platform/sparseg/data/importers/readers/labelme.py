"""labelme JSON: a file an image, {"imagePath", "shapes": [{"label", "shape_type", "points": [[x, y], ...]}]}.

The image is named by the stem of `imagePath`, or of the file where that is absent or leads elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseg.data.importers.readers.parsing import (
    class_id,
    expect,
    field,
    image_id,
    json_format,
    leaves_folder,
    once,
    positions,
    read_json,
    shown,
    size,
)
from sparseg.data.importers.tags_and_boxes import Kind, box, not_a_box
from sparseg.data.strokes import Annotations, Stroke

LEAST = {"point": 1, "linestrip": 2, "line": 2, "polygon": 3, "rectangle": 2, "circle": 2}
"""Shape type -> its fewest positions."""
MOST = {"point": 1, "line": 2, "circle": 2}
CIRCLE_CORNERS = 256


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
        name = _image(content.get("imagePath"), file)
        once(name, seen, str(file))
        height, width = content.get("imageHeight"), content.get("imageWidth")
        if height is not None and width is not None:
            sizes[name] = size(height, width, str(file))
        one = _box if kind == "box" else _stroke
        strokes[name] = [
            one(shape, names, width_px, f"{file}, shape {number}") for number, shape in enumerate(shapes, 1)
        ]
    return Annotations(strokes, sizes)


def _image(path: Any, file: Path) -> str:
    """A path that leaves the folder is normal where labelme saved apart from the images (../images/x.jpg).

    Nothing is opened there, but it may not rename: its last part must then be the file's own stem.
    """
    if path is None or path == "":
        return image_id(file.stem, str(file))
    if isinstance(path, str) and leaves_folder(path):
        last = path.replace("\\", "/").rpartition("/")[2]
        if last and last.rpartition(".")[0] == file.stem:
            return image_id(last, f"{file}, imagePath")
    return image_id(path, f"{file}, imagePath")


def _box(shape: Any, names: list[str], width_px: float, where: str) -> Stroke:
    stroke = _stroke(shape, names, width_px, where)
    if shape.get("shape_type") != "rectangle":
        raise not_a_box(f"a {shape.get('shape_type', 'polygon')}", where)
    return box(stroke, names, where)


def _stroke(shape: Any, names: list[str], width_px: float, where: str) -> Stroke:
    label = field(shape, "label", object, where)
    kind = shape.get("shape_type", "polygon")  # files of labelme 2 have polygons only and do not say so
    if not isinstance(kind, str) or kind not in LEAST:
        raise ValueError(
            f"{where}: shape_type {shown(kind)} is not read, only {', '.join(LEAST)}; redraw it as a "
            "polygon in labelme, or export masks as label PNGs"
        )
    if label == "_background_" and label not in names:  # labelme's own name of class 0
        label = "background"
    k = class_id(label, names, where)
    y, x = positions(field(shape, "points", list, where), where, LEAST[kind], kind)
    if len(y) > MOST.get(kind, len(y)) or (kind == "rectangle" and len(y) not in (2, 4)):
        raise ValueError(f"{where}: a {kind} of {len(y)} positions; it has {MOST.get(kind, '2 or 4')}")
    match kind:
        case "point":
            return Stroke(k, "point", y, x, width_px)
        case "line" | "linestrip":
            return Stroke(k, "line", y, x, width_px)
        case "rectangle" if len(y) == 2:
            y, x = (y[0], y[0], y[1], y[1]), (x[0], x[1], x[1], x[0])
        case "circle":  # centre, and a position on the circle
            radius = math.hypot(y[1] - y[0], x[1] - x[0])
            angles = [2 * math.pi * corner / CIRCLE_CORNERS for corner in range(CIRCLE_CORNERS)]
            y, x = (
                tuple(y[0] + radius * math.sin(angle) for angle in angles),
                tuple(x[0] + radius * math.cos(angle) for angle in angles),
            )
    return Stroke(k, "polygon", y, x)
