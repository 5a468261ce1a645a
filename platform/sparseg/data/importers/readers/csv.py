"""CSV of points or of tags, under the names that CoralNet, napari and spreadsheets give to the columns.

A point is image, row, column, label, or image, x, y, label, in any order; fields are separated by commas,
semicolons or tabs.  Rows and columns are pixels from 0, as CoralNet counts now (its older exports counted
from 1), and x, y likewise, with whole numbers at the corners of pixels; napari's axis-0, axis-1 (row, column)
have them at the centres.  Other columns are not read.  A header without a position is that of a CSV of tags.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparseg.config import FieldError, field, flag
from sparseg.data.importers.readers.parsing import (
    class_id,
    from_text,
    image_id,
    is_void,
    position,
    read_text,
    shown,
)
from sparseg.data.importers.tags_and_boxes import tag
from sparseg.data.strokes import Annotations, Stroke

IMAGE = (
    *("image", "image name", "image file", "image path", "img"),
    *("file", "file name", "filename", "path", "name"),
)
"""Names of a column, as `_plain` writes them."""
LABEL = ("label code", "label", "label name", "class", "class name", "category", "category name", "species")
IDS = "label id"
"""CoralNet's own numbers, the same for all its users."""
AXES = ("axis 0", "axis 1")
POSITIONS = (("row", "column"), ("row", "col"), ("y", "x"), AXES)
"""Pairs of columns for y and x."""
SEPARATORS = ",;\t"
TAG_SEPARATOR = ";"
WANTED = "image,row,column,label (or image,x,y,label; CoralNet: Name,Row,Column,Label code)"


@dataclasses.dataclass(frozen=True)
class _Header:
    """Where in a record its parts stand."""

    width: int
    """Number of columns."""
    image: int | None
    """None: napari's table, named as its image."""
    label: int
    is_id: bool
    """The label is one of CoralNet's own numbers."""
    position: tuple[int, int] | None
    """y and x; None: a table of tags."""
    offset: float
    """From where the file's whole numbers lie to the corner of a pixel."""


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The points of all files in their order; a label is a class name, or else a class id.

    Case counts in a label only where classes differ in nothing else.  A row without a label is a point that
    nobody annotated yet; it and a row that repeats an earlier one are left out and counted.  A negative
    position is refused, for pixels count from 0; one beyond the image is seen, and dropped, only when it is
    drawn.  Raises ValueError naming file and line.
    """
    strokes: dict[str, dict[Stroke, None]] = {}
    spelled: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        for line, cells, header, separator in _records(file, tags=False):
            where = f"{file}, line {line}"
            name = _image(file.stem if header.image is None else cells[header.image], spelled, where)
            own = strokes.setdefault(name, {})
            label = cells[header.label]
            if not label:
                left_out["CSV rows have no label, for nobody annotated them yet, and were left out"] += 1
                continue
            assert header.position is not None
            y, x = (
                _position(cells[at], separator, f"{where}, {axis}") + header.offset
                for axis, at in zip(("row", "column"), header.position, strict=True)
            )
            stroke = Stroke(_class(label, names, header, where), "point", (y,), (x,), width_px)
            left_out["CSV rows repeat an earlier one and were left out"] += stroke in own
            own[stroke] = None
    notes = [f"{number} {what}" for what, number in left_out.items() if number]
    return Annotations({name: list(points) for name, points in strokes.items()}, notes=notes)


def read_tags(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The tags of every image: of all its rows, and in a row separated by `;`, each once.

    A label is a class name, or else a class id; an empty one lists an image without tags.  `width_px` has no
    use here.  Raises ValueError naming file and line.
    """
    tags: dict[str, dict[Stroke, None]] = {}
    spelled: dict[str, str] = {}
    for file in files:
        for line, cells, header, _ in _records(file, tags=True):
            where = f"{file}, line {line}"
            assert header.image is not None
            own = tags.setdefault(_image(cells[header.image], spelled, where), {})
            cell = cells[header.label]
            labels = [cell] if cell in names else [part.strip() for part in cell.split(TAG_SEPARATOR)]
            own |= {tag(_class(label, names, header, where)): None for label in labels if label}
    return Annotations({name: list(own) for name, own in tags.items()})


def class_names(files: Sequence[Path]) -> list[str]:
    """The labels by the alphabet, in their first spelling; none if they are numbers, for these are class ids.

    Raises ValueError naming file and line.
    """
    found: dict[str, str] = {}
    for file in files:
        header = _table(file)[1]
        is_tags = not any(set(pair) <= set(header) for pair in POSITIONS)
        for _, cells, chosen, _ in _records(file, tags=is_tags):
            cell = cells[chosen.label]
            for label in cell.split(TAG_SEPARATOR) if is_tags else [cell]:
                if label.strip() and not is_void(label):
                    found.setdefault(label.strip().casefold(), label.strip())
    return [] if all(_is_number(label) for label in found) else sorted(found.values(), key=str.casefold)


def _image(image: str, spelled: dict[str, str], where: str) -> str:
    """The image's id; `spelled` keeps how each was written."""
    name = image_id(image, where)
    if spelled.setdefault(name, image) != image:
        raise ValueError(
            f"{where}: images {shown(image)} and {shown(spelled[name])} have the same id {name}; rename one"
        )
    return name


