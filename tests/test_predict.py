"""Prediction of files: any size and mode, nothing overwritten, failures counted; and the three pictures."""

import types

import numpy as np
import pytest
import torch
from PIL import Image

from sparseg import checkpoint, evaluate, predict
from sparseg.config import IGNORED, UNLABELLED

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]


@pytest.fixture
def stub(monkeypatch):
    """A network whose class is 0 for dark, 1 for reddish and 2 for greenish pixels."""
    sizes = []

    def probabilities(model, image_B3HW, *, window_px=None):
        assert model == "network" and image_B3HW.dtype == torch.uint8
        sizes.append((*image_B3HW.shape[2:], window_px))
        red, green = image_B3HW[:, 0].float(), image_B3HW[:, 1].float()
        return torch.stack([torch.full_like(red, 50.0), red, green], 1).div(100).softmax(1)

    loaded = types.SimpleNamespace(model="network", names=["a", "b", "c"], palette=PALETTE)
    monkeypatch.setattr(checkpoint, "load_model", lambda path, device="cpu": loaded)
    monkeypatch.setattr(evaluate, "probabilities", probabilities)
    return sizes


def picture(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :, 0] = 255
    image[height // 2 :, : width // 2, 1] = 255
    return image


def expected(height, width):
    label = np.zeros((height, width), np.uint8)
    label[:, width // 2 :] = 1
    label[height // 2 :, : width // 2] = 2
    return label


def test_folder_becomes_palette_pngs_overlays_and_probabilities(tmp_path, stub, capsys):
    source, out = tmp_path / "in", tmp_path / "deep" / "out"
    source.mkdir()
    Image.fromarray(picture(70, 91)).save(source / "one.png")
    Image.fromarray(picture(128, 64)).save(source / "two.bmp")
    (source / "notes.txt").write_text("not an image")
    assert predict.predict_folder("ckpt", source, out, overlay=True, probabilities=True) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "one.npz",
        "one.png",
        "one_overlay.jpg",
        "two.npz",
        "two.png",
        "two_overlay.jpg",
    ]
    mask = Image.open(out / "one.png")
    assert mask.mode == "P" and np.array_equal(np.asarray(mask), expected(70, 91))
    assert tuple(mask.convert("RGB").getpixel((80, 5))) == PALETTE[1]
    stored = np.load(out / "one.npz")
    assert stored["probabilities"].dtype == np.float16 and stored["probabilities"].shape == (3, 70, 91)
    assert np.array_equal(stored["probabilities"].argmax(0), expected(70, 91))
    assert stored["names"].tolist() == ["a", "b", "c"]
    assert Image.open(out / "two_overlay.jpg").size == (64, 128)
    assert "2 of 2 images" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 200), (333, 65)])
def test_any_size_comes_back_at_its_size(tmp_path, stub, size):
    Image.fromarray(picture(*size)).save(tmp_path / "image.png")
    assert predict.predict_folder("ckpt", tmp_path / "image.png", tmp_path / "out") == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "image.png")), expected(*size))
    assert min(stub[0][:2]) >= predict.SMALLEST_PX


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
def test_any_mode_is_read_as_rgb(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 70).astype(np.uint8), (70, 1))
    file = tmp_path / "image.tif"
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(file)
    else:
        Image.fromarray(grey).convert("RGB" if mode in ("RGBA", "CMYK", "P") else "L").convert(mode).save(
            file
        )
    image = predict.read_image(file)
    assert image.shape == (70, 70, 3) and image.dtype == np.uint8
    assert image[:, :20].mean() < 60 and image[:, 50:].mean() > 180  # dark stays dark
    if mode not in ("1", "P", "CMYK"):
        assert np.abs(image[..., 1].astype(int) - grey).max() <= 1


