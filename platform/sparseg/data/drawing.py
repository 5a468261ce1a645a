"""The pictures that labels and predictions are looked at with."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sparseg.common.files import write_atomically
from sparseg.config import UNLABELLED

Array = NDArray[np.uint8]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PAPER, INK = (252, 252, 250), (30, 32, 36)
LEGEND_LEAST_PX, LEGEND_SHARE = 12, 0.02
"""Height of a legend's text: at least, and as a share of the picture's longer side."""
JPEG_BLOCK_PX, JPEG_MOST_PX = 16, 65535
"""Side of the blocks that pixels are coded in together; longest side of a JPEG."""
MANY_DOTS = 40  # on one image; dots get smaller beyond


def encode(image_HW3: Array, format_: str) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format=format_, quality=92)
    return buffer.getvalue()


def overlay(image_HW3: Array, label_HW: Array, palette: Sequence[Colour], alpha: float = 0.55) -> Array:
    """The image with each class tinted in its colour (share ``alpha``, 0..1) -> (H, W, 3) uint8.

    Pixels without a class (codes 254, 255) stay as they are.
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    share_HW1 = np.where(label_HW < len(palette), np.float32(alpha), np.float32(0))[..., None]
    return np.rint(image_HW3 * (1 - share_HW1) + table[label_HW] * share_HW1).astype(np.uint8)


