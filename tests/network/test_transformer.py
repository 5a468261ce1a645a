"""Plain vision transformers as backbones: every network's contract, alignment, weights, a run, programs."""

from __future__ import annotations

import functools
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import exporting
import pytest
import safetensors.torch
import timm
import tiny
import torch
from timm.layers import pos_embed_sincos
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from sparseg.config import Config, ModelConfig
from sparseg.inference import export, timm_for_export, views
from sparseg.launch import prepare
from sparseg.network import transformer
from sparseg.network.batch_norm import GlobalBatchNorm2d, with_global_batch_norm
from sparseg.network.segmenter import Segmenter, build
from sparseg.runs import checkpoint
from sparseg.train import loop
from sparseg.train.schedule import make_optimizer

BACKBONES = {"test_vit": 16, "test_vit4": 16, "eva02_tiny_patch14_224": 14}
"""Backbone -> pixels of a patch. With a class token; registers and RMS norm; rotary embeddings (EVA)."""
K, D = 5, 8


def network(backbone: str, **fields: Any) -> Segmenter:
    torch.manual_seed(0)
    return build(ModelConfig(backbone=backbone, feature_channels=D, **fields), K, quiet=True)


@functools.cache
def shared_network(backbone: str) -> Segmenter:
    """For tests that leave it as it is."""
    return network(backbone).eval()


