"""The budget planner: runs on disk -> curves, the budget of a target, classes that pay; and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from sparseg import cli, config
from sparseg.planning import annotation_plan
from sparseg.planning.learning_curve import Law
from sparseg.train import loop

LAWS = {"ce": Law(0.6, 0.5, 0.7), "agmm": Law(0.62, 0.4, 0.7)}
BUDGETS = (5, 10, 20, 50, 100)


def write_run(folder: Path, method: str, pixels: int, seed: int, **environment: Any) -> None:
    noise = 0.004 * np.random.default_rng([seed, pixels]).standard_normal()
    miou = LAWS[method].at(pixels) + noise
    folder.mkdir(parents=True)
    settings = tiny.config(
        folder.parent,
        {
            "data.label": "clicks",
            "data.random_pixels": pixels,
            "loss.method": method,
            "run.seed": seed,
            "run.name": folder.name,
        },
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict(settings)))
    (folder / "environment.json").write_text(json.dumps(environment))
    # `rare` is what grows with labels, `common` is known already
    scores = {"miou": miou, "iou": {"common": 0.9, "rare": 2 * miou - 0.9}, "step": 6}
    (folder / "iou.json").write_text(json.dumps(scores))
    (folder / "metrics.jsonl").touch()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    trials = []
    for method in LAWS:
        for pixels in BUDGETS:
            for seed in range(3):
                folder = tmp_path / "sweep" / f"trial_{len(trials):04d}"
                labels = {"images": 200, "pixels": 200 * pixels}
                write_run(folder, method, pixels, seed, labels=labels)
                trials.append({"folder": str(folder), "state": "finished"})
    failed = tmp_path / "sweep" / "trial_9999"
    trials.append({"folder": str(failed), "state": "failed"})
    (tmp_path / "sweep" / "results.json").write_text(json.dumps({"trials": trials}))
    return tmp_path / "sweep"


def test_a_curve_a_method_the_better_one_first(sweep: Path) -> None:
    curves, images = annotation_plan.curves_of([sweep])
    assert [curve.name for curve in curves] == ["method agmm", "method ce"] and images == 200
    for curve, method in zip(curves, ("agmm", "ce"), strict=True):
        assert [row[0] for row in curve.summary()] == list(BUDGETS)
        assert all(runs == 3 for *_, runs in curve.summary())
        assert curve.law.at(30) == pytest.approx(LAWS[method].at(30), abs=0.01)


def test_the_answer_names_the_budget_its_interval_and_its_hours(sweep: Path) -> None:
    curves, images = annotation_plan.curves_of([sweep])
    cost = annotation_plan.Cost(images, 3.6)
    text = annotation_plan.answer(curves[0], 0.58, cost)
    needed = curves[0].law.labels_for(0.58)
    assert f"58.0 % needs {needed:.3g} labels an image (90 %: " in text
    assert f"{needed * 200 * 3.6 / 3600:.1f} h for 200 images at 3.6 s a label" in text
    low, high = (float(word) for word in text.split("(90 %: ")[1].split(")")[0].split(" to "))
    assert low < LAWS["agmm"].labels_for(0.58) < high
    assert "is not reached: the law levels off at" in annotation_plan.answer(curves[0], 0.9, cost)


def test_an_hour_goes_to_the_class_that_grows(sweep: Path) -> None:
    curves, images = annotation_plan.curves_of([sweep])
    gains = dict(annotation_plan.best_classes(curves[0], 20.0, annotation_plan.Cost(images, 2.4)))
    assert list(gains) == ["rare", "common"] and gains["common"] == pytest.approx(0, abs=1e-9)
    more = 3600 / (200 * 2.4)
    expected = LAWS["agmm"].at(20 + more) - LAWS["agmm"].at(20)  # rare has twice the gain, over two classes
    assert gains["rare"] == pytest.approx(expected, rel=0.3)


def test_the_runs_of_a_trial_with_seeds_are_all_taken(tmp_path: Path) -> None:
    trials = []
    for pixels in BUDGETS:
        folder = tmp_path / f"trial_{len(trials):04d}"
        for seed in (3, 5):
            write_run(folder / f"seed_{seed}", "ce", pixels, seed)
        trials.append({"folder": str(folder), "state": "finished"})
    (tmp_path / "results.json").write_text(json.dumps({"trials": trials}))
    curves, _ = annotation_plan.curves_of([tmp_path])
    assert [(labels, runs) for labels, _, _, runs in curves[0].summary()] == [(n, 2) for n in BUDGETS]


def test_command_prints_the_plan_and_writes_a_page(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "plan.html"
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(sweep), "--target-miou", "0.55", "--html", str(html)])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    for words in ("method agmm: mIoU = ", "55.0 % needs", "left out 20: predicted", "one more hour at 100"):
        assert words in output
    page = html.read_text()
    assert "<svg" in page and "55.0 % needs" in page and "://" not in page
    assert "<b>mIoU</b>: its mean over the classes" in page
    assert page.count('<path class="band') == 2  # a method each
    runs = [part for part in page.split("<circle")[1:] if "method agmm: " in part and " at 50<" in part]
    assert len(runs) == 3  # a dot for every measured run
    for budget in ("5", "10", "20", "50", "100"):
        assert f">{budget}</text>" in page


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--target-miou", "65"], "--target-miou must be between 0 and 1, got 65"),
        (["--seconds-per-label", "0"], "--seconds-per-label must be > 0, got 0"),
        (["--images", "0"], "--images must be at least 1, got 0"),
    ],
)
def test_wrong_use_is_one_line(
    sweep: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(sweep), *args])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_too_few_budgets_and_no_run_are_named(tmp_path: Path) -> None:
    for pixels in (5, 10):
        write_run(tmp_path / f"run{pixels}", "ce", pixels, 0)
    with pytest.raises(ValueError, match=r"a law needs 3 budgets .* found 5, 10; run search_"):
        annotation_plan.curves_of([tmp_path / "run5", tmp_path / "run10"])
    with pytest.raises(ValueError, match="found 5, 10; run search_"):  # the runs in the folder
        annotation_plan.curves_of([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"not a run folder .* and none lies in it"):
        annotation_plan.curves_of([tmp_path / "empty"])


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_a_run_says_how_many_labels_it_had(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path)
    loop.run(settings)
    found = json.loads((settings.folder / "environment.json").read_text())["labels"]
    assert found == {"images": 8, "pixels": None}  # shards.write alone does not count
