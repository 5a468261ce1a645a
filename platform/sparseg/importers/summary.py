"""An import's report for people."""

from __future__ import annotations

from typing import Any

from sparseg.shards import ShardedDataset

REFUSED_SHOWN = 20


def _share(part: int, whole: int) -> str:
    """Percent with three significant digits: 20 pixels of an image are 0.0116 %."""
    return f"{100 * part / max(1, whole):.3g} %"


def describe(dataset: ShardedDataset) -> str:
    """One line: path, label kind, rows and labelled share of every split, refused rows."""
    report = dataset.report
    parts = []
    for split, data in dataset.splits.items():
        counts = report.get("splits", {}).get(split)
        whole = sum(counts[name] for name in ("labelled", "unlabelled", "ignored")) if counts else 0
        parts.append(
            f"{split} {len(data)} rows"
            + (f", {_share(counts['labelled'], whole)} labelled" if counts else "")
        )
    refused = report.get("refused", [])
    if refused:
        parts.append(f"{len(refused)} rows refused, the first: {refused[0]['reason']}")
    kind = f"{report.get('layout', 'shards')}, label {report['label']}: " if "label" in report else ""
    return f"{dataset.path} ({kind}{'; '.join(parts)})"


def _drawn(counts: dict[str, Any]) -> list[str]:
    """What became of the points and strokes of a split."""
    texts = []
    if "points" in counts or "points_outside" in counts:
        texts.append(
            f"{counts.get('points', 0)} clicks drawn, {counts.get('points_outside', 0)} outside their image "
            f"dropped, {counts.get('points_overdrawn', 0)} on a pixel of another class's click"
        )
    if "strokes" in counts or "strokes_outside" in counts:
        texts.append(
            f"{counts.get('strokes', 0)} lines, polygons and masks drawn, {counts.get('strokes_outside', 0)} "
            f"without a pixel in their image dropped, {counts.get('vertices_outside', 0)} vertices outside, "
            f"{counts.get('strokes_overdrawn', 0)} pixels of another class drawn over"
        )
    return texts


def format_report(report: dict[str, Any]) -> str:
    """Table of an import: a line a split, the class histogram, the encoding, notes and refused rows."""
    lines = [
        f"{report['layout']} at {report['root']}, label {report['label']}",
        f"encoding: {report['encoding']}",
        "",
        f"{'split':<8}{'rows':>8}{'labelled':>12}{'unlabelled':>12}{'ignored':>12}   {'height':<12}width",
    ]
    for split, counts in report["splits"].items():
        whole = counts["labelled"] + counts["unlabelled"] + counts["ignored"]
        shares = "".join(
            f"{_share(counts[name], whole):>12}" for name in ("labelled", "unlabelled", "ignored")
        )
        height, width = ("..".join(map(str, sorted(set(counts[name])))) for name in ("height", "width"))
        lines.append(f"{split:<8}{counts['rows']:>8}{shares}   {height:<12}{width}")
    splits = report["splits"]
    lines += [
        "",
        f"{'class':<24}" + "".join(f"{split + ' pixels':>16}{'%':>8}{'images':>8}" for split in splits),
    ]
    for k, name in enumerate(report["classes"]):
        cells = ""
        for counts in splits.values():
            share = 100 * counts["pixels"][k] / max(1, counts["labelled"])
            cells += f"{counts['pixels'][k]:>16}{share:>8.2f}{counts['images'][k]:>8}"
        lines.append(f"{f'{k} {name}':<24}{cells}")
    lines.append("")
    for split, counts in splits.items():
        if counts["rows_without_label"]:
            lines.append(f"note: {split}: {counts['rows_without_label']} rows have no labelled pixel")
        lines += [f"note: {split}: {text}" for text in _drawn(counts)]
    lines += [f"note: {note}" for note in report["notes"]]
    refused = report["refused"]
    lines.append(f"refused rows: {len(refused)}")
    lines += [f"  {row['split']}: {row['reason']}" for row in refused[:REFUSED_SHOWN]]
    if len(refused) > REFUSED_SHOWN:
        lines.append(f"  and {len(refused) - REFUSED_SHOWN} more, listed in the dataset's sparseg.json")
    return "\n".join(lines)
