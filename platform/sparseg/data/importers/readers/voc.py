"""VOC's detection annotation, XML: a file an image, <annotation> with <size> and, for every object, <object>
with <name> and <bndbox>.

Its pixels count from 1 and both ends belong to the box (VOC 2012 development kit, section 3.5), so it covers
[xmin - 1, xmax) of ours.  The file's stem names the image.  Parts of objects are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseg.data.importers.readers.parsing import (
    class_id,
    expect,
    from_text,
    image_id,
    is_void,
    once,
    position,
    read_xml,
    shown,
    size,
    xml_format,
    xml_is_empty,
)
from sparseg.data.importers.tags_and_boxes import Kind, box, tag
from sparseg.data.strokes import Annotations, Stroke


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0, kind: Kind = "box") -> Annotations:
    """The boxes of every file, or of kind `tag` the classes of its objects, each once.

    Boxes may reach outside.  `width_px` has no use here.  Raises ValueError naming file and object.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    for file in files:
        root = read_xml(file)
        objects = root.findall("object")
        expect(file, None if xml_is_empty(root) else xml_format(root), "voc")
        if root.tag != "annotation":
            raise ValueError(
                f"{file}: not a VOC file: expected <annotation> with <object>, found "
                f"<{shown(root.tag)[1:-1]}>"
            )
        name = image_id(file.stem, str(file))
        once(name, seen, str(file))
        stated = root.find("size")
        if stated is not None:
            sizes[name] = size(stated.findtext("height", ""), stated.findtext("width", ""), str(file))
        found = [
            _object(entry, names, kind, f"{file}, object {number}") for number, entry in enumerate(objects, 1)
        ]
        strokes[name] = list(dict.fromkeys(found)) if kind == "tag" else found
    return Annotations(strokes, sizes)


def class_names(files: Sequence[Path]) -> list[str]:
    """The names of all objects by the alphabet, without void ones.  Raises ValueError naming the file."""
    found = {
        (entry.findtext("name") or "").strip() for file in files for entry in read_xml(file).findall("object")
    }
    return sorted(name for name in found if name and not is_void(name))


def _object(entry: Any, names: list[str], kind: Kind, where: str) -> Stroke:
    k = class_id(entry.findtext("name"), names, where)
    if kind == "tag":
        return tag(k)
    corners = entry.find("bndbox")
    if corners is None:
        raise ValueError(f"{where}: lacks <bndbox> with xmin, ymin, xmax, ymax")
    left, top, right, bottom = (
        position(from_text(corners.findtext(side), f"{where}, {side}"), f"{where}, {side}")
        for side in ("xmin", "ymin", "xmax", "ymax")
    )
    left, top = left - 1, top - 1
    if right < left or bottom < top:
        raise ValueError(
            f"{where}: xmax or ymax lies before xmin or ymin: x {left + 1:g}..{right:g}, y {top + 1:g}.."
            f"{bottom:g}"
        )
    return box(Stroke(k, "polygon", (top, top, bottom, bottom), (left, right, right, left)), names, where)
