"""Listed images -> rows for the shards: decode everything once, check every value, count what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import IGNORED, UNLABELLED, FieldError, ImportConfig, flag
from sparseg.data import shards
from sparseg.data.importers import tiles
from sparseg.data.importers.annotator import Annotator
from sparseg.data.importers.label_pngs import BadFileError, read_coloured, read_label, value_counts
from sparseg.data.importers.readers.labelmap import read_labelmap
from sparseg.data.importers.source import POOL, Item, Source
from sparseg.data.importers.tags_and_boxes import present
from sparseg.data.importers.turning import Frame, fitted, refuse_other_size
from sparseg.data.label_places import resized_label
from sparseg.data.working_size import resized_image

DENSE_HINT = (
    "correct classes.txt or the mask, or say what the values are with "
    f"{flag('data.mask_values')} from-1|binary"
)
JPEG_SIGNATURE = b"\xff\xd8"


def _dense_hint(source: Source) -> str:
    """Give the remedy for a wrong value in a dense mask."""
    hint = source.dense_hint or DENSE_HINT
    if source.dense_is_labels:
        hint += f"; if these are sparse labels, train on them with {flag('data.label')} point"
    return hint


def _read_mask(item: Item, frame: Frame, source: Source, is_stored: bool, count: Counter[str]) -> Any:
    """Read the dense mask of an image as label (H, W) with codes, of the frame's working size; None if it has
    none."""
    if item.mask is None:
        return None
    if source.labelmap is not None:
        labels = read_labelmap(source.labelmap)
        mask_HW = read_coloured(item.mask, labels, source.names, is_stored=is_stored)
    else:
        mask_HW = read_label(item.mask, source.dense_table, _dense_hint(source), is_stored=is_stored)
    mask_HW = fitted(mask_HW, frame, count)
    refuse_other_size(mask_HW.shape, frame, item.mask, item.image)
    return resized_label(mask_HW, frame.working, dense=True) if frame.working != frame.size else mask_HW


def rows(
    source: Source,
    split: str,
    items: Sequence[Item],
    annotate: Annotator,
    config: ImportConfig,
    facts: dict[str, Any],
) -> Iterator[shards.Row]:
    """Give the rows of some items of a split, one in memory at a time; at the end fill facts["summary"],
    ["refused"].

    Raises ValueError naming the file that is wrong.
    """
    total = Summary(len(source.names))
    refused: list[dict[str, str]] = []
    for item in items:
        try:
            data, image_HW3 = _read_image(item.image, config)
            frame = Frame(image_HW3.shape[:2], shards.orientation_of(data), config.long_side_px)
            shape = frame.working
            is_cut = tiles.is_cut(shape, config, is_train=split == "train")
            mask = _read_mask(item, frame, source, config.orientation == "stored", total.extra)
            strokes: list[dict[str, Any]] = []
            label = mask
            if split == POOL:
                label = np.full(shape, UNLABELLED, dtype=np.uint8)
            elif (split == "train" or source.val_from_labels) and not (is_cut and config.draws_clicks):
                label, strokes = annotate(item, mask, frame, total.extra, split)
        except BadFileError as error:
            if not config.skip_bad:
                raise FieldError(
                    f"{error}; mend or remove it, or leave such files out with {flag('data.skip_bad')}"
                ) from error
            refused.append({"split": split, "id": item.id, "reason": str(error)})
            continue
        assert label is not None
        total.extra.update(f"images_{trait}" for trait in shards.traits_of(data))
        is_train = split == "train"
        known = present(config.label, strokes) if is_train else []
        row: shards.Row = {
            "id": item.id,
            "label": label,
            "mask": mask if split == "train" else None,
            "height": shape[0],
            "width": shape[1],
            "strokes": strokes,
            "present": known,
        }
        if is_cut:
            for tile in tiles.cut(row, image_HW3, config, total.extra, is_train=is_train):
                total.add(tile["label"], present(config.label, tile["strokes"]) if is_train else [])
                yield tile
            continue
        total.add(label, known)
        if shape != frame.size:
            total.extra["images_resized"] += 1
            yield {**row, "image": tiles.encoded(resized_image(image_HW3, shape), config.store)}
            continue
        yield {**row, "image": _stored(data, image_HW3, config.store)}
    facts |= {"summary": total.state(), "refused": refused}


def _read_image(file: Path, config: ImportConfig) -> tuple[bytes, np.ndarray]:
    """Read the bytes that are kept of the file, and its pixels (H, W, 3)."""
    max_pixels = shards.MAX_SCENE_PIXELS if config.tile_px else shards.MAX_PIXELS
    try:
        data = file.read_bytes()
        if config.orientation == "stored":
            data = shards.with_orientation_1(data)
        return data, shards.decode_image(data, max_pixels, is_new=True)
    except OSError as error:
        raise BadFileError(f"{file}: unreadable image ({error.strerror})") from error
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error


def _stored(data: bytes, image_HW3: np.ndarray, store: str) -> bytes:
    """Give the bytes that are stored of an image.

    With `fast` a JPEG stays one: lossless tiles would be several times larger and decode no faster.
    """
    if store == "raw":
        return shards.encode_raw(image_HW3)
    if store == "fast" and not data.startswith(JPEG_SIGNATURE):
        return shards.encode_fast(image_HW3)
    return data


class Summary:
    """Counts the labels of a split, row by row."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.rows = 0
        self.unlabelled_rows = 0
        self.count_256 = np.zeros(256, dtype=np.int64)
        self.images_K = np.zeros(num_classes, dtype=np.int64)
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.extra: Counter[str] = Counter()

    def add(self, label_HW: np.ndarray, present: Sequence[int] = ()) -> None:
        """Count a label (H, W) uint8 with codes, and classes known to be there beside its pixels."""
        count_256 = value_counts(label_HW)
        present_K = count_256[: self.num_classes] > 0
        present_K[list(present)] = True
        self.rows += 1
        self.unlabelled_rows += int(not present_K.any())
        self.count_256 += count_256
        self.images_K += present_K
        self.sizes[label_HW.shape] += 1

    def state(self) -> dict[str, Any]:
        """Give all counts as JSON, for `merge`."""
        return {
            "rows": self.rows,
            "unlabelled_rows": self.unlabelled_rows,
            "count_256": self.count_256.tolist(),
            "images_K": self.images_K.tolist(),
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "extra": dict(self.extra),
        }

    def merge(self, state: dict[str, Any]) -> None:
        """Add the counts of another one's `state`."""
        self.rows += state["rows"]
        self.unlabelled_rows += state["unlabelled_rows"]
        self.count_256 += np.array(state["count_256"], dtype=np.int64)
        self.images_K += np.array(state["images_K"], dtype=np.int64)
        for height, width, count in state["sizes"]:
            self.sizes[height, width] += count
        for name, count in state["extra"].items():
            self.extra[name] += count

    @property
    def counts(self) -> dict[str, int]:
        """Count the pixels that are labelled, unlabelled, ignored."""
        return {
            "labelled": int(self.count_256[: self.num_classes].sum()),
            "unlabelled": int(self.count_256[UNLABELLED]),
            "ignored": int(self.count_256[IGNORED]),
        }

    def as_dict(self) -> dict[str, Any]:
        """Give the counts as the report has them; "pixels" and "images" have a number for each class."""
        heights, widths = [s[0] for s in self.sizes], [s[1] for s in self.sizes]
        return {
            "rows": self.rows,
            **self.counts,
            "rows_without_label": self.unlabelled_rows,
            "pixels": self.count_256[: self.num_classes].tolist(),
            "images": self.images_K.tolist(),
            "height": [min(heights), max(heights)] if heights else [],
            "width": [min(widths), max(widths)] if widths else [],
            **self.extra,
        }