def _position(text: str, separator: str, where: str) -> float:
    """A position; where fields are not separated by commas, a spreadsheet may write 4,5 for 4.5."""
    if separator != "," and re.fullmatch(r"\d+,\d+", text):
        text = text.replace(",", ".")
    return position(from_text(text, where), where, least=0.0)


def _records(file: Path, *, tags: bool) -> Iterator[tuple[int, list[str], _Header, str]]:
    """(line, cells, header, separator) of every record below the header."""
    separator, columns = _table(file)
    header = _header(columns, f"{file}, line 1", tags=tags)
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True, delimiter=separator)
    try:
        next(reader)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != header.width:
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(cells)} fields, but the header has "
                    f"{header.width}; put names with {separator!r} in quotes"
                )
            yield reader.line_num, [cell.strip() for cell in cells], header, separator
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: no valid CSV ({error})") from error


def _table(file: Path) -> tuple[str, list[str]]:
    """The separator that gives the header the most columns that are known, and the header's plain names."""
    text = read_text(file)
    known = {*IMAGE, *LABEL, IDS, *(name for pair in POSITIONS for name in pair)}
    best: tuple[int, str, list[str]] = (-1, ",", [])
    problem = None
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
        try:
            columns = [_plain(cell) for cell in next(reader, [])]
        except csv.Error as error:  # quoted names, which end at another separator
            problem = problem or f"{file}, line {reader.line_num}: no valid CSV ({error})"
            continue
        if (number := len(known & set(columns))) > best[0]:
            best = number, separator, columns
    if best[0] < 0 and problem is not None:
        raise ValueError(problem)
    return best[1], best[2]


def _plain(cell: str) -> str:
    """`Label_Code ` -> `label code`."""
    return " ".join(re.split(r"[\s_-]+", cell.strip().lower()))


def _header(columns: list[str], where: str, *, tags: bool) -> _Header:
    """Where the columns stand.  Raises ValueError for what is missing, and for what may be meant twice."""
    found = f"found {shown(','.join(columns), 120)}"
    pairs = [pair for pair in POSITIONS if set(pair) <= set(columns)]
    placed = [name for pair in POSITIONS for name in pair if name in columns]
    if tags and placed:
        raise FieldError(
            f"{where}: a CSV of points, for it has a column {' and '.join(dict.fromkeys(placed))}, but "
            f"{field('data.label')}=tag reads image,label; give {flag('data.label')} point, or remove those "
            f"columns; {found}"
        )
    wanted = "image,label" if tags else WANTED
    if not tags and len(pairs) != 1:
        both = " and ".join(",".join(pair) for pair in pairs)
        what = f"{both} may both be the position; keep one" if pairs else "no columns row,column nor x,y"
        hint = "" if placed else f" (tags of whole images: {flag('data.label')} tag)"
        raise FieldError(f"{where}: {what}; the header must name {wanted}, {found}{hint}")
    if "axis 2" in columns:
        raise ValueError(
            f"{where}: points of a stack with axis-2; export those of one image at a time; {found}"
        )
    at = [columns.index(name) for name in pairs[0]] if pairs else []
    twice = [name for name in (*IMAGE, *LABEL, IDS, *placed) if columns.count(name) > 1]
    if twice:
        raise ValueError(f"{where}: more than one column {twice[0]!r}; keep one, {found}")
    is_napari = bool(pairs) and pairs[0] == AXES
    label = _one(columns, (*LABEL, IDS), f"{where}: ", f"the label; the header must name {wanted}, {found}")
    image = None
    if not is_napari or set(IMAGE) & set(columns):
        image = _one(columns, IMAGE, f"{where}: ", f"the image; the header must name {wanted}, {found}")
    position_at = (at[0], at[1]) if at else None
    is_id = columns[label] == IDS
    return _Header(len(columns), image, label, is_id, position_at, 0.5 if is_napari else 0.0)


def _one(columns: list[str], accepted: Sequence[str], start: str, end: str) -> int:
    """Where the one column stands that may be meant.

    `name` is an image's only where nothing else is, CoralNet's code goes before its id and its old label.
    """
    present = [name for name in accepted if name in columns]
    if len(present) > 1 and present[-1] in ("name", IDS):
        present.pop()
    if present[:1] == ["label code"]:
        present = present[:1]
    if len(present) > 1:
        raise ValueError(f"{start}columns {' and '.join(map(repr, present))} may both be {end}; rename one")
    if not present:
        raise ValueError(f"{start}no column {accepted[0]!r} for {end}")
    return columns.index(present[0])


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()


def _class(label: str, names: list[str], header: _Header, where: str) -> int:
    if label in names:
        return names.index(label)
    if header.is_id:
        raise ValueError(
            f"{where}: {shown(label)} is one of CoralNet's own label ids, which say no class; export again "
            "with label codes, or name the classes by these ids"
        )
    if _is_number(label) and len(label) < 5:
        if int(label) < len(names):
            return int(label)
        raise ValueError(f"{where}: class id {label}; ids are 0..{len(names) - 1}, or give the class's name")
    same = [name for name in names if name.casefold() == label.casefold()]
    return class_id(same[0] if len(same) == 1 else label, names, where)
