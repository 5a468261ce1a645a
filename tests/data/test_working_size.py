"""The working resolution: sizes, images, and strokes as geometry."""

from __future__ import annotations

import numpy as np
import pytest

from sparseg.data.strokes import Stroke, mask_stroke, pixels
from sparseg.data.working_size import Size, resized_image, scaled, working_size


@pytest.mark.parametrize(
    ("size", "long_side_px", "expected"),
    [
        ((3000, 4000), 1024, (768, 1024)),
        ((4032, 3024), 1024, (1024, 768)),
        ((768, 1024), 1024, (768, 1024)),
        ((90, 120), 1024, (90, 120)),
        ((3000, 4000), 0, (3000, 4000)),
        ((100, 151), 64, (42, 64)),
        ((9000, 3), 64, (64, 1)),
    ],
)
def test_the_long_side_becomes_that_of_the_working_resolution(
    size: Size, long_side_px: int, expected: Size
) -> None:
    assert working_size(size, long_side_px) == expected


def pixel_of(stroke: Stroke, shape: Size) -> list[tuple[int, int]]:
    return [
        (int(y), int(x))
        for rows, columns in pixels(stroke, shape)
        for y, x in zip(rows, columns, strict=True)
    ]


def test_a_click_lies_on_the_same_part_of_the_image() -> None:
    before, after = (96, 160), (38, 64)
    rng = np.random.default_rng(0)
    for y, x in [
        *rng.uniform((0, 0), before, (200, 2)),
        (0.0, 0.0),
        (95.999999999999986, 159.99999999999997),
    ]:
        ((row, column),) = pixel_of(scaled(Stroke(1, "point", (y,), (x,)), before, after), after)
        assert row == min(int(y * 38 / 96), 37) and column == min(int(x * 64 / 160), 63)
    for y, x in [(96.0, 5.0), (5.0, 160.0), (-0.01, 5.0)]:  # outside before and after
        assert not pixel_of(scaled(Stroke(1, "point", (y,), (x,)), before, after), after)


def test_widths_shrink_to_a_pixel_at_least() -> None:
    line = Stroke(1, "line", (2.0, 90.0), (3.0, 3.0), 10.0)
    assert scaled(line, (96, 160), (48, 80)).width_px == 5.0
    assert scaled(line, (9600, 16000), (96, 160)).width_px == 1.0


def test_the_smallest_mask_keeps_a_pixel() -> None:
    mask_HW = np.zeros((96, 160), bool)
    mask_HW[50, 77] = True
    assert pixel_of(scaled(mask_stroke(1, mask_HW), (96, 160), (12, 20)), (12, 20)) == [(6, 9)]
    full = np.ones((96, 160), bool)
    assert len(pixel_of(scaled(mask_stroke(1, full), (96, 160), (12, 20)), (12, 20))) == 240


def test_an_image_is_averaged_over_what_becomes_a_pixel() -> None:
    image_HW3 = np.zeros((64, 128, 3), np.uint8)
    image_HW3[:, ::2] = 200
    small = resized_image(image_HW3, (32, 64))
    assert small.shape == (32, 64, 3) and np.abs(small[:, 2:-2].astype(int) - 100).max() <= 1
    assert resized_image(image_HW3, (64, 128)) is image_HW3
