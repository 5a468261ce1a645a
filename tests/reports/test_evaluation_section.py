"""What an examination found, on the page of a run, and the pictures of a validation on TensorBoard."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from sparseg import cli, config
from sparseg.data import shards
from sparseg.evaluation import evaluate
from sparseg.reports import evaluation_section
from sparseg.runs import checkpoint
from sparseg.train import loop


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A run with TensorBoard, its dataset, what an examination found."""
    folder = tmp_path_factory.mktemp("trained")
    data = tiny.dataset(folder)
    settings = tiny.config(folder, {"optim.max_steps": 2, "run.tensorboard": True})
    loop.run(settings)
    return settings.folder, data, evaluate.evaluate(settings.folder, data, "val")


def test_every_number_is_on_the_page(trained: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    run, data, found = trained
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["report", str(run), "--html", str(tmp_path / "r.html"), "--dataset", str(data), "--images", "1"]
        )
    assert ended.value.code == 0
    page = (tmp_path / "r.html").read_text()
    for _, key in evaluation_section.SCORES:
        assert f"<b>{100 * found[key]:.1f}</b>" in page, key
    table = page.split("Confusion: truth in rows")[1].split("</table>")[0]
    for row in found["confusion"]:
        for value in row:
            assert f'title="{value:,} pixels"' in table or not sum(row)
    assert page.count("data:image/png;base64,") == 3
    assert "The worst of val" in page and "The best of val" in page and "with what was annotated" in page
    assert "://" not in page and "<script" not in page


def test_worst_and_best_are_what_the_examination_says(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    run, data, found = trained
    order = sorted(found["images"], key=lambda image: image["miou"])
    worst, best, _ = evaluation_section.sheets_of(run, data, found, count=2, train_split="train")
    assert order[0]["id"] in worst and order[1]["id"] in worst
    assert order[-1]["id"] in best and order[-2]["id"] in best


def test_an_image_without_any_truth_is_neither_worst_nor_best(
    trained: tuple[Path, Path, dict[str, Any]],
) -> None:
    run, data, found = trained
    unknown = [{**image, "miou": None} for image in found["images"]]
    sheets = evaluation_section.sheets_of(
        run, data, {**found, "images": unknown}, count=2, train_split="train"
    )
    assert list(sheets) == ["Images of train with what was annotated"]
    assert not evaluation_section.sheets_of(
        run, data, {**found, "images": unknown}, count=0, train_split="train"
    )


def test_what_is_wrong_is_marked_where_it_is(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    run, data, found = trained
    record = shards.open(data).splits["val"][0]
    loaded = checkpoint.load_model(run)
    row = evaluation_section._row(loaded, record, found["views"], evaluation_section._dense_row)
    changed = (row["wrong"].astype(int) != row["image"]).any(-1)
    agree = (row["truth"] == row["prediction"]).all(-1)
    assert changed.any() and not (changed & agree).any()


def test_every_image_of_a_sheet_is_large_enough_to_see(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    run, data, found = trained
    for png in evaluation_section.sheets_of(run, data, found, count=1, train_split="train").values():
        with Image.open(io.BytesIO(png)) as sheet:
            assert sheet.width >= 2 * evaluation_section.CELL_PX


@pytest.mark.parametrize(
    ("length", "count", "rows"), [(10, 3, [0, 3, 6]), (2, 5, [0, 1]), (0, 3, []), (9, 0, [])]
)
def test_rows_are_spread_over_the_split(length: int, count: int, rows: list[int]) -> None:
    assert evaluation_section.spread_over(length, count) == rows


def test_tensorboard_has_the_pictures_of_each_validation(trained: tuple[Path, Path, dict[str, Any]]) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _, _ = trained
    log = events.EventAccumulator(str(run), size_guidance={"images": 0})
    log.Reload()
    assert {"train/total", "val/miou"} <= set(log.Tags()["scalars"])
    tags = log.Tags()["images"]
    assert tags and all(re.fullmatch(r"val/image_[0-3]", tag) for tag in tags)
    steps = [event.step for event in log.Scalars("val/miou")]
    pictures = log.Images("val/image_0")
    assert [picture.step for picture in pictures] == steps
    with Image.open(io.BytesIO(pictures[0].encoded_image_string)) as shown:
        assert shown.size == (2 * 48, 48)  # prediction, truth


def test_the_page_tells_where_a_run_comes_from(
    trained: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, _, _ = trained
    with pytest.raises(SystemExit):
        cli.main(["report", str(run), "--html", str(tmp_path / "r.html")])
    page = (tmp_path / "r.html").read_text()
    for fact in ("commit", "data fingerprint", "training time", "device", "torch"):
        assert fact in page
    assert str(config.load(run / "config.json").run.seed) in page


def test_a_checkpoint_folder_alone_suffices(
    trained: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, data, found = trained
    alone = tmp_path / "alone"
    shutil.copytree(checkpoint.resolve(run), alone)
    (alone / "state.pt").unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(alone), "--html", str(tmp_path / "r.html"), "--dataset", str(data)])
    assert ended.value.code == 0
    page = (tmp_path / "r.html").read_text()
    assert "a checkpoint alone" in page and f"<b>{100 * found['boundary_iou']:.1f}</b>" in page
