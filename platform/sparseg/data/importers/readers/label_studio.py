"""Label Studio's own exports, JSON (tasks with annotations) and JSON_MIN (a record an annotation).

https://labelstud.io/guide/export: positions are percent of the picture as the browser shows it, that is
upright, before `image_rotation`, a turn of the view alone; `original_width` and `original_height` are that
picture's.  Whole pixels are corners.  A brush's `rle` is `label_studio_rle`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sparseg.data.importers.files import IMAGE_SUFFIXES, some
from sparseg.data.importers.readers import outlines
from sparseg.data.importers.readers.label_studio_rle import decoded
from sparseg.data.importers.readers.parsing import (
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
)
from sparseg.data.strokes import Annotations, Stroke, mask_stroke

Results = list[tuple[str, Any]]
"""What an annotation consists of: its name for a message, and its content, not checked yet."""

LABELS = ("keypointlabels", "brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
"""Where a region's value names its class."""
UNREAD = ("vector", "vectorlabels", "bitmask", "bitmasklabels")
IMAGE_FIELDS = ("image", "img", "picture", "photo", "ocr")
"""Of several fields with an image's path, which is the picture."""
NEWEST = "images have several annotations, of which the newest was taken"
CANCELLED = "images are skipped or not annotated in Label Studio and were left out"
PREDICTED = "images have predictions, which were left out"
CLASSLESS = "regions have no label and were left out"
TURNED = "regions were drawn with the view turned (image_rotation); they lie on the picture as it was before"
OTHER = "results are no regions of an image and were left out"
OPEN = "polygons are unfinished and were left out"


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The regions of every image in their order, of its newest annotation that is not cancelled.

    Key points are points of the width, whatever width Label Studio showed them in; the others are filled.
    Predictions, and what is no region of an image, are left out and counted.  Raises ValueError naming file
    and task.
    """
    strokes: dict[str, list[Stroke]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: dict[str, str] = {}
    count: Counter[str] = Counter()
    for file in files:
        for name, where, results in _annotated(file, seen, count):
            strokes[name] = []
            for at, region in _regions(results, count, where):
                height, width = (field(region, f"original_{s}", object, at) for s in ("height", "width"))
                shape = size(height, width, at)
                if sizes.setdefault(name, shape) != shape:
                    raise ValueError(
                        f"{at}: drawn on {shape[1]}x{shape[0]} pixels, but other regions of the image on "
                        f"{sizes[name][1]}x{sizes[name][0]}; keep one picture in a task"
                    )
                if region["value"].get("closed") is False:
                    count[OPEN] += 1
                    continue
                strokes[name] += _strokes(
                    region, class_id(_label(region, at), names, at), shape, width_px, at
                )
    return Annotations(strokes, sizes, [f"{number} {what}" for what, number in count.items() if number])


def class_names(files: Sequence[Path]) -> list[str]:
    """The labels of the annotations by the alphabet, for the export does not hold the labelling setup.

    Void ones are left out.  Raises ValueError naming file and task.
    """
    found: set[str] = set()
    for file in files:
        for _, where, results in _annotated(file, {}, Counter()):
            for at, region in _regions(results, Counter(), where):
                found.add(_label(region, at))
    return sorted(label for label in found if not is_void(label))


# ----------------------------------------------------------------------------------------- tasks, annotations


def _annotated(file: Path, seen: dict[str, str], count: Counter[str]) -> Iterator[tuple[str, str, Results]]:
    """(image, where, its results as (name, result)) of every image that somebody annotated."""
    content = read_json(file)
    expect(file, json_format(content), "label-studio")
    tasks = content if isinstance(content, list) else [content]
    records: dict[str, list[tuple[Any, Results]]] = {}
    places: dict[str, str] = {}
    for number, task in enumerate(tasks, 1):
        where = f"{file}, task {number}"
        if not isinstance(task, dict):
            raise ValueError(f"{where}: must be an object, got {shown(task)}")
        is_whole = "annotations" in task or "completions" in task
        name = _image(task, where, is_whole=is_whole)
        if is_whole and name in places:
            raise ValueError(f"{where}: image {name} is that of {places[name]} already; keep one of the two")
        places.setdefault(name, where)
        own = _of_task(task, count, where) if is_whole else [(_time(task), _of_record(task))]
        records.setdefault(name, []).extend(own)
    for name, own in records.items():
        if not own:
            count[CANCELLED] += 1
            continue
        once(name, seen, places[name])
        count[NEWEST] += len(own) > 1
        newest = max(range(len(own)), key=lambda at: (own[at][0], at))
        yield name, places[name], own[newest][1]


def _of_task(task: dict[str, Any], count: Counter[str], where: str) -> list[tuple[Any, Results]]:
    """(time, results) of every annotation that was not cancelled."""
    count[PREDICTED] += bool(task.get("predictions"))
    found = []
    annotations = field(task, "annotations" if "annotations" in task else "completions", list, where)
    for number, annotation in enumerate(annotations, 1):
        at = f"{where}, annotation {number}"
        results = field(annotation, "result", list, at)
        if not (annotation.get("was_cancelled") or annotation.get("skipped")):
            found.append((_time(annotation), [(f"result {n}", r) for n, r in enumerate(results, 1)]))
    return found


def _of_record(record: dict[str, Any]) -> Results:
    """The results of a record of JSON_MIN: its lists, whose entries are the values of JSON's results."""
    results = []
    for control, values in record.items():
        if isinstance(values, list):
            for number, value in enumerate(values, 1):
                if isinstance(value, dict):
                    results.append((f"{control} {number}", {**value, "value": value}))
    return results


