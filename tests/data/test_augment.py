"""One sample: no label inside the window is lost, image and label stay together, padding is no label."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED, DataConfig
from sparseg.data import augment
from sparseg.data.augment import Window

SPACING = 4  # source pixels between labelled ones: at the smallest scale, 0.3, no two share a target pixel
WIDE = DataConfig(crop_px=40, scale_min=0.3, scale_max=3.0)

sizes = st.tuples(st.integers(5, 90), st.integers(5, 90))
seeds = st.integers(0, 2**32 - 1)


def points(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) labels: every fourth pixel of every fourth row at most, each a class of its own."""
    label_HW = np.full(size, UNLABELLED, np.uint8)
    places = [(y, x) for y in range(0, size[0], SPACING) for x in range(0, size[1], SPACING)]
    chosen = rng.permutation(len(places))[:200]
    for k, index in enumerate(chosen):
        label_HW[places[index]] = k
    return label_HW


def window_of(size: tuple[int, int], data: DataConfig, seed: int) -> Window:
    return augment.draw_window(*size, data, np.random.default_rng(seed))


def mapped(window: Window, y: float, x: float, crop_px: int) -> tuple[float, float]:
    """Where a source position (pixel centres at .5) lands in the crop."""
    left, top, right, bottom = window.box
    target_y = (y - top) / (bottom - top) * window.height
    target_x = (x - left) / (right - left) * window.width
    return target_y, crop_px - target_x if window.flip else target_x


# ----------------------------------------------------------------------------------------------------- window


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=seeds)
def test_window_lies_in_the_image_and_fits_the_crop(size: tuple[int, int], seed: int) -> None:
    window = window_of(size, WIDE, seed)
    left, top, right, bottom = window.box
    assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
    assert 1 <= window.height <= WIDE.crop_px and 1 <= window.width <= WIDE.crop_px
    for whole, length, target in (
        (size[0], bottom - top, window.height),
        (size[1], right - left, window.width),
    ):
        # both lengths are whole pixels: the factor lies in the range for lengths that differ by half a pixel
        assert (target + 0.5) / max(length - 0.5, 0.5) >= WIDE.scale_min
        assert (target - 0.5) / (length + 0.5) <= WIDE.scale_max
        assert length == whole or target == WIDE.crop_px
    # what is not filled is padding because the image ends there
    assert window.height == WIDE.crop_px or bottom - top == size[0]
    assert window.width == WIDE.crop_px or right - left == size[1]
    assert all(isinstance(value, int) for value in window.box)


def test_scale_position_and_flip_vary() -> None:
    windows = [window_of((200, 300), WIDE, seed) for seed in range(200)]
    extent = np.array([window.box[2] - window.box[0] for window in windows])
    assert extent.min() < 20 and extent.max() > 100
    assert 60 < sum(window.flip for window in windows) < 140
    assert np.ptp([window.box[0] for window in windows]) > 200


