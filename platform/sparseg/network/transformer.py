"""A plain vision transformer of timm as backbone, and the light decoder on it: an image of any size in."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from sparseg.config import ModelConfig
from sparseg.network.deeplab import LOW_CHANNELS, conv_norm_act, fusion, initialise, joined

STEM_PX = 4
"""Pixels per cell of the stem."""


def is_plain(reductions: list[int]) -> bool:
    """Do all maps of a network have one stride?  reductions: pixels per cell of each, as timm says."""
    return len(set(reductions)) == 1


def getter_arguments(depth: int) -> dict[str, Any]:
    """What timm.create_model needs to give the maps after a quarter, half, three quarters and all of `depth`
    blocks, each through the transformer's last norm, if any, as DINOv2 reads them; of images of any size."""
    return {
        "out_indices": sorted({(depth * quarter - 1) // 4 for quarter in (1, 2, 3, 4)}),
        "feature_cls": functools.partial(FeatureGetterNet, norm=True),
        "dynamic_img_size": True,
    }


def stretched(image_B3HW: Tensor, multiple: int) -> Tensor:
    """The image at the next multiples, so that cells of `multiple` pixels cover it; of such a size it stays
    as it is.  Not padded: every cell keeps its share of the image."""
    size = [(length + multiple - 1) // multiple * multiple for length in image_B3HW.shape[2:]]
    return F.interpolate(image_B3HW, size=size, mode="bilinear", align_corners=False)


class PlainTransformer(nn.Module):
    """timm's getter -> the image itself, for the decoder's stem, and the chosen maps, concatenated."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.patch_px: int = network.feature_info.reduction()[-1]
        self.channels = sum(network.feature_info.channels())

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W), any H and W -> the same, and (B, C, h, w), h = ceil(H / patch_px)."""
        return image_B3HW, torch.cat(self.network(stretched(image_B3HW, self.patch_px)), 1)


class TransformerDecoder(nn.Module):
    """The transformer's maps, projected, joined with a shallow stem of the image, which keeps the edges.

    Even kernels: their cell of stride 4 lies in the middle of its four pixels, as a patch's cell does.
    """

    def __init__(self, high_in: int, num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        D = config.feature_channels
        self.project = conv_norm_act(high_in, D, 1)
        self.low = nn.Sequential(
            conv_norm_act(3, LOW_CHANNELS // 2, 4, stride=2),
            conv_norm_act(LOW_CHANNELS // 2, LOW_CHANNELS, 4, stride=2),
        )
        self.fuse, self.classify = fusion(config), nn.Conv2d(D, num_classes, 1)
        initialise(self, self.classify)

    def forward(self, image: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) and (B, C, h', w') -> feature (B, D, h, w), h = ceil(H / 4), logits (B, K, h, w)."""
        feature_BDhw = self.fuse(joined(self.low(stretched(image, STEM_PX)), self.project(high)))
        return feature_BDhw, self.classify(feature_BDhw)
