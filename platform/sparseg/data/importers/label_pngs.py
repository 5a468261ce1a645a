"""Label PNGs in any encoding -> label maps with our codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED, FieldError, ImportConfig, field, flag
from sparseg.data import shards
from sparseg.data.importers.files import some
from sparseg.data.importers.readers.labelmap import Colour, to_ids
from sparseg.data.importers.source import SparseRule

Annotation = tuple[np.ndarray, list[dict[str, Any]]]
"""Label (H, W) uint8 with codes, and the strokes that it was drawn from."""
MAPPED_AT_ONCE = 2**18  # pixels
NEARLY_ALL = 0.9  # of the label files
BACKGROUND = re.compile(r"_*background_*", re.IGNORECASE)


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


def read_coloured(
    file: Path, labels: dict[Colour, str], names: list[str], *, is_stored: bool = False
) -> np.ndarray:
    """Read a mask in the colours of a labelmap.txt as label (H, W) uint8 with codes.

    Raises BadFileError if it is unreadable, ValueError for colours or labels that are not known.
    """
    try:
        data = file.read_bytes()
        data = shards.with_orientation_1(data) if is_stored else data
        rgb_HW3 = shards.decode_image(data, shards.MAX_SCENE_PIXELS)
    except OSError as error:
        raise BadFileError(f"{file}: unreadable label ({error.strerror})") from error
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error
    return to_ids(rgb_HW3, labels, names, str(file))


def value_counts(array_HW: np.ndarray) -> np.ndarray:
    """Count the pixels of a uint8 map that have each value, (256,) int64; Pillow's histogram takes a fifth of
    the time of numpy's bincount, which copies the map to eight times its size."""
    return np.array(Image.fromarray(array_HW).histogram())


