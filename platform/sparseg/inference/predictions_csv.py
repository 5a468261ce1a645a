"""predictions.csv of an output folder: which file there is whose, so that a killed command can go on.

It only grows while a command runs: first a row for each mask that is going to be written, with no confidence
yet, then the row of each one that is; the last row of a mask counts.  A command that ends well leaves one row
for each mask.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseg.common.files import write_atomically

LIST_FILE = "predictions.csv"
COLUMNS = ("image", "mask", "also", "confidence", "unsure", "settings")
"""Path of the image; name of its mask; what else was written (endings); mean probability of its pixels'
classes; share of pixels below 0.5; a short name of network, settings and image.  The cover of each class
stands before the last, whose text is compared: so a line cut short is never taken for a whole one."""
COVER = "cover_"  # and the class: share of the image's pixels
Row = dict[str, Any]
FILE: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # any file's name


def cover_columns(names: Sequence[str]) -> list[str]:
    """Name the columns that hold the share of the image's pixels of each class."""
    return [f"{COVER}{name}" for name in names]


class Listing:
    """The rows of a folder, of this network's classes ``names`` and of those that stand there already.

    A file without columns of cover, as an earlier sparseg wrote it, is taken up.  Raises ValueError
    if its predictions.csv is somebody else's.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path = folder / LIST_FILE
        self.rows: dict[str, Row] = {}
        self.covers = cover_columns(names)
        if not self.path.is_file():
            return
        with self.path.open(**FILE) as file:
            reader = csv.DictReader(file)
            found = tuple(reader.fieldnames or ())
            covers = [column for column in found if column.startswith(COVER)]
            if found != _columns(covers):
                raise ValueError(
                    f"{self.path}: its columns are {reader.fieldnames}, not those of `sparseg predict`; name "
                    "another output folder, or remove it"
                )
            self.covers = list(dict.fromkeys([*self.covers, *covers]))
            for row in reader:
                if None not in row.values() and None not in row:  # a killed command may leave half a line
                    self.rows[row["mask"]] = row

    def own(self, mask: str, settings: str) -> Row | None:
        """The row of a mask that was made, or begun, with these settings."""
        row = self.rows.get(mask)
        return row if row is not None and row["settings"] == settings else None

    @contextlib.contextmanager
    def writing(self, intended: Iterable[Row]) -> Iterator[Callable[[Row], None]]:
        """Within: the function given takes the row of every mask that is written."""
        self.rows.update((row["mask"], row) for row in intended)
        self._write(self.rows.values())  # the columns may be others than before
        with self.path.open("a", **FILE) as file:
            writer = csv.DictWriter(file, _columns(self.covers))

            def add(row: Row) -> None:
                self.rows[row["mask"]] = row
                writer.writerow(row)
                file.flush()

            yield add
        done = [row for row in self.rows.values() if row["confidence"]]
        self.covers = [column for column in self.covers if any(row.get(column) for row in done)]
        self._write(done)

    def _write(self, rows: Iterable[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _columns(self.covers), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode(FILE["encoding"], FILE["errors"]))


def _columns(covers: Sequence[str]) -> tuple[str, ...]:
    return (*COLUMNS[:-1], *covers, COLUMNS[-1])
