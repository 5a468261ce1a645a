"""The three pictures: overlay, clicks, panels."""

import numpy as np
import pytest
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import drawing

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]


def test_overlay_mixes_classes_and_leaves_codes_alone():
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[1, 2], [UNLABELLED, IGNORED]], np.uint8)
    mixed = drawing.overlay(image, label, PALETTE, 0.25)
    assert mixed[0].tolist() == [[125, 75, 75], [75, 125, 75]]
    assert np.array_equal(mixed[1], image[1])


def test_clicks_are_seen_at_their_place_and_only_there():
    image, label = np.full((64, 96, 3), 128, np.uint8), np.full((64, 96), UNLABELLED, np.uint8)
    label[20, 70], label[0, 0] = 1, 2
    drawn = drawing.draw_clicks(image, label, PALETTE, zoom=2)
    assert drawn.shape == (128, 192, 3)
    assert np.abs(drawn[41, 141].astype(int) - PALETTE[1]).max() < 25
    assert np.abs(drawn[0, 0].astype(int) - PALETTE[2]).max() < 25
    touched = (np.abs(drawn.astype(int) - 128) > 4).any(-1)
    assert 60 < touched.sum() < 700 and not touched[80:].any()
    assert (
        drawn[30:55, 130:155].min() < 20 and drawn[30:55, 130:155].min(-1).max() > 200
    )  # dark and light rings
    assert (image == 128).all()


def test_dense_labels_are_laid_over():
    image, label = np.zeros((40, 40, 3), np.uint8), np.ones((40, 40), np.uint8)
    assert drawing.draw_clicks(image, label, PALETTE)[5, 5].tolist() == [160, 0, 0]


def test_panels_hold_every_picture_in_its_column(tmp_path):
    red, green = np.zeros((50, 50, 3), np.uint8), np.zeros((25, 50, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    columns = {"image": [red, red], "truth": [green, red]}
    path = tmp_path / "deep" / "panel.png"
    drawing.panels(
        columns, path, cell_px=100, legend={"a class with a long name": (0, 0, 255), "b": (9, 9, 9)}
    )
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == 2 * 108 + 8
    count = {
        name: (sheet == colour).all(-1).sum() for name, colour in (("r", (255, 0, 0)), ("g", (0, 255, 0)))
    }
    assert count["r"] == 3 * 100 * 100 and count["g"] == 100 * 50
    assert (sheet == (0, 0, 255)).all(-1).sum() > 100  # the legend
    assert [file.name for file in path.parent.iterdir()] == ["panel.png"]


def test_the_legend_names_the_classes():
    columns = {"image": [np.zeros((50, 50, 3), np.uint8)]}
    sheets = [drawing.sheet(columns, legend={name: (9, 9, 9)}) for name in ("sky", "building", "sky")]
    assert sheets[0] == sheets[2] != sheets[1]


def test_unequal_panels_are_refused(tmp_path):
    for columns in ({}, {"a": []}, {"a": [np.zeros((4, 4, 3), np.uint8)], "b": []}):
        with pytest.raises(ValueError, match="equally many"):
            drawing.panels(columns, tmp_path / "panel.png")
    assert not (tmp_path / "panel.png").exists()
