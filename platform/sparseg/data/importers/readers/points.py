"""What's-the-Point JSON: {"image id": [{"x": float, "y": float, "cls": int, "rank": int}, ...]}.

Bearman et al., ECCV 2016.  Zero-based, x to the right; clicks outside the image occur in the genuine file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparseg.data.importers.readers.parsing import (
    expect,
    field,
    image_id,
    json_format,
    position,
    read_json,
    shown,
)
from sparseg.data.strokes import Annotations, Stroke

EXPECTED = 'expected {"image id": [{"x": float, "y": float, "cls": int}, ...]}'


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """Clicks of all files, merged image by image in the order of files and lists (rank order).

    `rank` is not read: the list is in its order.  Raises ValueError naming file and image.
    """
    strokes: dict[str, list[Stroke]] = {}
    for file in files:
        content = read_json(file)
        expect(file, json_format(content), "whats-the-point")
        if not isinstance(content, dict):
            raise ValueError(f"{file}: not a What's-the-Point file; {EXPECTED}")
        spelled: dict[str, str] = {}
        for key, clicks in content.items():
            name = image_id(key, str(file))
            where = f"{file}, image {name}"
            if name in spelled:
                raise ValueError(
                    f"{where}: {shown(key)} and {shown(spelled[name])} are one image; merge them"
                )
            spelled[name] = key
            if not isinstance(clicks, list):
                raise ValueError(f"{where}: not a What's-the-Point file; {EXPECTED}")
            strokes.setdefault(name, []).extend(_click(click, names, width_px, where) for click in clicks)
    return Annotations(strokes)


def class_names(files: Sequence[Path]) -> list[str]:
    """None: the files have class ids only."""
    return []


def _click(click: object, names: list[str], width_px: float, where: str) -> Stroke:
    y, x = (position(field(click, axis, object, where), f"{where}, {axis}") for axis in ("y", "x"))
    k = field(click, "cls", object, where)
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(names):
        raise ValueError(f"{where}: click of class {shown(k)}; classes are whole numbers 0..{len(names) - 1}")
    return Stroke(k, "point", (y,), (x,), width_px)
