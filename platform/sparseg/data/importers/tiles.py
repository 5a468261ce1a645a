"""Images larger than a tile -> rows of tiles: where they lie, and what of the annotation falls on each.

Training tiles all have the full side and may overlap; tiles of other splits hold every pixel once, so that
counts over them are those of the whole images.  What was annotated on the whole image is cut; clicks that
are drawn from dense masks are drawn in every tile.  A training tile without a labelled pixel is left out and
counted: cross-entropy, the default, learns nothing from it, and a scene has hundreds of them.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from sparseg.common.tiling import tile_starts, window_starts
from sparseg.config import PIXELLESS, UNLABELLED, ImportConfig
from sparseg.data import shards
from sparseg.data.importers.label_pngs import value_counts
from sparseg.data.importers.source import recipe_of
from sparseg.data.importers.tags_and_boxes import present
from sparseg.data.strokes import pixels, restored

ID_DIGITS = 5  # of a tile's place: names sort as the tiles lie, up to 99,999 px
COUNTS = ("images_cut", "tiles", "tiles_left_out")  # what `cut` counts, see there
PART_ITEMS = 4  # images that are imported as one part: a scene takes as long as a hundred photographs

Span = tuple[int, int]
"""First row (or column) of a tile, and the one behind its last."""


def is_cut(shape: tuple[int, int], config: ImportConfig, *, is_train: bool) -> bool:
    """Say whether an image (H, W) becomes more than one tile."""
    if not config.tile_px:
        return False
    return any(len(spans(length, config, is_train=is_train)) > 1 for length in shape)


def spans(length: int, config: ImportConfig, *, is_train: bool) -> list[Span]:
    """Give the places of the tiles along one side of an image, pixels."""
    side = min(config.tile_px, length)
    if is_train:
        return [
            (start, start + side)
            for start in window_starts(length, side, config.tile_px - config.tile_overlap_px)
        ]
    starts = tile_starts(length, side)
    return list(zip(starts, [*starts[1:], length], strict=True))


def cut(
    whole: shards.Row, image_HW3: np.ndarray, config: ImportConfig, count: Counter[str], *, is_train: bool
) -> Iterator[shards.Row]:
    """Give the tiles of an image as rows, from top to bottom and left to right.

    `whole` is its row without image bytes; where clicks are to be drawn, its label counts for nothing.
    `count` receives: images_cut, tiles (given), tiles_left_out (of training, with no labelled pixel or box).
    """
    shape = whole["height"], whole["width"]
    y_spans, x_spans = (spans(length, config, is_train=is_train) for length in shape)
    recipe = recipe_of(config) if is_train else None
    anywhere: list[int] = []
    touched: list[np.ndarray] = []
    if is_train and recipe is None:
        touched = [_touched(stroke, shape, y_spans, x_spans) for stroke in whole["strokes"]]
        if config.label not in ("full", *PIXELLESS):
            # A class clicked elsewhere in the image may be in this tile, too: not to be taught as absent.
            # Boxes hold all there is of their class, so a tile that none reaches is without it.
            anywhere = np.flatnonzero(value_counts(whole["label"])[:UNLABELLED]).tolist()
    count["images_cut"] += 1
    for i, (top, bottom) in enumerate(y_spans):
        for j, (left, right) in enumerate(x_spans):
            area = slice(top, bottom), slice(left, right)
            row: shards.Row = {"id": tile_id(whole["id"], top, left, shape)}
            row |= {"height": bottom - top, "width": right - left}
            for column in ("label", "mask"):
                array = whole[column]
                row[column] = None if array is None else np.ascontiguousarray(array[area])
            if recipe is not None:
                row["label"], row["strokes"] = recipe.draw(row["mask"], row["id"])
            else:
                on_tile = [s for s, hit in zip(whole["strokes"], touched, strict=True) if hit[i, j]]
                row["strokes"] = [_shifted(stroke, top, left) for stroke in on_tile]
            named = present(config.label, row["strokes"]) if is_train else []
            row["present"] = named or anywhere
            if is_train and not any(named) and not (row["label"] < UNLABELLED).any():
                count["tiles_left_out"] += 1
                continue
            count["tiles"] += 1
            row["image"] = encoded(np.ascontiguousarray(image_HW3[area]), config.store)
            yield row


def encoded(image_HW3: np.ndarray, store: str) -> bytes:
    """Encode a tile, or a resized image, without loss, whatever the file was: a second JPEG compression would
    put its blocks elsewhere."""
    if store == "raw":
        return shards.encode_raw(image_HW3)
    if store == "fast":
        return shards.encode_fast(image_HW3)
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------- strokes


def _touched(
    stroke: dict[str, Any], shape: tuple[int, int], y_spans: list[Span], x_spans: list[Span]
) -> np.ndarray:
    """Say which tiles a stroke leaves a pixel on, (tiles down, tiles across) bool.

    The edges of all tiles part the image into cells; the stroke's pixels are gone through once.
    """
    y_edges, x_edges = (sorted({edge for span in spans for edge in span}) for spans in (y_spans, x_spans))
    cells = np.zeros((len(y_edges), len(x_edges)), bool)
    for rows, columns in pixels(restored(stroke), shape):
        down, across = np.searchsorted(y_edges, rows, "right"), np.searchsorted(x_edges, columns, "right")
        cells[down - 1, across - 1] = True
    return np.array(
        [
            [
                cells[
                    y_edges.index(top) : y_edges.index(bottom), x_edges.index(left) : x_edges.index(right)
                ].any()
                for left, right in x_spans
            ]
            for top, bottom in y_spans
        ]
    )


def _shifted(stroke: dict[str, Any], top: int, left: int) -> dict[str, Any]:
    """Move a stroke into the tile's coordinates, whole: what is beyond its edges is clipped when it is
    drawn."""
    return {**stroke, "y": [y - top for y in stroke["y"]], "x": [x - left for x in stroke["x"]]}


# -------------------------------------------------------------------------------------------------------- ids


def tile_id(image_id: str, top: int, left: int, shape: tuple[int, int]) -> str:
    """Name a tile by its upper left pixel in the image (H, W): site/a -> site/a_y00512_x01024."""
    digits = max(ID_DIGITS, len(str(max(shape) - 1)))
    return f"{image_id}_y{top:0{digits}d}_x{left:0{digits}d}"


def colliding(ids: Iterable[str]) -> tuple[str, str] | None:
    """Give an image and another one that is named as a tile of it, if there are such."""
    known = set(ids)
    for name in sorted(known):
        match = re.fullmatch(rf"(.+)_y\d{{{ID_DIGITS},}}_x\d{{{ID_DIGITS},}}", name)
        if match and match.group(1) in known:
            return match.group(1), name
    return None