def with_legend(picture_HW3: Array, entries: Sequence[tuple[str, Colour]]) -> Array:
    """The picture with a strip below that names colours -> (H + h, W, 3) uint8; nothing is drawn on it.

    Text is as large as the picture asks for, LEGEND_SHARE of its longer side; a text wider than the picture
    is cut.  The strip begins at a row that JPEG's blocks do not share with the picture, whose last rows are
    mirrored till there: so its bright ground does not shine into the picture.
    """
    H, W, _ = picture_HW3.shape
    font_px = max(LEGEND_LEAST_PX, round(LEGEND_SHARE * max(H, W)))
    font, margin, row_px = ImageFont.load_default(size=font_px), font_px // 2, round(1.6 * font_px)
    dot_px, gap_px = round(0.9 * font_px), round(0.4 * font_px)
    texts = [_cut(text, W - 2 * margin - dot_px - gap_px, font) for text, _ in entries]
    places = _legend_layout(texts, W - 2 * margin, font, dot_px + gap_px + font_px, row_px)
    height = places[-1][1] + row_px + margin if places else 0
    first = H + -H % JPEG_BLOCK_PX
    if not places or first + height > JPEG_MOST_PX:
        return picture_HW3
    strip = Image.new("RGB", (W, height), PAPER)
    draw = ImageDraw.Draw(strip)
    for (x, y), text, (_, colour) in zip(places, texts, entries, strict=True):
        left, middle = margin + x, margin // 2 + y + row_px // 2
        box = (left, middle - dot_px // 2, left + dot_px, middle - dot_px // 2 + dot_px)
        draw.rounded_rectangle(box, font_px // 5, fill=tuple(colour), outline=(90, 90, 90))
        draw.text((left + dot_px + gap_px, middle), text, fill=INK, font=font, anchor="lm")
    filled = np.pad(picture_HW3, ((0, first - H), (0, 0), (0, 0)), mode="symmetric")
    return np.concatenate([filled, np.asarray(strip)])


def draw_clicks(
    image_HW3: Array,
    label_HW: Array,
    palette: Sequence[Colour],
    *,
    zoom: int = 1,
    dense_share: float = 0.01,
) -> Array:
    """The image, enlarged ``zoom`` times, with a ringed dot per labelled pixel -> (zoom H, zoom W, 3) uint8.

    Dots are smaller where there are many; those of a class that touch share their ring, so that a stroke is a
    thick line with a rim.  Labels too dense for dots (over ``dense_share`` of the pixels: blocks, masks) are
    laid over instead.
    """
    H, W = label_HW.shape
    y, x = np.nonzero(label_HW < UNLABELLED)
    size = (W * zoom, H * zoom)
    if len(y) > max(dense_share * H * W, 8):
        dense = Image.fromarray(overlay(image_HW3, label_HW, palette, 0.8))
        return np.asarray(dense.resize(size, Image.Resampling.NEAREST))
    # drawn at twice the size and reduced: round dots without steps
    canvas = Image.fromarray(image_HW3).resize((size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC)
    crowd = min(1.0, max(0.3, (MANY_DOTS / max(len(y), 1)) ** 0.5))
    draw, radius = ImageDraw.Draw(canvas), max(5.0, 0.032 * 2 * zoom * min(H, W) * crowd)
    rings = ((1.0, (0, 0, 0)), (0.86, (255, 255, 255)), (0.66, None))
    for klass in np.unique(label_HW[y, x]):
        own = label_HW[y, x] == klass
        centres = np.stack([x[own], y[own]], axis=1) * 2 * zoom + zoom
        for share, ring in rings:
            r = radius * share
            for centre_x, centre_y in centres:
                box = (centre_x - r, centre_y - r, centre_x + r, centre_y + r)
                draw.ellipse(box, fill=ring or tuple(palette[klass]))
    return np.asarray(canvas.resize(size, Image.Resampling.BOX))


def panels(
    columns: Mapping[str, Sequence[Array]],
    path: str | Path,
    *,
    cell_px: int = 224,
    legend: Mapping[str, Colour] | None = None,
) -> None:
    """Write `sheet` to a file."""
    data = sheet(columns, cell_px=cell_px, legend=legend, name=str(path))
    write_atomically(Path(path), data)


def sheet(
    columns: Mapping[str, Sequence[Array]],
    *,
    cell_px: int = 224,
    legend: Mapping[str, Colour] | None = None,
    name: str = "sheet",
) -> bytes:
    """One PNG: a labelled column per entry, one picture (H, W, 3) uint8 per row, ``cell_px`` wide.

    ``legend`` (class name -> colour) is drawn below.  Raises ValueError if columns are empty or unequal.
    """
    lengths = {name: len(pictures) for name, pictures in columns.items()}
    if not lengths or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"{name}: panels need columns with equally many pictures, at least one; got {lengths}"
        )
    count, gap, header = next(iter(lengths.values())), 8, 34
    heights = [
        max(round(cell_px * column[row].shape[0] / column[row].shape[1]) for column in columns.values())
        for row in range(count)
    ]
    width, font = len(columns) * (cell_px + gap) + gap, ImageFont.load_default(size=17)
    entries = _legend_layout(list(legend or {}), width - 2 * gap, font, 46, 26)
    footer = (entries[-1][1] + 30 if entries else 0) + gap
    canvas = Image.new("RGB", (width, header + sum(heights) + gap * (count - 1) + footer), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (title, pictures) in enumerate(columns.items()):
        left, top = gap + number * (cell_px + gap), header
        draw.text((left + cell_px / 2, header / 2), title, fill=INK, font=font, anchor="mm")
        for picture, height in zip(pictures, heights, strict=True):
            own = (cell_px, round(cell_px * picture.shape[0] / picture.shape[1]))
            canvas.paste(Image.fromarray(picture).resize(own, Image.Resampling.BICUBIC), (left, top))
            top += height + gap
    bottom = header + sum(heights) + gap * count
    for (x, y), (klass, colour) in zip(entries, (legend or {}).items(), strict=True):
        at = (gap + x, bottom + y + 4, gap + x + 16, bottom + y + 20)
        draw.rounded_rectangle(at, 4, fill=tuple(colour), outline=(90, 90, 90))
        draw.text((at[2] + 7, bottom + y + 12), klass, fill=INK, font=font, anchor="lm")
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _legend_layout(
    texts: Sequence[str], width: int, font: Font, beside_px: int, row_px: int
) -> list[tuple[int, int]]:
    """Where each entry starts (x, y), wrapped at ``width`` pixels; ``beside_px`` are for what is beside."""
    places, x, y = [], 0, 0
    for text in texts:
        needed = round(font.getlength(text)) + beside_px
        if x and x + needed > width:
            x, y = 0, y + row_px
        places.append((x, y))
        x += needed
    return places


def _cut(text: str, width: int, font: Font) -> str:
    """The text, or as much of its beginning as fits, with dots behind."""
    if font.getlength(text) <= width:
        return text
    fitting = (text[:length] + "..." for length in range(len(text) - 1, 0, -1))
    return next((shorter for shorter in fitting if font.getlength(shorter) <= width), "")
