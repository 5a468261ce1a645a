"""The report: numbers of the files, groups over seeds, damaged files, a page that needs nothing else."""

import html.parser
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from sparseg.config import Config, to_dict, with_overrides
from sparseg.reports import html as charts
from sparseg.reports import run_page
from sparseg.runs import records


def make_run(root, name, *, miou=0.5, lines=None, **overrides):
    folder = root / name
    folder.mkdir()
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    config = with_overrides(Config(), {"run.name": name, **changes})
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    (folder / "environment.json").write_text(json.dumps({"device": "cpu", "packages": {"torch": "2.15.0"}}))
    terms = {"seg": 1.0, "mix": 0.5, "label": 0.0, "sep": 0.0, "absent": None}
    default = [
        {"kind": "train", "step": 10, "epoch": 0.5, **terms, "total": 1.5, "images_per_s": 20.0},
        {"kind": "train", "step": 20, "epoch": 1.0, **terms, "total": 1.25, "images_per_s": 30.0},
        {"kind": "val", "step": 20, "epoch": 1.0, "miou": miou, "iou": {"cat": miou, "dog": None}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in (default if lines is None else lines))
    (folder / "metrics.jsonl").write_text(text)
    (folder / "iou.json").write_text(
        json.dumps({"miou": miou, "iou": {"cat": miou, "dog": None}, "step": 20})
    )
    return folder


class Page(html.parser.HTMLParser):
    """Checks that tags close in order and collects texts and addresses."""

    VOID = ("meta", "img", "line", "circle", "path", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.addresses, self.tags = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def write(tmp_path, runs, **options):
    run_page.write_report(runs, tmp_path / "deep" / "report.html", **options)
    text = (tmp_path / "deep" / "report.html").read_text()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["report.html"]
    return text, Page(text)


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_run_is_shown_with_its_numbers(tmp_path):
    run = make_run(tmp_path, "first", miou=0.6789, loss__method="agmm", data__crop_px=223)
    text, page = write(tmp_path, [run])
    for wanted in (
        "first",
        "67.9",
        "agmm",
        "223",
        "25.0",
        "cpu",
        "2.15.0",
        "cat",
        "seg",
        "mix",
        "optim.clip_norm",
    ):
        assert wanted in page.texts, wanted
    assert "Comparison" not in page.texts
    assert "absent" not in page.texts  # never finite: no curve, no legend entry
    assert "svg" in page.tags
    assert text.count("<title>seg: ") == 2
    assert "<b>mIoU</b>: its mean over the classes" in text


def test_the_page_asks_for_nothing_from_outside(tmp_path):
    picture = tmp_path / "p.png"
    picture.write_bytes(png())
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", run__seed=1)]
    text, page = write(tmp_path, runs, pictures={"from file": picture, "from bytes": png()})
    assert len(page.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))


def test_what_users_write_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>&\""
    line = {"kind": "val", "step": 1, "miou": 0.5, "iou": {evil: 0.5}}
    run = make_run(tmp_path, "a", lines=[line], data__root=evil)
    (run / "iou.json").write_text(json.dumps({"miou": 0.5, "iou": {evil: 0.5}, "step": 1}))
    other = make_run(tmp_path, "b")
    text, page = write(tmp_path, [run, other], title=evil, note=evil, pictures={evil: png()})
    assert "<script" not in text and "script" not in page.tags
    assert page.texts.count(evil) >= 5  # title, heading, note, caption, class, root


def test_runs_that_differ_only_in_seed_make_one_row(tmp_path):
    runs = [
        make_run(tmp_path, f"ce{s}", miou=0.4 + 0.02 * s, loss__method="ce", run__seed=s) for s in range(3)
    ]
    runs += [make_run(tmp_path, f"agmm{s}", miou=0.6, loss__method="agmm", run__seed=s) for s in range(2)]
    _, page = write(tmp_path, runs)
    start = page.texts.index("Comparison")
    row = page.texts.index("loss.method = ce", start)
    wanted = ["ce0, ce1, ce2", "42.0 ± 2.0", "3", "0, 1, 2", "42.0", run_page.DASH]
    assert page.texts[row + 1 : row + 7] == wanted
    best = page.texts.index("loss.method = agmm", start)
    assert page.texts[best + 1 : best + 3] == ["agmm0, agmm1", "60.0 ± 0.0"]
    assert best < row  # the better one first


def test_what_the_method_does_not_read_is_no_difference(tmp_path):
    """Recipes leave the fields of other methods at values of their own."""
    runs = [
        make_run(tmp_path, "a", loss__method="ce", loss__variance="published"),
        make_run(tmp_path, "b", loss__method="ce", loss__variance="adaptive", loss__tree_weight=1.0),
        make_run(tmp_path, "c", loss__method="agmm", loss__variance="published", loss__bandwidth=2.0),
    ]
    found = records.group_by_seed([records.read_run(run) for run in runs])
    assert {label: [run.name for run in some] for label, some in found.items()} == {
        "loss.method = ce": ["a", "b"],
        "loss.method = agmm": ["c"],
    }
    runs.append(make_run(tmp_path, "d", loss__method="agmm", loss__variance="adaptive", loss__bandwidth=2.0))
    labels = list(records.group_by_seed([records.read_run(run) for run in runs]))
    assert labels[1:] == [f"loss.method = agmm, loss.variance = {name}" for name in ("published", "adaptive")]


def test_a_warm_up_is_read_where_terms_of_the_users_own_wait_for_it(tmp_path):
    more = {"loss__method": "ce", "loss__extra_terms": "mine:f"}
    runs = [make_run(tmp_path, f"w{n}", loss__warmup_epochs=float(n), **more) for n in range(2)]
    labels = list(records.group_by_seed([records.read_run(run) for run in runs]))
    assert labels == ["loss.warmup_epochs = 0.0", "loss.warmup_epochs = 1.0"]


def test_a_run_from_before_a_field_has_its_default(tmp_path):
    runs = [
        make_run(tmp_path, "old"),
        make_run(tmp_path, "new"),
        make_run(tmp_path, "b", loss__class_balance=0.5),
    ]
    path = runs[0] / "config.json"
    values = json.loads(path.read_text())
    del values["loss"]["class_balance"]
    path.write_text(json.dumps(values))
    found = records.group_by_seed([records.read_run(run) for run in runs])
    assert {label: len(some) for label, some in found.items()} == {
        "loss.class_balance = 0.0": 2,
        "loss.class_balance = 0.5": 1,
    }


def test_runs_without_a_configuration_are_told_by_their_names(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("a", "b", "c")]
    for run in runs[:2]:
        (run / "config.json").unlink()
    found = records.group_by_seed([records.read_run(run) for run in runs])
    assert {label: len(some) for label, some in found.items()} == {
        "name = a": 1,
        "name = b": 1,
        "all runs": 1,
    }


def test_one_run_has_no_standard_deviation(tmp_path):
    runs = [make_run(tmp_path, "a", loss__method="ce"), make_run(tmp_path, "b", loss__method="agmm")]
    _, page = write(tmp_path, runs)
    assert "50.0" in page.texts and not any("±" in text and "50.0" in text for text in page.texts)


def test_torn_last_line_is_left_out_with_a_note(tmp_path):
    run = make_run(tmp_path, "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 30, "to')
    record = records.read_run(run)
    assert [line["step"] for line in record.train] == [10, 20]
    assert record.notes == ["1 torn line of metrics.jsonl left out"]
    _, page = write(tmp_path, [run])
    assert record.notes[0] in page.texts


def test_a_step_written_again_counts_once_with_its_last_value(tmp_path):
    lines = [{"kind": "val", "step": 5, "miou": 0.1}, {"kind": "val", "step": 5, "miou": 0.3}]
    assert [line["miou"] for line in records.read_run(make_run(tmp_path, "a", lines=lines)).val] == [0.3]


def test_missing_and_not_finite_values_become_dashes(tmp_path):
    run = make_run(tmp_path, "a", miou=math.nan, lines=[])
    for name in ("environment.json", "metrics.jsonl"):
        (run / name).unlink()
    text, page = write(tmp_path, [run, make_run(tmp_path, "b")])
    assert page.texts.count(run_page.DASH) >= 4 and not re.search(r"\bnan\b", text.lower())
    assert {"environment.json is missing", "metrics.jsonl is missing"} <= set(page.texts)


def test_without_iou_json_the_best_validation_counts(tmp_path):
    lines = [
        {"kind": "val", "step": s, "miou": m, "iou": {"cat": m}} for s, m in ((1, 0.2), (2, 0.7), (3, None))
    ]
    run = make_run(tmp_path, "a", lines=lines)
    (run / "iou.json").write_text("{torn")
    record = records.read_run(run)
    assert record.best["miou"] == 0.7 and record.best["step"] == 2
    assert "iou.json is damaged" in record.notes


def test_a_folder_that_is_no_run_and_a_picture_that_is_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        run_page.write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ValueError, match=r"picture 'p'"):
        run_page.write_report([], tmp_path / "report.html", pictures={"p": b"no picture"})
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0), (5, 5), (-3, 0.2), (0, 1e-7), (17, 123456), (0.0, 100)]
)
def test_ticks_enclose_the_values_and_are_few(low, high):
    found = charts.ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 8
    assert found == sorted(set(found))


