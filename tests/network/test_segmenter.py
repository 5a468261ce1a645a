"""The network: one contract for every backbone, weights that fit or one clear line, global batch norm."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import tiny
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import sparseg.network.backbone
from sparseg.config import ModelConfig
from sparseg.network.batch_norm import GlobalBatchNorm2d, with_global_batch_norm
from sparseg.network.segmenter import Segmenter, build, check_crop

BACKBONES = ("test_resnet", "resnet18", "mobilenetv3_small_050", "convnext_atto")
K, D = 5, 8
TINY = ModelConfig(backbone="test_efficientnet", output_stride=16, feature_channels=D, aspp_dilations=(1, 2))


def network(backbone: str, **fields: Any) -> Segmenter:
    torch.manual_seed(0)
    return build(dataclasses.replace(TINY, backbone=backbone, **fields), K, quiet=True)


@functools.cache
def shared_network(backbone: str) -> Segmenter:
    """For tests that leave it as it is."""
    return network(backbone)


def images(seed: int, *size: int) -> Tensor:
    return torch.randint(
        0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


# ----------------------------------------------------------------------------------- what every backbone does


@pytest.mark.parametrize("size", [(64, 64), (65, 91), (33, 47)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_feature_and_logits_are_at_stride_four(backbone: str, size: tuple[int, int]) -> None:
    feature_BDhw, logits_BKhw = shared_network(backbone).eval()(images(0, *size))
    assert feature_BDhw.shape[:2] == (2, D) and logits_BKhw.shape[:2] == (2, K)
    assert feature_BDhw.shape[2:] == logits_BKhw.shape[2:]
    for cells, pixels in zip(feature_BDhw.shape[2:], size, strict=True):
        assert abs(cells - pixels / 4) <= 1
    assert feature_BDhw.isfinite().all() and logits_BKhw.isfinite().all()
    assert (feature_BDhw >= 0).all()  # after a ReLU


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_reach_every_parameter(backbone: str) -> None:
    model = network(backbone).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # timm starts the last one of a residual block at zero
    model(images(1, 48, 48))[1].square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saved_and_loaded_weights_give_the_same_output(backbone: str, tmp_path: Path) -> None:
    model = shared_network(backbone).eval()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    other = build(dataclasses.replace(TINY, backbone=backbone), K, quiet=True).eval()
    picture = images(2, 48, 48)
    assert not torch.equal(other(picture)[1], model(picture)[1])
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    for found, expected in zip(other(picture), model(picture), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride_is_that_of_the_deepest_map(stride: int) -> None:
    deepest = []
    model = network("test_resnet", output_stride=stride).eval()
    model.decoder.register_forward_pre_hook(lambda _, inputs: deepest.append(inputs[1].shape[2:]))
    model(images(0, 64, 96))
    assert deepest == [(64 // stride, 96 // stride)]


def test_the_seed_gives_the_weights() -> None:
    one, other = network("test_resnet"), network("test_resnet")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_separable_convolutions_are_fewer_numbers() -> None:
    def count(separable: bool) -> int:
        model = network("test_resnet", separable=separable, feature_channels=64)
        assert model.eval()(images(0, 48, 48))[0].shape[1] == 64
        return sum(p.numel() for p in model.decoder.parameters())

    assert count(True) < count(False) / 2


def test_images_are_normalised_inside() -> None:
    model, seen = network("test_resnet").eval(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    settings = model.backbone.pretrained_cfg
    model(torch.full((1, 3, 32, 32), 128, dtype=torch.uint8))
    model(torch.full((1, 3, 32, 32), 128.0))
    for channel in range(3):
        expected = (128 / 255 - settings["mean"][channel]) / settings["std"][channel]
        assert seen[0][0, channel].unique().item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(seen[0], seen[1])


def test_a_single_image_can_train() -> None:
    model = network("test_efficientnet").train()
    model(images(0, 48, 48)[:1])[1].sum().backward()


# ------------------------------------------------------------------------------ networks at their own stride

OWN_STRIDE = {
    "densenet121": 1,
    "pvt_v2_b0": 1,
    "tiny_vit_5m_224": 1,
    "ghostnet_050": 1,
    "mambaout_femto": 1,
    "dla34": 32,
    "hrnet_w18_small": 32,
    "swin_tiny_patch4_window7_224": 32,
}
"""Name -> multiple of the image sizes that it wants; timm gives these networks no other stride than 32."""


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("swin")) for name in OWN_STRIDE],
)
def test_a_network_trains_a_step_at_its_own_stride(backbone: str) -> None:
    model = network(backbone, output_stride=32).train()
    assert model.size_multiple == OWN_STRIDE[backbone]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, before = torch.optim.SGD(trained, lr=1.0), [p.detach().clone() for p in trained]
    feature_BDhw, logits_BKhw = model(images(0, 65, 91))
    assert feature_BDhw.shape[:2] == (2, D) and logits_BKhw.shape[:2] == (2, K)
    logits_BKhw.square().mean().backward()
    assert all(p.grad is not None for p in trained)  # DistributedDataParallel waits for each of them
    optimizer.step()
    moved = {p for p, old in zip(trained, before, strict=True) if not torch.equal(p, old)}
    assert moved & set(model.backbone.parameters()) and moved & set(model.decoder.parameters())
    assert all(p.isfinite().all() for p in trained)


def test_only_what_no_map_depends_on_is_frozen() -> None:
    """HRNet fuses its resolutions once more than two of them need; a ResNet at its own stride is whole."""
    parameters = network("hrnet_w18_small", output_stride=32).named_parameters()
    frozen = [name for name, parameter in parameters if not parameter.requires_grad]
    assert frozen and all(".fuse_layers." in name or ".incre_modules." in name for name in frozen)
    assert all(p.requires_grad for p in network("resnet18", output_stride=32).parameters())


def test_maps_with_channels_last_come_to_the_decoder_with_channels_first() -> None:
    model = network("mambaout_femto", output_stride=32).eval()
    seen: list[Any] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model(images(0, 64, 96))
    low, high = seen[0]
    assert (low.shape[2:], high.shape[2:]) == ((16, 24), (2, 3))
    assert [low.shape[1], high.shape[1]] == [48, 288]


# ------------------------------------------------------------------------------------------------- multi-grid


@pytest.mark.parametrize(("stride", "base"), [(8, 4), (16, 2)])
def test_multi_grid_dilates_the_last_stage_by_one_two_four(stride: int, base: int) -> None:
    fields = {"output_stride": stride, "multi_grid": True}
    model = network("resnet26", **fields) if stride == 16 else network("resnet50", **fields)
    plain = network("resnet26" if stride == 16 else "resnet50", output_stride=stride)
    blocks: Any = model.backbone.layer4
    expected = [(base * factor,) * 2 for factor in (1, 2, 4)][: len(blocks)]
    assert [block.conv2.dilation for block in blocks] == expected
    picture = images(0, 64, 64)
    assert model.eval()(picture)[0].shape == plain.eval()(picture)[0].shape
    earlier: Any = (model.backbone.layer3, plain.backbone.layer3)
    assert [b.conv2.dilation for b in earlier[0]] == [b.conv2.dilation for b in earlier[1]]


@pytest.mark.parametrize("backbone", ["convnext_atto", "mobilenetv3_small_050"])
def test_multi_grid_of_another_network_is_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match=f"model.multi_grid.*{backbone}"):
        network(backbone, multi_grid=True)


def test_multi_grid_of_a_resnet_with_other_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.multi_grid.*skresnet18"):
        network("skresnet18", multi_grid=True)


# -------------------------------------------------------------------------------------------- what is refused


def refused(match: str, **fields: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        build(dataclasses.replace(TINY, **fields), K, quiet=True)
    assert "\n" not in str(caught.value)


def test_an_unknown_backbone_is_refused_with_near_names() -> None:
    refused("model.backbone.*'resnet5'.*resnet50", backbone="resnet5")
    refused("model.backbone.*'qqq'", backbone="qqq")


@pytest.mark.parametrize(
    ("backbone", "stride"), [("densenet121", 16), ("densenet121", 8), ("dla34", 16), ("ghostnet_050", 8)]
)
def test_a_stride_that_the_network_does_not_have_is_refused_with_those_that_it_has(
    backbone: str, stride: int
) -> None:
    words = f"^model.backbone={backbone} with model.output_stride={stride}: {backbone} has stride 32 only: "
    refused(f"{words}--model.output-stride 32$", backbone=backbone, output_stride=stride)


def test_all_strides_that_a_network_has_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """resnet18, as if it could not be dilated to stride 8."""
    create = timm.create_model

    def without_8(name: str, **arguments: Any) -> Any:
        assert arguments.get("output_stride") != 8  # as timm's own refusals: without words
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", without_8)
    refused("has stride 16 or 32 only: --model.output-stride 16 or 32$", backbone="resnet18", output_stride=8)


def test_a_network_whose_own_stride_cannot_be_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparseg.network.backbone, "OUTPUT_STRIDES", (8, 16))
    refused("densenet121 has stride 32 only, which is none of 8, 16; choose", backbone="densenet121")


@pytest.mark.parametrize("backbone", ["efficientformerv2_s0", "maxvit_rmlp_pico_rw_256"])
def test_a_network_for_images_of_one_size_is_refused(backbone: str) -> None:
    refused(f"model.backbone={backbone} takes images of one size only", backbone=backbone, output_stride=32)


@pytest.mark.parametrize(("crop_px", "fits"), [(144, False), (145, True)])
def test_a_crop_must_reach_beyond_the_dilations(crop_px: int, fits: bool) -> None:
    config = dataclasses.replace(TINY, output_stride=8, aspp_dilations=(6, 12, 18))
    if fits:
        check_crop(shared_network("test_resnet"), config, crop_px)
        return
    with pytest.raises(ValueError, match=r"model.aspp_dilations.*data.crop_px=144.*18 cells") as caught:
        check_crop(shared_network("test_resnet"), config, crop_px)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused() -> None:
    refused("model.weights: no file 'nowhere.safetensors'", weights="nowhere.safetensors")


def test_timm_weights_out_of_reach_are_refused() -> None:
    """conftest sets HF_HUB_OFFLINE, and the cache is empty."""
    refused("resnet18.*timm", backbone="resnet18", weights="timm")


def save_backbone(name: str, path: Path) -> dict[str, Tensor]:
    torch.manual_seed(5)
    state = timm.create_model(name).state_dict()
    safetensors.torch.save_file(state, path)
    return state


def test_weights_of_a_file_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    saved = save_backbone("test_resnet", path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to warn of
        model = build(dataclasses.replace(TINY, backbone="test_resnet", weights=str(path)), K)
    loaded = model.backbone.state_dict()
    assert len(loaded) > 20
    for name, value in loaded.items():
        assert torch.equal(value, saved[name]), name


def test_random_weights_are_warned_of_unless_quiet() -> None:
    with pytest.warns(UserWarning, match="model.weights=none.*RANDOM"):
        build(TINY, K)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(TINY, K, quiet=True)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_backbone("test_efficientnet", path)
    refused("model.weights=.* does not fit test_resnet", backbone="test_resnet", weights=str(path))
    save_backbone("resnet18", path)
    refused("resnet34", backbone="resnet34", weights=str(path))  # a part of it fits
    refused("test_resnet", backbone="test_resnet", weights=str(path))
    named = path.rename(tmp_path / "resnet18.a1_in1k.safetensors")
    refused(
        r"does not fit resnet18d: \S+ is \[[\d, ]+\] there, \[[\d, ]+\] in the network; "
        "by its name the file is of resnet18: --model.backbone resnet18$",
        backbone="resnet18d",
        weights=str(named),
    )
    refused("by its name the file is of resnet18", backbone="resnet34", weights=str(named))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".safetensors", "truncated"),
        (".safetensors", "text"),
        (".pth", "truncated"),
        (".pth", "text"),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = save_backbone("test_resnet", path)
    if suffix == ".pth":
        torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000] if damage == "truncated" else b"this is no file of weights" * 9)
    refused("weights.*weights", backbone="test_resnet", weights=str(path))


# ------------------------------------------------------------------------------ batch norm over all the ranks

SHARES = {2: (5, 2), 3: (4, 2, 1)}
CHANNELS, MOMENTUM = 6, 0.2


def norm_and_batch() -> tuple[nn.BatchNorm2d, Tensor, Tensor]:
    """Batch norm, 7 images far from zero mean, and the weight of every output in the loss."""
    random = torch.Generator().manual_seed(3)
    norm = nn.BatchNorm2d(CHANNELS, eps=1e-3, momentum=MOMENTUM)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(CHANNELS, generator=random) + 0.5)
        norm.bias.copy_(torch.randn(CHANNELS, generator=random))
        norm.running_mean.copy_(torch.randn(CHANNELS, generator=random))
    scale = torch.linspace(0.1, 3, CHANNELS).view(1, -1, 1, 1)
    x = torch.randn(7, CHANNELS, 5, 4, generator=random) * scale + 4 * scale
    return norm, x, torch.randn(x.shape, generator=random)


def pass_through(norm: nn.BatchNorm2d, x: Tensor, slope: Tensor) -> dict[str, Any]:
    """Output, gradients and running statistics of two training passes."""
    for _ in range(2):
        norm.zero_grad()
        x = x.detach().clone().requires_grad_()
        output = norm(x)
        (output * slope).sum().backward()
    return {
        "output": output.detach(),
        "x": x.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "keys": list(norm.state_dict()),
    }


def norm_on_ranks(rank: int, world: int, folder: str) -> dict[str, Any]:
    norm, x, slope = norm_and_batch()
    start = sum(SHARES[world][:rank])
    mine = slice(start, start + SHARES[world][rank])
    results = pass_through(GlobalBatchNorm2d(norm), x[mine], slope[mine])
    model = network("test_efficientnet")
    with_global_batch_norm(model, torch.device("cpu"))
    model.train()
    results["logits"] = model(images(4, 32, 32).repeat(4, 1, 1, 1)[:7][mine])[1].detach()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images(4, 32, 32).repeat(4, 1, 1, 1)[:7][mine])[1]
    half.float().sum().backward()
    results["bf16"] = half.detach().float()
    results["finite"] = all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    return tiny.in_groups(norm_on_ranks, tmp_path_factory.mktemp("norm"), tuple(SHARES))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("world", SHARES)
def test_global_batch_norm_is_batch_norm_of_the_whole_batch(ranks: dict[int, list[Any]], world: int) -> None:
    whole = pass_through(*norm_and_batch())
    found = ranks[world]
    for name in ("output", "x"):
        close(torch.cat([rank[name] for rank in found]), whole[name])
    for name in ("weight", "bias"):
        close(torch.stack([rank[name] for rank in found]).sum(0), whole[name])
    for rank in found:
        close(rank["running_mean"], whole["running_mean"])
        close(rank["running_var"], whole["running_var"])
        assert rank["keys"] == whole["keys"]


@pytest.mark.parametrize("world", SHARES)
def test_a_network_on_several_ranks_computes_what_one_computes(
    ranks: dict[int, list[Any]], world: int
) -> None:
    """Of a network with fused activations (BatchNormAct2d)."""
    expected = network("test_efficientnet").train()(images(4, 32, 32).repeat(4, 1, 1, 1)[:7])[1].detach()
    found = torch.cat([rank["logits"] for rank in ranks[world]])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    half = torch.cat([rank["bf16"] for rank in ranks[world]])
    assert (half - expected).abs().max() < 0.1 * expected.abs().max()
    assert all(rank["finite"] for rank in ranks[world])


def test_fused_activation_and_weights_stay_when_norms_are_replaced() -> None:
    model, plain = network("test_efficientnet"), network("test_efficientnet")
    with_global_batch_norm(model, torch.device("cpu"))
    before = {n: m for n, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)}
    after = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert before.keys() == after.keys() and all(type(m) is GlobalBatchNorm2d for m in after.values())
    acts = [type(m.act) for m in before.values() if isinstance(m, BatchNormAct2d)]
    assert acts == [type(after[n].act) for n, m in before.items() if isinstance(m, BatchNormAct2d)]
    assert any(act is not nn.Identity for act in acts)
    assert list(model.state_dict()) == list(plain.state_dict())
    for train in (False, True):  # on a single rank both compute the same
        picture = images(0, 48, 48)
        found, expected = model.train(train)(picture)[1], plain.train(train)(picture)[1]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
