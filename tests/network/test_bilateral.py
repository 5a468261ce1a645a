"""Feature bilateral filtering: against a loop over cells, its gradient, smooth regions, edges kept."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sparseg.config import ModelConfig
from sparseg.network import bilateral, segmenter


def by_loop(feature_BDhw: Tensor) -> Tensor:
    """Cell by cell, neighbour by neighbour."""
    result = torch.empty_like(feature_BDhw)
    B, _, h, w = feature_BDhw.shape
    steps = [
        (dilation * dy, dilation * dx)
        for dilation in (1, 3, 5, 7)
        for dy, dx in itertools.product((-1, 0, 1), repeat=2)
        if (dy, dx) != (0, 0)
    ]
    for b, y, x in itertools.product(range(B), range(h), range(w)):
        f_p = feature_BDhw[b, :, y, x]
        near = [feature_BDhw[b, :, y + dy, x + dx] for dy, dx in steps if 0 <= y + dy < h and 0 <= x + dx < w]
        weights = [torch.exp(-(f_p - f_q).abs().mean()) for f_q in near]
        result[b, :, y, x] = sum(a * f_q for a, f_q in zip(weights, near, strict=True)) / sum(weights)
    return result


def features(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(2, 3, 9, 11), (1, 4, 16, 2), (1, 2, 1, 5), (1, 2, 4, 4)])
def test_it_equals_the_loop(size: tuple[int, ...]) -> None:
    feature = features(*size)
    torch.testing.assert_close(bilateral.smooth(feature), by_loop(feature))
    torch.testing.assert_close(bilateral.smooth(feature.clone().requires_grad_()), by_loop(feature))


def test_a_single_cell_stays() -> None:
    feature = features(2, 3, 1, 1)
    assert torch.equal(bilateral.smooth(feature), feature)


@pytest.mark.parametrize("size", [(2, 3, 5, 6), (1, 2, 9, 2)])
def test_its_gradient_is_that_of_the_loop(size: tuple[int, ...]) -> None:
    feature = features(*size).requires_grad_()
    weight = torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((bilateral.smooth(feature) * weight).sum(), feature)
    (expected,) = torch.autograd.grad((by_loop(feature) * weight).sum(), feature)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(bilateral.smooth, (features(1, 2, 4, 5).requires_grad_(),))


def test_regions_become_smooth_and_their_edge_stays() -> None:
    """Two halves of noisy, unlike features; a mean without weights would mix them across the edge."""
    feature = 0.3 * features(1, 8, 16, 16)
    feature[..., 8:] += 6
    smooth = bilateral.smooth(feature)
    left, right = smooth[..., :8], smooth[..., 8:]
    assert left.std() < feature[..., :8].std() / 2 and right.std() < feature[..., 8:].std() / 2
    assert (smooth[..., 8] - smooth[..., 7]).mean() > 5.5


def test_cells_unlike_all_others_have_a_mean_and_a_gradient() -> None:
    feature = (1e4 * features(1, 2, 4, 5)).requires_grad_()
    smooth = bilateral.smooth(feature)
    (gradient,) = torch.autograd.grad(smooth.square().sum(), feature)
    assert smooth.isfinite().all() and gradient.isfinite().all() and gradient.any()


def test_half_precision_loses_no_more_than_its_rounding() -> None:
    feature = features(1, 16, 12, 12).float()
    found = bilateral.smooth(feature.bfloat16())
    assert found.dtype == torch.bfloat16
    exact = bilateral.smooth(feature.bfloat16().float())
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-6)


def test_the_backward_pass_keeps_two_features() -> None:
    kept: list[Tensor] = []
    feature = features(1, 4, 12, 12).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        bilateral.smooth(feature)
    assert sum(tensor.numel() for tensor in kept) == (4 + 4 + 1) * 12 * 12


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_decoder_filters_its_feature(backbone: str) -> None:
    """Same weights with and without; the classifier sees the filtered feature."""
    networks = []
    for filtered in (False, True):
        torch.manual_seed(0)
        config = ModelConfig(
            backbone=backbone, output_stride=16, aspp_dilations=(1,), feature_channels=8, bilateral=filtered
        )
        networks.append(segmenter.build(config, 3, quiet=True).eval())
    plain, filtering = networks
    assert list(plain.state_dict()) == list(filtering.state_dict())
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    feature, logits = filtering(image)
    torch.testing.assert_close(feature, bilateral.smooth(plain(image)[0]))
    torch.testing.assert_close(logits, plain.decoder.classify(feature))


def test_it_can_be_exported_for_grids_of_any_size() -> None:
    """What tests of the exporter show of whole networks, here of the only step that a filtering one adds."""

    class Smooth(torch.nn.Module):
        def forward(self, feature_BDhw: Tensor) -> Tensor:
            return bilateral.smooth(feature_BDhw)

    sides = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(Smooth(), (torch.rand(1, 4, 9, 10),), dynamic_shapes=(sides,)).module()
    for size in ((9, 10), (2, 3), (4, 4), (7, 19), (17, 11)):
        feature = torch.rand(1, 4, *size, generator=torch.Generator().manual_seed(size[0]))
        torch.testing.assert_close(program(feature), bilateral.smooth(feature))


def test_compiled_it_is_called_as_it_is_and_not_unrolled() -> None:
    feature = torch.rand(1, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, example_inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def around(x: Tensor) -> Tensor:
        return 2 * bilateral.smooth(x + 1)

    found = []
    for of in (around, torch.compile(around, backend=keep)):
        x = feature.clone().requires_grad_()
        value = of(x)
        found.append((value, torch.autograd.grad(value.square().sum(), x)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    parts = [m for graph in graphs for m in graph.modules() if isinstance(m, torch.fx.GraphModule)]
    assert 0 < sum(len(part.graph.nodes) for part in parts) < 50