def _mapped(array_HW: np.ndarray, value_256: np.ndarray) -> np.ndarray:
    """Replace every value of a uint8 map by the table's, some rows at a time: numpy makes the map eight times
    its size to look it up."""
    table_256, mapped_HW = value_256.astype(np.uint8), np.empty_like(array_HW)
    rows_at_once = max(1, MAPPED_AT_ONCE // max(1, array_HW.shape[1]))
    for top in range(0, len(array_HW), rows_at_once):
        rows = slice(top, top + rows_at_once)
        np.take(table_256, array_HW[rows], out=mapped_HW[rows], mode="clip")  # any other mode copies out
    return mapped_HW


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
    return _mapped(raw_HW, code_256)


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


Encoding = tuple[dict[int, int], str]
"""Value in label PNGs -> class or code, and a sentence on how that was found."""


def sparse_encoding(
    files: list[Path], names: list[str], config: ImportConfig, rule: SparseRule | None = None
) -> Encoding:
    """Find how the sparse label PNGs are encoded.

    Undeclared: 254 present means our own codes; else K present means K unlabelled and 255 void (AGMM), or,
    where 0 covers most of nearly every file and 1..K all occur, 0 unlabelled and v class v-1 (ilastik,
    napari, QuPath), or 255 unlabelled and v class v-1 where 0 occurs nowhere; else 255 means unlabelled
    (ScribbleSup).  The layout's own `rule` goes before.

    Raises ValueError for a declared code that is a class or occurs nowhere, for labels without any unlabelled
    pixel, and where two readings are possible.
    """
    count_256, mostly_0 = _counted(files, skip_bad=config.skip_bad)
    place = str(files[0].parent) if files else ""
    by_layout = rule(count_256, config.unlabelled_code, place) if rule is not None and files else None
    if by_layout is not None:
        return by_layout
    K = len(names)
    is_binary = config.mask_values == "binary"
    table = {**{k: k for k in range(K)}, IGNORED: 1 if is_binary else IGNORED}
    white = f", 255 = {names[1]}" if is_binary else ", 255 = void"
    if config.unlabelled_code is not None:
        return _declared(config.unlabelled_code, table, count_256, files)
    if config.mask_values == "auto" and is_white_in_doubt(count_256, K):
        raise FieldError(f"{place}: {white_in_doubt(names)}")
    if count_256[UNLABELLED]:
        return {**table, UNLABELLED: UNLABELLED}, f"found: 254 = unlabelled{white}"
    if count_256[K] and count_256[0] > count_256[K]:
        return _from_1(count_256, mostly_0, names, files)
    if count_256[K] and not count_256[0] and count_256[IGNORED] > count_256[K] and not is_binary:
        return _from_1_on_255(count_256, names, files)
    if count_256[K]:
        return {**table, K: UNLABELLED}, f"found: {K} = unlabelled{white} (AGMM kind)"
    if count_256[IGNORED] and not is_binary:
        return {**table, IGNORED: UNLABELLED}, "found: 255 = unlabelled (ScribbleSup kind)"
    if not files or any(count_256[value] for value in range(K, 256) if value not in table):
        return table, "found: no unlabelled pixel"  # values that are no class are refused file by file
    most = int(count_256.argmax())
    ask = f"say {flag('data.unlabelled_code')} 0 if 0 is unlabelled and v is class v-1; " if most == 0 else ""
    raise FieldError(
        f"{place}: no unlabelled pixel in {len(files)} label files (value {most} covers "
        f"{count_256[most] / max(1, count_256.sum()):.1%}), so they are dense masks, or a class id stands "
        f"for unlabelled; {ask}train on dense masks with {flag('data.label')} full, or write 254 where "
        "nobody annotated"
    )


def _counted(files: list[Path], *, skip_bad: bool) -> tuple[np.ndarray, int]:
    """Count the pixels of every value in all files (256,), and the files that are for the most part 0."""
    count_256, mostly_0 = np.zeros(256, dtype=np.int64), 0
    for file in files:
        try:
            own_256 = value_counts(read_raw(file))
        except BadFileError:
            if not skip_bad:
                raise
            continue
        count_256 += own_256
        mostly_0 += int(own_256[0] > own_256.sum() / 2)
    return count_256, mostly_0


def _declared(code: int, table: dict[int, int], count_256: np.ndarray, files: list[Path]) -> Encoding:
    """Give the encoding with a declared code; 0 is one where the classes count from 1."""
    K = len(table) - 1
    if 0 < code < K:
        raise FieldError(
            f"{field('data.unlabelled_code')}={code} is a class id (0..{K - 1}); no code can be one, but 0 "
            "where the classes count from 1"
        )
    if not count_256[code]:
        others = [f"{value} ({count_256[value]} pixels)" for value in np.flatnonzero(count_256) if value >= K]
        raise FieldError(
            f"{field('data.unlabelled_code')}={code} occurs in none of {len(files)} label files "
            f"(first {files[0]}); values there that are no class: {some(others) or 'none'}; correct "
            f"{flag('data.unlabelled_code')}"
        )
    if code == 0:
        return _shifted(K), "declared: 0 = unlabelled, value v is class v-1, 255 = void"
    if code == IGNORED and count_256[K] and not count_256[0]:
        return _shifted_on_255(
            K
        ), f"declared: 255 = unlabelled; {K} occurs and 0 does not: value v is class v-1"
    return {**table, code: UNLABELLED}, f"declared: {code} = unlabelled"


def _shifted(num_classes: int) -> dict[int, int]:
    """Give the table of labels that count from 1."""
    return {0: UNLABELLED, **{k + 1: k for k in range(num_classes)}, IGNORED: IGNORED}


def _from_1(count_256: np.ndarray, mostly_0: int, names: list[str], files: list[Path]) -> Encoding:
    """Give the encoding of labels where 0 covers more than K does, if only one is possible.

    Raises FieldError with both readings if they are.
    """
    K = len(names)
    is_certain = (
        mostly_0 >= NEARLY_ALL * len(files)
        and count_256[1 : K + 1].all()
        and not count_256[K + 1 :].any()
        and BACKGROUND.fullmatch(names[0]) is None  # which may cover most of every image
    )
    if is_certain:
        return _shifted(K), (
            f"found: 0 = unlabelled, value v is class v-1 (0 covers most of {mostly_0} of {len(files)} label "
            "files and 1.." + f"{K} occur, as ilastik, napari and QuPath write them)"
        )
    share = count_256[0] / count_256.sum()
    raise FieldError(
        f"{files[0].parent}: 0 covers {share:.1%} of {len(files)} label files and the values reach {K}, so 0 "
        f"is unlabelled and v is class v-1, say {flag('data.unlabelled_code')} 0; or 0 is class {names[0]!r} "
        f"and {K} is unlabelled, say {flag('data.unlabelled_code')} {K}"
    )


def _shifted_on_255(num_classes: int) -> dict[int, int]:
    """Give the table of labels that count from 1 where 255 is unlabelled."""
    return {**{k + 1: k for k in range(num_classes)}, IGNORED: UNLABELLED}


def _from_1_on_255(count_256: np.ndarray, names: list[str], files: list[Path]) -> Encoding:
    """Give the encoding of labels without 0 where 255 covers more than K does, if only one is possible.

    Raises FieldError with both readings if they are.
    """
    K = len(names)
    if count_256[1 : K + 1].all() and not count_256[K + 1 : IGNORED].any():
        return _shifted_on_255(K), (
            f"found: 255 = unlabelled, value v is class v-1 (1..{K} all occur, and 0 nowhere)"
        )
    raise FieldError(
        f"{files[0].parent}: no label is 0 and the values reach {K}, so 255 is unlabelled and v is class "
        f"v-1, say {flag('data.unlabelled_code')} 255; or {K} is unlabelled and 255 is void, say "
        f"{flag('data.unlabelled_code')} {K}"
    )


def is_white_in_doubt(count_256: np.ndarray, num_classes: int) -> bool:
    """Say whether 255 may be the second of two classes, by the pixels of every value: it occurs, and 1 does
    not."""
    return num_classes == 2 and bool(count_256[IGNORED]) and not count_256[1]


def white_in_doubt(names: list[str]) -> str:
    """Ask what 255 is, for the end of a message."""
    return (
        f"255 occurs and the value 1 of class {names[1]!r} does not; say {flag('data.mask_values')} binary "
        f"if 255 is {names[1]!r}, or {flag('data.mask_values')} from-0 if 255 is void or unlabelled"
    )
