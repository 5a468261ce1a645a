"""timm's arithmetic of sizes in whole numbers, while torch.export traces a network for images of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import timm
import torch
from timm.layers import padding, pos_embed_sincos
from torch import Tensor

_timm_grid: Any = getattr(pos_embed_sincos, "_build_grid", None)


@contextlib.contextmanager
def whole_numbers() -> Iterator[None]:
    """Within, timm computes paddings, and the grid of DINOv3's patches, as torch.export can save them.

    Raises RuntimeError if timm does not have these functions where they are expected.
    """
    with (
        replaced(padding, "get_same_padding", same_padding),
        replaced(pos_embed_sincos, "_build_grid", patch_grid),
    ):
        yield


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within, `function` stands for the module's function of this name; after it, the former again.

    Raises RuntimeError if the module has none: what would be set then is read by nobody.
    """
    if not hasattr(module, name):
        raise RuntimeError(
            f"timm {timm.__version__} has no {module.__name__}.{name}, which an export replaces; install "
            "timm 1.0.31, with which it was tried"
        )
    former = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, former)


def same_padding(length: int, kernel: int, stride: int, dilation: int) -> Any:
    """timm's get_same_padding without the ceiling of a fraction, which torch.export cannot save."""
    reach = (kernel - 1) * dilation + 1
    missing = ((length + stride - 1) // stride - 1) * stride + reach - length
    return missing if reach >= stride else torch.sym_max(missing, 0)  # a maximum is slow to reason about


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