def _time(annotation: dict[str, Any]) -> tuple[bool, float, str]:
    """When it was made, for a comparison: seconds in old exports, ISO 8601 text in newer ones."""
    made = annotation.get("created_at")
    if isinstance(made, str):
        return True, 0.0, made
    return False, float(made) if isinstance(made, int | float) and abs(made) < 2**53 else 0.0, ""


def _image(task: dict[str, Any], where: str, *, is_whole: bool) -> str:
    """The image's id, from the one field of the task's data that holds its path, or from `file_upload`."""
    data = field(task, "data", dict, where) if is_whole else task
    paths = {key: value for key, value in data.items() if isinstance(value, str) and _is_image(value)}
    if len(paths) > 1:
        paths = {key: paths[key] for key in IMAGE_FIELDS if key in paths} or paths
        if len(paths) > 1 and IMAGE_FIELDS[0] in paths:
            paths = {IMAGE_FIELDS[0]: paths[IMAGE_FIELDS[0]]}
    if len(paths) > 1:
        raise ValueError(
            f"{where}: {some(map(shown, paths))} are all paths of images; name the picture's field 'image'"
        )
    path = next(iter(paths.values()), task.get("file_upload") or None)
    if path is None:
        has = some(map(shown, data), 6) or "nothing"
        raise ValueError(f"{where}: has no path of an image; its data has {has}")
    return image_id(path, where)


def _is_image(text: str) -> bool:
    """Whether a text is a path or URL of a file of a known kind of image."""
    path = text.split("?d=")[-1] if "?d=" in text else text.split("?")[0]
    return PurePosixPath(path.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


# ---------------------------------------------------------------------------------------------------- regions


def _regions(results: Results, count: Counter[str], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, region) of the results that have a shape and a label.

    Of the results of one id, which all repeat the region's shape, only those that name a class are given.
    """
    labelled = {_id(result) for _, result in results if _has_label(result)} - {None}
    bare: set[str] = set()
    for name, result in results:
        at = f"{where}, {name}"
        if not isinstance(result, dict):
            raise ValueError(f"{at}: must be an object, got {shown(result)}")
        if result.get("type") in UNREAD:
            raise ValueError(
                f"{at}: {result['type']} is not read, only {', '.join(LABELS)}; draw it as a polygon or with "
                "the brush, or remove it"
            )
        own = _id(result)
        if not _has_shape(result):
            count[OTHER] += 1
        elif _has_label(result):
            count[TURNED] += position(result.get("image_rotation") or 0, f"{at}, image_rotation") != 0
            yield at, result
        elif own is None or own not in labelled | bare:
            count[CLASSLESS] += 1
            bare |= {own} if own is not None else set()


def _id(result: Any) -> str | None:
    found = result.get("id") if isinstance(result, dict) else None
    return found if isinstance(found, str) else None


def _value(result: Any) -> dict[str, Any]:
    value = result.get("value") if isinstance(result, dict) else None
    return value if isinstance(value, dict) else {}


def _has_label(result: Any) -> bool:
    return any(_value(result).get(key) for key in LABELS)


def _has_shape(result: Any) -> bool:
    value = _value(result)
    return "rle" in value or "points" in value or ("x" in value and "y" in value)


def _label(region: dict[str, Any], where: str) -> str:
    """The label of a region that has one.  Raises ValueError for several: a pixel has one class."""
    value = region["value"]
    labels = field(value, next(key for key in LABELS if value.get(key)), list, where)
    if len(labels) > 1:
        raise ValueError(f"{where}: a region of {len(labels)} labels, {shown(labels)}; a pixel has one class")
    if not isinstance(labels[0], str):
        raise ValueError(f"{where}: a label must be a text, got {shown(labels[0])}")
    return labels[0].strip()


def _strokes(
    region: dict[str, Any], k: int, shape: tuple[int, int], width_px: float, where: str
) -> list[Stroke]:
    value = region["value"]
    if "rle" in value:
        return [mask_stroke(k, decoded(value["rle"], shape, where))]
    if "points" in value:
        y, x = positions(value["points"], where, 3, "polygon")
        return [Stroke(k, "polygon", _pixels(y, shape[0]), _pixels(x, shape[1]))]
    y0, x0 = _share(value, "y", shape[0], where), _share(value, "x", shape[1], where)
    turn = position(value.get("rotation") or 0, f"{where}, rotation")
    if "radiusX" in value or "radiusY" in value:
        radii = _share(value, "radiusY", shape[0], where), _share(value, "radiusX", shape[1], where)
        return [Stroke(k, "polygon", *outlines.turned(outlines.ellipse(y0, x0, *radii), turn, y0, x0))]
    if "height" in value:  # turned about its first corner, which is where x and y say
        height, width = _share(value, "height", shape[0], where), _share(value, "width", shape[1], where)
        outline = outlines.box(y0, x0, y0 + height, x0 + width)
        return [Stroke(k, "polygon", *outlines.turned(outline, turn, y0, x0))]
    return [Stroke(k, "point", (_inside(y0, shape[0]),), (_inside(x0, shape[1]),), width_px)]


def _pixels(percent: tuple[float, ...], side_px: int) -> tuple[float, ...]:
    return tuple(share * side_px / 100 for share in percent)


def _share(value: dict[str, Any], name: str, side_px: int, where: str) -> float:
    """Pixels of a percentage of a side."""
    return position(field(value, name, object, where), f"{where}, {name}") * side_px / 100


def _inside(at: float, side_px: int) -> float:
    """A click at 100 %, where the editor stops the pointer, is one on the last pixel."""
    return math.nextafter(at, 0.0) if at == side_px else at
