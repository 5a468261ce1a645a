"""Label PNGs in any encoding -> label maps with our codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import shards
from sparseg.data.importers.files import some
from sparseg.data.importers.source import Settings, SparseRule

Annotation = tuple[np.ndarray, list[dict[str, Any]]]
"""Label (H, W) uint8 with codes, and the strokes that it was drawn from."""


COUNTED_AT_ONCE = 2**20  # pixels


class BadFileError(ValueError):
    """A file that cannot be decoded: what --data.skip-bad may leave out."""


# --------------------------------------------------------------------------------------------- reading labels


def read_raw(file: Path) -> np.ndarray:
    """Label PNG or TIFF -> its values (H, W) uint8, unconverted.

    Raises BadFileError if it is unreadable, ValueError if it is no map of values 0..255.
    """
    try:
        return shards.decode_label_file(file.read_bytes())
    except OSError as error:
        raise BadFileError(f"{file}: unreadable label ({error.strerror})") from error
    except shards.UnreadableError as error:
        raise BadFileError(f"{file}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def value_counts(array_HW: np.ndarray) -> np.ndarray:
    """How many pixels of a uint8 map have each value, (256,) int64; numpy would copy it to eight times its
    size."""
    count_256 = np.zeros(256, dtype=np.int64)
    rows_at_once = max(1, COUNTED_AT_ONCE // max(1, array_HW.shape[1]))
    for top in range(0, len(array_HW), rows_at_once):
        count_256 += np.bincount(array_HW[top : top + rows_at_once].ravel(), minlength=256)
    return count_256


def converter(table: dict[int, int], hint: str) -> Callable[[Path], np.ndarray]:
    """Function that reads a label PNG and turns its values into classes and codes by `table`.

    It raises ValueError naming the file, the values that the table lacks, those allowed, and the `hint`.
    """
    code_256 = np.full(256, -1, dtype=np.int16)
    for value, code in table.items():
        code_256[value] = code
    classes = [value for value, code in table.items() if code < UNLABELLED]
    codes = {UNLABELLED: "unlabelled", IGNORED: "ignored"}
    others = [f"{value} ({codes[code]})" for value, code in sorted(table.items()) if code >= UNLABELLED]
    shown = (
        f"{min(classes)}..{max(classes)}"
        if len(classes) == max(classes) - min(classes) + 1
        else str(sorted(classes))
    )
    allowed = ", ".join([f"{shown} (classes)", *others[:4], *(["..."] if len(others) > 4 else [])])

    def read(file: Path) -> np.ndarray:
        raw_HW = read_raw(file)
        count_256 = value_counts(raw_HW)
        values = np.flatnonzero(count_256)
        wrong = values[code_256[values] < 0]
        if len(wrong):
            counts = count_256[wrong]
            raise ValueError(
                f"{file}: values {some(wrong, 8)} ({counts.sum()} pixels) are neither a class nor a "
                "declared code; "
                f"allowed: {allowed}; {hint}"
            )
        return code_256.astype(np.uint8)[raw_HW]

    return read


def sparse_encoding(
    files: list[Path], num_classes: int, settings: Settings, rule: SparseRule | None = None
) -> tuple[dict[int, int], str]:
    """Table of the sparse label PNGs, and a sentence on how it was found.

    Undeclared: 254 present means our own codes; else K present means K unlabelled and 255 void (AGMM); else
    255 means unlabelled (ScribbleSup).  The layout's own `rule` goes before.  Raises ValueError for a
    declared code that is a class or occurs nowhere, and for labels without any unlabelled pixel.
    """
    count_256 = np.zeros(256, dtype=np.int64)
    for file in files:
        try:
            count_256 += value_counts(read_raw(file))
        except BadFileError:
            if not settings.skip_bad:
                raise
    table = {k: k for k in range(num_classes)}
    declared = settings.unlabelled_code
    by_layout = rule(count_256, declared, str(files[0].parent)) if rule is not None and files else None
    if by_layout is not None:
        return by_layout
    if declared is not None:
        if declared < num_classes:
            raise ValueError(
                f"data.unlabelled_code={declared} is a class id (0..{num_classes - 1}); no code can be one"
            )
        if not count_256[declared]:
            others = [
                f"{value} ({count_256[value]} pixels)"
                for value in np.flatnonzero(count_256)
                if value >= num_classes
            ]
            raise ValueError(
                f"data.unlabelled_code={declared} occurs in none of {len(files)} label files (first "
                f"{files[0]}); "
                f"values there that are no class: {some(others) or 'none'}; correct --data.unlabelled-code"
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
    raise ValueError(
        f"{files[0].parent}: no unlabelled pixel in {len(files)} label files (value {most} covers "
        f"{count_256[most] / max(1, count_256.sum()):.1%}), so they are dense masks, or a class id stands "
        "for unlabelled; train on dense masks with --data.label full, or write 254 where nobody annotated"
    )