def images(seed: int, *size: int) -> Tensor:
    return torch.randint(
        0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


# ----------------------------------------------------------------------------------- what every backbone does


@pytest.mark.parametrize("size", [(64, 64), (65, 91), (33, 47), (126, 70)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_feature_and_logits_are_at_stride_four(backbone: str, size: tuple[int, int]) -> None:
    feature_BDhw, logits_BKhw = shared_network(backbone)(images(0, *size))
    assert feature_BDhw.shape[:2] == (2, D) and logits_BKhw.shape[:2] == (2, K)
    assert feature_BDhw.shape[2:] == logits_BKhw.shape[2:]
    for cells, pixels in zip(feature_BDhw.shape[2:], size, strict=True):
        assert abs(cells - pixels / 4) <= 1
    assert feature_BDhw.isfinite().all() and logits_BKhw.isfinite().all()
    assert (feature_BDhw >= 0).all() and (feature_BDhw > 0).any()  # after a ReLU


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_reach_every_parameter(backbone: str) -> None:
    model = network(backbone).train()
    model(images(1, 50, 65))[1].square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("backbone", "layers"), [("test_vit", (1, 2, 4, 5)), ("eva02_tiny_patch14_224", (2, 5, 8, 11))]
)
def test_four_depths_are_read_through_the_last_norm(backbone: str, layers: tuple[int, ...]) -> None:
    model, seen = shared_network(backbone), []
    whole: Any = model.backbone.network
    blocks = whole.model.blocks
    handles = [
        blocks[i].register_forward_hook(lambda _, __, output: seen.append(output)) for i in range(len(blocks))
    ]
    side = 4 * BACKBONES[backbone]
    with torch.no_grad():
        picture, maps_BChw = model.backbone(images(2, side, side).float())
    for handle in handles:
        handle.remove()
    prefix = whole.model.num_prefix_tokens
    expected = [whole.model.norm(seen[i])[:, prefix:].mT.unflatten(2, (4, 4)) for i in layers]
    assert torch.equal(picture, images(2, side, side).float())
    torch.testing.assert_close(maps_BChw, torch.cat(expected, 1))


@pytest.mark.parametrize("backbone", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_networks_people_start_from_take_images_of_any_size(backbone: str) -> None:
    model: Any = network(backbone).eval()
    assert isinstance(model.backbone.network.model.norm, nn.LayerNorm)  # timm drops it unless asked
    with torch.inference_mode():
        assert model(images(0, 65, 91))[1].shape == (2, K, 17, 23)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saved_and_loaded_weights_give_the_same_output(backbone: str) -> None:
    model, picture = shared_network(backbone), images(2, 48, 48)
    torch.manual_seed(99)
    other = build(ModelConfig(backbone=backbone, feature_channels=D), K, quiet=True).eval()
    assert not torch.equal(other(picture)[1], model(picture)[1])
    other.load_state_dict(model.state_dict())
    for found, expected in zip(other(picture), model(picture), strict=True):
        assert torch.equal(found, expected)


def test_the_seed_gives_the_weights() -> None:
    one, other = network("test_vit"), shared_network("test_vit")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_single_image_can_train_in_bf16_and_channels_last() -> None:
    model: Any = network("test_vit").train().to(memory_format=torch.channels_last)
    picture = images(0, 50, 50)[:1].to(memory_format=torch.channels_last)
    expected = model(picture)[1].detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits_BKhw = model(picture)[1]
    logits_BKhw.float().square().sum().backward()
    assert (logits_BKhw - expected).abs().max() < 0.1 * expected.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_global_batch_norm_takes_the_place_of_the_decoders() -> None:
    model, plain = network("test_vit").train(), network("test_vit").train()
    with_global_batch_norm(model, torch.device("cpu"))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5 and all(type(norm) is GlobalBatchNorm2d for norm in norms)
    picture = images(0, 48, 48)
    torch.testing.assert_close(model(picture)[1], plain(picture)[1], rtol=1e-3, atol=1e-4)


def test_the_stem_learns_at_the_decoders_rate() -> None:
    model = shared_network("test_vit")
    stem = {id(p) for p in model.decoder.low.parameters()}  # type: ignore[union-attr]
    groups = make_optimizer(model, Config()).param_groups
    peaks = {group["peak"] for group in groups if stem & {id(p) for p in group["params"]}}
    assert stem and peaks == {Config().optim.learning_rate * Config().optim.decoder_lr_factor}


# -------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_of_whole_patches_is_not_changed(backbone: str) -> None:
    model, patch, seen = shared_network(backbone), BACKBONES[backbone], []
    inner: Any = model.backbone.network
    handle = inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    whole, ragged = images(3, 3 * patch, 5 * patch).float(), images(3, 3 * patch - 5, 4 * patch + 1).float()
    model.backbone(whole), model.backbone(ragged)
    handle.remove()
    assert torch.equal(seen[0], whole)
    assert seen[1].shape[2:] == (3 * patch, 5 * patch)


class Means(nn.Module):
    """In place of timm's getter: the mean of every patch."""

    def __init__(self, patch_px: int) -> None:
        super().__init__()
        self.patch_px = patch_px

    def forward(self, image: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(image, self.patch_px)]


@pytest.mark.parametrize("size", [(97, 131), (112, 112), (71, 140)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_deep_map_stays_in_place_at_any_size(backbone: str, size: tuple[int, int]) -> None:
    """Of ramps along both axes the means of patches, at image size again, are those ramps but at the rim."""
    model = network(backbone)
    patch, (H, W) = BACKBONES[backbone], size
    model.backbone.network = Means(patch)
    ramp_3HW = torch.stack(torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij"))
    ramp_3HW = torch.cat([ramp_3HW, ramp_3HW[:1]])
    deep = model.backbone(ramp_3HW[None])[1]
    found = nn.functional.interpolate(deep, size=size, mode="bilinear", align_corners=False)[0]
    inside = (slice(None), slice(patch, H - patch), slice(patch, W - patch))
    assert (found - ramp_3HW)[inside].abs().max() < 0.1


@pytest.mark.parametrize("side", [64, 67, 127])
def test_the_cell_that_answers_is_the_one_that_was_marked(side: int) -> None:
    """The early map: a symmetric stem's answer to bright pixels is centred on them, at the far edge of an
    image of no multiple of 4, too."""
    stem: Any = network("test_vit").decoder.low
    for module in stem.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    marked = torch.zeros(1, 3, side, side)
    marked[:, :, 24:28, side - 16 : side - 12] = 1.0
    answer_hw = stem.eval()(transformer.stretched(marked, transformer.STEM_PX))[0, 0]
    weight_hw = answer_hw / answer_hw.sum()
    middle_px = (torch.arange(len(weight_hw)) + 0.5) * side / len(weight_hw)
    centre = ((weight_hw.sum(1) @ middle_px).item(), (weight_hw.sum(0) @ middle_px).item())
    assert centre == pytest.approx((26, side - 14), abs=1e-3 if side == 64 else 0.5)


@pytest.mark.parametrize("backbone", ["test_vit", "eva02_tiny_patch14_224"])
def test_a_change_of_the_image_is_answered_where_it_was_made(backbone: str) -> None:
    model = shared_network(backbone)
    before = images(4, 131, 131)
    after = before.clone()
    after[:, :, 80:100, 30:50] = 255 - after[:, :, 80:100, 30:50]
    with torch.inference_mode():
        change_hw = (model(after)[0] - model(before)[0]).abs().sum((0, 1))
    row, column = divmod(int(change_hw.argmax()), change_hw.shape[1])
    assert 78 <= 4 * row + 2 <= 102 and 28 <= 4 * column + 2 <= 52


# ---------------------------------------------------------------------------------------- weights from a file


def save_backbone(name: str, path: Path, **settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(5)
    state = timm.create_model(name, **settings).state_dict()
    safetensors.torch.save_file(state, path)
    return state


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_a_file_are_loaded(tmp_path: Path, backbone: str) -> None:
    path = tmp_path / "weights.safetensors"
    saved = save_backbone(backbone, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to warn of
        model = network(backbone, weights=str(path))
    loaded = model.backbone.network.model.state_dict()  # type: ignore[union-attr]
    assert len(loaded) > 60
    for name, value in loaded.items():
        assert torch.equal(value, saved[name]), name


def test_position_embeddings_of_another_size_are_resized(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    saved = save_backbone("test_vit", path, img_size=96)
    model: Any = network("test_vit", weights=str(path)).backbone.network
    whole: Any = model.model
    assert saved["pos_embed"].shape[1] == 1 + 6 * 6 and whole.pos_embed.shape[1] == 1 + 10 * 10
    corner = whole.pos_embed[0, 1:].unflatten(0, (10, 10))[[0, -1], [0, -1]]
    expected = saved["pos_embed"][0, 1:].unflatten(0, (6, 6))[[0, -1], [0, -1]]
    assert torch.cosine_similarity(corner, expected).min() > 0.9
    assert torch.equal(whole.blocks[3].attn.qkv.weight, saved["blocks.3.attn.qkv.weight"])


def refused(match: str, **fields: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        network(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["blocks.4.mlp.fc1.weight", "pos_embed", "norm.bias"])
def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path, lacking: str) -> None:
    path = tmp_path / "weights.safetensors"
    state = save_backbone("test_vit", path)
    del state[lacking]
    safetensors.torch.save_file(state, path)
    refused(
        f"does not fit test_vit: it lacks 1 of its tensors, {lacking}", backbone="test_vit", weights=str(path)
    )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_backbone("test_vit", path)
    refused("model.weights=.* does not fit test_vit4", backbone="test_vit4", weights=str(path))
    save_backbone("test_resnet", path)
    refused("test_vit.*it lacks", backbone="test_vit", weights=str(path))


def test_timm_weights_out_of_reach_are_refused() -> None:
    """conftest sets HF_HUB_OFFLINE, and the cache is empty."""
    refused(
        "^model.backbone=test_vit with model.weights=timm cannot be built",
        backbone="test_vit",
        weights="timm",
    )


def test_a_transformer_for_one_size_of_image_is_refused() -> None:
    refused("model.backbone=test_vit_relpos .*cannot be built.*dynamic_img_size", backbone="test_vit_relpos")


def test_multi_grid_of_a_transformer_is_refused() -> None:
    refused("model.multi_grid.*test_vit has none: set it to false", backbone="test_vit", multi_grid=True)


# ------------------------------------------------------------------------------------------- a run, a program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data/, eight training images."""
    folder = tmp_path_factory.mktemp("vit")
    tiny.dataset(folder)
    return folder


def test_dilations_that_a_crop_is_too_small_for_matter_to_a_cnn_only(folder: Path) -> None:
    """The defaults reach 18 cells, and a crop of 32 pixels has 2."""
    fields: dict[str, Any] = {"model.aspp_dilations": ModelConfig().aspp_dilations}
    prepare.prepare(tiny.config(folder, {**fields, "model.backbone": "test_vit"}))
    with pytest.raises(ValueError, match=r"model.aspp_dilations.*data.crop_px=32.*2 cells"):
        prepare.prepare(tiny.config(folder, fields))


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_a_run_learns_resumes_and_is_loaded_again(folder: Path, tmp_path: Path) -> None:
    overrides = {
        "model.backbone": "test_vit",
        "loss.method": "ce",
        "optim.optimizer": "adamw",
        "optim.learning_rate": 2e-3,
        "optim.decoder_lr_factor": 5.0,
        "optim.ema_decay": 0.5,
        "optim.max_steps": 24,
        "optim.epochs": 20,
        "run.validate_every": 6.0,
        "run.storage": str(tmp_path),
    }
    config = tiny.config(folder, overrides)
    result = loop.run(config)
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    totals = [line["total"] for line in lines if line["kind"] == "train"]
    assert len(totals) == 24 and sum(totals[-6:]) < 0.8 * sum(totals[:6])
    loaded = checkpoint.load_model(config.folder)
    assert result is not None and loaded.config == config
    picture = images(0, 40, 52)
    assert views.class_probabilities(loaded.model, picture).shape == (2, len(tiny.NAMES), 40, 52)
    last = checkpoint.all_of(config.folder)[-1]
    expected, _ = checkpoint.load_state(last)
    shutil.rmtree(last)
    assert loop.run(config) == result  # from the checkpoint in the middle
    found, _ = checkpoint.load_state(last)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = exporting.settings(**{"model.backbone": "test_vit"})
    return exporting.save(tmp_path_factory.mktemp("run") / "tiny", settings)


def test_torch_export_gives_the_networks_probabilities_at_any_size(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = torch.export.load, []
    monkeypatch.setattr(torch.export, "load", lambda file: loaded.append(load(file)) or loaded[-1])
    export.export(saved, tmp_path / "x.pt2", to="torch-export", size_px=exporting.TRACED_PX)
    network = checkpoint.load_model(saved).model
    assert exporting.largest_difference(network, loaded[0].module()) < 1e-4


class Rotary(nn.Module):
    """DINOv3's embedding of the patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rope = RotaryEmbeddingDinoV3(16, rotate_half=True)

    def forward(self, image: Tensor) -> Tensor:
        return self.rope.get_embed(shape=[(length + 15) // 16 for length in image.shape[2:]])


def test_dinov3_can_be_traced_for_any_size() -> None:
    """Alone: a whole network of them takes half a minute."""
    rotary = Rotary().eval()
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with timm_for_export.whole_numbers():
        image = torch.zeros(2, 3, 72, 81)
        program = torch.export.export(rotary, (image,), dynamic_shapes=(sizes,)).module()
    for size in [(72, 81), (30, 200), (97, 64)]:
        image = torch.zeros(1, 3, *size)
        assert torch.equal(program(image), rotary(image))


@pytest.mark.parametrize("grid_type", ["centered", "index", "pixel"])
@pytest.mark.parametrize(
    "how", [{}, {"grid_offset": 0.25}, {"grid_indexing": "xy"}, {"normalize_coords": "max"}]
)
def test_grids_in_whole_numbers_are_timms(grid_type: str, how: dict[str, Any]) -> None:
    expected = pos_embed_sincos._build_grid([3, 7], grid_type, **how)
    assert torch.equal(timm_for_export.patch_grid([3, 7], grid_type, **how), expected)


@exporting.has_onnx
def test_onnx_gives_the_networks_probabilities_at_any_size(saved: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = export.export(saved, tmp_path / "x.onnx", to="onnx", size_px=exporting.TRACED_PX)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    assert exporting.largest_difference(checkpoint.load_model(saved).model, run) < 1e-4


def test_the_card_tells_the_patch(saved: Path) -> None:
    loaded = checkpoint.load_model(saved)
    card = export.model_card(loaded, {}, {})
    assert "backbone: `test_vit`, patches of 16 pixels, started from random weights" in card
    assert "output stride" not in card
