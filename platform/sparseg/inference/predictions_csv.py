"""predictions.csv of an output folder: which file there is whose, so that a killed command can go on.

It only grows while a command runs: first a row for each mask that is going to be written, with no confidence
yet, then the row of each one that is; the last row of a mask counts.  A command that ends well leaves one row
for each mask.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sparseg.common.files import write_atomically

LIST_FILE = "predictions.csv"
COLUMNS = ("image", "mask", "also", "confidence", "unsure", "settings")
"""Path of the image; name of its mask; what else was written (endings); mean probability of its pixels'
classes; share of pixels below 0.5; a short name of network, settings and image."""
Row = dict[str, Any]
FILE: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # any file's name


class Listing:
    """The rows of a folder.  Raises ValueError if its predictions.csv is somebody else's."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LIST_FILE
        self.rows: dict[str, Row] = {}
        if not self.path.is_file():
            return
        with self.path.open(**FILE) as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(
                    f"{self.path}: its columns are {reader.fieldnames}, not those of `sparseg predict`; name "
                    "another output folder, or remove it"
                )
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
        new = not self.path.is_file()
        with self.path.open("a", **FILE) as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            else:
                file.write("\r\n")  # ends half a line; an empty one is none

            def add(row: Row) -> None:
                self.rows[row["mask"]] = row
                writer.writerow(row)
                file.flush()

            for row in intended:
                self.rows[row["mask"]] = row
                writer.writerow(row)
            file.flush()
            yield add
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in self.rows.values() if row["confidence"])
        write_atomically(self.path, text.getvalue().encode(FILE["encoding"], FILE["errors"]))
