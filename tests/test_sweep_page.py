"""The page of a sweep: what its results.json holds is on it, and nothing comes from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparseg import cli, sweep_page


def trial(number: int, state: str, score: float | None, **params: Any) -> dict[str, Any]:
    named = {f"loss.{name}": value for name, value in params.items()}
    error = "loss <not> finite" if state == "failed" else None
    return {
        "number": number,
        "state": state,
        "val_miou": score,
        "sd": None,
        "params": named,
        "steps": 9,
        "error": error,
        "folder": "",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trials = [
        trial(0, "finished", 0.41, distance="l1", bandwidth=0.1),
        trial(1, "finished", 0.52, distance="l2", bandwidth=3.0),
        trial(2, "pruned", 0.2, distance="l2", bandwidth=1.0),
        trial(3, "failed", None, distance="l1"),
    ]
    found = {
        "sweep": "my <sweep>",
        "metric": "val_miou",
        "trials": trials,
        "importances": {"loss.distance": 0.75},
        "best": {**trials[1], "command": "python trainers/voc.py --loss.distance l2"},
    }
    (tmp_path / "results.json").write_text(json.dumps(found))
    return tmp_path


def test_everything_of_the_sweep_is_on_the_page(folder: Path, tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(folder), "--html", str(html)])
    assert ended.value.code == 0
    page = html.read_text()
    for words in (
        "my &lt;sweep&gt;",
        "4 trials: 2 finished, 1 pruned, 1 failed; 36 optimizer steps",
        "Best: trial 1, val_miou 52.00 %",
        "python trainers/voc.py --loss.distance l2",
        "log10 loss.bandwidth",  # 0.1 to 3 spans a decade
        "l1 (1)",
        "loss &lt;not&gt; finite",
        "best so far: 52 at 1",
    ):
        assert words in page, words
    assert "http" not in page and "<script" not in page and "my <sweep>" not in page


def test_scattered_points_have_no_line_between_them() -> None:
    figure = sweep_page.one_field([trial(n, "finished", 0.1 * n, bandwidth=float(n)) for n in (1, 2)],
                                  "loss.bandwidth", "val_miou")  # fmt: skip
    assert figure.count("<circle") == 2
    path = figure.split('<path class="c0" d="')[1].split('"')[0]
    assert "L" not in path and path.count("M") == 2


def test_what_is_no_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"results.json: no results of a sweep"):
        sweep_page.html_of(tmp_path)
