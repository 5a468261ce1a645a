"""Predictions of a network with a working resolution (data.long_side_px): made there, given at full size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg.data.working_size import resized_image, working_size
from sparseg.inference.views import class_probabilities

STRIP_ROWS = 256  # of the full size that are held at a time


def enlarged_strips(p_Khw: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Probabilities (K, h, w) at (height, width) `size`, bilinear, from the top down: (K, some rows, W).

    Together they are what `F.interpolate` gives without aligned corners; all at once they would be gigabytes
    for a photograph and a hundred classes.
    """
    height, width = size
    low_rows = p_Khw.shape[1]
    for top in range(0, height, STRIP_ROWS):
        rows = torch.arange(top, min(top + STRIP_ROWS, height), dtype=torch.float64, device=p_Khw.device)
        y = ((rows + 0.5) * low_rows / height - 0.5).clamp(min=0)
        above = y.floor().long()
        below = (above + 1).clamp(max=low_rows - 1)
        share_r1 = (y - above).to(p_Khw.dtype)[:, None]
        strip_Krw = torch.lerp(p_Khw[:, above], p_Khw[:, below], share_r1)
        yield F.interpolate(strip_Krw, size=width, mode="linear", align_corners=False)


def probabilities(model: nn.Module, image_B3HW: Tensor, long_side_px: int, **views: Any) -> Tensor:
    """`class_probabilities` of images that are first resized to the long side, at the images' own size.

    image_B3HW: uint8 -> (B, K, H, W) float32.
    """
    height, width = image_B3HW.shape[2:]
    size = working_size((height, width), long_side_px)
    if size == (height, width):
        return class_probabilities(model, image_B3HW, **views)
    images = [resized_image(image_HW3, size) for image_HW3 in image_B3HW.permute(0, 2, 3, 1).cpu().numpy()]
    small_B3hw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(image_B3HW.device)
    p_BKhw = class_probabilities(model, small_B3hw, **views)
    return F.interpolate(p_BKhw, size=(height, width), mode="bilinear", align_corners=False)
