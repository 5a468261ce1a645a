"""timm backbone and the decoder for its kind: image -> feature_BDhw, logits_BKhw at the decoder's stride."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from timm.layers import Format
from torch import Tensor, nn

from sparseg.config import ModelConfig
from sparseg.network.backbone import found_weights, load_backbone
from sparseg.network.deeplab import Decoder
from sparseg.network.transformer import (
    PlainTransformer,
    TransformerDecoder,
    is_plain,
    stretched,
)


class Segmenter(nn.Module):
    """The network: uint8 (or 0..255 float) RGB images in, normalised inside; feature and logits out.

    size_multiple: pixels whose multiples the backbone wants as height and width; images are stretched to the
    next ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, decoder: nn.Module, mean: Any, std: Any, *, size_multiple: int = 1
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.size_multiple = backbone, decoder, size_multiple
        self.maps_are_BhwC = getattr(backbone, "output_fmt", None) == Format.NHWC  # Swin's, for one
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> feature_BDhw, logits_BKhw at stride 4 (or where a CNN starts)."""
        image_B3HW = (image_B3HW - self.mean) / self.std
        if self.size_multiple > 1:
            image_B3HW = stretched(image_B3HW, self.size_multiple)
        low, high = self.backbone(image_B3HW)
        if self.maps_are_BhwC:
            low, high = low.permute(0, 3, 1, 2).contiguous(), high.permute(0, 3, 1, 2).contiguous()
        return self.decoder(low, high)


def build(config: ModelConfig, num_classes: int, *, quiet: bool = False) -> Segmenter:
    """The network with the backbone's weights loaded, the decoder random (from torch's global generator).

    Raises ValueError for a backbone that timm lacks, a stride that it does not have, one that takes images of
    a single size only, weights that do not fit.
    """
    config = found_weights(config)
    if config.weights == "none" and not quiet:
        warnings.warn(
            f"model.weights=none: {config.backbone} starts from RANDOM weights; pretrained ones are "
            "worth far more than any loss term. Give --model.weights FILE.safetensors, or timm where there "
            "is a network.",
            stacklevel=2,
        )
    loaded = load_backbone(config)
    network = loaded.network
    if config.multi_grid:
        _set_multi_grid(network, config.backbone)
    mean, std = (network.pretrained_cfg[name] for name in ("mean", "std"))
    if is_plain(network.feature_info.reduction()):
        plain = PlainTransformer(network)
        return Segmenter(plain, TransformerDecoder(plain.channels, num_classes, config), mean, std)
    channels = network.feature_info.channels()
    decoder = Decoder(channels[0], channels[-1], num_classes, config)
    return Segmenter(network, decoder, mean, std, size_multiple=loaded.size_multiple)


def check_crop(model: Segmenter, config: ModelConfig, crop_px: int) -> None:
    """ValueError if a crop is too small for the atrous pyramid of the network; a transformer has none."""
    cells = math.ceil(crop_px / config.output_stride)
    if isinstance(model.decoder, Decoder) and max(config.aspp_dilations) >= cells:
        raise ValueError(
            f"model.aspp_dilations {config.aspp_dilations} reach past data.crop_px={crop_px} at "
            f"model.output_stride={config.output_stride}: a crop has {cells} cells a side, so outer taps "
            "would see padding only and stay random; lower the dilations or raise the crop"
        )


def _set_multi_grid(backbone: nn.Module, name: str) -> None:
    """Dilations x(1, 2, 4) in the blocks of the last ResNet stage (DeepLabV3, Chen et al. 2017, Sec.
    3.2.1)."""
    last = getattr(backbone, "layer4", None)
    if last is None or not all(isinstance(getattr(block, "conv2", None), nn.Conv2d) for block in last):
        raise ValueError(f"model.multi_grid needs a ResNet with a layer4; {name} has none: set it to false")
    base = max(block.conv2.dilation[0] for block in last)
    for block, factor in zip(last, (1, 2, 4), strict=False):
        block.conv2.dilation = block.conv2.padding = (base * factor, base * factor)
