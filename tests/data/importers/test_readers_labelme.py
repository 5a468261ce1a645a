"""labelme's newer shapes, and its masks as labelme itself pastes them into an image."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_readers import LABELME, NAMES, point, save

from sparseg.config import UNLABELLED
from sparseg.data.importers.readers import labelme, parsing
from sparseg.data.strokes import Stroke, draw, mask_stroke

MASK = np.array([[0, 1, 1], [1, 1, 0]], dtype=np.uint8)


def png(array: np.ndarray, mode: str | None = None) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def read(folder: Path, *shapes: dict[str, Any], width_px: float = 1.0) -> list[Stroke]:
    file = save(folder, "img_0.json", {**LABELME, "shapes": [{"label": "tree", **shape} for shape in shapes]})
    return labelme.read([file], NAMES, width_px).strokes["img_0"]


def mask(points: Any, array: np.ndarray = MASK) -> dict[str, Any]:
    return {"shape_type": "mask", "points": points, "mask": png(array)}


@pytest.mark.parametrize("kind", [None, "polygon", "oriented_rectangle"])
def test_four_corners_are_filled(tmp_path: Path, kind: str | None) -> None:
    corners = [[4, 1], [8, 5], [6, 7], [2, 3]]
    assert read(tmp_path, {"shape_type": kind, "points": corners}) == [
        Stroke(1, "polygon", (1, 5, 7, 3), (4, 8, 6, 2))
    ]


def test_points_are_a_click_each(tmp_path: Path) -> None:
    shape = {"shape_type": "points", "points": [[1.5, 2], [3, 4]]}
    assert read(tmp_path, shape, width_px=3) == [point(1, 2, 1.5, 3), point(1, 4, 3, 3)]


@pytest.mark.parametrize(
    ("points", "top", "left", "pasted"),
    [
        ([[5, 3], [7, 4]], 3, 5, MASK),  # both corners belong to the box
        ([[5, 3], [6, 4]], 3, 5, MASK[:, :2]),  # whole corners cut a larger mask
        ([[5.4, 2.6], [7.4, 3.6]], 3, 5, MASK),  # fractional ones are rounded, and the mask's own size counts
        ([[5.5, 2.5], [9.9, 9.9]], 2, 6, MASK),  # to the even one
        ([[-1, -1], [1, 0]], 0, 0, MASK[1:, 1:]),  # what lies outside is cut off
        ([[31, 23], [33, 24]], 23, 31, MASK[:1, :1]),
    ],
)
def test_masks(tmp_path: Path, points: Any, top: int, left: int, pasted: np.ndarray) -> None:
    label, _ = draw(read(tmp_path, mask(points)), (24, 32), Counter())
    wanted = np.full((24, 32), UNLABELLED)
    wanted[top : top + pasted.shape[0], left : left + pasted.shape[1]][pasted > 0] = 1
    np.testing.assert_array_equal(label, wanted)


@pytest.mark.parametrize("mode", [None, "1", "P"])
def test_a_masks_pixels_are_what_is_not_0(tmp_path: Path, mode: str | None) -> None:
    array = MASK * (255 if mode == "1" else 1)
    shape = {"shape_type": "mask", "points": [[5, 3], [7, 4]], "mask": png(array, mode)}
    assert read(tmp_path, shape) == [mask_stroke(1, MASK > 0, 3, 5)]


def test_the_later_shape_wins(tmp_path: Path) -> None:
    square = {"shape_type": "rectangle", "points": [[4, 2], [9, 6]]}
    drawn = [square, {**square, "label": "ground"}, {**mask([[5, 3], [7, 4]]), "label": "wall, brick"}]
    for shapes, at_4_6, at_3_5 in ((drawn, 2, 0), (drawn[::-1], 1, 1)):
        label, _ = draw(read(tmp_path, *shapes), (24, 32), Counter())
        assert (label[4, 6], label[3, 5]) == (at_4_6, at_3_5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (mask([[5, 3], [8, 4]]), "a mask of 3x2 pixels in a box of 4x2; its points must be"),
        (mask([[7, 4], [5, 3]]), "a mask of 3x2 pixels in a box of -1x0"),
        (mask([[5, 3]]), "a mask needs a list of at least 2"),
        (mask([[5, 3], [7, 4], [1, 1]]), "a mask of 3 positions; it has 2"),
        ({**mask([[5, 3], [7, 4]]), "mask": None}, "'mask' must be a str, got None"),
        ({**mask([[5, 3], [7, 4]]), "mask": "%%%"}, "mask is no readable PNG in base64"),
        ({**mask([[5, 3], [7, 4]]), "mask": "AAAA"}, "mask is no readable PNG in base64"),
        ({**mask([[5, 3], [7, 4]]), "mask": png(MASK)[:60]}, "mask is no readable PNG in base64"),
        ({**mask([[5, 3], [7, 4]]), "mask": png(MASK, "RGB")}, "its pixels are RGB, not of one channel"),
        (
            {"shape_type": "oriented_rectangle", "points": [[1, 1], [2, 2], [3, 3]]},
            "needs a list of at least 4",
        ),
    ],
)
def test_refused(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"img_0\.json, shape 1: .*{message}") as caught:
        read(tmp_path, shape)
    assert "\n" not in str(caught.value)


def test_a_masks_size_is_checked_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelme, "MAX_MASK_PIXELS", 5)
    with pytest.raises(ValueError, match="6 pixels; at most 5 are read"):
        read(tmp_path, mask([[5, 3], [7, 4]]))
    assert parsing.MAX_MASK_PIXELS > 10**8
