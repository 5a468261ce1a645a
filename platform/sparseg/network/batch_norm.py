"""Batch norm over the global batch, with accurate statistics."""

from __future__ import annotations

import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparseg.common.distributed import world_size


class _NormaliseGlobally(torch.autograd.Function):
    """Batch normalisation with the statistics of all ranks, on any backend (torch's SyncBatchNorm is CUDA
    only).

    Sums travel in float64, so the statistics equal those of one process to fp32 rounding.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        mean = x.mean((0, 2, 3), dtype=weight.dtype)
        variance = (x - mean.view(1, -1, 1, 1)).square_().mean((0, 2, 3))
        variance, mean, count = variance.double(), mean.double(), x.numel() // x.shape[1]
        sums = torch.cat([mean * count, (variance + mean.square()) * count, mean.new_tensor([count])])
        if world_size() > 1:
            dist.all_reduce(sums)
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps = eps
        output = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.mark_non_differentiable(mean, variance, total)
        return output, mean, variance, total

    @staticmethod
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        x, weight, mean, variance, total = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([grad_weight, grad_bias]).double()
        if world_size() > 1:
            dist.all_reduce(sums)
        all_weight, all_bias = (sums / total).to(weight.dtype).chunk(2)
        inverse = torch.rsqrt(variance + ctx.eps)
        slope = -weight * inverse.square() * all_weight
        offset = -weight * inverse * (all_bias - mean * inverse * all_weight)
        shape = (1, -1, 1, 1)
        grad_x = torch.addcmul(grad_x, x.to(grad_x.dtype), slope.view(shape).to(grad_x.dtype))
        return grad_x.add_(offset.view(shape).to(grad_x.dtype)), grad_weight, grad_bias, None


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose training statistics are those of all ranks; followed by what timm fused behind
    it."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.load_state_dict(norm.state_dict())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not self.training:
            return self.act(self.drop(super().forward(input)))
        output, mean, variance, total = _NormaliseGlobally.apply(input, self.weight, self.bias, self.eps)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (total / (total - 1)).to(variance.dtype), self.momentum)
        return self.act(self.drop(output))


def with_global_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms over the global batch: torch's SyncBatchNorm on CUDA, ours elsewhere; state_dict keys
    stay."""
    if device.type == "cuda":
        return timm.layers.convert_sync_batchnorm(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, GlobalBatchNorm2d):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, GlobalBatchNorm2d(module))
    return model
