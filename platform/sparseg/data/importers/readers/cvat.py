"""CVAT's XML 1.1: <annotations> with <image id name width height> and its shapes, or for videos with <track>.

https://docs.cvat.ai/docs/manual/advanced/xml_format: positions "x,y;x,y", whole numbers are corners of
pixels; a mask's `rle` counts the pixels of its box row by row, unset ones first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.data.importers.readers import outlines
from sparseg.data.importers.readers.parsing import (
    MAX_MASK_PIXELS,
    class_id,
    expect,
    from_text,
    image_id,
    is_void,
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
SHAPES = (*LEAST, "box", "mask", "ellipse", "skeleton", "cuboid")
CUBOID_CORNERS = [f"{side}{face}" for face in "12" for side in ("tl", "bl", "tr", "br")]
Layer = tuple[int, list[Stroke]]
"""z_order and the strokes of a shape there."""


def read(
    files: Sequence[Path], names: list[str], width_px: float = 1.0, kind: Kind = "strokes"
) -> Annotations:
    """The shapes of every image, by z_order and then in their order; <points> are a point each.

    Of a skeleton its points are read, each of the class that it is named after, or else of the skeleton's;
    those marked outside are left out.  A cuboid covers the convex hull of its corners.  Tags of whole images
    are counted and left out; of kind `tag` they are read, and all shapes left out.  Of kind `box`, shapes
    other than boxes are refused.  Positions may lie outside, a mask's box may not start there.

    Of a video's tracks the key frames are read, image `frame_000007` for frame 7, as CVAT names the frames
    that it exports; what it interpolated between them is counted and left out.  Raises ValueError naming file
    and image.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        root = _root(file)
        for image in root.findall("image"):
            name = image_id(image.get("name"), f"{file}, image {shown(image.get('id'))}")
            where = f"{file}, image {name}"
            once(name, seen, where)
            sizes[name] = size(image.get("height", ""), image.get("width", ""), where)
            shapes = [(shape, f"{where}, shape {number}") for number, shape in enumerate(image, 1)]
            if kind == "tag":
                left_out["shapes were left out"] += sum(shape.tag != "tag" for shape in image)
                tags = [tag(class_id(s.get("label"), names, at)) for s, at in shapes if s.tag == "tag"]
                strokes[name] = list(dict.fromkeys(tags))
                continue
            left_out["tags of whole images were left out"] += sum(shape.tag == "tag" for shape in image)
            layers = [_layer(s, names, width_px, kind, left_out, at) for s, at in shapes if s.tag != "tag"]
            strokes[name] = _flat(layers)
        for name, layers in _frames(root, names, width_px, kind, left_out, str(file)).items():
            once(name, seen, f"{file}, {name}")
            strokes[name] = _flat(layers)
            if (stated := root.find("meta//original_size")) is not None:
                sizes[name] = size(stated.findtext("height", ""), stated.findtext("width", ""), str(file))
    return Annotations(strokes, sizes, [f"{number} {what}" for what, number in left_out.items() if number])


def class_names(files: Sequence[Path]) -> list[str]:
    """The labels in the order of the task's or project's label list, without those of a skeleton's points.

    Void ones are left out.  A file without such a list adds the labels of its shapes, by the alphabet.
    Raises ValueError naming the file.
    """
    found: dict[str, None] = {}
    for file in files:
        root = _root(file)
        own = _listed_labels(root)
        shapes = [*root.iterfind("image/*"), *root.iterfind("track")]
        own = own or sorted({(shape.get("label") or "").strip() for shape in shapes})
        found |= {label: None for label in own if label and not is_void(label)}
    return list(found)


def has_label_list(files: Sequence[Path]) -> bool:
    """Whether every file has the label list of its task or project.  Raises ValueError naming the file."""
    return all(_listed_labels(_root(file)) for file in files)


def _listed_labels(root: Any) -> list[str]:
    listed = [label for label in root.iterfind("meta//labels/label") if label.find("parent") is None]
    return [(label.findtext("name") or "").strip() for label in listed]


def _root(file: Path) -> Any:
    root = read_xml(file)
    expect(file, xml_format(root), "cvat")
    if root.tag != "annotations":
        raise ValueError(f"{file}: not a CVAT file: expected <annotations>, found <{shown(root.tag)[1:-1]}>")
    return root


def _flat(layers: Iterable[Layer]) -> list[Stroke]:
    return [stroke for _, own in sorted(layers, key=lambda layer: layer[0]) for stroke in own]


