"""timm's arithmetic of sizes in whole numbers, while torch.export traces a network for images of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import timm.layers.padding
import timm.layers.pos_embed_sincos
import torch
from torch import Tensor

_timm_grid: Any = getattr(timm.layers.pos_embed_sincos, "_build_grid", None)


@contextlib.contextmanager
def whole_numbers() -> Iterator[None]:
    """Within, timm computes paddings, and the grid of DINOv3's patches, as torch.export can save them.

    A timm that computes its grid elsewhere is left as it is.
    """
    paddings = mock.patch.object(timm.layers.padding, "get_same_padding", same_padding)
    grids = mock.patch.object(timm.layers.pos_embed_sincos, "_build_grid", patch_grid, create=True)
    with paddings, grids:
        yield


def same_padding(length: int, kernel: int, stride: int, dilation: int) -> Any:
    """timm's get_same_padding without the ceiling of a fraction, which torch.export cannot save."""
    reach = (kernel - 1) * dilation + 1
    padding = ((length + stride - 1) // stride - 1) * stride + reach - length
    return padding if reach >= stride else torch.sym_max(padding, 0)  # a maximum is slow to reason about


def patch_grid(feat_shape: Sequence[int], grid_type: str = "index", **how: Any) -> Tensor:
    """timm's _build_grid: (h, w, 2), the middles of the patches in -1..1 if `centered`, as DINOv3 wants them.

    timm counts those from 0.5 on, and torch.export cannot tell that there are as many as patches.
    """
    plain = {"grid_indexing": "ij", "normalize_coords": "separate"}
    if grid_type != "centered" or any(how.get(name, usual) != usual for name, usual in plain.items()):
        return _timm_grid(feat_shape, grid_type, **how)
    offset = 0.5 + how.get("grid_offset", 0.0)
    middles = [(torch.arange(length, dtype=torch.float32) + offset) / length for length in feat_shape]
    return 2.0 * torch.stack(torch.meshgrid(middles, indexing="ij"), -1) - 1.0
