"""The fused colour change: each step is torchvision's where that is linear, the chain is one matrix, blur
is exact.
"""

from __future__ import annotations

import numpy as np
import pytest
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseg.data.colour import (
    LUMA,
    RGB_TO_YIQ,
    ColourChange,
    blur,
    change_colour,
    colour_matrix,
    draw_colour,
)


def muted(seed: int, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """Colours around the middle: no step leaves 0..255, so that clipping plays no part."""
    return np.random.default_rng(seed).integers(105, 150, (*size, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("amount", [0.5, 0.9, 1.0, 1.5])
def test_a_step_is_torchvisions(name: str, amount: float) -> None:
    image = muted(1)
    ours = change_colour(image, ColourChange(steps=((name, amount),)))
    theirs = np.asarray(getattr(TF, f"adjust_{name}")(Image.fromarray(image), amount))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_grey_is_torchvisions() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    theirs = np.asarray(TF.to_grayscale(Image.fromarray(image), num_output_channels=3))
    assert np.abs(change_colour(image, ColourChange(grey=True)).astype(int) - theirs).max() <= 1


def test_hue_turns_the_chrominance_and_keeps_luma_and_grey() -> None:
    turns = [
        colour_matrix(ColourChange(steps=(("hue", amount),)), np.zeros(3))[:, :3] for amount in (0.1, 0.15)
    ]
    np.testing.assert_allclose(turns[0] @ [9, 9, 9], [9, 9, 9], atol=1e-9)
    np.testing.assert_allclose(LUMA @ turns[0], LUMA, atol=1e-9)
    quarter = colour_matrix(ColourChange(steps=(("hue", 0.25),)), np.zeros(3))[:, :3]
    np.testing.assert_allclose(turns[1] @ turns[0], quarter, atol=1e-9)
    iq = (RGB_TO_YIQ @ quarter @ np.array([200, 60, 40]))[1:]
    before = (RGB_TO_YIQ @ np.array([200, 60, 40]))[1:]
    assert abs(iq @ before) < 1e-6 and np.linalg.norm(iq) == pytest.approx(np.linalg.norm(before))


@pytest.mark.parametrize("rgb", [(170, 90, 90), (90, 170, 90), (90, 90, 170), (160, 150, 90)])
@pytest.mark.parametrize("amount", [-0.2, -0.1, 0.1, 0.2])
def test_hue_turns_the_way_torchvisions_does(rgb: tuple[int, int, int], amount: float) -> None:
    """The angle in the chrominance plane moves the same way, by the same amount within 40 degrees."""
    image = np.full((2, 2, 3), rgb, np.uint8)
    ours = change_colour(image, ColourChange(steps=(("hue", amount),)))[0, 0]
    theirs = np.asarray(TF.adjust_hue(Image.fromarray(image), amount))[0, 0]
    angles = []
    for colour in (ours, theirs, rgb):
        _, i, q = RGB_TO_YIQ @ np.asarray(colour, float)
        angles.append(np.arctan2(q, i))
    turned = [(angle - angles[2] + np.pi) % (2 * np.pi) - np.pi for angle in angles[:2]]
    assert turned[0] * turned[1] > 0
    assert abs(turned[0] - turned[1]) < np.deg2rad(40)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999))
def test_the_matrix_equals_the_steps_one_after_the_other(seed: int) -> None:
    """In floating point and without clipping, which is where the two differ."""
    change = draw_colour(np.random.default_rng(seed))
    image = np.random.default_rng(seed).uniform(0, 255, (6, 7, 3))
    stepwise = image
    for step in change.steps:
        one = colour_matrix(ColourChange(steps=(step,)), stepwise.mean((0, 1)))
        stepwise = stepwise @ one[:, :3].T + one[:, 3]
    if change.grey:
        stepwise = np.repeat((stepwise @ LUMA)[..., None], 3, 2)
    stepwise = stepwise + change.shift
    matrix = colour_matrix(change, image.mean((0, 1)))
    np.testing.assert_allclose(image @ matrix[:, :3].T + matrix[:, 3], stepwise, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 25), st.integers(1, 25)), sigma=st.floats(0.1, 2.0))
def test_blur_is_a_gaussian_with_repeated_edges(size: tuple[int, int], sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    reach = max(1, round(3 * sigma))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = image.astype(float)
    for axis in (0, 1):
        places = np.arange(size[axis])
        expected = sum(
            w * expected.take(np.clip(places + k, 0, size[axis] - 1), axis)
            for k, w in zip(offsets, weights, strict=True)
        )
    found = blur(image, sigma)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 0.501


def test_blur_is_near_pillows() -> None:
    from PIL import ImageFilter

    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    for sigma in (0.5, 1.0, 2.0):
        theirs = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))).astype(int)
        inner = np.s_[8:-8, 8:-8]
        assert np.abs(blur(image, sigma)[inner] - theirs[inner]).mean() < 2


def test_probabilities_and_ranges_are_the_recipes() -> None:
    drawn = [draw_colour(np.random.default_rng(seed)) for seed in range(2000)]
    for share, expected in (
        (np.mean([bool(change.steps) for change in drawn]), 0.5),
        (np.mean([change.grey for change in drawn]), 0.1),
        (np.mean([change.blur_sigma > 0 for change in drawn]), 0.5),
        (np.mean([change.shift != 0 for change in drawn]), 0.5 * 20 / 21),
    ):
        assert abs(share - expected) < 0.04
    assert {change.shift for change in drawn} == set(range(-10, 11))
    sigmas = [change.blur_sigma for change in drawn if change.blur_sigma]
    assert 0.1 <= min(sigmas) < 0.15 and 1.95 < max(sigmas) <= 2.0
    steps = [change.steps for change in drawn if change.steps]
    assert len({tuple(name for name, _ in step) for step in steps}) == 24  # every order
    amounts = {name: [dict(step)[name] for step in steps] for name in dict(steps[0])}
    for name, values in amounts.items():
        low, high = (-0.25, 0.25) if name == "hue" else (0.5, 1.5)
        assert low <= min(values) < low + 0.02 and high - 0.02 < max(values) <= high


def test_input_is_left_alone_and_no_change_is_a_copy() -> None:
    image = muted(0)
    image.setflags(write=False)
    same = change_colour(image, ColourChange())
    assert (same == image).all() and same.flags.writeable
    change_colour(image, ColourChange(grey=True, blur_sigma=1.0, shift=3))
