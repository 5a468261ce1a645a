"""The synthetic set: the same for ever for a (seed, index), 3 to 5 classes, not told by colour alone."""

import io

import numpy as np
import pytest
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data.synthetic import scenes as synthetic

NUM_CLASSES = len(synthetic.NAMES)


def test_a_scene_is_a_function_of_seed_and_index():
    first = synthetic.scene(3, 7)
    synthetic.scene(0, 0)  # whatever was drawn in between
    again = synthetic.scene(3, 7)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for other in (synthetic.scene(3, 8), synthetic.scene(4, 7)):
        assert (other[0] != first[0]).mean() > 0.5 and (other[1] != first[1]).mean() > 0.05


def test_every_scene_has_three_to_five_classes_and_every_class_is_common():
    masks = [synthetic.scene(0, index)[1] for index in range(60)]
    present = [set(np.unique(mask).tolist()) for mask in masks]
    assert all(3 <= len(classes) <= 5 and 0 in classes for classes in present)
    for k in range(NUM_CLASSES):
        assert sum(k in classes for classes in present) >= 15, synthetic.NAMES[k]
    shares = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=NUM_CLASSES) / (
        60 * 128 * 128
    )
    assert shares[0] < 0.7 and shares.min() > 0.008


@pytest.mark.parametrize("size_px", [32, 128, 200])
def test_shapes_types_and_range_at_any_size(size_px):
    image, mask = synthetic.scene(0, 1, size_px)
    assert image.shape == (size_px, size_px, 3) and image.dtype == np.uint8
    assert mask.shape == (size_px, size_px) and mask.dtype == np.uint8
    assert mask.max() < NUM_CLASSES
    assert image.std() > 15  # a picture, not a plain field


def test_another_size_shows_the_same_scene():
    _, small = synthetic.scene(0, 1, 64)
    _, large = synthetic.scene(0, 1, 192)
    assert (large[1::3, 1::3] == small).mean() > 0.95


def test_colour_helps_but_does_not_decide():
    """Nearest class mean in RGB: better than always saying ground, far from right."""
    scenes = [synthetic.scene(0, index) for index in range(40)]
    colours = np.concatenate([image[::4, ::4].reshape(-1, 3) for image, _ in scenes]).astype(float)
    truth = np.concatenate([mask[::4, ::4].ravel() for _, mask in scenes])
    means = np.stack([colours[truth == k].mean(0) for k in range(NUM_CLASSES)])
    guess = ((colours[:, None] - means) ** 2).sum(-1).argmin(1)
    recall = np.mean([(guess[truth == k] == k).mean() for k in range(NUM_CLASSES)])
    assert 1.5 / NUM_CLASSES < recall < 0.75


def test_void_border_is_only_between_classes():
    _, plain = synthetic.scene(0, 2)
    _, bordered = synthetic.scene(0, 2, void_border_px=1)
    void = bordered == IGNORED
    assert 0.01 < void.mean() < 0.5
    assert np.array_equal(bordered[~void], plain[~void])
    vertical = plain[1:] != plain[:-1]
    assert void[1:][vertical].all() and void[:-1][vertical].all()


def test_rows_have_the_form_that_shards_write():
    rows = list(synthetic.rows(5, range(3), 2))
    assert [row["id"] for row in rows] == ["scene_5_00000", "scene_5_00001", "scene_5_00002"]
    for index, row in enumerate(rows):
        image, mask = synthetic.scene(5, index)
        decoded = np.asarray(Image.open(io.BytesIO(row["image"])))
        assert decoded.shape == image.shape == (row["height"], row["width"], 3)
        assert np.abs(decoded.astype(int) - image).mean() < 6  # JPEG
        assert np.array_equal(row["mask"], mask)
        labelled = row["label"] < UNLABELLED
        assert np.array_equal(row["label"][labelled], mask[labelled])
        for k in np.unique(mask):
            assert (row["label"] == k).sum() == 2
        assert np.all(row["label"][~labelled] == UNLABELLED)


def test_rows_without_clicks_are_dense():
    row = next(synthetic.rows(5, [4], None, size_px=64))
    assert np.array_equal(row["label"], row["mask"]) and row["mask"].shape == (64, 64)


@pytest.mark.parametrize(
    "arguments", [{"seed": -1, "index": 0}, {"seed": 0, "index": -1}, {"seed": 0, "index": 0, "size_px": 8}]
)
def test_wrong_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match="size_px >= 32"):
        synthetic.scene(**arguments)


def test_names_and_palette_match():
    assert len(synthetic.PALETTE) == NUM_CLASSES == len(set(synthetic.PALETTE)) == len(set(synthetic.NAMES))
