"""Listed images -> rows for the shards: decode everything once, check every value, count what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparseg import shards, sparsify
from sparseg.config import IGNORED, UNLABELLED
from sparseg.importers.annotation import (
    Annotation,
    BadFileError,
    converter,
    sparse_encoding,
)
from sparseg.importers.formats import read_strokes
from sparseg.importers.source import Item, Settings, Source, some
from sparseg.importers.strokes import draw as draw_strokes
from sparseg.importers.strokes import stored

DENSE_HINT = "correct classes.txt, or the mask"
SPARSE_HINT = "declare the unlabelled value with --data.unlabelled-code, or correct classes.txt"


def draw(mask_HW: np.ndarray, settings: Settings, key: str) -> np.ndarray:
    """Sparse label (H, W) drawn from a dense mask as the settings say."""
    if settings.random_pixels:
        return sparsify.random_pixels(mask_HW, settings.random_pixels, seed=settings.label_seed, key=key)
    return sparsify.clicks_per_class(mask_HW, settings.clicks_per_class, seed=settings.label_seed, key=key)


def _dense_reader(source: Source) -> Callable[[Path], np.ndarray]:
    hint = DENSE_HINT
    if source.dense_is_labels:
        hint += "; sparse labels need dense masks/ beside labels/, for validation at least"
    return converter(source.dense_table, hint)


def annotator(source: Source, settings: Settings, report: dict[str, Any]) -> Callable[..., Annotation]:
    """Function (item, dense mask or None, (H, W), counter) -> training annotation.

    Says in report["encoding"] what it is.  Raises ValueError for points or encodings that cannot be right.
    """
    num_classes = len(source.names)
    if settings.drawn or settings.label == "full":
        what = "dense masks"
        if settings.drawn:
            count = settings.random_pixels or settings.clicks_per_class
            unit = "random pixels an image" if settings.random_pixels else "random pixels a class and image"
            what = f"{count} {unit}, drawn from dense masks with seed {settings.label_seed}"
        report["encoding"] = what
        return lambda item, mask, shape, count: (
            draw(mask, settings, item.id) if settings.drawn else mask,
            [],
        )
    if source.point_files:
        return _stroke_annotator(source, settings, report)
    files = [item.label for item in source.splits["train"] if item.label is not None]
    table, report["encoding"] = sparse_encoding(files, num_classes, settings)
    read = converter(table, SPARSE_HINT)
    return lambda item, mask, shape, count: (read(item.label), [])


def _stroke_annotator(
    source: Source, settings: Settings, report: dict[str, Any]
) -> Callable[..., Annotation]:
    """Reads all point or stroke files; the function draws those of one image."""
    train = {item.id for item in source.splits["train"]}
    label_format, found = read_strokes(
        source.point_files, settings.label_format, source.names, settings.stroke_px
    )
    absent = sorted(train - set(found.strokes))
    if absent:
        raise ValueError(
            f"{some(source.point_files)}: {len(absent)} of {len(train)} training images are without label: "
            f"{some(absent)}; remove them from the list or add their clicks"
        )
    how = "found" if settings.label_format == "auto" else "declared"
    report["encoding"] = (
        f"{how}: {label_format} in {some(file.name for file in source.point_files)}; points and lines "
        f"{settings.stroke_px:g} px wide"
    )
    others = sorted(set(found.strokes) - train)
    if others:
        report["notes"].append(f"{len(others)} annotated images are not in train, not used: {some(others)}")
    report["notes"] += found.notes

    def annotate(
        item: Item, mask: np.ndarray | None, shape: tuple[int, int], count: Counter[str]
    ) -> Annotation:
        stated = found.sizes.get(item.id, shape)
        if stated != shape:
            turned = " (the image may carry an EXIF rotation)" if stated == shape[::-1] else ""
            raise ValueError(
                f"{some(source.point_files)}: image {item.id} was annotated at {stated[1]}x{stated[0]} "
                f"pixels but {item.image} is {shape[1]}x{shape[0]}{turned}; use the image that was annotated"
            )
        label_HW, drawn = draw_strokes(found.strokes[item.id], shape, count)
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
    annotate: Callable[..., Annotation],
    settings: Settings,
    report: dict[str, Any],
) -> Iterator[shards.Row]:
    """The rows of a split, one in memory at a time; fills report["splits"][split] and report["refused"]."""
    read_dense = _dense_reader(source)
    total = Summary(len(source.names))
    for item in source.splits[split]:
        try:
            image = _read_bytes(item.image)
            shape = _decoded_shape(item.image, image)
            mask = None if item.mask is None else read_dense(item.mask)
            _same_size(mask, shape, item.mask, item.image)
            strokes: list[dict[str, Any]] = []
            label = mask
            if split == "train":
                label, strokes = annotate(item, mask, shape, total.extra)
                _same_size(label, shape, item.label, item.image)
        except BadFileError as error:
            if not settings.skip_bad:
                raise ValueError(
                    f"{error}; mend or remove it, or leave such files out with --data.skip-bad"
                ) from error
            report["refused"].append({"split": split, "id": item.id, "reason": str(error)})
            continue
        assert label is not None
        total.add(label)
        yield {
            "id": item.id,
            "image": image,
            "label": label,
            "mask": mask if split == "train" else None,
            "height": shape[0],
            "width": shape[1],
            "strokes": strokes,
        }
    report["splits"][split] = total.as_dict()
    if source.dense_is_labels and (split != "train" or settings.label == "full" or settings.drawn):
        share = total.counts["labelled"] / max(1, sum(total.counts.values()))
        if total.rows and share < 0.5:
            raise ValueError(
                f"{source.root}: the {split} labels are sparse ({share:.2%} of the pixels), where dense "
                "ones are needed; "
                "put dense masks into masks/ beside labels/"
            )


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadFileError(f"{file}: unreadable image ({error.strerror})") from error


def _decoded_shape(file: Path, data: bytes) -> tuple[int, int]:
    try:
        height, width, _ = shards.decode_image(data).shape
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error
    return height, width


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

    def add(self, label_HW: np.ndarray) -> None:
        """Count a label (H, W) uint8 with codes."""
        count_256 = np.bincount(label_HW.ravel(), minlength=256)
        present_K = count_256[: self.num_classes] > 0
        self.rows += 1
        self.unlabelled_rows += int(not present_K.any())
        self.count_256 += count_256
        self.images_K += present_K
        self.sizes[label_HW.shape] += 1

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
