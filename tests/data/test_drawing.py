"""The pictures: overlay, its legend, clicks, panels."""

import io

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


# ----------------------------------------------------------------------------------- the legend of an overlay

ENTRIES = [("sky 61.5 %", (0, 114, 178)), ("building 30.2 %", (230, 159, 0)), ("car <0.1 %", (0, 158, 115))]


@pytest.mark.parametrize("height", [*range(64, 81), 333])
def test_a_jpeg_with_a_legend_holds_the_same_picture(height: int) -> None:
    small = np.random.default_rng(height).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((90, height), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(drawing.with_legend(picture, ENTRIES)[:height], picture)
    without, with_ = (
        np.asarray(Image.open(io.BytesIO(drawing.encode(array, "JPEG"))))
        for array in (picture, drawing.with_legend(picture, ENTRIES))
    )
    assert with_.shape[0] > height + 12 and with_.shape[1:] == without.shape[1:]
    whole = (height - 1) // 16 * 16 - 1  # the last row of colour is smoothed with the next
    np.testing.assert_array_equal(with_[:whole], without[:whole])
    differing = np.abs(with_[:height].astype(int) - without)
    assert differing[:-1].max() < 12 and differing[-1].mean() < 24


@pytest.mark.parametrize("size", [(240, 320), (720, 960), (3000, 4000), (4000, 3000)])
def test_the_legends_text_is_as_large_as_the_picture_asks_for(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    strip = drawing.with_legend(picture, ENTRIES[:1])[size[0] :]
    rows = np.flatnonzero((strip == np.array(ENTRIES[0][1])).all(2).any(1))  # of the dot, as high as the text
    assert 0.015 < len(rows) / max(size) < 0.04
    assert (strip == np.array(drawing.INK)).all(2).any()


def test_a_legend_is_wrapped_and_long_names_are_cut() -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    one, three = (drawing.with_legend(picture, ENTRIES[:count]).shape[0] for count in (1, 3))
    assert three > one + 20
    long = drawing.with_legend(picture, [("a name that no strip of a hundred pixels can hold", (9, 9, 9))])
    assert long.shape[:2] == (one, 100)
    assert (long[:, -4:] != np.array(drawing.INK)).any(2)[40:].all()


def test_no_legend_where_there_is_nothing_to_name_or_no_room_in_a_jpeg() -> None:
    picture = np.zeros((65530, 8, 3), np.uint8)
    assert drawing.with_legend(picture, ENTRIES) is picture
    assert drawing.with_legend(picture[:40], []).shape == (40, 8, 3)
