"""CSV of points: a header with image, row, column, label (CoralNet: Name, Row, Column, Label), in any order.

Rows and columns are pixels from 0, as CoralNet counts now (its older exports counted from 1).  Other columns
are not read.  A header without row and column is that of a CSV of tags.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sparseg.config import FieldError, field, flag
from sparseg.data.importers.readers.parsing import class_id, from_text, image_id, position, read_text, shown
from sparseg.data.importers.tags_and_boxes import tag
from sparseg.data.strokes import Annotations, Stroke

Columns = Mapping[str, tuple[str, ...]]
"""What is wanted -> the names that a header may give it."""

POINT_COLUMNS = {"image": ("image", "name"), "row": ("row",), "column": ("column",), "label": ("label",)}
TAG_COLUMNS = {name: POINT_COLUMNS[name] for name in ("image", "label")}
TAG_SEPARATOR = ";"


def read(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The points of all files in their order; a label is a class name, or else a class id.

    A row that repeats an earlier one is left out and counted.  A negative position is refused, for pixels
    count from 0; one beyond the image is seen, and dropped, only when it is drawn.  Raises ValueError naming
    file and line.
    """
    strokes: dict[str, dict[Stroke, None]] = {}
    spelled: dict[str, str] = {}
    repeated = 0
    for file in files:
        for line, (image, row, column, label) in _records(file, POINT_COLUMNS):
            where = f"{file}, line {line}"
            name = _image(image, spelled, where)
            y, x = (
                position(from_text(text, f"{where}, {axis}"), f"{where}, {axis}", least=0.0)
                for axis, text in (("row", row), ("column", column))
            )
            stroke = Stroke(_class(label, names, where), "point", (y,), (x,), width_px)
            repeated += stroke in strokes.setdefault(name, {})
            strokes[name][stroke] = None
    notes = [f"{repeated} CSV rows repeat an earlier one and were left out"] if repeated else []
    return Annotations({name: list(points) for name, points in strokes.items()}, notes=notes)


def read_tags(files: Sequence[Path], names: list[str], width_px: float = 1.0) -> Annotations:
    """The tags of every image: of all its rows, and in a row separated by `;`, each once.

    A label is a class name, or else a class id; an empty one lists an image without tags.  `width_px` has no
    use here.  Raises ValueError naming file and line.
    """
    tags: dict[str, dict[Stroke, None]] = {}
    spelled: dict[str, str] = {}
    for file in files:
        for line, (image, cell) in _records(file, TAG_COLUMNS):
            where = f"{file}, line {line}"
            own = tags.setdefault(_image(image, spelled, where), {})
            labels = [cell] if cell in names else [part.strip() for part in cell.split(TAG_SEPARATOR)]
            own |= {tag(_class(label, names, where)): None for label in labels if label}
    return Annotations({name: list(own) for name, own in tags.items()})


def _image(image: str, spelled: dict[str, str], where: str) -> str:
    """The image's id; `spelled` keeps how each was written."""
    name = image_id(image, where)
    if spelled.setdefault(name, image) != image:
        raise ValueError(
            f"{where}: images {shown(image)} and {shown(spelled[name])} have the same id {name}; rename one"
        )
    return name


def _records(file: Path, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """(line, cells of the columns) of every record below the header."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        chosen = _chosen(header, columns, f"{file}, line 1")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(cells)} fields, but the header has {len(header)}; "
                    "put names with commas in quotes"
                )
            yield reader.line_num, [cells[at].strip() for at in chosen]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: no valid CSV ({error})") from error


def _chosen(header: list[str], columns: Columns, where: str) -> list[int]:
    """Where in the header each column stands.  Points and tags are told apart by row and column."""
    found = f"found {shown(','.join(header), 120)}"
    placed = {"row", "column"} & set(header)
    if columns is TAG_COLUMNS and placed:
        raise FieldError(
            f"{where}: a CSV of points, for it has a column {' and '.join(sorted(placed))}, but "
            f"{field('data.label')}=tag reads image,label; give {flag('data.label')} point, or remove those "
            f"columns; {found}"
        )
    chosen = []
    for wanted, accepted in columns.items():
        at = [index for name in accepted for index, cell in enumerate(header) if cell == name]
        if not at or header.count(header[at[0]]) > 1:
            tags = f" (tags of whole images: {flag('data.label')} tag)"
            raise FieldError(
                f"{where}: {'more than one' if at else 'no'} column {' or '.join(map(repr, accepted))} "
                f"for the {wanted}; the header must name {','.join(columns)} (or "
                f"{','.join(name[-1].title() for name in columns.values())}), {found}"
                + ("" if placed or columns is TAG_COLUMNS else tags)
            )
        chosen.append(at[0])
    return chosen


def _class(label: str, names: list[str], where: str) -> int:
    if label not in names and label.isascii() and label.isdigit() and len(label) < 5:
        if int(label) < len(names):
            return int(label)
        raise ValueError(f"{where}: class id {label}; ids are 0..{len(names) - 1}, or give the class's name")
    return class_id(label, names, where)
