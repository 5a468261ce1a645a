"""Predictions as one self-contained HTML page: overlays, the least sure first, with a filter by class."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparseg.common.numbers import percent
from sparseg.data import drawing, shards
from sparseg.inference.images import read_image
from sparseg.inference.predict import UNSURE, Predictions
from sparseg.inference.predictions_csv import cover_columns
from sparseg.reports.html import page

LONG_SIDE_PX = 240
MOST_COVERS = 4  # of a card; the filter knows all
GLOSSARY = (
    f"<b>unsure</b>: share of the image's pixels whose highest probability is below {100 * UNSURE:.0f} %; "
    "<b>cover</b>: share of the image's pixels that the network gives to the class."
)
STYLE = """<style>
.controls{display:flex;flex-wrap:wrap;gap:10px 20px;align-items:end;margin:0 0 14px}
.controls label{display:flex;flex-direction:column;font-size:13px;color:var(--faint);gap:2px}
.controls select,.controls input{font:inherit;font-size:16px;color:var(--ink);background:var(--card);
 height:38px;padding:5px 8px;border:1px solid var(--faint);border-radius:6px;max-width:100%}
.controls input{width:6em}.controls :focus-visible{outline:2px solid var(--c0);outline-offset:1px}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:20px 16px}
.shots figure[hidden]{display:none}.shots img{width:auto;max-width:100%;margin:0}
.shots figcaption{font-weight:400;font-size:13px;line-height:1.45;margin:6px 0 0}
.shots figcaption b{font-weight:600;overflow-wrap:anywhere}
.covers{display:flex;flex-wrap:wrap;gap:2px 12px;margin:2px 0 0;padding:0;list-style:none}
.covers li{display:flex;align-items:center;overflow-wrap:anywhere}
.covers .swatch{width:11px;height:11px;border-radius:3px;border:1px solid var(--faint)}
.key{font-size:14px;gap:4px 18px;margin-top:8px}
@media(max-width:600px){.shots{grid-template-columns:1fr 1fr;gap:16px 10px}}
</style>"""
SCRIPT = """<script>
const field = name => document.getElementById(name), shots = [...field("shots").children];
const covers = new Map(shots.map(shot =>
  [shot, new Map(shot.dataset.cover.split(" ").map(pair => pair.split(":")))]));
const cover = shot => Number(covers.get(shot).get(field("class").value) || 0);
const byName = (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, {numeric: true});
const orders = {unsure: (a, b) => b.dataset.unsure - a.dataset.unsure || byName(a, b), name: byName,
  cover: (a, b) => cover(b) - cover(a) || byName(a, b)};
