"""The page of a sweep: what its results.json holds is on it, and nothing comes from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparseg import cli
from sparseg.reports import sweep_page


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
        "cost": None if score is None else 10.0 * number,
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
        "cost": "labels",
        "front": [0, 1],
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
        "<b>mIoU</b>: its mean over the classes",
        "4 trials: 2 finished, 1 pruned, 1 failed; 36 optimizer steps",
        "Best: trial 1, val_miou 52.00 %",
        "python trainers/voc.py --loss.distance l2",
        "loss.bandwidth: 41 at 0.1",
        "l1 (1)",
        "loss &lt;not&gt; finite",
        "best so far: 52 at 1",
        "no other beats it in both: 41 at 0",
        "<title>trial 1: 52.00 %</title>",
    ):
        assert words in page, words
    assert "://" not in page and "<script" not in page and "my <sweep>" not in page


def test_scattered_points_have_no_line_between_them() -> None:
    figure = sweep_page.one_field([trial(n, "finished", 0.1 * n, bandwidth=float(n)) for n in (1, 2)],
                                  "loss.bandwidth", "val_miou")  # fmt: skip
    assert figure.count("<circle") == 2
    path = figure.split('<path class="c0" d="')[1].split('"')[0]
    assert "L" not in path and path.count("M") == 2


def test_values_that_span_a_decade_have_a_logarithmic_axis_with_plain_numbers() -> None:
    trials = [trial(n, "finished", 0.4, bandwidth=value) for n, value in enumerate((0.1, 1.0, 10.0))]
    figure = sweep_page.one_field(trials, "loss.bandwidth", "val_miou")
    left, middle, right = (float(part.split('"')[0]) for part in figure.split('cx="')[1:])
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    for number in ("0.1", "1", "10"):
        assert f">{number}</text>" in figure


def test_a_field_of_one_value_has_no_chart(folder: Path) -> None:
    results = folder / "results.json"
    found = json.loads(results.read_text())
    for each in found["trials"]:
        each["params"]["loss.method"] = "agmm"
    results.write_text(json.dumps(found))
    assert sweep_page.varied(found["trials"]) == ["loss.distance", "loss.bandwidth"]
    page = sweep_page.html_of(folder)
    assert "loss.method" not in page and "loss.bandwidth" in page


@pytest.mark.parametrize(
    ("values", "places", "marks"),
    [
        ([0.1, 1.0, 10.0, None], [0, 0.5, 1, None], [(0.0, "0.1"), (1.0, "10")]),  # two decades: logarithm
        ([1.0, 2.0, 1.5], [0, 1, 0.5], [(0.0, "1"), (1.0, "2")]),
        ([0.0, 20.0], [0, 1], [(0.0, "0"), (1.0, "20")]),
        (["b", "a", None, "b"], [0.75, 0.25, None, 0.75], [(0.25, "a"), (0.75, "b")]),
        ([True, False], [0.75, 0.25], [(0.25, "False"), (0.75, "True")]),
        ([3, 3], [0, 0], [(0.0, "3")]),
        ([None, None], [None, None], [(0.0, "0")]),
    ],
)
def test_where_values_cross_their_axis(
    values: list[Any], places: list[float | None], marks: list[tuple[float, str]]
) -> None:
    name, found, shown = sweep_page.axis_of("loss.bandwidth", values)
    assert (name, shown) == ("bandwidth", marks)
    assert [v is None for v in found] == [v is None for v in places]
    assert [v for v in found if v is not None] == pytest.approx([v for v in places if v is not None])


def test_the_best_trials_are_drawn_last_and_gaps_have_a_mark(folder: Path) -> None:
    trials = json.loads((folder / "results.json").read_text())["trials"]
    del trials[0]["params"]["loss.bandwidth"]
    figure = sweep_page.coordinates(trials, ["loss.distance", "loss.bandwidth"], "val_miou")
    assert figure.index("trial 0: 41.00 %") < figure.index("trial 1: 52.00 %")
    assert figure.count("<path") == 2 and ">–</text>" in figure and "trial 3" not in figure


def test_a_sweep_of_budgets_shows_their_curve(tmp_path: Path) -> None:
    trials = []
    for number, pixels in enumerate((5, 10, 20, 40)):
        run = tmp_path / f"trial_{number:04d}"
        run.mkdir()
        settings = {"data": {"random_pixels": pixels}, "optim": {}, "loss": {"method": "ce"}}
        (run / "config.json").write_text(json.dumps(settings))
        (run / "environment.json").write_text(json.dumps({"labels": {"images": 2, "pixels": 2 * pixels}}))
        (run / "iou.json").write_text(json.dumps({"miou": 0.6 - 1 / pixels, "iou": {"a": 0.5}, "step": 9}))
        (run / "metrics.jsonl").touch()
        trials.append(trial(number, "finished", 0.6 - 1 / pixels) | {"folder": str(run)})
    found = {"sweep": "s", "metric": "val_miou", "trials": trials, "importances": {}, "best": None}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert "mIoU over labels an image" in sweep_page.html_of(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(found | {"trials": trials[:1]}))
    assert "mIoU over labels an image" not in sweep_page.html_of(tmp_path)


def test_what_is_no_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"results.json: no results of a sweep"):
        sweep_page.html_of(tmp_path)
