"""COCO JSON: images, categories, and annotations whose `segmentation` is polygons or run lengths (RLE).

A `bbox` is [x, y, width, height], `keypoints` are [x, y, v, ...] where v is 0 for one that is not annotated.

https://cocodataset.org/#format-data: polygons [[x, y, x, y, ...], ...]; RLE {"size": [h, w], "counts"} counts
pixels column by column, unset ones first, as a list, or packed into a string.  The string is unpacked here,
not by pycocotools, which reads past the end of a damaged one and returns unset memory for a short one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.data.importers.readers.parsing import (
    MAX_MASK_PIXELS,
    class_id,
    expect,
    field,
    image_id,
    is_void,
    json_format,
    once,
    position,
    positions,
    read_json,
    shown,
    size,
    whole,
)
from sparseg.data.importers.tags_and_boxes import Kind, box, tag
from sparseg.data.strokes import Annotations, Stroke, mask_stroke


def read(
    files: Sequence[Path], names: list[str], width_px: float = 1.0, kind: Kind = "strokes"
) -> Annotations:
    """Filled polygons and masks of every annotation, in their order, and keypoints as points of the width.

    Categories are matched to the classes by NAME; those that no annotation uses may be unknown.  Crowds count
    as their class; keypoints do too, and are counted.  What has neither shape nor keypoint is left out and
    counted.  Polygons may reach outside.  Of kind `tag` an image's categories are read, of kind `box` every
    annotation's bbox, and nothing else.  Raises ValueError naming file and annotation.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    count: Counter[str] = Counter()
    for file in files:
        content = read_json(file)
        expect(file, json_format(content), "coco")
        images = _images(content, file, seen, sizes)
        categories = _categories(content, file)
        strokes |= {name: [] for name in images.values()}
        ids: set[int | str] = set()
        for number, annotation in enumerate(field(content, "annotations", list, str(file)), 1):
            where = f"{file}, annotation {number}"
            name = _known(annotation, "image_id", images, "images", where)
            category = _known(annotation, "category_id", categories, "categories", where)
            if "id" in annotation and _key(annotation, "id", where) in ids:
                raise ValueError(f"{where}: id {shown(annotation['id'])} occurs twice in annotations")
            ids |= {annotation["id"]} if "id" in annotation else set()
            match kind:
                case "tag":
                    own = tag(class_id(category, names, where))
                    strokes[name] += [own] if own not in strokes[name] else []
                case "box":
                    strokes[name].append(_box(annotation, category, names, where))
                case _:
                    found = _strokes(annotation, category, names, sizes[name], width_px, where)
                    strokes[name] += found
                    points = sum(stroke.kind == "point" for stroke in found)
                    count["COCO annotations without a segmentation or keypoints were left out"] += not found
                    count["COCO keypoints were read as points of their annotation's category"] += points
    return Annotations(strokes, sizes, [f"{number} {what}" for what, number in count.items() if number])


def class_names(files: Sequence[Path]) -> list[str]:
    """The categories by id, those of the first file first; void ones are left out.  Raises ValueError."""
    found: dict[str, None] = {}
    for file in files:
        content = read_json(file)
        expect(file, json_format(content), "coco")
        categories = sorted(
            _categories(content, file).items(), key=lambda item: (isinstance(item[0], str), item[0])
        )
        found |= {name.strip(): None for _, name in categories if not is_void(name)}
    return list(found)


def _key(entry: Any, name: str, where: str) -> int | str:
    value = field(entry, name, object, where)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{where}: {name!r} must be a whole number or a text, got {shown(value)}")
    return value


def _known(annotation: Any, name: str, known: dict[int | str, str], table: str, where: str) -> str:
    key = _key(annotation, name, where)
    if key not in known:
        raise ValueError(f"{where}: {name} {shown(key)} is not among the file's {table}")
    return known[key]


def _images(
    content: Any, file: Path, seen: dict[str, str], sizes: dict[str, tuple[int, int]]
) -> dict[int | str, str]:
    images: dict[int | str, str] = {}
    for number, image in enumerate(field(content, "images", list, str(file)), 1):
        where = f"{file}, image {number}"
        key = _key(image, "id", where)
        if key in images:
            raise ValueError(f"{where}: id {shown(key)} occurs twice in images")
        name = image_id(field(image, "file_name", str, where), where)
        once(name, seen, where)
        images[key] = name
        sizes[name] = size(field(image, "height", object, where), field(image, "width", object, where), where)
    return images


