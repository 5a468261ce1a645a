"""timm backbone and the decoder for its kind: image -> feature_BDhw, logits_BKhw at the decoder's stride."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import Tensor, nn

from sparseg.common.process import one_line
from sparseg.config import ModelConfig
from sparseg.network import transformer as vit
from sparseg.network.deeplab import Decoder

BUILD_ERRORS = (
    RuntimeError,
    TypeError,
    AssertionError,
    OSError,
    NotImplementedError,
    AttributeError,
    LookupError,
    EOFError,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)
"""What timm and torch raise for a network that cannot be made or a weights file that cannot be read."""


class Segmenter(nn.Module):
    """The network: uint8 (or 0..255 float) RGB images in, normalised inside; feature and logits out."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, decoder: nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> feature_BDhw, logits_BKhw at stride 4 (or where a CNN starts)."""
        low, high = self.backbone((image_B3HW - self.mean) / self.std)
        return self.decoder(low, high)


def build(config: ModelConfig, num_classes: int, *, quiet: bool = False) -> Segmenter:
    """The network with the backbone's weights loaded, the decoder random (from torch's global generator).

    Raises ValueError for a backbone that timm lacks, a stride it cannot give, weights that do not fit.
    """
    source: dict[str, Any] = {}
    if config.weights == "timm":
        source = {"pretrained": True}
    elif config.weights != "none":
        if not Path(config.weights).is_file():
            raise ValueError(f"model.weights: no file {config.weights!r}; allowed: a file, 'timm' or 'none'")
        source = {"pretrained": True, "pretrained_cfg_overlay": {"file": config.weights}}
    elif not quiet:
        warnings.warn(
            f"model.weights=none: {config.backbone} starts from RANDOM weights; pretrained ones are "
            "worth far more "
            "than any loss term. Give --model.weights FILE.safetensors, or timm where there is a network.",
            stacklevel=2,
        )
    backbone = _backbone(config, source)
    if config.multi_grid:
        _set_multi_grid(backbone, config.backbone)
    mean, std = (backbone.pretrained_cfg[name] for name in ("mean", "std"))
    if vit.is_plain(backbone.feature_info.reduction()):
        transformer = vit.PlainTransformer(backbone)
        decoder = vit.TransformerDecoder(transformer.channels, num_classes, config)
        return Segmenter(transformer, decoder, mean, std)
    channels = backbone.feature_info.channels()
    return Segmenter(backbone, Decoder(channels[0], channels[-1], num_classes, config), mean, std)


def check_crop(model: Segmenter, config: ModelConfig, crop_px: int) -> None:
    """ValueError if a crop is too small for the atrous pyramid of the network; a transformer has none."""
    cells = math.ceil(crop_px / config.output_stride)
    if isinstance(model.decoder, Decoder) and max(config.aspp_dilations) >= cells:
        raise ValueError(
            f"model.aspp_dilations {config.aspp_dilations} reach past data.crop_px={crop_px} at "
            f"model.output_stride={config.output_stride}: a crop has {cells} cells a side, so outer taps "
            "would see padding only and stay random; lower the dilations or raise the crop"
        )


def _backbone(config: ModelConfig, source: dict[str, Any]) -> Any:
    """timm's network with all its weights, giving the map of stride 4 (or its first) and the deepest one; of
    a plain transformer, whose maps have one stride, some of those."""
    if not timm.is_model(config.backbone):
        near = ", ".join(timm.list_models(f"*{config.backbone[:8]}*")[:5]) or "none"
        raise ValueError(f"model.backbone: timm has no {config.backbone!r}; near: {near}")
    asked = {"model.output_stride": config.output_stride, "model.weights": config.weights}
    settings: dict[str, Any] = {}
    try:
        found: Any = timm.create_model(config.backbone, features_only=True).feature_info
        reductions = found.reduction()
        if vit.is_plain(reductions):
            del asked["model.output_stride"]
            settings = vit.getter_settings(len(found.info))
        else:
            low = max((i for i, reduction in enumerate(reductions) if reduction <= 4), default=0)
            settings = {"out_indices": (low, len(reductions) - 1), "output_stride": config.output_stride}
        with _timm_messages() as messages:
            backbone = timm.create_model(config.backbone, features_only=True, **settings, **source)
    except BUILD_ERRORS as error:
        reason = one_line(error)[:240]
        wanted = " and ".join(f"{name}={value}" for name, value in asked.items())
        raise ValueError(
            f"model.backbone={config.backbone} with {wanted} cannot be built: {reason}"
        ) from error
    # timm names what it drops on purpose (heads) as missing too, flattens the names of stages, and tells the
    # names within the transformer that its getter wraps
    kept = {name.removeprefix("model.").replace(".", "_") for name in backbone.state_dict()}
    named = [re.match(r"Missing keys \((.*?)\)", message) for message in messages]
    keys = [key for found in named if found for key in found[1].split(", ")]
    missing = [key for key in keys if key.replace(".", "_") in kept]
    if missing:
        raise ValueError(
            f"model.weights={config.weights} does not fit {config.backbone}: it lacks {len(missing)} of its "
            f"tensors, {', '.join(missing[:3])}"
        )
    return backbone


@contextlib.contextmanager
def _timm_messages() -> Iterator[list[str]]:
    """Collect what timm logs while it loads weights: it reports missing keys there and goes on."""
    messages: list[str] = []
    logger = logging.getLogger("timm")
    level, propagate = logger.level, logger.propagate
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _set_multi_grid(backbone: nn.Module, name: str) -> None:
    """Dilations x(1, 2, 4) in the blocks of the last ResNet stage (DeepLabV3, Chen et al. 2017, Sec.
    3.2.1)."""
    last = getattr(backbone, "layer4", None)
    if last is None or not all(isinstance(getattr(block, "conv2", None), nn.Conv2d) for block in last):
        raise ValueError(f"model.multi_grid needs a ResNet with a layer4; {name} has none: set it to false")
    base = max(block.conv2.dilation[0] for block in last)
    for block, factor in zip(last, (1, 2, 4), strict=False):
        block.conv2.dilation = block.conv2.padding = (base * factor, base * factor)


# ---------------------------------------------------------------------------- batch norm over the global
# batch
