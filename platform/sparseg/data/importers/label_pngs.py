"""Label PNGs in any encoding -> label maps with our codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import IGNORED, UNLABELLED, FieldError, ImportConfig, field, flag
from sparseg.data import shards
from sparseg.data.importers.files import some
from sparseg.data.importers.source import SparseRule

Annotation = tuple[np.ndarray, list[dict[str, Any]]]
"""Label (H, W) uint8 with codes, and the strokes that it was drawn from."""


COUNTED_AT_ONCE = 2**20  # pixels


class BadFileError(ValueError):
    """A file cannot be decoded; an import that skips bad files may leave it out."""


# --------------------------------------------------------------------------------------------- reading labels


def read_raw(file: Path, *, is_stored: bool = False) -> np.ndarray:
    """Label PNG or TIFF -> its values (H, W) uint8, unconverted.

    It is turned upright where the file itself has an orientation, unless `is_stored`.  Raises BadFileError if
    it is unreadable, ValueError if it is no map of values 0..255.
    """
    try:
        data = file.read_bytes()
        return shards.decode_label_file(shards.with_orientation_1(data) if is_stored else data)
    except OSError as error:
        raise BadFileError(f"{file}: unreadable label ({error.strerror})") from error
    except shards.UnreadableError as error:
        raise BadFileError(f"{file}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def value_counts(array_HW: np.ndarray) -> np.ndarray:
    """Count the pixels of a uint8 map that have each value, (256,) int64; numpy would copy it to eight times
    its size."""
    count_256 = np.zeros(256, dtype=np.int64)
    rows_at_once = max(1, COUNTED_AT_ONCE // max(1, array_HW.shape[1]))
    for top in range(0, len(array_HW), rows_at_once):
        count_256 += np.bincount(array_HW[top : top + rows_at_once].ravel(), minlength=256)
    return count_256


def read_label(file: Path, table: dict[int, int], hint: str, *, is_stored: bool = False) -> np.ndarray:
    """Read a label PNG as label (H, W) uint8 with codes; `table` has the class or code for each value.

    `is_stored`: an orientation that the file itself has does not turn it.

    Raises FieldError naming the file, the values that the table lacks, those allowed, and the `hint`, which
    may name fields; BadFileError if the file is unreadable.
    """
    code_256 = np.full(256, -1, dtype=np.int16)
    for value, code in table.items():
        code_256[value] = code
    raw_HW = read_raw(file, is_stored=is_stored)
    count_256 = value_counts(raw_HW)
    values = np.flatnonzero(count_256)
    wrong = values[code_256[values] < 0]
    if len(wrong):
        raise FieldError(
            f"{file}: values {some(wrong, 8)} ({count_256[wrong].sum()} pixels) are neither a class nor a "
            f"declared code; allowed: {_allowed(table)}; {hint}"
        )
    return code_256.astype(np.uint8)[raw_HW]


def _allowed(table: dict[int, int]) -> str:
    """List the values of a table, for a message."""
    classes = [value for value, code in table.items() if code < UNLABELLED]
    codes = {UNLABELLED: "unlabelled", IGNORED: "ignored"}
    others = [f"{value} ({codes[code]})" for value, code in sorted(table.items()) if code >= UNLABELLED]
    shown = (
        f"{min(classes)}..{max(classes)}"
        if len(classes) == max(classes) - min(classes) + 1
        else str(sorted(classes))
    )
    return ", ".join([f"{shown} (classes)", *others[:4], *(["..."] if len(others) > 4 else [])])


def sparse_encoding(
    files: list[Path], num_classes: int, config: ImportConfig, rule: SparseRule | None = None
) -> tuple[dict[int, int], str]:
    """Find the table of the sparse label PNGs -> (table, a sentence on how it was found).

    Undeclared: 254 present means our own codes; else K present means K unlabelled and 255 void (AGMM); else
    255 means unlabelled (ScribbleSup).  The layout's own `rule` goes before.  Raises ValueError for a
    declared code that is a class or occurs nowhere, and for labels without any unlabelled pixel.
    """
    count_256 = np.zeros(256, dtype=np.int64)
    for file in files:
        try:
            count_256 += value_counts(read_raw(file))
        except BadFileError:
            if not config.skip_bad:
                raise
    table = {k: k for k in range(num_classes)}
    declared = config.unlabelled_code
    by_layout = rule(count_256, declared, str(files[0].parent)) if rule is not None and files else None
    if by_layout is not None:
        return by_layout
    if declared is not None:
        if declared < num_classes:
            raise FieldError(
                f"{field('data.unlabelled_code')}={declared} is a class id (0..{num_classes - 1}); "
                "no code can be one"
            )
        if not count_256[declared]:
            others = [
                f"{value} ({count_256[value]} pixels)"
                for value in np.flatnonzero(count_256)
                if value >= num_classes
            ]
            raise FieldError(
                f"{field('data.unlabelled_code')}={declared} occurs in none of {len(files)} label files "
                f"(first {files[0]}); values there that are no class: {some(others) or 'none'}; correct "
                f"{flag('data.unlabelled_code')}"
            )
        return {**table, IGNORED: IGNORED, declared: UNLABELLED}, f"declared: {declared} = unlabelled"
    if count_256[UNLABELLED]:
        return {**table, UNLABELLED: UNLABELLED, IGNORED: IGNORED}, "found: 254 = unlabelled, 255 = void"
    if count_256[num_classes]:
        codes = {num_classes: UNLABELLED, IGNORED: IGNORED}
        return {**table, **codes}, f"found: {num_classes} = unlabelled, 255 = void (AGMM kind)"
    if count_256[IGNORED]:
        return {**table, IGNORED: UNLABELLED}, "found: 255 = unlabelled (ScribbleSup kind)"
    if not files or count_256[num_classes:].any():
        return table, "found: no unlabelled pixel"  # values that are no class are refused file by file
    most = int(count_256.argmax())
    raise FieldError(
        f"{files[0].parent}: no unlabelled pixel in {len(files)} label files (value {most} covers "
        f"{count_256[most] / max(1, count_256.sum()):.1%}), so they are dense masks, or a class id stands "
        f"for unlabelled; train on dense masks with {flag('data.label')} full, or write 254 where nobody "
        "annotated"
    )
