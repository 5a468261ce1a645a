"""Decoder on a backbone: an early and a deep map -> feature_BDhw, logits_BKhw, of the early one's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg.config import ModelConfig
from sparseg.network import bilateral

LOW_CHANNELS = 48
"""Channels kept of the early feature (DeepLabV3+, Chen et al., ECCV 2018, Sec. 4.1)."""


def conv_norm_act(
    inputs: int, outputs: int, kernel: int, dilation: int = 1, separable: bool = False, stride: int = 1
) -> nn.Module:
    """Convolution (depthwise-separable if asked and kernel > 1), batch norm, ReLU; the size is divided by the
    stride, and kept by odd kernels of stride 1."""
    padding = dilation * (kernel - 1) // 2
    layers: list[nn.Module] = []
    if separable and kernel > 1:
        layers += [
            nn.Conv2d(inputs, inputs, kernel, stride, padding, dilation, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
        ]
        kernel, padding, dilation, stride = 1, 0, 1, 1
    layers += [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers)


def joined(low_BChw: Tensor, high_BDhw: Tensor) -> Tensor:
    """(B, C, h, w) and (B, D, h', w'), brought to its size -> (B, C + D, h, w)."""
    high_BDhw = F.interpolate(high_BDhw, size=low_BChw.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([low_BChw, high_BDhw], 1)


def fusion(config: ModelConfig) -> nn.Module:
    """What joins (B, LOW_CHANNELS + D, h, w) into the feature (B, D, h, w), the mixture's F."""
    D, separable = config.feature_channels, config.separable
    layers = [
        conv_norm_act(LOW_CHANNELS + D, D, 3, separable=separable),
        conv_norm_act(D, D, 3, separable=separable),
    ]
    return nn.Sequential(*layers, *([Smooth()] if config.bilateral else []))


class Smooth(nn.Module):
    """`bilateral.smooth` as a layer."""

    def forward(self, feature_BDhw: Tensor) -> Tensor:
        return bilateral.smooth(feature_BDhw)


def initialise(decoder: nn.Module, classify: nn.Conv2d) -> None:
    """Random weights for a decoder of ReLUs, and for its classifier, so that it starts near uniform."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(classify.weight, std=0.01)


class Decoder(nn.Module):
    """Atrous pyramid on the deepest map, joined with an early map; the joined feature is the mixture's F.

    The pooled branch has a bias and no batch norm: its map is one cell, so its statistics would come from the
    images of the batch alone, and a batch of one has none.
    """

    def __init__(self, low_in: int, high_in: int, num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        D, separable = config.feature_channels, config.separable
        self.branches = nn.ModuleList(
            [conv_norm_act(high_in, D, 1)]
            + [conv_norm_act(high_in, D, 3, dilation, separable) for dilation in config.aspp_dilations]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high_in, D, 1), nn.ReLU(inplace=True))
        self.project = conv_norm_act(D * (len(self.branches) + 1), D, 1)
        self.low = conv_norm_act(low_in, LOW_CHANNELS, 1)
        self.fuse, self.classify = fusion(config), nn.Conv2d(D, num_classes, 1)
        initialise(self, self.classify)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) early and (B, C', h', w') deepest map -> feature (B, D, h, w), logits (B, K, h, w)."""
        pooled = self.pooled(high).expand(-1, -1, *high.shape[2:])
        high = self.project(torch.cat([branch(high) for branch in self.branches] + [pooled], 1))
        feature_BDhw = self.fuse(joined(self.low(low), high))
        return feature_BDhw, self.classify(feature_BDhw)