def _frames(
    root: Any, names: list[str], width_px: float, kind: Kind, left_out: Counter[str], where: str
) -> dict[str, list[Layer]]:
    """Image of a video's frame -> its layers.  A track has the label, and its shapes the frame each."""
    frames: dict[str, list[Layer]] = {}
    for number, track in enumerate(root.findall("track"), 1):
        for shape in track:
            at = f"{where}, track {number}, frame {shown(shape.get('frame'))}"
            frame = whole(shape.get("frame", ""), at, 0)
            if kind == "tag" or shape.get("outside") == "1":
                left_out["shapes were left out"] += kind == "tag"
                continue
            if shape.get("keyframe", "1") != "1":
                left_out["shapes between key frames, set there by CVAT, were left out"] += 1
                continue
            shape.set("label", track.get("label", ""))
            layer = _layer(shape, names, width_px, kind, left_out, at)
            frames.setdefault(f"frame_{frame:06d}", []).append(layer)
    if frames:
        left_out["frames of a video are called frame_000000 and so on; if the images have other names, "
                 "export 'CVAT for images 1.1'"] += len(frames)  # fmt: skip
    return frames


def _layer(
    shape: Any, names: list[str], width_px: float, kind: Kind, left_out: Counter[str], where: str
) -> Layer:
    if kind == "box" and shape.tag != "box":
        raise not_a_box(f"a <{shown(shape.tag)[1:-1]}>", where)
    z = whole(shape.get("z_order", "0"), f"{where}, z_order", -(10**6))
    own = _strokes(shape, names, width_px, left_out, where)
    return z, [box(own[0], names, where)] if kind == "box" else own


def _strokes(
    shape: Any, names: list[str], width_px: float, left_out: Counter[str], where: str
) -> list[Stroke]:
    if shape.tag not in SHAPES:
        raise ValueError(
            f"{where}: <{shown(shape.tag)[1:-1]}> is not read, only {', '.join(SHAPES)}; convert it to a "
            "polygon in CVAT, or remove it"
        )
    if shape.tag == "skeleton":
        return _skeleton(shape, names, width_px, left_out, where)
    k = class_id(shape.get("label"), names, where)
    match shape.tag:
        case "mask":
            return [_mask(shape, k, where)]
        case "box":
            top, left, bottom, right = (_number(shape, name, where) for name in ("ytl", "xtl", "ybr", "xbr"))
            outline = outlines.box(top, left, bottom, right)
            outline = outlines.turned(
                outline, _number(shape, "rotation", where, "0"), (top + bottom) / 2, (left + right) / 2
            )
            return [Stroke(k, "polygon", *outline)]
        case "ellipse":
            y, x, radius_y, radius_x = (_number(shape, name, where) for name in ("cy", "cx", "ry", "rx"))
            outline = outlines.ellipse(y, x, radius_y, radius_x)
            outline = outlines.turned(outline, _number(shape, "rotation", where, "0"), y, x)
            return [Stroke(k, "polygon", *outline)]
        case "cuboid":
            corners = [
                (_number(shape, f"y{at}", where), _number(shape, f"x{at}", where)) for at in CUBOID_CORNERS
            ]
            return [Stroke(k, "polygon", *outlines.hull(corners))]
    outline = _positions(shape, where)
    if shape.tag == "points":
        return [Stroke(k, "point", (a,), (b,), width_px) for a, b in zip(*outline, strict=True)]
    if shape.tag == "polyline":
        return [Stroke(k, "line", *outline, width_px)]
    return [Stroke(k, "polygon", *outline)]


def _number(shape: Any, name: str, where: str, default: str | None = None) -> float:
    return position(from_text(shape.get(name, default), f"{where}, {name}"), f"{where}, {name}")


def _positions(shape: Any, where: str) -> outlines.Outline:
    text = shape.get("points")
    if not text:
        raise ValueError(f'{where}: <{shape.tag}> lacks points; expected points="x,y;x,y"')
    pairs = [[from_text(number, where) for number in pair.split(",")] for pair in text.split(";")]
    return positions(pairs, where, LEAST[shape.tag], shape.tag)


def _skeleton(
    shape: Any, names: list[str], width_px: float, left_out: Counter[str], where: str
) -> list[Stroke]:
    strokes = []
    for part in shape.findall("points"):
        if part.get("outside") == "1":
            left_out["points of skeletons are marked outside and were left out"] += 1
            continue
        own = (part.get("label") or "").strip()
        k = class_id(own if own in names or is_void(own) else shape.get("label"), names, where)
        y, x = _positions(part, where)
        strokes += [Stroke(k, "point", (a,), (b,), width_px) for a, b in zip(y, x, strict=True)]
    return strokes


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