function update() {
  const chosen = field("class").value !== "", least = Math.max(Number(field("least").value) / 100, 1e-9);
  field("least").disabled = field("by-cover").disabled = !chosen;
  if (!chosen && field("order").value === "cover") field("order").value = "unsure";
  for (const shot of shots) shot.hidden = chosen && cover(shot) < least;
  field("shots").append(...shots.sort(orders[field("order").value]));
  field("shown").textContent = shots.filter(shot => !shot.hidden).length + " shown";
}
for (const name of ["class", "least", "order"]) field(name).addEventListener("input", update);
update();
</script>"""


def html_of(predictions: Predictions, count: int) -> str:
    """The page of the `count` images that are least sure, each as a small picture inside the page.

    Raises ValueError naming an image or a mask that is not there any more, or is damaged.
    """
    columns = cover_columns(predictions.names)
    ranked = sorted(predictions.rows, key=lambda row: (-float(row["unsure"]), row["mask"]))
    covers = [[float(row[column]) for column in columns] for row in ranked]
    mean = np.mean(covers, axis=0) if covers else np.zeros(len(columns))
    shots = [
        _shot(predictions, row, cover_K) for row, cover_K in zip(ranked[:count], covers[:count], strict=True)
    ]
    total = len(ranked)
    amount = f"{total:,} images" if total <= count else f"the {count:,} least sure of {total:,} images"
    more = "" if total <= count else " --gallery-images N shows more; predictions.csv has a row for each."
    key = _cover_list(predictions, enumerate(mean.tolist()), "covers key")
    body = (
        f"{STYLE}<header><h1>{_text(predictions.folder.name)}</h1>"
        f'<p class="note">Predictions: {amount}.{more}</p><p class="note">{GLOSSARY}</p></header>'
        f"<section><h2>Classes</h2><p>Mean cover, of {total:,} images</p>{key}</section>"
        f"<section>{_controls(predictions.names)}"
        f'<div class="shots" id="shots">{"".join(shots)}</div></section>{SCRIPT}'
    )
    return page(f"{_text(predictions.folder.name, quote=False)}: predictions", body)


def _controls(names: list[str]) -> str:
    options = "".join(f'<option value="{k}">{escape(name)}</option>' for k, name in enumerate(names))
    return (
        '<div class="controls">'
        f'<label>Class<select id="class"><option value="">any</option>{options}</select></label>'
        '<label>Cover at least, %<input id="least" type="number" min="0" max="100" step="any" value="1">'
        '</label><label>Order<select id="order"><option value="unsure">least sure first</option>'
        '<option value="name">name</option>'
        '<option value="cover" id="by-cover">most cover of the class</option>'
        '</select></label><span id="shown" role="status"></span>'
        "<noscript>Filter and order need scripts.</noscript></div>"
    )


def _shot(predictions: Predictions, row: Mapping[str, Any], cover_K: list[float]) -> str:
    """One image: its overlay, name, unsure share and largest covers; all covers for the script."""
    name = _text(f"{row['mask'].removesuffix('.png')}{Path(row['image']).suffix}")
    picture = _thumbnail(Path(row["image"]), predictions.folder / row["mask"], predictions.palette)
    uri = f"data:image/jpeg;base64,{base64.b64encode(drawing.encode(picture, 'JPEG')).decode()}"
    size = f'width="{picture.shape[1]}" height="{picture.shape[0]}"'
    stored = " ".join(f"{k}:{cover:.6g}" for k, cover in enumerate(cover_K) if cover)
    largest = sorted(enumerate(cover_K), key=lambda entry: -entry[1])[:MOST_COVERS]
    return (
        f'<figure data-name="{name}" data-unsure="{float(row["unsure"]):g}" data-cover="{stored}">'
        f'<img src="{uri}" {size} alt="{name} with its classes"><figcaption><b>{name}</b><br>'
        f"{escape(percent(float(row['unsure'])))} unsure{_cover_list(predictions, largest, 'covers')}"
        "</figcaption></figure>"
    )


def _cover_list(predictions: Predictions, covers: Iterable[tuple[int, float]], style: str) -> str:
    """A list of the classes that cover anything, with their colours."""
    items = [
        f'<li><i class="swatch" style="background:#{bytes(predictions.palette[k]).hex()}"></i>'
        f"{escape(f'{predictions.names[k]} {percent(cover)}')}</li>"
        for k, cover in covers
        if cover > 0
    ]
    return f'<ul class="{style}">{"".join(items)}</ul>'


def _thumbnail(image: Path, mask: Path, palette: list[shards.Colour]) -> drawing.Array:
    """The overlay of an image with its mask (h, w, 3) uint8, long side at most LONG_SIDE_PX."""
    image_HW3 = read_image(image)
    try:
        label_HW = shards.decode_label_file(mask.read_bytes())
    except OSError as error:
        raise ValueError(f"{mask}: unreadable mask ({error.strerror}); predict it again") from error
    except ValueError as error:
        raise ValueError(f"{mask}: {error}; remove it and predict it again") from error
    H, W = label_HW.shape
    factor = min(LONG_SIDE_PX / max(H, W), 1)
    size = max(1, round(W * factor)), max(1, round(H * factor))
    small_hw3 = Image.fromarray(image_HW3).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    small_hw = Image.fromarray(label_HW).resize(size, Image.Resampling.NEAREST)
    return drawing.overlay(np.asarray(small_hw3), np.asarray(small_hw), palette)


def _text(name: str, *, quote: bool = True) -> str:
    """A file's name as HTML; bytes that are no UTF-8 become question marks."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return escape(shown) if quote else shown
