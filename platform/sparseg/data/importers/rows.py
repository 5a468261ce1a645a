"""Listed images -> rows for the shards: decode everything once, check every value, count what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import shards
from sparseg.data.importers import tiles
from sparseg.data.importers.files import nearest, some
from sparseg.data.importers.label_pngs import (
    Annotation,
    BadFileError,
    converter,
    sparse_encoding,
    value_counts,
)
from sparseg.data.importers.readers import read_strokes
from sparseg.data.importers.readers.image_names import resolve
from sparseg.data.importers.source import Item, Settings, Source
from sparseg.data.importers.tags_and_boxes import draw_boxes, draw_tags, present
from sparseg.data.strokes import draw as draw_strokes
from sparseg.data.strokes import stored

DENSE_HINT = "correct classes.txt, or the mask"
JPEG_SIGNATURE = b"\xff\xd8"
SPARSE_HINT = "declare the unlabelled value with --data.unlabelled-code, or correct classes.txt"


def _dense_reader(source: Source) -> Callable[[Path], np.ndarray]:
    hint = source.dense_hint or DENSE_HINT
    if source.dense_is_labels:
        hint += "; sparse labels need dense masks/ beside labels/, for validation at least"
    return converter(source.dense_table, hint)


def annotator(
    source: Source, settings: Settings, report: dict[str, Any], found: dict[str, Any]
) -> Callable[..., Annotation]:
    """Function (item, dense mask or None, (H, W), counter) -> training annotation.

    Says in report["encoding"] what it is.  `found` keeps what was learnt by reading all annotation files: a
    call that is given it needs neither the files nor `source.splits` (those of worker processes are empty).
    Raises ValueError for points or encodings that cannot be right.
    """
    num_classes = len(source.names)
    if recipe := settings.drawing:
        report["encoding"] = f"drawn from dense masks: {recipe.describe()}"
        return lambda item, mask, shape, count: recipe.draw(mask, item.id)
    if settings.label == "full":
        report["encoding"] = "dense masks"
        return lambda item, mask, shape, count: (mask, [])
    if source.point_files:
        return _stroke_annotator(source, settings, report, found)
    files = [item.label for item in source.splits["train"] if item.label is not None]
    if "encoding" not in found:
        found["encoding"] = sparse_encoding(files, num_classes, settings, source.sparse_rule)
    table, report["encoding"] = found["encoding"]
    read = converter(table, SPARSE_HINT)
    return lambda item, mask, shape, count: (read(item.label), [])


def _stroke_annotator(
    source: Source, settings: Settings, report: dict[str, Any], found: dict[str, Any]
) -> Callable[..., Annotation]:
    """Reads all point or stroke files; the function draws those of one image."""
    files, label_format, width_px = source.point_files, settings.label_format, settings.stroke_px
    if "strokes" not in found:
        taken_format, named = read_strokes(files, label_format, source.names, width_px, settings.label)
        ids = {split: [item.id for item in items] for split, items in source.splits.items()}
        found["strokes"] = taken_format, resolve(named, ids, some(file.name for file in files))
    taken_format, annotated = found["strokes"]
    train = {item.id for item in source.splits["train"]}
    absent = sorted(train - set(annotated.strokes))
    if absent and (not settings.skip_bad or len(absent) == len(train)):
        raise ValueError(
            f"{some(files)}: {len(absent)} of {len(train)} training images are without label: "
            f"{some(absent)}{nearest(absent, annotated.strokes)}; annotate them, or leave them out with "
            "--data.skip-bad"
        )
    how = "found" if label_format == "auto" else "declared"
    drawn_as = {"tag": "tags of whole images", "box": "boxes, class 0 outside of them"}.get(
        settings.label, f"points and lines {width_px:g} px wide"
    )
    report["encoding"] = f"{how}: {taken_format} in {some(file.name for file in files)}; {drawn_as}"
    draw = {"tag": draw_tags, "box": draw_boxes}.get(settings.label, draw_strokes)
    notes = report.setdefault("notes", [])
    if others := sorted(set(annotated.strokes) - train):
        notes.append(f"{len(others)} annotated images are not in train, not used: {some(others)}")
    notes += annotated.notes

    def annotate(
        item: Item, mask: np.ndarray | None, shape: tuple[int, int], count: Counter[str]
    ) -> Annotation:
        if item.id not in annotated.strokes:
            what = {"tag": "tags", "box": "boxes"}.get(settings.label, "clicks")
            raise BadFileError(f"{item.id}: no {what} in {some(files)}")
        stated = annotated.sizes.get(item.id, shape)
        if stated != shape:
            turned = " (the image may carry an EXIF rotation)" if stated == shape[::-1] else ""
            raise ValueError(
                f"{some(files)}: image {item.id} was annotated at {stated[1]}x{stated[0]} "
                f"pixels but {item.image} is {shape[1]}x{shape[0]}{turned}; use the image that was annotated"
            )
        label_HW, drawn = draw(annotated.strokes[item.id], shape, count)
        return label_HW, stored(drawn)

    return annotate


def _same_size(array: np.ndarray | None, shape: tuple[int, int], file: Path | None, image: Path) -> None:
    if array is not None and array.shape != shape:
        turned = " (the image may carry an EXIF rotation)" if array.shape == shape[::-1] else ""
        raise ValueError(
            f"{file}: label is {array.shape[1]}x{array.shape[0]} pixels but its image {image} is "
            f"{shape[1]}x{shape[0]}{turned}; they must be of one size (width x height)"
        )


def rows(
    source: Source,
    split: str,
    items: Sequence[Item],
    annotate: Callable[..., Annotation],
    settings: Settings,
    facts: dict[str, Any],
) -> Iterator[shards.Row]:
    """Rows of some items of a split, one in memory at a time; at the end fills facts["summary"], ["refused"].

    Raises ValueError naming the file that is wrong.
    """
    read_dense = _dense_reader(source)
    total = Summary(len(source.names))
    refused: list[dict[str, str]] = []
    for item in items:
        try:
            data, image_HW3 = _read_image(item.image, settings)
            shape = image_HW3.shape[:2]
            is_cut = tiles.is_cut(shape, settings, is_train=split == "train")
            mask = None if item.mask is None else read_dense(item.mask)
            _same_size(mask, shape, item.mask, item.image)
            strokes: list[dict[str, Any]] = []
            label = mask
            if split == "train" and not (is_cut and settings.drawn):
                label, strokes = annotate(item, mask, shape, total.extra)
                _same_size(label, shape, item.label, item.image)
        except BadFileError as error:
            if not settings.skip_bad:
                raise ValueError(
                    f"{error}; mend or remove it, or leave such files out with --data.skip-bad"
                ) from error
            refused.append({"split": split, "id": item.id, "reason": str(error)})
            continue
        assert label is not None
        is_train = split == "train"
        known = present(settings.label, strokes) if is_train else []
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
            for tile in tiles.cut(row, image_HW3, settings, total.extra, is_train=is_train):
                total.add(tile["label"], present(settings.label, tile["strokes"]) if is_train else [])
                yield tile
            continue
        total.add(label, known)
        yield {**row, "image": _stored(data, image_HW3, settings.store)}
    facts |= {"summary": total.state(), "refused": refused}


def _read_image(file: Path, settings: Settings) -> tuple[bytes, np.ndarray]:
    """The file's bytes, and its pixels (H, W, 3)."""
    max_pixels = shards.MAX_SCENE_PIXELS if settings.tile_px else shards.MAX_PIXELS
    try:
        data = file.read_bytes()
        return data, shards.decode_image(data, max_pixels, is_new=True)
    except OSError as error:
        raise BadFileError(f"{file}: unreadable image ({error.strerror})") from error
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error


def _stored(data: bytes, image_HW3: np.ndarray, store: str) -> bytes:
    """With `fast` a JPEG stays one: lossless tiles would be several times larger and decode no faster."""
    if store == "raw":
        return shards.encode_raw(image_HW3)
    if store == "fast" and not data.startswith(JPEG_SIGNATURE):
        return shards.encode_fast(image_HW3)
    return data


class Summary:
    """Running counts of a split's labels."""

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
        """All counts as JSON, for `merge`."""
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
        """Pixels labelled, unlabelled, ignored."""
        return {
            "labelled": int(self.count_256[: self.num_classes].sum()),
            "unlabelled": int(self.count_256[UNLABELLED]),
            "ignored": int(self.count_256[IGNORED]),
        }

    def as_dict(self) -> dict[str, Any]:
        """JSON of the counts; "pixels" and "images" are a class each."""
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
