"""A dataset as one self-contained HTML page: images with their clicks drawn large, boxes as outlines,
masks as overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sparseg.common.files import write_atomically
from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import drawing, shards
from sparseg.reports.html import page

LONG_SIDE_PX = 480
DENSE_SHARE = 0.04
"""Share of labelled pixels above which a label is laid over the image, not drawn as dots and strokes."""
JPEG_QUALITY = 82
STYLE = """<style>
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:18px 16px;
 margin-top:12px}
.shots figcaption{font-weight:400;font-size:13px;line-height:1.45;margin:6px 0 0;color:var(--faint)}
.shots figcaption b{color:var(--ink);font-weight:600;overflow-wrap:anywhere}
.classes{display:flex;flex-wrap:wrap;gap:3px 12px;margin:4px 0 0;padding:0;list-style:none;color:var(--ink)}
.classes li{display:flex;align-items:center}.classes .none{color:var(--faint)}
.classes .swatch{width:11px;height:11px;border-radius:3px;border:1px solid var(--faint)}
.key{font-size:14px;gap:4px 18px;margin-top:10px}dl.facts{grid-template-columns:1fr}
dl.facts div{justify-content:start}dl.facts dt{min-width:92px}dl.facts dd{text-align:left}
</style>"""


def write_contact_sheet(
    dataset: shards.ShardedDataset, html: Path, facts: Sequence[tuple[str, str]], *, rows_per_split: int = 12
) -> None:
    """Write one HTML file without scripts or requests: `facts` (name, value), legend, images of every split.

    Every split shows `rows_per_split` images, and as many more as it takes to see every class once.
    Raises ValueError if `rows_per_split` is below 1, the folder cannot be written to, or a row is damaged.
    """
    if rows_per_split < 1:
        raise ValueError(f"--rows must be at least 1, got {rows_per_split}")
    html = Path(html)
    title = f"{dataset.path.name}: contact sheet"
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts if value
    )
    parts = [
        f"{STYLE}<header><h1>{escape(dataset.path.name)}</h1></header>",
        f"<section><h2>Dataset</h2><dl class=facts>{listed}</dl><h2>Classes</h2>"
        f"{_class_list(range(len(dataset.names)), dataset, 'classes key')}</section>",
    ]
    parts += [_split_section(dataset, split, rows_per_split) for split in dataset.splits]
    try:
        write_atomically(html, page(title, "\n".join(parts)))
    except OSError as error:
        raise ValueError(f"{html}: cannot be written ({error.strerror}); name another file") from error


def choose_rows(present: Sequence[Sequence[int]], count: int) -> list[int]:
    """Row numbers, ascending: each class of `present` (classes of every row) at least once, at least `count`.

    Greedy: again and again the row with most classes not yet shown, the first of equals; then rows spread
    evenly over the rest.
    """
    left = {k for classes in present for k in classes}
    chosen: set[int] = set()
    while left:
        best = max(range(len(present)), key=lambda row: (len(left.intersection(present[row])), -row))
        chosen.add(best)
        left -= set(present[best])
    rest = [row for row in range(len(present)) if row not in chosen]
    missing = min(max(count - len(chosen), 0), len(rest))
    chosen |= {rest[(2 * n + 1) * len(rest) // (2 * missing)] for n in range(missing)}
    return sorted(chosen)


def _split_section(dataset: shards.ShardedDataset, split: str, count: int) -> str:
    data = dataset.splits[split]
    present = data["present"][:]
    rows = choose_rows(present, count)
    cards = [_card(dataset, split, data[row]) for row in rows]
    shown = {k for classes in present for k in classes}
    absent = [name for k, name in enumerate(dataset.names) if k not in shown]
    note = f"Every class that is labelled in this split is shown; not labelled in it: {', '.join(absent)}."
    note = note if absent else "Every class is shown at least once."
    return (
        f"<section><h2>{escape(split)}</h2> <span class=sub>{len(rows)} of {len(data)} images</span>"
        f'<p class="note">{escape(note)}</p><div class="shots">{"".join(cards)}</div></section>'
    )


def _card(dataset: shards.ShardedDataset, split: str, row: dict[str, Any]) -> str:
    try:
        image_HW3 = shards.decode_image(row["image"]["bytes"])
        label_HW = shards.decode_label(row["label"]["bytes"])
    except (ValueError, OSError) as error:
        raise ValueError(f"{dataset.path}, split {split!r}, row {row['id']}: {error}") from error
    picture = io.BytesIO()
    drawn = row.get("strokes") or []
    boxes = drawn if dataset.report.get("label") == "box" else []
    shown = Image.fromarray(picture_of(image_HW3, label_HW, dataset.palette))
    _outline(shown, boxes, label_HW.shape, dataset.palette)
    shown.save(picture, "JPEG", quality=JPEG_QUALITY)
    uri = f"data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}"
    labelled, void = int((label_HW < UNLABELLED).sum()), int((label_HW == IGNORED).sum())
    share = labelled / label_HW.size
    amount = f"{labelled:,} px labelled" if share <= DENSE_SHARE else f"{share:.1%} labelled"
    strokes = sum(len(stroke["y"]) > 1 for stroke in drawn)
    facts = [f"{row['width']} × {row['height']}", amount]
    clicks = sum(len(stroke["y"]) == 1 for stroke in drawn)
    kinds = {"click": (clicks, "s"), "box" if boxes else "stroke": (strokes, "es" if boxes else "s")}
    facts += [f"{count} {kind}{end * (count != 1)}" for kind, (count, end) in kinds.items() if count]
    facts += [f"{void / label_HW.size:.1%} ignored"] if void else []
    name = escape(str(row["id"]))
    return (
        f'<figure><img src="{uri}" alt="{name} with its labels" loading="lazy"><figcaption><b>{name}</b><br>'
        f"{' · '.join(facts)}{_class_list(row['present'], dataset, 'classes')}</figcaption></figure>"
    )


def _outline(
    picture: Image.Image,
    boxes: Sequence[dict[str, Any]],
    shape: tuple[int, int],
    palette: Sequence[tuple[int, int, int]],
) -> None:
    """Draw the boxes of an image (H, W) on its picture: the class's colour between two black lines."""
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        corners = [
            (x * picture.width / shape[1], y * picture.height / shape[0])
            for y, x in zip(box["y"], box["x"], strict=True)
        ]
        for width, colour in ((5, (0, 0, 0)), (3, tuple(palette[box["class"]]))):
            draw.line([*corners, *corners[:2]], fill=colour, width=width, joint="curve")


