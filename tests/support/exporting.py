"""A tiny trained network to export, and how exported programs are compared with it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseg import config
from sparseg.inference import export, predict, views
from sparseg.network import segmenter
from sparseg.runs import checkpoint

NAMES, PALETTE = ["sky", "road", "a|b"], [(0, 0, 255), (128, 64, 0), (1, 2, 3)]
STEP, MIOU = 7, 0.625
BACKBONES = ("resnet10t", "mobilenetv3_small_050")
SIZES = [(64, 96), (65, 91), (131, 70), (33, 47), (1, 1), (7, 150)]  # from the third on with sides below 64
TRACED_PX = (72, 80)
has_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.ONNX_PACKAGES),
    reason="needs pip install 'sparseg[onnx]'",
)


def settings(**overrides: Any) -> config.Config:
    base = {
        "model.backbone": "test_efficientnet",
        "model.output_stride": 16,
        "model.feature_channels": 8,
        "model.aspp_dilations": (1,),
        "data.label": "clicks",
        "data.random_pixels": 20,
        "data.keep_labels": 0.5,
        "run.name": "tiny",
    }
    return config.with_overrides(config.Config(), base | overrides)


def network(of: config.Config) -> nn.Module:
    """Statistics and classifier as after a training: its probabilities depend on the image."""
    torch.manual_seed(0)
    made = segmenter.build(of.model, len(NAMES), quiet=True)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(made.decoder.classify.weight)
    return made.eval()


def save(folder: Path, of: config.Config, miou: float | None = MIOU, **state: Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**network(of).state_dict(), **state}
    about = {"config": of, "names": NAMES, "palette": PALETTE, "miou": miou}
    return checkpoint.save(folder, STEP, tensors, {"step": STEP}, **about)


def images(size: tuple[int, int], count: int) -> Tensor:
    random = torch.Generator().manual_seed(size[0] * 1000 + size[1])
    return torch.randint(0, 256, (count, 3, *size), generator=random, dtype=torch.uint8)


def expected(of: nn.Module, image_B3HW: Tensor) -> Tensor:
    """What evaluation gives; of images below 64 pixels, what `sparseg predict` does."""
    with torch.inference_mode():
        if min(image_B3HW.shape[2:]) >= predict.SMALLEST_PX:
            return views.class_probabilities(of, image_B3HW)
        alone = [predict.predict_image(of, image.permute(1, 2, 0).numpy()) for image in image_B3HW]
        return torch.stack([torch.from_numpy(p_KHW) for p_KHW in alone])


def largest_difference(of: nn.Module, run: Callable[[Tensor], Tensor]) -> float:
    worst = 0.0
    for size in SIZES:
        for count in (1, 3):
            image = images(size, count)
            found, wanted = run(image), expected(of, image)
            assert found.shape == wanted.shape == (count, len(NAMES), *size) and found.dtype == torch.float32
            worst = max(worst, (found - wanted).abs().max().item())
    assert expected(of, images(SIZES[0], 1)).std() > 0.05  # a constant would agree too easily
    return worst
