"""The meaning of the values of dense masks: the layout's, the one asked for, or in doubt and refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from sparseg.config import IGNORED, FieldError, ImportConfig, field, flag
from sparseg.data.importers.label_pngs import (
    BadFileError,
    is_white_in_doubt,
    read_raw,
    value_counts,
    white_in_doubt,
)
from sparseg.data.importers.source import Source, identity

LAYOUTS_NOTE = "dense masks: "  # begins what a layout notes on its own reading


def with_values_as_asked(source: Source, config: ImportConfig) -> Source:
    """Give the source with the dense masks' values as data.mask_values has them; itself for `auto`.

    Raises ValueError for `binary` where there are not two classes.
    """
    K = len(source.names)
    match config.mask_values:
        case "auto":
            return source
        case "from-0":
            table, meaning = identity(K), "255 = void"
        case "from-1":
            table = {0: IGNORED, **{k + 1: k for k in range(K)}, IGNORED: IGNORED}
            meaning = f"value v is class v-1 (1..{K}), 0 and 255 = void"
        case "binary":
            if K != 2:
                raise FieldError(
                    f"{field('data.mask_values')}=binary needs two classes, {source.root} has {K}; correct "
                    f"classes.txt or {flag('data.mask_values')}"
                )
            table = {0: 0, 1: 1, IGNORED: 1}
            meaning = f"0 = {source.names[0]}, 255 and 1 = {source.names[1]}"
    notes = [note for note in source.notes if not note.startswith(LAYOUTS_NOTE)]
    return dataclasses.replace(
        source,
        dense_table=table,
        dense_hint="",
        labelmap=None,
        shift_needs_proof=False,
        notes=(*notes, f"dense masks, as declared: {meaning}"),
    )


def refuse_doubtful_masks(source: Source, config: ImportConfig) -> None:
    """Raise ValueError with both readings where the dense masks may mean another thing than is assumed.

    Masks are read only until one proves the reading, which of usual data the first ones do.
    """
    if config.mask_values != "auto" or source.labelmap is not None:
        return
    K = len(source.names)
    if source.shift_needs_proof:
        if any(count_256[K] for split in source.splits for count_256 in _counts(source, split)):
            return
        raise FieldError(
            f"{source.mask_place}: masks laid out so hold class + 1 and 0 for void (ADE20K), but {K}, class "
            f"{source.names[-1]!r}, occurs in none, as in masks that count from 0; say "
            f"{flag('data.mask_values')} from-1 or from-0"
        )
    if K < 2 or source.dense_table.get(IGNORED) != IGNORED:
        return
    for split in source.splits:
        total_256 = np.zeros(256, dtype=np.int64)
        for count_256 in _counts(source, split):
            total_256 += count_256
            if total_256[1:K].any():
                break
        where = f"{source.root}, dense masks of split {split!r}"
        if is_white_in_doubt(total_256, K):
            raise FieldError(f"{where}: {white_in_doubt(source.names)}")
        if source.dense_table == identity(K) and set(np.flatnonzero(total_256)) == {0, IGNORED}:
            raise FieldError(
                f"{where}: 0 and 255 are the only values, so none of the classes {source.names[1]!r} to "
                f"{source.names[-1]!r} occurs, as in black and white masks of one class; write the ids "
                f"0..{K - 1}, or say {flag('data.mask_values')} from-0 if 255 really is void"
            )


def _counts(source: Source, split: str) -> Iterator[np.ndarray]:
    """Count the pixels of every value (256,) of one mask after another; those that are damaged are told of
    when they are imported."""
    for item in source.splits[split]:
        if item.mask is not None:
            try:
                yield value_counts(read_raw(item.mask))
            except BadFileError:
                continue
