"""Line charts as inline SVG, bars, and the page around them: no requests, light and dark, no scripts here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

Points = list[tuple[float, float]]
Series = tuple[str, int, Points]
"""Name, colour number, points in order of x; a NaN in y breaks the line."""
Band = tuple[int, list[tuple[float, float, float]]]
"""Colour number; x, lowest and highest y there, in order of x."""

SCORES = (
    "<p class=note><b>IoU</b> of a class: the pixels that prediction and truth share, of those that either "
    "has; <b>mIoU</b>: its mean over the classes. 100 % is a perfect match.</p>"
)
"""What the scores of a page mean."""
NUM_COLOURS = 8
WIDTH, HEIGHT = 360, 220  # of the drawing, in units of about a CSS pixel, on a phone as on a wide screen
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34  # margins
MOST_POINTS = 240  # more are averaged in groups: a line cannot show them


def line_chart(
    caption: str,
    series: Sequence[Series],
    x_label: str = "step",
    *,
    bands: Sequence[Band] = (),
    from_zero: bool = True,
    log_x: bool = False,
) -> str:
    """A figure with axes, one line per series, shaded bands, and a legend with one entry per name.

    log_x: a logarithmic axis with plain numbers, for x > 0.
    """
    drawn = [(name, colour, thin_out(points)) for name, colour, points in series]
    edges = [(x, y) for _, points in bands for x, *ends in points for y in ends]
    finite = [(x, y) for x, y in (*(p for *_, points in drawn for p in points), *edges) if math.isfinite(y)]
    if not finite:
        return f"<figure><figcaption>{escape(caption)}</figcaption><p>–</p></figure>"
    least, most = min(x for x, _ in finite), max(x for x, _ in finite)
    x_ticks = log_ticks(least, most) if log_x else ticks(least, most)
    lowest = min(y for _, y in finite)
    y_ticks = ticks(min(0.0, lowest) if from_zero else lowest, max(y for _, y in finite))
    x_low, x_high = min(least, x_ticks[0]), max(most, x_ticks[-1])
    y_low, y_high = y_ticks[0], y_ticks[-1]
    scale = math.log10 if log_x else float

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - scale(x_low)) / (scale(x_high) - scale(x_low)) * (WIDTH - LEFT - RIGHT)
        up = (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = []
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_low)
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>')
    for colour, around in bands:
        outline = [place(x, low) for x, low, _ in around]
        outline += [place(x, high) for x, _, high in reversed(around)]
        corners = " L".join(f"{left} {top}" for left, top in outline)
        parts.append(f'<path class="band c{colour % NUM_COLOURS}" d="M{corners}Z"/>')
    for name, colour, points in drawn:
        parts.append(_line(name, colour % NUM_COLOURS, [(x, y, *place(x, y)) for x, y in points if x == x]))
    legend = {name: colour for name, colour, _ in drawn}
    entries = "".join(f"<span>{swatch(colour)}{escape(name)}</span>" for name, colour in legend.items())
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}"'
    drawing = f"<svg {frame}>{''.join(parts)}</svg>"
    shown = f'<div class="legend">{entries}</div>' if len(legend) > 1 else ""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}{shown}</figure>"


def _line(name: str, colour: int, placed: list[tuple[float, float, float, float]]) -> str:
    """A path broken at NaN, with dots that say their value; ``placed`` is (x, y, and both on paper)."""
    steps, broken = [], True
    for _, y, left, top in placed:
        if math.isfinite(y):
            steps.append(f"{'M' if broken else 'L'}{left} {top}")
        broken = not math.isfinite(y)
    dots = [point for point in placed if math.isfinite(point[1])]
    marks = "".join(
        f'<circle class="c{colour}" cx="{left}" cy="{top}" r="{3 if len(dots) <= 40 else 1.2}">'
        f"<title>{escape(name)}: {y:.4g} at {x:g}</title></circle>"
        for x, y, left, top in dots
    )
    return f'<path class="c{colour}" d="{" ".join(steps)}"/>{marks}'


def bar_list(caption: str, rows: Sequence[tuple[str, Sequence[tuple[int, float | None]]]]) -> str:
    """A figure with a line per name and in it a bar per (colour number, share 0..1, or None for no value)."""
    cells = []
    for name, values in rows:
        widths = [(colour % NUM_COLOURS, 100 * min(max(share or 0.0, 0.0), 1.0)) for colour, share in values]
        bars = "".join(f'<i class="c{colour}" style="width:{width:.1f}%"></i>' for colour, width in widths)
        numbers = "".join("<span>–</span>" if v is None else f"<span>{100 * v:.1f}</span>" for _, v in values)
        cells.append(
            f'<span class="name">{escape(name)}</span><span class="bar">{bars}</span>'
            f'<span class="num">{numbers}</span>'
        )
    inside = f'<div class="bars">{"".join(cells)}</div>' if cells else "<p>–</p>"
    return f"<figure><figcaption>{escape(caption)}</figcaption>{inside}</figure>"


Axis = tuple[str, list[float | None], list[tuple[float, str]]]
"""Name; where each line crosses, 0 (bottom) to 1, None for no value; labelled places."""


def parallel(caption: str, axes: Sequence[Axis], colours: Sequence[int], names: Sequence[str]) -> str:
    """A figure of parallel coordinates: an upright axis per field, a line per name, in the order of drawing.

    A line without a value on an axis passes it below, at a mark of its own.
    """
    width, height, none = max(WIDTH, 110 * len(axes)), HEIGHT + 30, 22
    span = (width - 2 * LEFT) / max(len(axes) - 1, 1)
    bottom = HEIGHT - BOTTOM

    def place(axis: int, value: float | None) -> str:
        y = bottom + none if value is None else bottom - value * (bottom - TOP - 12)
        return f"{LEFT + axis * span:.1f} {y:.1f}"

    parts = []
    for line, (colour, name) in enumerate(zip(colours, names, strict=True)):
        points = " L".join(place(number, values[line]) for number, (_, values, _) in enumerate(axes))
        parts.append(f'<path class="c{colour}" d="M{points}"><title>{escape(name)}</title></path>')
    for number, (name, values, marks) in enumerate(axes):
        x = f"{LEFT + number * span:.1f}"
        anchor = "end" if number == len(axes) - 1 else "start"
        beside = LEFT + number * span + (-5 if anchor == "end" else 5)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP + 12}" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="middle">{escape(name)}</text>')
        shown = [*marks, *([(None, "–")] if None in values else [])]
        for value, label in shown:
            y = float(place(number, value).split()[1]) + 4
            at = f'x="{beside:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
            parts.append(f'<text class="mark" {at}>{escape(label)}</text>')
    frame = f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}"'
    size = f"min-width:{100 * len(axes)}px;max-width:{130 * len(axes)}px"
    drawing = f'<svg class="wide" style="{size}" {frame}>{"".join(parts)}</svg>'
    return f'<figure><figcaption>{escape(caption)}</figcaption><div class="scroll">{drawing}</div></figure>'


def picture(caption: str, source: Path | bytes) -> str:
    """A figure with the picture inside it.  Raises ValueError unless it is PNG, JPEG, GIF or WebP."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, width = image.format, image.width
    except (OSError, ValueError) as error:
        raise ValueError(f"picture {caption!r}: not an image that can be shown ({error})") from error
    if kind not in ("PNG", "JPEG", "GIF", "WEBP"):
        raise ValueError(f"picture {caption!r}: must be PNG, JPEG, GIF or WebP, got {kind}")
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
    size = f"max-width:{width}px;min-width:{min(width, 640)}px"  # scrolls sideways on a phone, not shrinks
    shown = f'<img src="{uri}" alt="{escape(caption)}" style="{size}">'
    return (
        f'<figure class="picture"><div class="scroll">{shown}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def heat_table(caption: str, names: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    """A square table of counts: each row in % of its sum, the deeper the colour the more."""
    head = "".join(f'<th class="turned"><span>{escape(name)}</span></th>' for name in names)
    body = []
    for name, row in zip(names, rows, strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="background:color-mix(in srgb,var(--c0) {100 * value / max(total, 1):.0f}%,'
            f'transparent)" title="{value:,} pixels">{100 * value / total:.1f}</td>'
            if total
            else "<td>–</td>"
            for value in row
        )
        body.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    table = f'<table class="heat"><tr><th></th>{head}</tr>{"".join(body)}</table>'
    return f'<figure><figcaption>{escape(caption)}</figcaption><div class="scroll">{table}</div></figure>'


def scattered(points: Points) -> Points:
    """The points without a line between them."""
    return [pair for x, y in points for pair in ((x, y), (x, math.nan))]


def thin_out(points: Points) -> Points:
    """At most `MOST_POINTS` points: groups of neighbours, each replaced by the mean of its finite ones."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    thinned = []
    for group in groups:
        finite = [y for _, y in group if math.isfinite(y)]
        mean = sum(finite) / len(finite) if finite else math.nan
        thinned.append((sum(x for x, _ in group) / len(group), mean))
    return thinned


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers 1, 2 or 5 x 10^n apart that enclose [low, high]."""
    span = high - low
    if span <= 0:
        span = abs(high) or 1.0
        high = low + span
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 or 5 x 10^n that enclose [low, high], or powers of ten where those would be more than
    eight."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    powers = [10.0**n for n in range(first, last + 1)]
    fine = [float(f"{factor * power:.3g}") for power in powers for factor in (1, 2, 5)]
    start = max((at for at in fine if at <= low * 1.001), default=powers[0])
    end = min((at for at in fine if at >= high * 0.999 and at > start), default=powers[-1] * 10)
    enclosing = [at for at in fine if start <= at <= end]
    return enclosing if len(enclosing) <= 8 else powers


def swatch(colour: int) -> str:
    """A dot in colour number ``colour``, for legends."""
    return f'<i class="swatch c{colour % NUM_COLOURS}"></i>'


_LIGHT = ("#2563a8", "#c8541f", "#2c8a56", "#8a4bb3", "#a97c08", "#c2407e", "#3a8fa3", "#6b6f76")
_DARK = ("#7cb0ee", "#f09a6a", "#6fcb97", "#c79bea", "#dfb84c", "#f08ab8", "#74c9dc", "#a9aeb6")


def _variables(colours: Sequence[str]) -> str:
    return "".join(f"--c{number}:{colour};" for number, colour in enumerate(colours))


STYLE = (
    ":root{color-scheme:light dark;"
    "--page:#f7f7f5;--card:#fff;--ink:#1d2126;--faint:#62686f;--line:#e2e3e0;"
    + _variables(_LIGHT)
    + "}\n@media(prefers-color-scheme:dark){:root{"
    "--page:#15181c;--card:#1d2126;--ink:#e8eaec;--faint:#9aa1a9;"
    "--line:#343a41;" + _variables(_DARK) + "}}\n"
    """*{box-sizing:border-box}
body{margin:0 auto;padding:20px 16px 60px;max-width:1240px;background:var(--page);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.2em 0}
h2{font-size:1.15rem;line-height:1.3;margin:0;display:inline;overflow-wrap:anywhere}
header{margin-bottom:18px}.note,section>p,.sub{color:var(--faint);margin:.3em 0}
section,.picture{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px;
 margin:0 0 18px}
summary{cursor:pointer;margin:4px 0}summary .sub{margin-left:10px;white-space:nowrap}
details details{margin-top:10px;border-top:1px solid var(--line);padding-top:8px}
.warn{border-left:3px solid var(--c1);padding-left:10px;margin:8px 0}
.scroll{overflow-x:auto}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}
img{display:block;width:100%;height:auto;border-radius:6px;margin:0 auto}
figure{margin:0;min-width:0}figcaption{font-weight:600;margin:0 0 6px}
.picture figcaption{font-weight:400;color:var(--faint);margin:10px 0 0}
table{border-collapse:collapse;font-size:14px;width:100%;margin:10px 0 18px}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;
 font-variant-numeric:tabular-nums}
th{color:var(--faint);font-weight:500}th[scope=row]{text-align:left;color:var(--ink);white-space:normal;
 min-width:140px;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{border:1px solid var(--line);border-radius:8px;padding:8px 14px;flex:1 1 120px}
.tile b{display:block;font-size:1.35rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{color:var(--faint);font-size:13px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:2px 28px;margin:10px 0 18px;
 font-size:14px}
dl div{display:flex;justify-content:space-between;gap:12px;border-bottom:1px dotted var(--line)}
dt{color:var(--faint);white-space:nowrap}dd{margin:0;text-align:right;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));gap:24px 32px}
svg{width:100%;max-width:430px;display:block}svg text{fill:var(--faint);font-size:12px}
.grid{stroke:var(--line)}.axis{stroke:var(--faint)}.wide path{stroke-opacity:.75}
.mark{paint-order:stroke;stroke:var(--card);stroke-width:3px}path{fill:none;stroke-width:1.8;stroke-linejoin:round}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;color:var(--faint);padding-left:10%}
.swatch{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:6px;flex:none}
.bars{display:grid;grid-template-columns:minmax(0,max-content) 1fr max-content;gap:5px 10px;
 align-items:center;font-size:14px}
.bars .name{overflow-wrap:anywhere}.bar{background:var(--line);border-radius:4px;overflow:hidden}
.bar i{display:block;height:13px}.bar i+i{margin-top:1px}
.charts+figure{margin-top:24px}
.heat{width:auto;font-size:12px}.heat td{padding:4px 6px}.turned{vertical-align:bottom}
.turned span{writing-mode:vertical-rl;transform:rotate(180deg)}
.num{font-variant-numeric:tabular-nums;text-align:right}
.num span{display:block;font-size:13px;line-height:14px}
"""
    + "".join(
        f"path.band.c{n}{{fill:var(--c{n});fill-opacity:.16;stroke:none}}"
        f"path.c{n}{{stroke:var(--c{n})}}circle.c{n}{{fill:var(--c{n})}}i.c{n}{{background:var(--c{n})}}\n"
        for n in range(NUM_COLOURS)
    )
)


def page(title: str, body: str) -> str:
    """The whole document; ``title`` is text, ``body`` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