def _class_list(classes: Sequence[int], dataset: shards.ShardedDataset, style: str) -> str:
    swatches = {k: f'<i class="swatch" style="background:rgb{dataset.palette[k]}"></i>' for k in classes}
    items = [f"<li>{swatch}{escape(dataset.names[k])}</li>" for k, swatch in swatches.items()]
    return f'<ul class="{style}">{"".join(items) or "<li class=none>no class labelled</li>"}</ul>'


def picture_of(
    image_HW3: np.ndarray, label_HW: np.ndarray, palette: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Picture (h, w, 3) uint8 of an image with its label (codes) drawn in, long side at most LONG_SIDE_PX.

    Sparse labels become dots and strokes, mapped as coordinates, so that none is lost; denser ones a tint.
    """
    H, W = label_HW.shape
    factor = LONG_SIDE_PX / max(H, W)
    factor = factor if factor < 1 else factor // 1  # whole, so that the pixels of small images stay even
    h, w = max(1, round(H * factor)), max(1, round(W * factor))
    small_hw3 = np.asarray(
        Image.fromarray(image_HW3).resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2)
    )
    y, x = np.nonzero(label_HW < UNLABELLED)
    if len(y) > DENSE_SHARE * H * W:
        small_hw = _resized(label_HW, (w, h), Image.Resampling.NEAREST)
        return drawing.overlay(small_hw3, small_hw, palette)
    small_hw = np.full((h, w), UNLABELLED, np.uint8)
    small_hw[(2 * y + 1) * h // (2 * H), (2 * x + 1) * w // (2 * W)] = label_HW[y, x]
    return drawing.draw_clicks(small_hw3, small_hw, palette, dense_share=1.0)


def _resized(array: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize(size, how))