# ----------------------------------------------------------------------------------------------------- labels


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=seeds)
def test_no_label_of_the_window_is_lost_and_each_is_within_a_pixel_of_its_place(
    size: tuple[int, int], seed: int
) -> None:
    label_HW = points(size, np.random.default_rng(seed))
    window = window_of(size, WIDE, seed)
    crop = augment.cut_label(label_HW, window, WIDE.crop_px, dense=False)
    left, top, right, bottom = window.box
    inside = set()
    for y, x in np.argwhere(label_HW < UNLABELLED):
        if top < y + 0.5 < bottom and left < x + 0.5 < right:
            inside.add(label_HW[y, x])
            found_yx = np.argwhere(crop == label_HW[y, x]) + 0.5
            assert len(found_yx), f"class {label_HW[y, x]} at {y, x} is lost"
            distance = np.abs(found_yx - mapped(window, y + 0.5, x + 0.5, WIDE.crop_px)).max(1)
            assert distance.min() <= 1
            reach = 1 + 1 / min((right - left) / window.width, (bottom - top) / window.height)
            assert distance.max() <= reach  # enlarged, a labelled pixel covers no more than its own area
    touched = {
        label_HW[y, x]
        for y, x in np.argwhere(label_HW < UNLABELLED)
        if top < y + 1 and y < bottom and left < x + 1 and x < right
    }
    assert inside <= set(crop[crop < UNLABELLED]) <= touched


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=seeds, dense=st.booleans())
def test_padding_is_ignored_and_nothing_else_is(size: tuple[int, int], seed: int, dense: bool) -> None:
    window = window_of(size, WIDE, seed)
    crop = augment.cut_label(points(size, np.random.default_rng(seed)), window, WIDE.crop_px, dense=dense)
    upright = crop[:, ::-1] if window.flip else crop
    expected = np.full_like(crop, True, dtype=bool)
    expected[: window.height, : window.width] = False
    assert ((upright == IGNORED) == expected).all()


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=seeds)
def test_dense_masks_are_sampled_at_the_nearest_pixel(size: tuple[int, int], seed: int) -> None:
    mask_HW = np.random.default_rng(seed).integers(0, 20, size).astype(np.uint8)
    window = dataclasses.replace(window_of(size, WIDE, seed), flip=False)
    crop = augment.cut_label(mask_HW, window, WIDE.crop_px, dense=True)
    left, top, right, bottom = window.box
    for row in range(window.height):
        for column in range(0, window.width, 7):
            y = top + (row + 0.5) * (bottom - top) / window.height
            x = left + (column + 0.5) * (right - left) / window.width
            near = {mask_HW[int(y + e), int(x + f)] for e in (-1e-6, 1e-6) for f in (-1e-6, 1e-6)
                    if int(y + e) < size[0] and int(x + f) < size[1]}  # fmt: skip
            assert crop[row, column] in near


def test_void_of_the_source_stays_void_and_clicks_are_painted_over_it() -> None:
    label_HW = np.full((100, 100), IGNORED, np.uint8)
    label_HW[51, 51] = 7
    window = Window((0, 0, 100, 100), 25, 25, flip=False)
    crop = augment.cut_label(label_HW, window, 32, dense=False)
    assert np.argwhere(crop != IGNORED).tolist() == [[12, 12]] and crop[12, 12] == 7
    assert (augment.cut_label(label_HW, window, 32, dense=True) == IGNORED).all()  # nearest alone loses it


# ------------------------------------------------------------------------------- every labelled pixel arrives

RECIPE = DataConfig(crop_px=64)  # scales 0.5 to 2
Cut = Callable[[np.ndarray, Window, int], np.ndarray]


