"""Runs -> one self-contained HTML page: what was trained, curves, IoU per class, a table over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparseg.common.files import write_atomically
from sparseg.config import TERMS, term_names
from sparseg.reports.html import NUM_COLOURS, SCORES, Points, bar_list, line_chart, page, picture, swatch
from sparseg.runs.log import duration, on_sparse_labels
from sparseg.runs.records import (
    DASH,
    RunRecord,
    dotted,
    group_by_seed,
    is_read,
    number,
    read_run,
    training_seconds,
)

MOST_NAMES = 6
"""Names of runs that a row of the comparison shows."""
SUMMARY = (
    ("method", "loss.method"),
    ("terms of its own", "loss.extra_terms"),
    ("variance", "loss.variance"),
    ("labels", "data.label"),
    ("clicks per class", "data.clicks_per_class"),
    ("random pixels", "data.random_pixels"),
    ("data", "data.root"),
    ("backbone", "model.backbone"),
    ("weights", "model.weights"),
    ("crop, px", "data.crop_px"),
    ("global batch", "optim.batch_size"),
    ("epochs", "optim.epochs"),
    ("optimizer", "optim.optimizer"),
    ("learning rate", "optim.learning_rate"),
    ("precision", "optim.precision"),
    ("workers", "resources.workers"),
    ("seed", "run.seed"),
)


def write_report(
    run_folders: Sequence[Path],
    html: Path,
    *,
    pictures: Mapping[str, Path | bytes] | None = None,
    title: str = "sparseg report",
    note: str = "",
    findings: Sequence[str] = (),
) -> None:
    """Write one HTML file that needs nothing else: no network, no scripts.

    ``pictures`` (caption -> PNG, JPEG, GIF or WebP file, or its bytes) and ``note`` stand at the top;
    ``findings`` is a piece of HTML for each run (`findings.html_of`), or nothing.
    Several runs get a table with a row for those that differ only in their seed (mean, standard deviation).
    Raises ValueError naming a folder that is no run, or a picture that is not one.
    """
    html = Path(html)
    runs = [read_run(Path(folder)) for folder in run_folders]
    noted = f'<p class="note">{escape(note)}</p>' if note else ""
    parts = [f"<header><h1>{escape(title)}</h1>{noted}{SCORES}</header>"]
    parts += [picture(caption, source) for caption, source in (pictures or {}).items()]
    if len(runs) > 1:
        parts.append(_comparison(runs))
    for place, run in enumerate(runs):
        more = findings[place] if findings else ""
        parts.append(_run_section(run, more, opened=len(runs) <= 2))
    write_atomically(html, page(title, "\n".join(parts)))


def _show(value: Any, digits: int = 4, factor: float = 1.0) -> str:
    """A number with ``digits`` decimals, other text escaped, a dash for what is missing or not finite."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, float):
        return f"{value * factor:.{digits}f}"
    return escape(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _points(lines: Iterable[Mapping[str, Any]], name: str, factor: float = 1.0) -> Points:
    """(step, value) of every line that has the value; what is not finite becomes NaN, a gap in the curve."""
    values = [(float(line["step"]), number(line[name])) for line in lines if name in line]
    return [(step, math.nan if value is None else value * factor) for step, value in values]


def _percent(value: Any) -> str:
    return _show(number(value), 1, 100)


# ------------------------------------------------------------------------------------------------- comparison


def _mean_sd(values: Iterable[Any]) -> tuple[float | None, float | None]:
    numbers = [finite for value in values if (finite := number(value)) is not None]
    mean = statistics.fmean(numbers) if numbers else None
    return mean, statistics.stdev(numbers) if len(numbers) > 1 else None


def _names(runs: Sequence[RunRecord]) -> str:
    """The names of a row's runs, the first few of many."""
    names = list(dict.fromkeys(run.name for run in runs))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _comparison(runs: Sequence[RunRecord]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.best.get("iou") or {}))
    groups = group_by_seed(runs).items()
    ranked = sorted(groups, key=lambda item: -(_mean_sd(run.best.get("miou") for run in item[1])[0] or -1))
    body, curves = [], []
    bars: dict[str, list[tuple[int, float | None]]] = {name: [] for name in names}
    for colour, (label, members) in enumerate(ranked):
        mean, sd = _mean_sd(run.best.get("miou") for run in members)
        spread = f" ± {_percent(sd)}" if sd is not None else ""
        seeds = ", ".join(_show(run.config.get("run.seed")) for run in members)
        cells = [
            f"<b>{_percent(mean)}{spread}</b>{on_sparse_labels(members[0].best)}",
            f"{len(members)}",
            seeds,
        ]
        for name in names:
            bars[name].append((colour, _mean_sd((run.best.get("iou") or {}).get(name) for run in members)[0]))
            cells.append(_percent(bars[name][-1][1]))
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        mark = swatch(colour) if colour < NUM_COLOURS else ""
        named = f'<br><span class="sub">{escape(_names(members))}</span>'
        body.append(f"<tr><th scope=row>{mark}{escape(label)}{named}</th>{row}</tr>")
        if colour < NUM_COLOURS:  # a sweep has more rows than the eye tells colours apart
            curves += [(label, colour, _points(run.val, "miou", 100)) for run in members]
    head = "".join(f"<th>{escape(name)}</th>" for name in ["best val mIoU, %", "runs", "seeds", *names])
    few, many = len(ranked) <= 4, len(ranked) > NUM_COLOURS
    caption = f"Validation mIoU of {f'the best {NUM_COLOURS} rows' if many else 'every run'}, %"
    return (
        "<section><h2>Comparison</h2><p>A row holds the runs that differ only in their seed: mean ± "
        "standard deviation of the best val mIoU, then the mean IoU of each class, %.</p>"
        f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(body)}</table></div>'
        f"<div class=charts>{line_chart(caption, curves)}"
        f"{bar_list('Mean IoU per class, %', list(bars.items())) if few else ''}</div></section>"
    )


