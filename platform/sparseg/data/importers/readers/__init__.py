"""Which format annotation files are of, and the one reader for each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sparseg.config import PIXELLESS, FieldError, field, flag
from sparseg.data.importers.files import some
from sparseg.data.importers.readers import (
    coco,
    csv,
    cvat,
    label_studio,
    labelme,
    points,
    scribblesup,
    voc,
)
from sparseg.data.importers.readers.parsing import (
    json_format,
    read_json,
    read_xml,
    shown,
    xml_format,
    xml_is_empty,
)
from sparseg.data.importers.source import STROKE_SUFFIXES, WEAK_FORMATS, stroke_files, stroke_suffix
from sparseg.data.importers.tags_and_boxes import Kind, presume_background, with_note_of_bare
from sparseg.data.strokes import Annotations

Reader = Callable[[Sequence[Path], list[str], float], Annotations]

MAX_STROKE_PX = 1000


def detect_format(place: Path) -> str:
    """`png`, or the stroke format at a file or folder, by suffix and then by the content of the first file.

    Raises ValueError naming the file if its content is of no known format.
    """
    files = stroke_files(place, "auto")
    return _format_of(files) if files else "png"


def _format_of(files: Sequence[Path]) -> str:
    file = files[0]
    match stroke_suffix(file):
        case ".csv":
            return "csv"
        case ".json":
            content = read_json(file)
            found = json_format(content)
            seen = (
                f"found {some(map(shown, content), 6)}"
                if isinstance(content, dict)
                else f"it is a {type(content).__name__}"
            )
            looked = (
                'What\'s-the-Point ({"id": [...]}), labelme ("shapes"), COCO ("images", "annotations") nor '
                'Label Studio ([{"data", "annotations"}])'
            )
        case _:
            # VOC's file of an image without an object looks as ScribbleSup's of one without a stroke
            for file in files:
                root = read_xml(file)
                if not xml_is_empty(root):
                    break
            found = xml_format(root)
            seen = f"its root is <{shown(root.tag)[1:-1]}> with {shown([child.tag for child in root[:3]])}"
            looked = (
                "ScribbleSup (<annotation> with <polygon>), CVAT for images (<annotations>) nor VOC "
                "(<annotation> with <object> and <bndbox>)"
            )
    if found is None:
        raise FieldError(
            f"{file}: format not recognised, neither {looked}; {seen}; see {flag('data.label_format')}"
        )
    return found


def read_strokes(
    files: Sequence[Path], label_format: str, names: list[str], width_px: float, label: str = "point"
) -> tuple[str, Annotations]:
    """The format (found if `auto`) and what its reader finds in the files for that label kind.

    Raises ValueError, also for a format that the label kind is not read from.
    """
    if not (math.isfinite(width_px) and 1 <= width_px <= MAX_STROKE_PX):
        raise FieldError(f"{field('data.stroke_px')} must be in 1..{MAX_STROKE_PX} pixels, got {width_px}")
    found = _format_of(files) if label_format == "auto" else label_format
    wrong = [file for file in files if stroke_suffix(file) != STROKE_SUFFIXES[found]]
    if wrong:
        raise FieldError(
            f"{wrong[0]}: {found} is read from {STROKE_SUFFIXES[found]} files; correct "
            f"{flag('data.label_format')}, or move the file away"
        )
    if label in WEAK_FORMATS and found not in WEAK_FORMATS[label]:
        raise FieldError(
            f"{files[0]}: a {found} file, but {field('data.label')}={label} is read from "
            f"{', '.join(WEAK_FORMATS[label])}; correct {flag('data.label')} or {flag('data.label_path')}"
        )
    if label not in WEAK_FORMATS and found == "voc":
        raise FieldError(
            f"{files[0]}: a voc file has boxes, and no {field('data.label')}={label}; import it with "
            f"{flag('data.label')} box or tag"
        )
    if label not in PIXELLESS:
        read = _reader(found, "strokes")(files, names, width_px)
        _refuse_shares(read, some(files))
        return found, read
    kind: Kind = "tag" if label == "tag" else "box"
    read = _reader(found, kind)(files, names, width_px)
    read = with_note_of_bare(read, label, names, some(files))
    return found, presume_background(read, names) if kind == "tag" else read


def _refuse_shares(annotations: Annotations, where: str) -> None:
    """Raise ValueError where all positions lie in the first pixel, as shares of an image's sides do."""
    places = {
        place
        for own in annotations.strokes.values()
        for stroke in own
        if stroke.kind != "mask"
        for place in zip(stroke.y, stroke.x, strict=True)
    }
    is_shares = len(places) > 2 and all(0 <= at <= 1 for place in places for at in place)
    if is_shares and any(at != int(at) for place in places for at in place):
        raise ValueError(
            f"{where}: all {len(places)} positions lie in 0..1, so they seem to be shares of the image's "
            "sides; positions are pixels: multiply x by the width and y by the height"
        )


def class_names(files: Sequence[Path], label_format: str = "auto") -> list[str]:
    """The classes that annotation files name, in their tool's own order where it has one, without void ones.

    COCO: by category id; CVAT: the task's label list; labelme: labels.txt, else the alphabet with
    _background_ first; Label Studio, CSV, VOC, ScribbleSup: the alphabet.  Empty where the files have class
    ids only (What's-the-Point, a CSV of numbers).  Raises ValueError naming the file.
    """
    found = _format_of(files) if label_format == "auto" else label_format
    readers = {
        **{"whats-the-point": points, "scribblesup": scribblesup, "csv": csv, "labelme": labelme},
        **{"label-studio": label_studio, "cvat": cvat, "coco": coco, "voc": voc},
    }
    return readers[found].class_names(files)


def has_order(files: Sequence[Path], label_format: str = "auto") -> bool:
    """Whether `class_names` has the order of a list that the tool keeps, and not that of the alphabet."""
    match _format_of(files) if label_format == "auto" else label_format:
        case "labelme":
            return labelme.labels_file(files) is not None
        case "cvat":
            return cvat.has_label_list(files)
        case found:
            return found == "coco"


def _reader(label_format: str, kind: Kind) -> Reader:
    match label_format:
        case "whats-the-point":
            return points.read
        case "scribblesup":
            return scribblesup.read
        case "csv":
            return csv.read_tags if kind == "tag" else csv.read
        case "labelme":
            return functools.partial(labelme.read, kind=kind)
        case "label-studio":
            return label_studio.read
        case "cvat":
            return functools.partial(cvat.read, kind=kind)
        case "voc":
            return functools.partial(voc.read, kind=kind)
        case _:
            assert label_format == "coco"
            return functools.partial(coco.read, kind=kind)
