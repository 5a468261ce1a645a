"""The annotation plan as a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from sparseg.planning import learning_curve
from sparseg.planning.annotation_plan import CURVE_POINTS, Cost, Curve, answer, score, text_of
from sparseg.reports.html import NUM_COLOURS, SCORES, Band, Series, line_chart, page, scattered, swatch


def figure(curves: Sequence[Curve]) -> str:
    """The measured scores, the laws through them and the laws' 90 % bands over the labels an image."""
    low = min(float(curve.labels_N.min()) for curve in curves)
    high = max(float(curve.labels_N.max()) for curve in curves) * 1.5
    at = np.geomspace(low, high, CURVE_POINTS)
    series: list[Series] = []
    bands: list[Band] = []
    for colour, curve in enumerate(curves[:NUM_COLOURS]):
        ends = [learning_curve.interval([law.at(n) for law in curve.laws]) for n in at]
        bands.append((colour, [(n, 100 * a, 100 * b) for n, (a, b) in zip(at, ends, strict=True)]))
        series.append((curve.name, colour, [(n, 100 * curve.law.at(n)) for n in at]))
        measured = zip(curve.labels_N.tolist(), curve.miou_N.tolist(), strict=True)
        series.append((curve.name, colour, scattered([(n, 100 * miou) for n, miou in measured])))
    caption = "mIoU over labels an image, %: runs, laws and their 90 % bands"
    return line_chart(caption, series, x_label="labels an image", bands=bands, from_zero=False, log_x=True)


def html_of(curves: Sequence[Curve], target: float | None, cost: Cost) -> str:
    """The plan as a page: the measured scores, the laws with their 90 % bands, the answers."""
    rows = []
    for colour, curve in enumerate(curves[:NUM_COLOURS]):
        for labels, mean, sd, runs in curve.summary():
            rows.append(
                f"<tr><th scope=row>{swatch(colour)}{escape(curve.name)}</th><td>{labels:.3g}</td>"
                f"<td>{cost.hours(labels):.1f}</td><td>{score(mean, sd)}</td><td>{runs}</td>"
                f"<td>{100 * curve.law.at(labels):.1f}</td></tr>"
            )
    answers = [f"{c.name}: {answer(c, target, cost)}" for c in curves] if target is not None else []
    head = "".join(f"<th>{name}</th>" for name in ("labels an image", "hours", "mIoU, %", "runs", "law, %"))
    body = (
        f"<header><h1>How many labels?</h1>{SCORES}</header><section>"
        + "".join(f"<p><b>{escape(text)}</b></p>" for text in answers)
        + figure(curves)
        + f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
        + f"<pre>{escape(text_of(curves, target, cost))}</pre></section>"
    )
    return page("sparseg plan", body)