# ---------------------------------------------------------------------------------------------------- one run


def _run_section(run: RunRecord, more: str, *, opened: bool) -> str:
    best, last = run.best, run.train[-1] if run.train else {}
    speeds = [speed for line in run.train if (speed := number(line.get("images_per_s"))) is not None]
    cards = [
        (f"best val mIoU{on_sparse_labels(best)}, %", _percent(best.get("miou"))),
        ("at step", _show(best.get("step"))),
        ("last val mIoU, %", _percent(run.val[-1].get("miou") if run.val else None)),
        ("steps", _show(last.get("step"))),
        ("images/s (median)", _show(statistics.median(speeds) if speeds else None, 1)),
        ("training time", _training_time(run)),
    ]
    tiles = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in cards)
    known = [(name, field, run.config.get(field)) for name, field in SUMMARY if is_read(field, run)]
    facts = [
        (name, value) for name, field, value in known if value not in (None, "", 0) or field == "run.seed"
    ]
    device = run.environment.get("device") or run.environment.get("devices")
    facts += [("device", device)] if device else []
    facts += [("commit", str(run.environment.get("commit") or DASH)[:10])]
    facts += [("data fingerprint", run.environment.get("data_fingerprint") or DASH)]
    names = term_names(dict.fromkeys(name for line in run.train for name in line))
    colours = dict(zip(("total", *TERMS), range(1 + len(TERMS)), strict=True))
    colours |= {name: NUM_COLOURS - 1 - n for n, name in enumerate(names[::-1]) if name not in TERMS}
    terms = [(term, colour, _points(run.train, term)) for term, colour in colours.items()]
    terms = [line for line in terms if any(y for _, y in line[2] if not math.isnan(y))]
    iou = [(name, [(0, number(value))]) for name, value in (best.get("iou") or {}).items()]
    curve = [("mIoU", 0, _points(run.val, "miou", 100))]
    bars = bar_list("IoU per class at the best step, %", iou)
    notes = "".join(f'<p class="warn">{escape(text)}</p>' for text in run.notes)
    return (
        f"<section><details{' open' if opened else ''}><summary><h2>{escape(run.name)}</h2>"
        f'<span class="sub">mIoU {_percent(best.get("miou"))} %{on_sparse_labels(best)}</span></summary>'
        f"{notes}"
        f'<div class="tiles">{tiles}</div>{_facts(facts)}<div class="charts">'
        f"{line_chart('Loss terms', terms)}{line_chart('Validation mIoU, %', curve)}"
        f"{bars}</div>{more}"
        f"<details><summary>Configuration</summary>{_facts(run.config.items())}</details>"
        f"<details><summary>Environment</summary>{_facts(dotted(run.environment).items())}</details>"
        "</details></section>"
    )


def _training_time(run: RunRecord) -> str:
    try:
        return duration(training_seconds(run)) if run.train else DASH
    except ValueError:
        return DASH


def _facts(pairs: Iterable[tuple[str, Any]]) -> str:
    def text(value: Any) -> str:
        return f"{value:g}" if number(value) is not None and isinstance(value, float) else _show(value)

    items = "".join(f"<div><dt>{escape(str(name))}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{items}</dl>" if items else f"<p>{DASH}</p>"
