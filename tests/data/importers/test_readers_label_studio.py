"""Label Studio's JSON and JSON_MIN, and the run lengths of its brush against an encoder that is spelt out."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import NAMES, point, save

from sparseg.data.importers.readers import detect_format, label_studio, label_studio_rle
from sparseg.data.importers.readers.label_studio_rle import decoded
from sparseg.data.strokes import Annotations, Stroke, draw, mask_stroke

WIDTH, HEIGHT = 40, 20
SIZE = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
TINY = [0, 0, 0, 60, 57, 27, 252, 96, 22, 255, 237, 128, 71, 255, 56, 4, 121, 22, 192, 35, 40, 0]
"""label_studio_sdk 2.1.2, brush.encode_rle of TINY_ALPHA, in four equal channels."""
TINY_ALPHA = np.array([[0, 255, 255, 255, 0], [0, 0, 255, 0, 0], [200, 0, 0, 0, 40]], dtype=np.uint8)


def region(kind: str, label: str = "tree", **value: Any) -> dict[str, Any]:
    return {**SIZE, "id": f"{kind}-{label}-{len(value)}", "type": kind, "value": {**value, kind: [label]}}


def annotation(*results: Any, **facts: Any) -> dict[str, Any]:
    return {"id": 1, "was_cancelled": False, "result": list(results), **facts}


def task(*annotations: Any, image: str = "/data/upload/1/0a1b2c3d-a.jpg", **facts: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations), **facts}


def read(folder: Path, *tasks: Any, width_px: float = 1.0) -> Annotations:
    return label_studio.read([save(folder, "project.json", list(tasks))], NAMES, width_px)


def strokes(folder: Path, *results: Any, width_px: float = 1.0) -> list[Stroke]:
    found = read(folder, task(annotation(*results)), width_px=width_px)
    (own,) = found.strokes.values()
    assert set(found.sizes.values()) <= {(HEIGHT, WIDTH)}
    return own


def drawn(folder: Path, *results: Any) -> np.ndarray:
    return draw(strokes(folder, *results), (HEIGHT, WIDTH), Counter())[0]


# ----------------------------------------------------------------------------------------------------- shapes


def test_positions_are_percent_of_the_picture(tmp_path: Path) -> None:
    click = region("keypointlabels", x=26.5, y=52, width=0.5)
    polygon = region("polygonlabels", "ground", points=[[25, 50], [75, 50], [75, 100]], closed=True)
    assert strokes(tmp_path, click, polygon, width_px=3) == [
        point(1, 10.4, 10.6, 3),  # pixel (10, 10): whole numbers are corners
        Stroke(0, "polygon", (10, 10, 20), (10, 30, 30)),
    ]
    assert drawn(tmp_path, click)[10, 10] == 1


def test_a_click_at_the_far_edge_is_one_on_the_last_pixel(tmp_path: Path) -> None:
    assert drawn(tmp_path, region("keypointlabels", x=100, y=100, width=1))[-1, -1] == 1


@pytest.mark.parametrize(
    ("rotation", "y", "x"),
    [
        (0, [5, 5, 9, 9], [10, 18, 18, 10]),
        (90, [5, 13, 13, 5], [10, 10, 6, 6]),  # about its first corner, clockwise
        (30, [5, 9, 12.464102, 8.464102], [10, 16.928203, 14.928203, 8]),
    ],
)
def test_a_rectangle_is_turned_about_its_first_corner(
    tmp_path: Path, rotation: float, y: Any, x: Any
) -> None:
    # corners as label_studio_sdk 2.1.2 computes them for YOLO
    (found,) = strokes(
        tmp_path, region("rectanglelabels", x=25, y=25, width=20, height=20, rotation=rotation)
    )
    np.testing.assert_allclose(found.y, y, atol=1e-6)
    np.testing.assert_allclose(found.x, x, atol=1e-6)


@pytest.mark.parametrize("rotation", [0, 40, 90])
def test_an_ellipse_has_a_radius_in_percent_of_each_side(tmp_path: Path, rotation: float) -> None:
    shape = region("ellipselabels", x=50.3, y=49, radiusX=30, radiusY=20, rotation=rotation)
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    dy, dx, angle = rows - 9.8, columns - 20.12, np.radians(rotation)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    np.testing.assert_array_equal(drawn(tmp_path, shape) == 1, (along / 12) ** 2 + (across / 4) ** 2 <= 1)


def test_the_later_region_wins_whatever_its_class(tmp_path: Path) -> None:
    tree = region("rectanglelabels", x=0, y=0, width=50, height=50, rotation=0)
    ground = region("rectanglelabels", "ground", x=0, y=0, width=25, height=50, rotation=0)
    assert drawn(tmp_path, tree, ground)[2, 2] == 0
    assert drawn(tmp_path, ground, tree)[2, 2] == 1


def test_a_turned_view_leaves_the_positions_as_they_are(tmp_path: Path) -> None:
    # the editor stores them before the turn, and says of the picture before the turn how large it is
    turned = {**region("keypointlabels", x=25, y=50, width=1), "image_rotation": 90}
    found = read(tmp_path, task(annotation(turned)))
    assert list(found.strokes.values()) == [[point(1, 10, 10)]]
    assert len(found.notes) == 1 and found.notes[0].startswith("1 regions were drawn with the view turned")


def test_a_class_that_another_result_of_the_region_names(tmp_path: Path) -> None:
    shape = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}
    rectangle = {**SIZE, "id": "r", "type": "rectangle", "value": shape}
    labels = {**SIZE, "id": "r", "type": "labels", "value": {**shape, "labels": ["ground"]}}
    text = {**SIZE, "id": "r", "type": "textarea", "value": {**shape, "text": ["hm"]}}
    assert [s.class_id for s in strokes(tmp_path, rectangle, labels, text)] == [0]
    found = read(tmp_path, task(annotation(rectangle, text)))
    assert list(found.strokes.values()) == [[]]
    assert found.notes == ["1 regions have no label and were left out"]


def test_results_that_are_no_regions_are_counted(tmp_path: Path) -> None:
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    unfinished = region("polygonlabels", points=[[1, 1], [2, 2]], closed=False)
    found = read(tmp_path, task(annotation(choice, relation, unfinished)))
    assert found.notes == [
        "2 results are no regions of an image and were left out",
        "1 polygons are unfinished and were left out",
    ]


# ----------------------------------------------------------------------------------------- tasks, annotations


def click(percent: float) -> dict[str, Any]:
    return region("keypointlabels", x=percent, y=percent, width=1)


def test_the_newest_annotation_that_is_not_cancelled(tmp_path: Path) -> None:
    own = task(
        annotation(click(10), created_at="2026-03-01T10:00:00Z"),
        annotation(click(30), created_at="2026-03-03T10:00:00Z", was_cancelled=True),
        annotation(click(20), created_at="2026-03-02T10:00:00Z"),
        annotation(click(40), created_at="2026-02-02T10:00:00Z"),
        predictions=[{"result": [click(50)]}],
    )
    found = read(tmp_path, own)
    assert list(found.strokes.values()) == [[point(1, 4, 8)]]
    assert found.notes == [
        "1 images have predictions, which were left out",
        "1 images have several annotations, of which the newest was taken",
    ]
    undated = read(tmp_path, task(annotation(click(10)), annotation(click(20))))
    assert list(undated.strokes.values()) == [[point(1, 4, 8)]]  # they are listed as they were made
    seconds = read(
        tmp_path, task(annotation(click(10), created_at=1_600_000_001), annotation(click(20), created_at=9))
    )
    assert list(seconds.strokes.values()) == [[point(1, 2, 4)]]


def test_what_nobody_annotated_is_left_out_and_what_is_empty_is_not(tmp_path: Path) -> None:
    skipped = task(annotation(click(10), was_cancelled=True), image="/up/skipped.jpg")
    found = read(tmp_path, task(image="/up/none.jpg"), skipped, task(annotation(), image="empty.jpg"))
    assert found.strokes == {"empty": []}
    assert found.notes == ["2 images are skipped or not annotated in Label Studio and were left out"]


@pytest.mark.parametrize(
    ("data", "facts", "name"),
    [
        ({"image": "/data/upload/1/0a1b2c3d-a.jpg"}, {}, "/data/upload/1/0a1b2c3d-a"),
        ({"image": "/data/local-files/?d=some/a%20b.jpg"}, {}, "/some/a%20b"),
        ({"image": "http://localhost:8080/data/local-files/?d=some/a.jpg"}, {}, "/some/a"),
        ({"image": "s3://bucket/a.png"}, {}, "/bucket/a"),
        ({"img": "a.png", "note": "a text"}, {}, "a"),
        ({"anything": "x/a.png", "score": 3}, {}, "x/a"),
        ({"image": "a.png", "thumbnail": "b.png"}, {}, "a"),
        ({"text": "no path"}, {"file_upload": "0a1b2c3d-a.jpg"}, "0a1b2c3d-a"),
    ],
)
def test_the_name_of_the_image(tmp_path: Path, data: Any, facts: Any, name: str) -> None:
    found = read(tmp_path, {**task(annotation(click(10)), **facts), "data": data})
    assert list(found.strokes) == [name]


def test_json_min_is_the_same(tmp_path: Path) -> None:
    # as label_studio_sdk 2.1.2 writes it: a record an annotation, the newest first, with the task's data
    whole = task(annotation(click(20), region("polygonlabels", "ground", points=[[0, 0], [50, 0], [50, 50]])))
    value, polygon = (result["value"] for result in whole["annotations"][0]["result"])
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    facts = {"annotator": 1, "lead_time": 3.2, "updated_at": None}
    newest = {
        "image": whole["data"]["image"],
        "id": 1,
        "kp": [{**value, **size}],
        "poly": [{**polygon, **size}],
        "quality": "good",
        "tags": ["a", "b"],
        "annotation_id": 2,
        "created_at": "2026-03-02",
        **facts,
    }
    oldest = {**newest, "kp": [], "poly": [], "annotation_id": 1, "created_at": "2026-03-01"}
    file = save(tmp_path, "min.json", [newest, oldest])
    assert detect_format(file) == "label-studio"
    found = label_studio.read([file], NAMES)
    assert found.strokes == read(tmp_path, whole).strokes
    assert found.notes == ["1 images have several annotations, of which the newest was taken"]


def test_one_task_a_file_is_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path, f"{name}.json", task(annotation(click(10)), image=f"{name}.jpg"))
    assert detect_format(tmp_path) == "label-studio"
    found = label_studio.read(sorted(tmp_path.glob("*.json")), NAMES)
    assert found.strokes == {name: [point(1, 2, 4)] for name in ("a", "b")}


KEYPOINT = region("keypointlabels", x=1, y=1, width=1)
BRUSH = region("brushlabels", format="rle", rle=TINY)
REFUSED: list[tuple[Any, str]] = [
    (3, "task 1: must be an object, got 3"),
    ({"data": [], "annotations": []}, "task 1: 'data' must be a dict"),
    ({"data": {"text": "x"}, "annotations": []}, "task 1: has no path of an image; its data has 'text'"),
    (
        {"data": {"left": "a.jpg", "right": "b.jpg"}, "annotations": []},
        "task 1: 'left', 'right' are all paths of images; name the picture's field 'image'",
    ),
    ({"data": {"image": ".."}, "file_upload": "..", "annotations": []}, "task 1: image '..' names no file"),
    ({"data": {"image": "a.jpg"}, "annotations": {}}, "task 1: 'annotations' must be a list"),
    (task({"result": None}), "task 1, annotation 1: 'result' must be a list"),
    (task(annotation(3)), "result 1: must be an object"),
    (task(annotation(region("keypointlabels", "dog", x=1, y=1))), "result 1: unknown class 'dog'"),
    (task(annotation({**KEYPOINT, "original_width": None})), "result 1, width: must be a whole number"),
    (
        task(annotation({k: v for k, v in KEYPOINT.items() if k != "original_width"})),
        "lacks 'original_width'",
    ),
    (
        task(annotation(KEYPOINT, {**BRUSH, "original_width": 5})),
        "result 2: drawn on 5x20 pixels, but .* 40x20",
    ),
    (task(annotation(region("keypointlabels", x=float("nan"), y=1))), "result 1, x: position nan"),
    (task(annotation(region("keypointlabels", x="1", y=1))), "result 1, x: position '1'"),
    (task(annotation(region("rectanglelabels", x=1, y=1, height=1))), "result 1: lacks 'width'"),
    (task(annotation(region("ellipselabels", x=1, y=1, radiusX=1))), "result 1: lacks 'radiusY'"),
    (
        task(annotation(region("rectanglelabels", x=1, y=1, width=1, height=1, rotation="x"))),
        "rotation: position",
    ),
    (
        task(annotation(region("polygonlabels", points=[[1, 1], [2, 2]]))),
        "a polygon needs a list of at least 3",
    ),
    (
        task(annotation({**KEYPOINT, "value": {"x": 1, "y": 1, "labels": ["tree", "ground"]}})),
        "region of 2 labels",
    ),
    (
        task(annotation({**KEYPOINT, "value": {"x": 1, "y": 1, "labels": [3]}})),
        "a label must be a text, got 3",
    ),
    (task(annotation({**KEYPOINT, "value": {"x": 1, "y": 1, "labels": "tree"}})), "'labels' must be a list"),
    (task(annotation({**KEYPOINT, "type": "vectorlabels"})), "vectorlabels is not read, only keypointlabels"),
    (task(annotation({**KEYPOINT, "image_rotation": "x"})), "image_rotation: position 'x'"),
    (task(annotation(BRUSH)), "rle holds 60 words of 8 bits, but a picture of 40x20 pixels has 3200 of 8"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "project.json")) and "\n" not in str(caught.value)


def test_two_tasks_for_one_image(tmp_path: Path) -> None:
    own = task(annotation(click(10)))
    with pytest.raises(ValueError, match=r"task 2: image .*a is that of .*task 1 already"):
        read(tmp_path, own, own)
    for name in ("a.json", "b.json"):
        save(tmp_path, name, [own])
    with pytest.raises(
        ValueError, match=r"b\.json, task 1: image .*a is annotated in .*a\.json, task 1 already"
    ):
        label_studio.read([tmp_path / "a.json", tmp_path / "b.json"], NAMES)


# ------------------------------------------------------------------------------------------------ run lengths


def encoded(words: np.ndarray, count_bits: tuple[int, ...] = (3, 4, 8, 16)) -> list[int]:
    """Words (N,) uint8 -> bytes, as the description of the format says it, bit by bit."""
    bits = f"{len(words):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in count_bits)

    def chunk(is_run: int, number: int, values: list[int]) -> str:
        which = next(at for at, size in enumerate(count_bits) if number <= 2**size)
        return f"{is_run}{which:02b}{number - 1:0{count_bits[which]}b}" + "".join(f"{v:08b}" for v in values)

    at, loose = 0, []
    while at < len(words):
        end = at
        while end < len(words) and words[end] == words[at] and end - at < 2 ** count_bits[-1]:
            end += 1
        if end - at == 1 and len(loose) < 2 ** count_bits[-1]:
            loose.append(int(words[at]))
        else:
            bits += (chunk(0, len(loose), loose) if loose else "") + chunk(1, end - at, [int(words[at])])
            loose = []
        at = end
    bits += chunk(0, len(loose), loose) if loose else ""
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def four_channels(alpha_HW: np.ndarray, others: int | None = None) -> np.ndarray:
    return np.stack(
        [alpha_HW if others is None else np.full_like(alpha_HW, others)] * 3 + [alpha_HW], -1
    ).ravel()


def test_what_label_studios_own_encoder_wrote() -> None:
    np.testing.assert_array_equal(decoded(TINY, (3, 5), "x"), TINY_ALPHA >= 128)
    np.testing.assert_array_equal(decoded(encoded(four_channels(TINY_ALPHA)), (3, 5), "x"), TINY_ALPHA >= 128)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0, 1),
    st.sampled_from([None, 0, 9, 255]),
    st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 10), (16, 16, 16, 16), (1, 1, 1, 12)]),
)
def test_run_lengths_come_back(
    seed: int, height: int, width: int, share: float, others: Any, sizes: Any
) -> None:
    rng = np.random.default_rng(seed)
    alpha = ((rng.random((height, width)) < share) * 255).astype(np.uint8)
    alpha[: seed % 5] = 255
    rle = encoded(four_channels(alpha, others), sizes)
    np.testing.assert_array_equal(decoded(rle, (height, width), "x"), alpha > 0)


def test_a_smoothed_border_counts_from_half_of_what_is_inside() -> None:
    alpha = np.array([[0, 30, 64, 127, 127, 63]], dtype=np.uint8)  # drawn translucent
    assert decoded(encoded(four_channels(alpha)), (1, 6), "x").tolist() == [[0, 0, 1, 1, 1, 0]]
    assert not decoded(encoded(four_channels(alpha * 0)), (1, 6), "x").any()


def test_a_brush_is_a_mask_of_its_class(tmp_path: Path) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    alpha[3:7, 5:30] = 255
    brush = region("brushlabels", format="rle", rle=encoded(four_channels(alpha)))
    assert strokes(tmp_path, brush) == [mask_stroke(1, alpha > 0)]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "rle must be a list of bytes, got None"),
        ("abc", "rle must be a list of bytes"),
        ([0, 0, 0, 256], "rle must be a list of bytes"),
        ([0, 0, 0, True], "rle must be a list of bytes"),
        ([0, 0, 0, 1.0], "rle must be a list of bytes"),
        ([], "rle is cut off after 0 bytes"),
        (TINY[:6], "rle is cut off after 6 bytes"),
        (TINY[:-2], "rle is cut off after 20 bytes"),
        ([255, 255, 255, 255, *TINY[4:]], "rle holds 4294967295 words of 8 bits, but a picture of 5x3"),
        ([0, 0, 0, 60, 255, *TINY[5:]], "rle holds 60 words of 32 bits"),
        ([0, 0, 0, 60, *encoded(np.zeros(64, np.uint8))[4:]], "rle goes on to word 64 of 60"),
    ],
)
def test_damaged_run_lengths(rle: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^x: {message}"):
        decoded(rle, (3, 5), "x")


def test_too_many_pixels_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio_rle, "MAX_MASK_PIXELS", 2**20)
    side = 2**14
    rle = [*(4 * side * side).to_bytes(4, "big"), *TINY[4:]]
    tracemalloc.start()
    with pytest.raises(ValueError, match="a mask of 268435456 pixels; at most 1048576 are read"):
        decoded(rle, (side, side), "x")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