def test_glob_pattern_and_window(tmp_path, stub):
    for name in ("a1.png", "a2.png", "b.png"):
        Image.fromarray(picture(80, 80)).save(tmp_path / name)
    assert predict.predict_folder("ckpt", str(tmp_path / "a*.png"), tmp_path / "out", window_px=72) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a1.png", "a2.png"]
    assert stub == [(80, 80, 72)] * 2


def test_unreadable_images_are_named_and_counted_and_the_others_written(tmp_path, stub, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(source / "c.png")
    data = (source / "c.png").read_bytes()
    (source / "a.png").write_bytes(data[: len(data) // 2])
    (source / "b.jpg").write_text("hello")
    assert predict.predict_folder("ckpt", source, out) == 2
    assert [file.name for file in out.iterdir()] == ["c.png"]
    err = capsys.readouterr().err
    assert f"{source / 'a.png'}: unreadable" in err and f"{source / 'b.jpg'}: unreadable" in err
    assert "1 of 3 images" in err and "2 could not be read" in err


def test_nothing_is_overwritten_without_force(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "image_overlay.jpg").write_text("mine")
    with pytest.raises(ValueError, match=r"image_overlay.jpg exists already.*--force"):
        predict.predict_folder("ckpt", tmp_path / "image.png", out, overlay=True)
    assert [file.name for file in out.iterdir()] == ["image_overlay.jpg"]
    assert predict.predict_folder("ckpt", tmp_path / "image.png", out) == 0  # without --overlay: no conflict
    assert predict.predict_folder("ckpt", tmp_path / "image.png", out, overlay=True, force=True) == 0
    assert Image.open(out / "image_overlay.jpg").size == (70, 70)


def test_the_images_themselves_are_never_replaced_even_with_force(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    before = (tmp_path / "image.png").read_bytes()
    with pytest.raises(ValueError, match="is one of the images"):
        predict.predict_folder("ckpt", tmp_path, tmp_path, force=True)
    assert (tmp_path / "image.png").read_bytes() == before


def test_two_images_of_one_stem_are_refused(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.bmp")
    with pytest.raises(ValueError, match="both be written"):
        predict.predict_folder("ckpt", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_image_and_a_file_as_output_are_refused(tmp_path, stub):
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "missing", tmp_path / "*.jpg"):
        with pytest.raises(ValueError, match=r"no (such )?image"):
            predict.predict_folder("ckpt", images, tmp_path / "out")
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="is a file"):
        predict.predict_folder("ckpt", tmp_path / "image.png", tmp_path / "image.png")


# ------------------------------------------------------------------------------------------------ pictures


def test_overlay_mixes_classes_and_leaves_codes_alone():
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[1, 2], [UNLABELLED, IGNORED]], np.uint8)
    mixed = predict.overlay(image, label, PALETTE, 0.25)
    assert mixed[0].tolist() == [[125, 75, 75], [75, 125, 75]]
    assert np.array_equal(mixed[1], image[1])


def test_clicks_are_seen_at_their_place_and_only_there():
    image, label = np.full((64, 96, 3), 128, np.uint8), np.full((64, 96), UNLABELLED, np.uint8)
    label[20, 70], label[0, 0] = 1, 2
    drawn = predict.draw_clicks(image, label, PALETTE, zoom=2)
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
    assert predict.draw_clicks(image, label, PALETTE)[5, 5].tolist() == [160, 0, 0]


def test_panels_hold_every_picture_in_its_column(tmp_path):
    red, green = np.zeros((50, 50, 3), np.uint8), np.zeros((25, 50, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    columns = {"image": [red, red], "truth": [green, red]}
    path = tmp_path / "deep" / "panel.png"
    predict.panels(
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


def test_unequal_panels_are_refused(tmp_path):
    for columns in ({}, {"a": []}, {"a": [np.zeros((4, 4, 3), np.uint8)], "b": []}):
        with pytest.raises(ValueError, match="equally many"):
            predict.panels(columns, tmp_path / "panel.png")
    assert not (tmp_path / "panel.png").exists()
