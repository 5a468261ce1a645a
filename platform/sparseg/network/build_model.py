"""A network from Python, by the name of its backbone."""

from __future__ import annotations

from typing import Any

from sparseg.config import ModelConfig
from sparseg.network import segmenter


def build_model(backbone: str | ModelConfig, num_classes: int, **fields: Any) -> segmenter.Segmenter:
    """Build a segmentation network on a timm backbone.

    Its forward takes image_B3HW, uint8 or 0..255 float RGB (it normalises by itself), and gives feature_BDhw
    and logits_BKhw at the decoder's stride: just what `SparseLoss` takes.  The decoder starts at random, from
    torch's global generator.

    Args:
        backbone: A timm name such as "resnet50d", or a whole ModelConfig.
        num_classes: K, the number of classes.
        **fields: Further fields of ModelConfig, beside a name: weights="timm", output_stride=16, ...

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        ValueError: timm has no such backbone, it cannot have this stride, the weights do not fit, a field has
            no meaning, or there is not one class at least.

    Example:
        >>> net = sparseg.build_model("resnet10t", num_classes=3, output_stride=16, feature_channels=16)
        >>> feature_BDhw, logits_BKhw = net(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
        >>> feature_BDhw.shape, logits_BKhw.shape
        (torch.Size([2, 16, 16, 24]), torch.Size([2, 3, 16, 24]))
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if isinstance(backbone, ModelConfig):
        if fields:
            raise ValueError(f"{', '.join(fields)}: say it in the ModelConfig that is given as backbone")
        return segmenter.build(backbone, num_classes)
    allowed = ModelConfig.__dataclass_fields__
    unknown = [name for name in fields if name not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0]}: no field of ModelConfig; it has {', '.join(allowed)}")
    return segmenter.build(ModelConfig(backbone=backbone, **fields), num_classes)
