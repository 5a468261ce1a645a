"""`predict`: one image from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sparseg.config import Config
from sparseg.inference import one_image, predict
from sparseg.runs.checkpoint import Loaded

RNG = np.random.default_rng(0)
IMAGE_HW3 = RNG.integers(0, 256, (70, 91, 3), dtype=np.uint8)


class Bright(nn.Module):
    """Logits of two classes from how bright a pixel is; a parameter, because networks have some."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bright = image_B3HW.float().mean(1, keepdim=True) - 128
        return image_B3HW, torch.cat([-bright, bright], 1) * self.scale


@pytest.fixture
def network() -> nn.Module:
    return Bright().eval()


def test_mask_and_confidence_are_the_most_probable_class_and_its_probability(network: nn.Module) -> None:
    mask_HW, confidence_HW = one_image.predict(network, IMAGE_HW3)
    p_KHW = predict.predict_image(network, IMAGE_HW3)
    assert (mask_HW.dtype, confidence_HW.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(mask_HW, IMAGE_HW3.mean(2) > 128)
    np.testing.assert_array_equal(confidence_HW, p_KHW.max(0))
    loaded = Loaded(network, ["dark", "bright"], [(0, 0, 0), (9, 9, 9)], Config(), {})
    again = one_image.predict(loaded, IMAGE_HW3)
    np.testing.assert_array_equal(again, (mask_HW, confidence_HW))


def test_an_image_is_a_file_a_picture_or_an_array(network: nn.Module, tmp_path: Path) -> None:
    wanted, _ = one_image.predict(network, IMAGE_HW3)
    picture = Image.fromarray(IMAGE_HW3)
    picture.save(tmp_path / "image.png")
    for given in (picture, tmp_path / "image.png", str(tmp_path / "image.png")):
        np.testing.assert_array_equal(one_image.predict(network, given)[0], wanted)
    grey_HW = IMAGE_HW3[..., 0]
    wanted, _ = one_image.predict(network, np.stack([grey_HW] * 3, 2))
    for grey in (grey_HW, Image.fromarray(grey_HW)):
        np.testing.assert_array_equal(one_image.predict(network, grey)[0], wanted)


def test_a_turned_picture_is_seen_upright(network: nn.Module) -> None:
    picture = Image.fromarray(IMAGE_HW3)
    picture.getexif()[0x0112] = 6  # stored turned left by 90 degrees
    found, _ = one_image.predict(network, picture)
    np.testing.assert_array_equal(found, one_image.predict(network, np.rot90(IMAGE_HW3, -1).copy())[0])


@pytest.mark.parametrize("size", [(1, 1), (5, 200)])
def test_any_size_also_in_windows(network: nn.Module, size: tuple[int, int]) -> None:
    image_HW3 = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    whole, sure = one_image.predict(network, image_HW3)
    pieces, sure_too = one_image.predict(network, image_HW3, window_px=64, stride_px=40, flip=True)
    assert whole.shape == sure.shape == size
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_allclose(sure_too, sure, atol=1e-6)


def test_what_is_no_image_is_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got an array of float32; .*\.round\(\)"):
        one_image.predict(network, (IMAGE_HW3 / 255).astype(np.float32))
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\) or \(H, W\), got \(3, 70, 91\)"):
        one_image.predict(network, IMAGE_HW3.transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"mode I;16; give its file"):
        one_image.predict(network, Image.new("I;16", (70, 91)))
    with pytest.raises(ValueError, match="got list"):
        one_image.predict(network, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"none\.png: unreadable"):
        one_image.predict(network, tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"training mode.*\.eval\(\)"):
        one_image.predict(network.train(), IMAGE_HW3)
