"""CVAT for images, XML 1.1: <annotations> with <image id name width height> and its shapes.

https://docs.cvat.ai/docs/manual/advanced/xml_format: positions "x,y;x,y"; a mask's `rle` counts the pixels of
its box row by row, unset ones first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.data.importers.readers.parsing import (
    MAX_MASK_PIXELS,
    class_id,
    expect,
    from_text,
    image_id,
    once,
    position,
    positions,
    read_xml,
    shown,
    size,
    whole,
    xml_format,
)
from sparseg.data.importers.tags_and_boxes import Kind, box, not_a_box, tag
from sparseg.data.strokes import Annotations, Stroke, mask_stroke

LEAST = {"points": 1, "polyline": 2, "polygon": 3}


def read(
    files: Sequence[Path], names: list[str], width_px: float = 1.0, kind: Kind = "strokes"
) -> Annotations:
    """The shapes of every image, by z_order and then in their order; <points> are a point each.

    Tags of whole images are counted and left out; of kind `tag` they are read, and all shapes left out.  Of
    kind `box`, shapes other than boxes are refused, of every kind cuboids, ellipses, skeletons and video
    tracks.  Positions may lie outside, a mask's box may not start there.  Raises ValueError naming file and
    image.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        root = read_xml(file)
        expect(file, xml_format(root), "cvat")
        if root.tag != "annotations":
            raise ValueError(
                f"{file}: not a CVAT file: expected <annotations>, found <{shown(root.tag)[1:-1]}>"
            )
        if root.find("track") is not None:
            raise ValueError(f"{file}: holds video tracks; export it from CVAT as 'CVAT for images 1.1'")
        for image in root.findall("image"):
            name = image_id(image.get("name"), f"{file}, image {shown(image.get('id'))}")
            where = f"{file}, image {name}"
            once(name, seen, where)
            sizes[name] = size(image.get("height", ""), image.get("width", ""), where)
            layers = []
            tags: dict[Stroke, None] = {}
            for number, shape in enumerate(image, 1):
                at = f"{where}, shape {number}"
                if (shape.tag == "tag") != (kind == "tag"):
                    what = "tags of whole images" if shape.tag == "tag" else "shapes"
                    left_out[f"{what} were left out"] += 1
                    continue
                if kind == "tag":
                    tags[tag(class_id(shape.get("label"), names, at))] = None
                    continue
                if kind == "box" and shape.tag != "box":
                    raise not_a_box(f"a <{shown(shape.tag)[1:-1]}>", at)
                z = whole(shape.get("z_order", "0"), f"{at}, z_order", -(10**6))
                own = _strokes(shape, names, width_px, at)
                layers.append((z, [box(own[0], names, at)] if kind == "box" else own))
            layers.sort(key=lambda layer: layer[0])
            strokes[name] = [*tags, *(stroke for _, layer in layers for stroke in layer)]
    return Annotations(strokes, sizes, [f"{number} {what}" for what, number in left_out.items()])


def _strokes(shape: Any, names: list[str], width_px: float, where: str) -> list[Stroke]:
    if shape.tag not in (*LEAST, "box", "mask"):
        raise ValueError(
            f"{where}: <{shown(shape.tag)[1:-1]}> is not read, only {', '.join(LEAST)}, box and mask; "
            "convert it to a polygon in CVAT, or remove it"
        )
    k = class_id(shape.get("label"), names, where)
    if shape.tag == "mask":
        return [_mask(shape, k, where)]
    if shape.tag == "box":
        return [_box(shape, k, where)]
    text = shape.get("points")
    if not text:
        raise ValueError(f'{where}: <{shape.tag}> lacks points; expected points="x,y;x,y"')
    pairs = [[from_text(number, where) for number in pair.split(",")] for pair in text.split(";")]
    y, x = positions(pairs, where, LEAST[shape.tag], shape.tag)
    if shape.tag == "points":
        return [Stroke(k, "point", (a,), (b,), width_px) for a, b in zip(y, x, strict=True)]
    return [Stroke(k, "line", y, x, width_px) if shape.tag == "polyline" else Stroke(k, "polygon", y, x)]


def _box(shape: Any, k: int, where: str) -> Stroke:
    top, left, bottom, right = (
        position(from_text(shape.get(name), f"{where}, {name}"), f"{where}, {name}")
        for name in ("ytl", "xtl", "ybr", "xbr")
    )
    angle = math.radians(position(from_text(shape.get("rotation", "0"), where), f"{where}, rotation"))
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
    if angle:  # degrees, clockwise, about the middle
        sine, cosine = math.sin(angle), math.cos(angle)
        corners = [
            (
                middle_y + (x - middle_x) * sine + (y - middle_y) * cosine,
                middle_x + (x - middle_x) * cosine - (y - middle_y) * sine,
            )
            for y, x in corners
        ]
    return Stroke(k, "polygon", tuple(y for y, _ in corners), tuple(x for _, x in corners))


def _mask(shape: Any, k: int, where: str) -> Stroke:
    left, top = (whole(shape.get(name, ""), f"{where}, {name}", 0) for name in ("left", "top"))
    width, height = (whole(shape.get(name, ""), f"{where}, {name}", 1) for name in ("width", "height"))
    if width * height > MAX_MASK_PIXELS:
        raise ValueError(f"{where}: a mask of {width}x{height} pixels; at most {MAX_MASK_PIXELS} are read")
    counts = [whole(count, f"{where}, rle", 0, MAX_MASK_PIXELS) for count in shape.get("rle", "").split(",")]
    if sum(counts) != width * height:
        raise ValueError(
            f"{where}: rle counts {sum(counts)} pixels but its box of {width}x{height} has {width * height}"
        )
    set_ = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return mask_stroke(k, set_.reshape(height, width), top, left)
