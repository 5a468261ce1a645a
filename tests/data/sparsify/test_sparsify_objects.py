"""Clicks on components and blocks: where they lie, how many, nested, the same on every machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import check_drawn, check_nested, classes_in, fixed_mask, masks, parts
from scipy import ndimage

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import sparsify
from sparseg.data.sparsify import Recipe

EVERY_KIND = [
    Recipe(kind="point", budget=9),
    Recipe(kind="clicks", budget=2),
    Recipe(kind="instance", budget=0),
    Recipe(kind="disc", budget=2),
    Recipe(kind="scribble", budget=60),
    Recipe(kind="block", budget=20),
]
each_kind = pytest.mark.parametrize("recipe", EVERY_KIND, ids=lambda recipe: recipe.kind)


# -------------------------------------------------------------------------------------------------- instances


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.4, 3.0]))
def test_one_click_on_each_of_the_largest_components(mask: np.ndarray, a: int, b: int, jitter: float) -> None:
    few, many = sorted((a, b))
    options = {"seed": 3, "key": "x", "jitter": jitter, "min_share": 0.0}
    small, large, every = (sparsify.instance_points(mask, n, **options) for n in (few, many, 0))
    check_nested(small, large)
    check_nested(large, every)
    for label, budget in ((small, few), (large, many), (every, 10**6)):
        check_drawn(label, mask)
        for k in classes_in(mask):
            number, count = parts(mask, k)
            sizes = np.bincount(number.ravel(), minlength=count + 1)[1:]
            clicked = number[label == k]
            assert len(clicked) == len(set(clicked.tolist())) == min(budget, count)
            assert sizes[clicked - 1].min() >= np.sort(sizes)[::-1][len(clicked) - 1]


@settings(max_examples=30, deadline=None)
@given(masks, st.sampled_from([0.02, 0.3]))
def test_small_components_are_left_out_but_no_class_is(mask: np.ndarray, min_share: float) -> None:
    label = sparsify.instance_points(mask, 0, seed=0, key="x", min_share=min_share)
    for k in classes_in(mask):
        number, count = parts(mask, k)
        sizes = np.bincount(number.ravel(), minlength=count + 1)[1:]
        enough = sizes >= min_share * mask.size
        assert (label == k).sum() == (enough.sum() if enough.any() else (sizes == sizes.max()).sum())


def test_without_jitter_the_click_is_the_innermost_point_and_the_edge_of_the_image_bounds() -> None:
    mask = np.zeros((21, 40), np.uint8)
    mask[:, 21:] = 1
    label = sparsify.instance_points(mask, 0, seed=0, key="x", jitter=0)
    assert np.argwhere(label == 0).tolist() == [[10, 10]]
    assert np.argwhere(label == 1)[0, 1] in (30, 31) and len(np.argwhere(label == 1)) == 1


def test_blocks_of_dbfnet_are_3x3_at_the_innermost_point_and_inside() -> None:
    mask = np.zeros((15, 15), np.uint8)
    mask[7, 3:12] = 1  # one pixel high: the block is cut
    label, _ = Recipe(kind="disc", budget=0).draw(mask, "x")
    assert set(np.nonzero(label == 1)[0]) == {7} and (label == 1).sum() == 3
    label, _ = Recipe(kind="disc", budget=0).draw(np.zeros((15, 15), np.uint8), "x")
    np.testing.assert_array_equal(np.argwhere(label == 0)[[0, -1]], [[6, 6], [8, 8]])
    assert (label == 0).sum() == 9


def test_jitter_has_the_spread_it_says() -> None:
    mask = np.zeros((201, 201), np.uint8)  # inner radius 101: at 0.2 the truncation is beyond 4.9 sd
    offsets = np.concatenate(
        [
            np.argwhere(sparsify.instance_points(mask, 0, seed=0, key=str(n), jitter=0.2) == 0) - 100
            for n in range(150)
        ]
    )
    assert abs(offsets.mean(0)).max() < 7  # sd of the mean is 1.7
    np.testing.assert_allclose(offsets.std(0), 0.2 * 101, rtol=0.25)  # 6 % is one sd of the estimate


# ----------------------------------------------------------------------------------------------------- blocks


@settings(max_examples=80, deadline=None)
@given(masks, st.integers(1, 100), st.integers(1, 100))
def test_blocks_hold_their_share_and_are_nested(mask: np.ndarray, a: int, b: int) -> None:
    few, many = sorted((a, b))
    small, large = (sparsify.blocks(mask, n, seed=3, key="x") for n in (few, many))
    check_nested(small, large)
    total = int((mask < UNLABELLED).sum())
    row = -(-mask.shape[1] // min(10, mask.shape[1]))  # width of a block
    for label, percent in ((small, few), (large, many)):
        check_drawn(label, mask)
        drawn, wanted = int((label < UNLABELLED).sum()), (percent * total + 50) // 100
        assert wanted - row < drawn <= max(wanted, row)
        assert drawn > 0 or not total
    np.testing.assert_array_equal(sparsify.blocks(mask, 100, seed=3, key="x"), mask)


def test_blocks_are_whole_but_for_the_last() -> None:
    mask = np.zeros((60, 80), np.uint8)
    label = sparsify.blocks(mask, 25, seed=0, key="x")
    shares = (label == 0).reshape(10, 6, 10, 8).mean((1, 3)).ravel()
    assert ((shares > 0) & (shares < 1)).sum() <= 1 and (shares == 1).sum() in (24, 25)
    assert (label == 0).mean() == pytest.approx(0.25, abs=8 / 4800)
    rows_of_blocks = (label == 0).any(1).reshape(10, 6).any(1).sum()
    assert rows_of_blocks >= 5  # strewn over the image, not one lump


# ------------------------------------------------------------------------------------------------ every kind


@each_kind
@pytest.mark.parametrize("code", [UNLABELLED, IGNORED])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 17)])
def test_nothing_is_drawn_where_nothing_is(recipe: Recipe, code: int, shape: tuple[int, int]) -> None:
    mask = np.full(shape, code, np.uint8)
    label, strokes = recipe.draw(mask, "x")
    np.testing.assert_array_equal(label, mask)
    assert strokes == []


@each_kind
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (1, 300)])
def test_the_smallest_images_get_a_label(recipe: Recipe, shape: tuple[int, int]) -> None:
    mask = np.full(shape, 7, np.uint8)
    mask[0, 0] = 3
    label, _ = recipe.draw(mask, "x")
    check_drawn(label, mask)
    if recipe.kind in ("point", "block"):  # these do not look at classes
        assert (label < UNLABELLED).any()
    else:
        assert classes_in(label) == classes_in(mask)


@each_kind
def test_draws_depend_on_mask_seed_and_row_only(recipe: Recipe) -> None:
    mask = fixed_mask()
    first, strokes = recipe.draw(mask, "a")
    again, strokes_again = recipe.draw(np.asfortranarray(mask), "a")
    np.testing.assert_array_equal(first, again)
    assert strokes == strokes_again
    if recipe.kind != "disc":  # the innermost point is no matter of chance
        other_seed = Recipe(kind=recipe.kind, budget=recipe.budget, seed=1)
        assert (first != recipe.draw(mask, "b")[0]).any()
        assert (first != other_seed.draw(mask, "a")[0]).any()


FROZEN = {
    "point": "3bf681b76ba0",
    "clicks": "fa62d09fd8e2",
    "instance": "6849d45b2dfb",
    "disc": "1267506d20e0",
    "scribble": "4103f602ecaa",
    "block": "649aec1c7c6c",
}


def digests() -> dict[str, str]:
    return {
        r.kind: hashlib.sha256(r.draw(fixed_mask(), "frozen")[0].tobytes()).hexdigest()[:12]
        for r in EVERY_KIND
    }


def test_draws_stay_the_same_for_ever_and_in_every_process() -> None:
    # Published results name kind, budget and seed: what moves a label must be seen here.
    assert digests() == FROZEN
    code = "from test_sparsify_objects import digests; print(digests())"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(FROZEN), done.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "lines", "budget": 3}, "kind must be one of point, clicks, instance, .* got 'lines'"),
        ({"kind": "point", "budget": 0}, "budget of point must be at least 1 .*got 0"),
        ({"kind": "clicks", "budget": -1}, "budget of clicks must be at least 1"),
        ({"kind": "instance", "budget": -1}, r"budget of instance must be at least 0 .*0 = all.*got -1"),
        ({"kind": "scribble", "budget": 0}, r"budget of scribble must be in 1\.\.100 \(percent"),
        ({"kind": "block", "budget": 101}, r"budget of block must be in 1\.\.100 \(percent.*got 101"),
        ({"kind": "block", "budget": 10, "width_px": 3}, "block has no width, got 3 px"),
        ({"kind": "scribble", "budget": 10, "width_px": 0}, r"width must be in 1\.\.99 px, got 0"),
        ({"kind": "scribble", "budget": 10, "width_px": 100}, r"width must be in 1\.\.99 px, got 100"),
    ],
)
def test_recipes_without_meaning_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Recipe(**fields)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["camvid/masks/train", "voc_subset/SegmentationClass"])
def test_real_masks(folder: str, shared_data: Path) -> None:
    from PIL import Image

    for file in sorted((shared_data / folder).glob("*.png"))[:40:20]:
        mask = np.asarray(Image.open(file)).copy()
        if folder.startswith("camvid"):
            mask[mask == 11] = IGNORED
        for recipe in EVERY_KIND:
            label, _ = recipe.draw(mask, file.stem)
            check_drawn(label, mask)
            if recipe.kind in ("clicks", "instance", "disc", "scribble"):
                assert classes_in(label) == classes_in(mask)
        far = ndimage.distance_transform_edt(np.pad(mask == mask[0, 0], 1))[1:-1, 1:-1]
        assert far.max() > 3  # or the file is no segmentation
