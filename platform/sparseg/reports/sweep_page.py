"""A sweep's results.json -> one self-contained HTML page: history, what mattered, each field, every trial."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparseg.common.process import one_line
from sparseg.planning import annotation_plan
from sparseg.reports import plan_page
from sparseg.reports.html import SCORES, Axis, Series, bar_list, line_chart, page, parallel, scattered

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
        raise ValueError(f"{path}: no results of a sweep ({one_line(error)})") from error
    scored = [trial for trial in trials if trial[metric] is not None]
    best = found["best"]
    told = f"<p class=note>{escape(_counts(trials))}</p>{SCORES}"
    parts = [f"<header><h1>{escape(found['sweep'])}</h1>{told}</header>"]
    if best:
        parts.append(
            f"<section><h2>Best: trial {best['number']}, {escape(metric)} {100 * best[metric]:.2f} %</h2>"
            f"<pre>{escape(best['command'])}</pre></section>"
        )
    figures = [history(scored, metric)]
    if found.get("cost"):
        figures.append(pareto(scored, metric, found["cost"], found["front"]))
    if found.get("importances"):
        rows = [(name, [(0, share)]) for name, share in found["importances"].items()]
        figures.append(bar_list("What mattered (PED-ANOVA), share in %", rows))
    names = varied(trials)
    figures += [one_field(scored, name, metric) for name in names]
    parts.append(f"<section><div class=charts>{''.join(figures)}</div></section>")
    parts.append(f"<section>{coordinates(scored, names, metric)}</section>")
    parts.append(_budget_curve(folder))
    parts.append(f"<section>{_table(trials, names, metric)}</section>")
    return page(found["sweep"], "\n".join(parts))


def varied(trials: Sequence[Trial]) -> list[str]:
    """Give the fields that have more than one value among the trials; of one there is nothing to see."""
    names = dict.fromkeys(name for trial in trials for name in trial["params"])
    return [name for name in names if len({repr(trial["params"].get(name)) for trial in trials}) > 1]


def _counts(trials: Sequence[Trial]) -> str:
    states = [trial["state"] for trial in trials]
    steps = sum(trial["steps"] or 0 for trial in trials)
    kinds = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(trials)} trials: {kinds}; {steps:,} optimizer steps in all"


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
    shown = [each for each in series if each[2]]
    return line_chart(f"{metric} of every trial, %", shown, x_label="trial", from_zero=False)


def pareto(trials: Sequence[Trial], metric: str, cost: str, front: Sequence[int]) -> str:
    """Every finished trial's score over its cost, and the line of those that no other beats in both."""
    held = [trial for trial in trials if trial.get("cost") is not None]
    points = sorted((float(trial["cost"]), 100 * trial[metric]) for trial in held)
    best = sorted((float(trial["cost"]), 100 * trial[metric]) for trial in held if trial["number"] in front)
    series: list[Series] = [("trial", 0, scattered(points)), ("no other beats it in both", 1, best)]
    return line_chart(f"{metric} over {cost}, %", series, x_label=cost, from_zero=False)


def axis_of(name: str, values: Sequence[Any]) -> Axis:
    """Where each value stands between the lowest (0) and the highest (1) of its field, in its logarithm where
    positive ones span a decade; options in the order of their names; None where nothing was drawn."""
    short, given = name.split(".")[-1], [value for value in values if value is not None]
    if any(isinstance(value, bool | str) for value in given):
        options = sorted({str(value) for value in given})
        at = {option: (n + 0.5) / len(options) for n, option in enumerate(options)}
        return short, [None if v is None else at[str(v)] for v in values], [(y, o) for o, y in at.items()]
    low, high = (min(given), max(given)) if given else (0.0, 0.0)
    wide = low > 0 and high >= 10 * low
    scale = math.log10 if wide else float
    span = scale(high) - scale(low) or 1.0
    marks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if high > low else [(0.0, f"{low:.3g}")]
    return short, [None if v is None else (scale(v) - scale(low)) / span for v in values], marks


def coordinates(trials: Sequence[Trial], names: Sequence[str], metric: str) -> str:
    """Parallel coordinates of the finished trials; the best fifth, at least one, is drawn last in a colour of
    its own."""
    held = sorted((t for t in trials if t["state"] == "finished"), key=lambda t: t[metric])
    axes = [axis_of(name, [trial["params"].get(name) for trial in held]) for name in names]
    axes.append(axis_of(f"{metric}, %", [100 * trial[metric] for trial in held]))
    best = max(1, len(held) // 5)
    colours = [1 if len(held) - place <= best else 7 for place in range(len(held))]
    labels = [f"trial {trial['number']}: {100 * trial[metric]:.2f} %" for trial in held]
    return parallel("Finished trials, the best fifth coloured", axes, colours, labels)


def _budget_curve(folder: Path) -> str:
    """Scores over labels an image, with their laws, where the sweep has enough budgets for them."""
    try:
        curves, _ = annotation_plan.curves_of([folder])
    except (ValueError, KeyError, OSError):
        return ""
    hint = "<p>How many labels a target needs: <code>sparseg plan</code>.</p>"
    return f"<section>{plan_page.figure(curves)}{hint}</section>"


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
    points = [(float(v), 100 * t[metric]) for v, t in zip(values, held, strict=True)]
    series: list[Series] = [(name, 0, scattered(sorted(points)))]
    return line_chart(f"{name}: {metric}, %", series, x_label=name, from_zero=False, log_x=wide)


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
