"""ScribbleSup XML: one file an image, <annotation> with repeated <polygon>, each ONE OPEN stroke.

Lin et al., CVPR 2016: <size><width/><height/></size>, <polygon><tag>class</tag><point><X>int</X><Y>int</Y>...
The file's stem names the image.  The strokes have no width; projects draw them 1 or 3 pixels wide.
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
)
from sparseg.data.strokes import Annotations, Stroke

ALIASES = {
    "plane": "aeroplane",
    "bike": "bicycle",
    "table": "diningtable",
    "plant": "pottedplant",
    "monitor": "tvmonitor",
}
"""ScribbleSup's name -> VOC's; used only where the dataset has no class of ScribbleSup's own name."""


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The scribbles of every file.  Vertices may lie outside.  Raises ValueError naming file and polygon."""
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    for file in files:
        root = read_xml(file)
        expect(file, xml_format(root), "scribblesup")
        if root.tag != "annotation" or root.find("object") is not None:
            raise ValueError(
                f"{file}: not a ScribbleSup file: expected <annotation> with <polygon> strokes, found "
                f"<{shown(root.tag)[1:-1]}> with {shown([child.tag for child in root[:3]])}"
            )
        name = image_id(file.stem, str(file))
        once(name, seen, str(file))
        stated = root.find("size")
        if stated is not None:
            sizes[name] = size(stated.findtext("height", ""), stated.findtext("width", ""), str(file))
        strokes[name] = [
            _stroke(polygon, names, width_px, f"{file}, polygon {number}")
            for number, polygon in enumerate(root.findall("polygon"), 1)
        ]
    return Annotations(strokes, sizes)


def class_names(files: Sequence[Path]) -> list[str]:
    """The tags of all strokes by the alphabet, without void ones.  Raises ValueError naming the file."""
    found = {
        (stroke.findtext("tag") or "").strip()
        for file in files
        for stroke in read_xml(file).findall("polygon")
    }
    return sorted(name for name in found if name and not is_void(name))


def _stroke(polygon: Any, names: list[str], width_px: float, where: str) -> Stroke:
    tag = (polygon.findtext("tag") or "").strip()
    k = class_id(tag if tag in names else ALIASES.get(tag, tag), names, where)
    points = polygon.findall("point")
    if not points:
        raise ValueError(f"{where}: has no <point>; a stroke needs at least one")
    y, x = (
        tuple(position(from_text(point.findtext(axis), f"{where}, {axis}"), where) for point in points)
        for axis in ("Y", "X")
    )
    return Stroke(k, "line", y, x, width_px)