def _categories(content: Any, file: Path) -> dict[int | str, str]:
    categories: dict[int | str, str] = {}
    for number, category in enumerate(field(content, "categories", list, str(file)), 1):
        where = f"{file}, category {number}"
        key = _key(category, "id", where)
        if key in categories:
            raise ValueError(f"{where}: id {shown(key)} occurs twice in categories")
        categories[key] = field(category, "name", str, where)
    return categories


def _box(annotation: Any, category: str, names: list[str], where: str) -> Stroke:
    sides = field(annotation, "bbox", list, where)
    if len(sides) != 4:
        raise ValueError(f"{where}: bbox must be [x, y, width, height], got {shown(sides)}")
    left, top, width, height = (position(side, f"{where}, bbox") for side in sides)
    if width < 0 or height < 0:
        raise ValueError(
            f"{where}: bbox must be [x, y, width, height], got a negative side in {shown(sides)}"
        )
    y, x = (top, top, top + height, top + height), (left, left + width, left + width, left)
    return box(Stroke(class_id(category, names, where), "polygon", y, x), names, where)


def _strokes(
    annotation: Any,
    category: str,
    names: list[str],
    shape: tuple[int, int],
    width_px: float,
    where: str,
) -> list[Stroke]:
    points = _keypoints(annotation.get("keypoints"), where)
    segmentation = annotation.get("segmentation")
    is_none = segmentation in (None, [], [[]])
    if is_none and not points:
        return []
    k = class_id(category, names, where)
    shapes = [] if is_none else _shapes(segmentation, k, shape, where)
    return shapes + [Stroke(k, "point", (y,), (x,), width_px) for y, x in points]


def _keypoints(keypoints: Any, where: str) -> list[tuple[float, float]]:
    """[x, y, v, x, y, v, ...] -> (y, x) of those that are annotated, v > 0."""
    if keypoints is None:
        return []
    if not isinstance(keypoints, list) or len(keypoints) % 3:
        raise ValueError(f"{where}: keypoints must be [x, y, v, x, y, v, ...], got {shown(keypoints)}")
    points = []
    for at in range(0, len(keypoints), 3):
        if whole(keypoints[at + 2], f"{where}, v of keypoint {at // 3 + 1}", 0, 2):
            x, y = (position(value, f"{where}, keypoint {at // 3 + 1}") for value in keypoints[at : at + 2])
            points.append((y, x))
    return points


def _shapes(segmentation: Any, k: int, shape: tuple[int, int], where: str) -> list[Stroke]:
    if isinstance(segmentation, dict):
        return [mask_stroke(k, _mask(segmentation, shape, where))]
    if not isinstance(segmentation, list):
        raise ValueError(f"{where}: segmentation must be polygons or RLE, got {shown(segmentation)}")
    strokes = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) % 2 or len(polygon) < 6:
            raise ValueError(f"{where}: a polygon must be [x, y, x, y, x, y, ...], got {shown(polygon)}")
        y, x = positions([polygon[at : at + 2] for at in range(0, len(polygon), 2)], where, 3, "polygon")
        strokes.append(Stroke(k, "polygon", y, x))
    return strokes


def _mask(rle: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Run lengths -> (H, W) bool."""
    stated = field(rle, "size", list, where)
    if len(stated) != 2 or size(stated[0], stated[1], where) != shape:
        raise ValueError(
            f"{where}: RLE size {shown(stated)} is not its image's {list(shape)} (height, width)"
        )
    pixels = shape[0] * shape[1]
    if pixels > MAX_MASK_PIXELS:
        raise ValueError(f"{where}: a mask of {pixels} pixels; at most {MAX_MASK_PIXELS} are read")
    counts = field(rle, "counts", object, where)
    if isinstance(counts, str):
        runs = _unpacked(counts, where)
    elif isinstance(counts, list):
        runs = [whole(count, f"{where}, RLE counts", 0, MAX_MASK_PIXELS) for count in counts]
    else:
        raise ValueError(f"{where}: RLE counts must be a list or a packed string, got {shown(counts)}")
    if sum(runs) != pixels or min(runs, default=0) < 0:
        raise ValueError(
            f"{where}: RLE counts {shown(counts)} give {sum(runs)} pixels, its size has {pixels}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")


def _unpacked(counts: str, where: str) -> list[int]:
    """Run lengths of a packed string: five bits a character from '0' on, the lowest first, then the sign.

    A sixth bit says that the number goes on; from the fourth number on, it is the difference to the last but
    one (COCO API, maskApi: "similar to LEB128").
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - ord("0")
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError(f"{where}: RLE counts {shown(counts)} is no packed string of COCO")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        value -= (1 << shift) if bits & 0x10 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError(f"{where}: RLE counts {shown(counts)} is cut off")
    return runs