def clicks(size: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) labels: pixels of 12 classes anywhere, half of them crowded into a fifth of the image."""
    label_HW = np.full(size, UNLABELLED, np.uint8)
    for number in range(count):
        reach = 1.0 if number % 2 else 0.2
        y, x = (int(rng.uniform(0, reach) * length) for length in size)
        label_HW[y, x] = rng.integers(12)
    return label_HW


def assert_all_arrive(cut: Cut, label_HW: np.ndarray, window: Window, crop_px: int) -> None:
    """Each labelled pixel of the window: its class lies at its place or next to it, or as near as there is
    room.
    """
    crop = cut(label_HW, window, crop_px)
    upright = crop[:, ::-1] if window.flip else crop
    left, top, right, bottom = window.box
    for y, x in np.argwhere(label_HW[top:bottom, left:right] < UNLABELLED):
        k = label_HW[y + top, x + left]
        place = np.array([
            int((y + 0.5) / (bottom - top) * window.height + 1e-9),
            int((x + 0.5) / (right - left) * window.width + 1e-9),
        ])  # fmt: skip
        found = np.argwhere(upright == k) - place
        assert len(found), f"class {k} at {y, x} is lost"
        if np.abs(found).max(1).min() > 1:  # then everything nearer is taken
            squared = (found**2).sum(1).min()
            taken_yx = np.argwhere(upright[: window.height, : window.width] >= UNLABELLED) - place
            assert not len(taken_yx) or (taken_yx**2).sum(1).min() >= squared


def plain_nearest(label_HW: np.ndarray, window: Window, crop_px: int) -> np.ndarray:
    """What the usual pipeline does to labels."""
    part = Image.fromarray(label_HW).crop(window.box)
    part = part.resize((window.width, window.height), Image.Resampling.NEAREST)
    crop = np.full((crop_px, crop_px), IGNORED, np.uint8)
    crop[: window.height, : window.width] = np.asarray(part)
    return crop[:, ::-1] if window.flip else crop


def our_cut(label_HW: np.ndarray, window: Window, crop_px: int) -> np.ndarray:
    return augment.cut_label(label_HW, window, crop_px, dense=False)


def arrival(cut: Cut, examples: int) -> Callable[[], None]:
    @settings(max_examples=examples, deadline=None, database=None, report_multiple_bugs=False)
    @given(size=st.tuples(st.integers(20, 150), st.integers(20, 150)), count=st.integers(1, 150), seed=seeds)
    def check(size: tuple[int, int], count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        window = augment.draw_window(*size, RECIPE, rng)
        assert_all_arrive(cut, clicks(size, count, rng), window, RECIPE.crop_px)

    return check


def test_every_labelled_pixel_of_the_window_arrives_with_its_class() -> None:
    arrival(our_cut, 100)()


def test_plain_nearest_neighbour_loses_labelled_pixels() -> None:
    with pytest.raises(AssertionError):
        arrival(plain_nearest, 100)()


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(20, 90), st.integers(20, 90)), num_classes=st.integers(1, 12), seed=seeds)
def test_only_a_crop_without_room_loses_labels(size: tuple[int, int], num_classes: int, seed: int) -> None:
    """From crowded to full: as long as a pixel is unlabelled, no label of the window is lost."""
    rng = np.random.default_rng(seed)
    label_HW = rng.integers(0, num_classes, size).astype(np.uint8)
    label_HW[rng.random(size) < rng.random()] = UNLABELLED
    window = augment.draw_window(*size, RECIPE, rng)
    crop = our_cut(label_HW, window, RECIPE.crop_px)
    if (crop == UNLABELLED).any():
        assert_all_arrive(our_cut, label_HW, window, RECIPE.crop_px)
    else:
        left, top, right, bottom = window.box
        assert set(np.unique(crop)) <= {*np.unique(label_HW[top:bottom, left:right]), IGNORED}


def test_clicks_that_meet_stay_apart_and_strokes_keep_their_width() -> None:
    label_HW = np.full((40, 40), UNLABELLED, np.uint8)
    label_HW[10, 10:12], label_HW[11, 10:12] = (1, 2), (3, 4)  # four classes in one pixel of the crop
    label_HW[20, 4:30] = 5  # a stroke
    crop = our_cut(label_HW, Window((0, 0, 40, 40), 20, 20, flip=False), 32)
    places = {k: np.argwhere(crop == k).tolist() for k in (1, 2, 3, 4)}
    assert {len(found) for found in places.values()} == {1}
    assert max(abs(y - 5) + abs(x - 5) for found in places.values() for y, x in found) <= 2
    assert np.argwhere(crop == 5).tolist() == [[10, x] for x in range(2, 15)]


def test_blocks_keep_their_outline() -> None:
    """Two blocks that touch: of the two classes in a border's pixel each is found next to it; nothing
    moves.
    """
    label_HW = np.full((80, 80), UNLABELLED, np.uint8)
    label_HW[11:51, 10:33], label_HW[11:51, 33:60] = 1, 2  # the border cuts pixels of the crop in two
    crop = our_cut(label_HW, Window((0, 0, 80, 80), 40, 40, flip=False), 40)
    assert (crop[5:26, 5:30] < UNLABELLED).all() and (crop < UNLABELLED).sum() == 21 * 25
    assert (crop[5:26, 5:17] == 1).all() and (crop[5:26, 17:30] == 2).all()


# ----------------------------------------------------------------------------------------------- crop_choice


@settings(max_examples=100, deadline=None)
@given(size=sizes, count=st.integers(1, 5), seed=seeds)
def test_a_labelled_crop_holds_a_labelled_pixel(size: tuple[int, int], count: int, seed: int) -> None:
    data = DataConfig(crop_px=32, scale_min=2.0, scale_max=3.0, crop_choice="labelled")
    label_HW = clicks(size, count, np.random.default_rng(seed))
    _, label = augment.augment(np.zeros((*size, 3), np.uint8), label_HW, data, (seed, 0, 0), dense=False)
    assert (label < UNLABELLED).any()


def test_the_class_of_a_labelled_crop_is_drawn_evenly() -> None:
    label_HW = np.full((60, 60), UNLABELLED, np.uint8)
    label_HW[:20] = 0  # 1200 pixels
    label_HW[50, 30] = 7  # one
    drawn = [augment.draw_focus(label_HW, np.random.default_rng(seed)) for seed in range(400)]
    rare = sum(place == (50, 30) for place in drawn)
    assert 160 < rare < 240
    assert len({place for place in drawn if place != (50, 30)}) > 120  # and the pixel of its class
    assert augment.draw_focus(np.full((5, 5), IGNORED, np.uint8), np.random.default_rng(0)) is None
    data = DataConfig(crop_px=32, crop_choice="labelled")  # nothing to hold: a window at random
    empty = np.full((60, 60), UNLABELLED, np.uint8)
    augment.augment(np.zeros((60, 60, 3), np.uint8), empty, data, (0, 0, 0), dense=False)


@settings(max_examples=60, deadline=None)
@given(size=sizes, seed=seeds)
def test_a_window_with_a_focus_is_a_window_that_holds_it(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = int(rng.integers(size[0])), int(rng.integers(size[1]))
    left, top, right, bottom = augment.draw_window(*size, WIDE, rng, (y, x)).box
    assert 0 <= left <= x < right <= size[1] and 0 <= top <= y < bottom <= size[0]


# -------------------------------------------------------------------------------------------- image and label


def marked(size: tuple[int, int], centre: tuple[int, int], side: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """A red square on black with a label in its middle pixel."""
    image_HW3, label_HW = np.zeros((*size, 3), np.uint8), np.full(size, UNLABELLED, np.uint8)
    (y, x), half = centre, side // 2
    image_HW3[y - half : y + half + 1, x - half : x + half + 1, 0] = 255
    label_HW[y, x] = 1
    return image_HW3, label_HW


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(24, 90), st.integers(24, 90)),
    where=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=seeds,
)
def test_label_stays_on_the_thing_it_marks(
    size: tuple[int, int], where: tuple[float, float], seed: int
) -> None:
    centre = tuple(int(4 + share * (length - 9)) for share, length in zip(where, size, strict=True))
    image_HW3, label_HW = marked(size, centre)  # type: ignore[arg-type]
    data = DataConfig(crop_px=48, scale_min=0.5, scale_max=2.5)
    image, label = augment.augment(image_HW3, label_HW, data, (seed, 0, 0), dense=False)
    assert image.shape == (48, 48, 3) and label.shape == (48, 48)
    assert image.dtype == label.dtype == np.uint8
    red = image[..., 0].astype(float)
    assert (red[label == 1] > 200).all()
    middle_yx = np.argwhere(label == 1)
    if len(middle_yx) and 3 < middle_yx.min() and middle_yx.max() < 44 and (label != IGNORED).all():
        y, x = np.mgrid[:48, :48]
        centroid = np.array([(y * red).sum(), (x * red).sum()]) / red.sum()
        square_is_whole = not (red[[0, -1]].any() or red[:, [0, -1]].any())
        if square_is_whole:
            assert np.abs(centroid - middle_yx.mean(0)).max() <= 1


def test_flip_turns_image_and_label_alike() -> None:
    image_HW3, label_HW = marked((40, 40), (10, 8))
    upright = Window((0, 0, 40, 40), 40, 40, flip=False)
    turned = dataclasses.replace(upright, flip=True)
    for crop_px in (40, 50):
        image, label = (
            augment.cut_image(image_HW3, turned, crop_px),
            augment.cut_label(label_HW, turned, crop_px, dense=False),
        )
        assert (image == augment.cut_image(image_HW3, upright, crop_px)[:, ::-1]).all()
        assert (label == augment.cut_label(label_HW, upright, crop_px, dense=False)[:, ::-1]).all()
        assert np.argwhere(label == 1).tolist() == [[10, crop_px - 1 - 8]]
        assert image[10, crop_px - 1 - 8, 0] == 255


def test_cutting_equals_resizing_the_whole_image_and_then_cutting() -> None:
    rng = np.random.default_rng(0)
    image_HW3 = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
    window = Window((16, 8, 16 + 40, 8 + 30), 15, 20, flip=False)
    whole = np.asarray(Image.fromarray(image_HW3).resize((40, 30), Image.Resampling.BILINEAR))
    cut = augment.cut_image(image_HW3, window, 32)[:15, :20]
    assert np.abs(cut[1:-1, 1:-1].astype(int) - whole[5:18, 9:27].astype(int)).max() <= 1
    assert (augment.cut_image(image_HW3, window, 32)[15:] == 0).all()


def test_encoded_bytes_give_the_same_sample_as_pixels() -> None:
    rng = np.random.default_rng(3)
    image_HW3, label_HW = rng.integers(0, 255, (150, 160, 3)).astype(np.uint8), points((150, 160), rng)
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "PNG")
    data = dataclasses.replace(WIDE, colour=True)
    for row in range(10):
        ours = augment.augment(buffer.getvalue(), label_HW, data, (0, 0, row), dense=False)
        other = augment.augment(image_HW3, label_HW, data, (0, 0, row), dense=False)
        assert all((one == two).all() for one, two in zip(ours, other, strict=True))
    with pytest.raises(ValueError, match="image is 160x150 pixels but 150x160 are expected"):
        augment.augment(buffer.getvalue(), label_HW.T, data, (0, 0, 0), dense=False)


@settings(max_examples=30, deadline=None)
@given(size=sizes, seed=seeds)
def test_resizing_is_pillows_within_rounding(size: tuple[int, int], seed: int) -> None:
    image_HW3 = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    window = dataclasses.replace(window_of(size, WIDE, seed), flip=False)
    cut = augment.cut_image(image_HW3, window, WIDE.crop_px)[: window.height, : window.width]
    part = Image.fromarray(image_HW3).crop(window.box)
    expected = np.asarray(part.resize((window.width, window.height), Image.Resampling.BILINEAR))
    assert np.abs(cut.astype(int) - expected).max() <= 1


# ------------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("colour", [False, True])
def test_the_key_alone_decides(colour: bool) -> None:
    rng = np.random.default_rng(1)
    image_HW3, label_HW = rng.integers(0, 255, (50, 60, 3)).astype(np.uint8), points((50, 60), rng)
    data = dataclasses.replace(WIDE, colour=colour)
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    first = [augment.augment(image_HW3, label_HW, data, key, dense=False) for key in keys]
    np.random.seed(7)  # numpy's global stream is not drawn from
    again = [augment.augment(image_HW3, label_HW, data, key, dense=False) for key in keys]
    for (image, label), (image2, label2) in zip(first, again, strict=True):
        assert (image == image2).all() and (label == label2).all()
    for one in range(len(keys)):
        for other in range(one):
            assert (first[one][0] != first[other][0]).any(), (keys[one], keys[other])


def test_colour_changes_the_image_only() -> None:
    rng = np.random.default_rng(2)
    image_HW3, label_HW = rng.integers(0, 255, (50, 60, 3)).astype(np.uint8), points((50, 60), rng)
    changed = 0
    for row in range(12):
        plain = augment.augment(image_HW3, label_HW, WIDE, (0, 0, row), dense=False)
        data = dataclasses.replace(WIDE, colour=True)
        coloured = augment.augment(image_HW3, label_HW, data, (0, 0, row), dense=False)
        assert (plain[1] == coloured[1]).all()
        assert coloured[0].shape == plain[0].shape and coloured[0].dtype == np.uint8
        changed += bool((plain[0] != coloured[0]).any())
    assert changed >= 8


def test_inputs_are_not_written_to() -> None:
    image_HW3, label_HW = marked((40, 40), (20, 20))
    image_HW3.setflags(write=False)
    label_HW.setflags(write=False)
    for row in range(5):
        augment.augment(
            image_HW3, label_HW, dataclasses.replace(WIDE, colour=True), (0, 0, row), dense=False
        )  # would raise