def test_curves_break_at_nan_and_long_ones_are_thinned():
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 1.5)]
    figure = charts.line_chart("c", [("a", 0, points)])
    path = re.search(r'<path class="c0" d="([^"]*)"', figure)[1]
    assert path.count("M") == 2 and path.count("L") == 2
    long = [(float(x), 3.0 if x % 2 else 1.0) for x in range(10_000)]
    thin = charts.thin_out(long)
    assert len(thin) <= charts.MOST_POINTS and all(y == 2.0 for _, y in thin)
    assert charts.thin_out(points) == points


def test_a_chart_places_its_extremes_inside_the_axes():
    figure = charts.line_chart("c", [("a", 0, [(10.0, 0.0), (20.0, 100.0)])])
    circles = [tuple(map(float, found)) for found in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', figure)]
    (x0, y0), (x1, y1) = circles
    assert charts.LEFT <= x0 < x1 <= charts.WIDTH - charts.RIGHT
    assert y0 == charts.HEIGHT - charts.BOTTOM and y1 == charts.TOP


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (5, 150, [5, 10, 20, 50, 100, 200]),
        (0.3, 0.9, [0.2, 0.5, 1]),
        (7, 7, [5, 10]),
        (1, 1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
    ],
)
def test_ticks_of_a_logarithmic_axis_enclose_it_with_plain_numbers(
    low: float, high: float, expected: list[float]
) -> None:
    assert charts.log_ticks(low, high) == expected


