"""A sweep's results.json -> one self-contained HTML page: history, what mattered, each field, every trial."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparseg.charts import Points, Series, bar_list, line_chart, page

Trial = dict[str, Any]


def is_sweep(folder: Path) -> bool:
    """Whether the folder holds a sweep's results."""
    return (folder / "results.json").is_file()


def html_of(folder: Path) -> str:
    """The page.  Raises ValueError naming the file if it is no sweep's results."""
    path = folder / "results.json"
    try:
        found = json.loads(path.read_text())
        metric, trials = found["metric"], found["trials"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no results of a sweep ({' '.join(str(error).split())})") from error
    scored = [trial for trial in trials if trial[metric] is not None]
    best = found["best"]
    parts = [f"<header><h1>{escape(found['sweep'])}</h1><p class=note>{escape(_counts(trials))}</p></header>"]
    if best:
        parts.append(
            f"<section><h2>Best: trial {best['number']}, {escape(metric)} {100 * best[metric]:.2f} %</h2>"
            f"<pre>{escape(best['command'])}</pre></section>"
        )
    figures = [history(scored, metric)]
    if found.get("importances"):
        rows = [(name, [(0, share)]) for name, share in found["importances"].items()]
        figures.append(bar_list("What mattered (PED-ANOVA), share in %", rows))
    names = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    figures += [one_field(scored, name, metric) for name in names]
    parts.append(f"<section><div class=charts>{''.join(figures)}</div></section>")
    parts.append(f"<section>{_table(trials, names, metric)}</section>")
    return page(found["sweep"], "\n".join(parts))


def _counts(trials: Sequence[Trial]) -> str:
    states = [trial["state"] for trial in trials]
    steps = sum(trial["steps"] or 0 for trial in trials)
    kinds = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(trials)} trials: {kinds}; {steps:,} optimizer steps in all"


def scattered(points: Points) -> Points:
    """The points without a line between them."""
    return [pair for x, y in points for pair in ((x, y), (x, math.nan))]


def history(trials: Sequence[Trial], metric: str) -> str:
    """Scores in the order of the trials, and the best of the finished ones so far."""
    series: list[Series] = []
    for colour, state in ((0, "finished"), (7, "pruned")):
        points = [(float(t["number"]), 100 * t[metric]) for t in trials if t["state"] == state]
        series.append((state, colour, scattered(points)))
    best, so_far = -math.inf, []
    for trial in trials:
        if trial["state"] == "finished":
            best = max(best, trial[metric])
            so_far.append((float(trial["number"]), 100 * best))
    series.append(("best so far", 1, so_far))
    return line_chart(f"{metric} of every trial, %", [s for s in series if s[2]], x_label="trial")


def one_field(trials: Sequence[Trial], name: str, metric: str) -> str:
    """Finished trials: the score over a field's value (its logarithm where values span a decade), or the mean
    of each option."""
    held = [trial for trial in trials if trial["state"] == "finished" and name in trial["params"]]
    values = [trial["params"][name] for trial in held]
    if not values or any(isinstance(value, bool | str | None) for value in values):
        options: dict[str, list[float]] = {}
        for trial in held:
            options.setdefault(str(trial["params"][name]), []).append(trial[metric])
        rows = [(f"{option} ({len(v)})", [(0, statistics.fmean(v))]) for option, v in sorted(options.items())]
        return bar_list(f"{name}: mean {metric}, %", rows)
    wide = min(values) > 0 and max(values) >= 10 * min(values)
    points = [
        (math.log10(v) if wide else float(v), 100 * t[metric]) for v, t in zip(values, held, strict=True)
    ]
    label = f"log10 {name}" if wide else name
    return line_chart(f"{name}: {metric}, %", [(name, 0, scattered(sorted(points)))], x_label=label)


def _table(trials: Sequence[Trial], names: Sequence[str], metric: str) -> str:
    head = "".join(f"<th>{escape(n)}</th>" for n in ("state", f"{metric}, %", "steps", *names, "error"))
    rows = []
    for trial in sorted(trials, key=lambda t: (t["state"] != "finished", -(t[metric] or 0))):
        spread = f" ± {100 * trial['sd']:.2f}" if trial.get("sd") is not None else ""
        score = "" if trial[metric] is None else f"{100 * trial[metric]:.2f}{spread}"
        shown = [trial["params"].get(name, "") for name in names]
        cells = [trial["state"], score, f"{trial['steps'] or ''}"]
        cells += [f"{v:.4g}" if isinstance(v, float) else str(v) for v in shown] + [trial["error"] or ""]
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr><th scope=row>trial {trial['number']}</th>{body}</tr>")
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