def test_a_band_goes_along_its_lower_ends_and_back_along_its_upper_ones() -> None:
    line = [("a", 0, [(0.0, 5.0), (10.0, 5.0)])]
    figure = charts.line_chart("c", line, bands=[(0, [(0.0, 0.0, 10.0), (10.0, 4.0, 6.0)])])
    path = figure.split('<path class="band c0" d="M')[1].split("Z")[0]
    corners = [tuple(map(float, corner.split())) for corner in path.split(" L")]
    (x0, low0), (x1, low1), (x2, high1), (x3, high0) = corners
    assert x0 == x3 < x1 == x2 and low0 > low1 > high1 > high0  # SVG counts downwards


def test_a_sweep_shows_every_row_but_draws_only_the_best(tmp_path):
    runs = [make_run(tmp_path, f"t{n}", miou=n / 20, loss__seg_weight=1.0 + n) for n in range(12)]
    _, page = write(tmp_path, runs)
    assert "Validation mIoU of the best 8 rows, %" in page.texts
    assert page.texts.count("loss.seg_weight = 12.0") == 2  # table and legend
    assert page.texts.count("loss.seg_weight = 1.0") == 1  # table only


def test_a_run_that_does_not_tell_its_batch_size_or_speed_has_a_page(tmp_path):
    run = make_run(tmp_path, "a")
    assert records.training_seconds(records.read_run(run)) == pytest.approx(10 * 64 * (1 / 20 + 1 / 30))
    (run / "config.json").unlink()
    run_page.write_report([run], tmp_path / "r.html")
    assert "<b>–</b><span>training time</span>" in (tmp_path / "r.html").read_text()
    with pytest.raises(ValueError, match="does not tell how long it trained"):
        records.training_seconds(records.read_run(run))
    lines = [{"kind": "train", "step": 10, "total": 1.0}]
    with pytest.raises(ValueError, match="does not tell how long it trained"):
        records.training_seconds(records.read_run(make_run(tmp_path, "b", lines=lines)))
