"""timm's network of a name: the two maps that the decoder reads, its weights, and images of any size."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import nn

from sparseg.common.process import one_line
from sparseg.config import ModelConfig
from sparseg.network.transformer import getter_arguments, is_plain, stretched

OUTPUT_STRIDES = (8, 16, 32)
"""Values of model.output_stride."""
ODD_SIZE_PX = (97, 131)
"""Height and width of an image that no stride divides, large enough for every network of timm."""
BUILD_ERRORS = (
    RuntimeError,
    TypeError,
    AssertionError,
    OSError,
    NotImplementedError,
    AttributeError,
    LookupError,
    EOFError,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)
"""What timm and torch raise for a network that cannot be made or a weights file that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Backbone:
    """timm's network, giving the map of stride 4 (or its first) and the deepest one; a plain transformer,
    whose maps have one stride, gives some of those.

    size_multiple: pixels whose multiples it wants as height and width of an image.
    """

    network: Any
    size_multiple: int = 1


def load_backbone(config: ModelConfig) -> Backbone:
    """The backbone with its weights.

    Raises ValueError for a name that timm lacks, a stride that the network does not have, a network that
    takes images of one size only, weights that do not fit.
    """
    name, stride = config.backbone, config.output_stride
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:5]) or "none"
        raise ValueError(
            f"model.backbone: timm has no {name!r}; near: {near}; one of your own is registered by a "
            "module that --run.plugins names"
        )
    source = _weights_source(config.weights)
    asked, size_multiple, own_stride = f"model.weights={config.weights}", 1, stride
    try:
        described: Any = timm.create_model(name, features_only=True)
        reductions = described.feature_info.reduction()
        if is_plain(reductions):
            arguments = getter_arguments(len(described.feature_info.info))
        else:
            asked, own_stride = f"model.output_stride={stride} and {asked}", reductions[-1]
            low = max((i for i, reduction in enumerate(reductions) if reduction <= 4), default=0)
            arguments = {"out_indices": (low, len(reductions) - 1)}
            if stride == own_stride:  # needs no argument, and many networks know none
                size_arguments, size_multiple = _of_any_size(name, described, stride)
                arguments |= size_arguments
            else:
                arguments["output_stride"] = stride
        with _timm_messages() as messages:
            network: Any = timm.create_model(name, features_only=True, **arguments, **source)
    except BUILD_ERRORS as error:
        if stride != own_stride and not _has_stride(name, stride):
            raise _no_such_stride(name, stride, own_stride) from error
        reason = one_line(error)
        if found := re.search(r"size mismatch for (\S+): \D+(\[[\d, ]*\])\D+(\[[\d, ]*\])", reason):
            raise ValueError(
                f"model.weights={config.weights} does not fit {name}: {found[1]} is {found[2]} there, "
                f"{found[3]} in the network{_named_in(config.weights, name)}"
            ) from error
        reason = reason[:240]
        raise ValueError(f"model.backbone={name} with {asked} cannot be built: {reason}") from error
    if stride != own_stride and network.feature_info.reduction()[-1] != stride:
        raise _no_such_stride(name, stride, own_stride)
    _refuse_missing(config, network, messages)
    if stride == own_stride and not is_plain(reductions):
        _freeze_unused(network, size_multiple)
    return Backbone(network, size_multiple)


def found_weights(config: ModelConfig) -> ModelConfig:
    """Replace model.weights=auto by `timm` if timm has them in its cache or gets them from the network, else,
    with a note, by `none`."""
    name = config.backbone
    if config.weights != "auto" or not timm.is_model(name):  # an unknown name is refused where it is built
        return config
    try:
        timm.create_model(name, pretrained=True)
    except BUILD_ERRORS as error:
        why = "not in timm's cache, and not reached" if isinstance(error, OSError) else one_line(error)[:160]
        print(f"note: --model.weights auto found no pretrained weights of {name} ({why})")
        return dataclasses.replace(config, weights="none")
    return dataclasses.replace(config, weights="timm")


def _weights_source(weights: str) -> dict[str, Any]:
    """timm's arguments for model.weights."""
    if weights == "timm":
        return {"pretrained": True}
    if weights == "none":
        return {}
    if not Path(weights).is_file():
        raise ValueError(f"model.weights: no file {weights!r}; allowed: a file, 'timm', 'auto' or 'none'")
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}


def _refuse_missing(config: ModelConfig, network: nn.Module, messages: list[str]) -> None:
    """ValueError if the weights lack a tensor of the backbone; messages: what timm said when it read them."""
    # timm names what it drops on purpose (heads) as missing too, flattens the names of stages, and tells the
    # names within the transformer that its getter wraps
    kept = {name.removeprefix("model.").replace(".", "_") for name in network.state_dict()}
    named = [re.match(r"Missing keys \((.*?)\)", message) for message in messages]
    keys = [key for found in named if found for key in found[1].split(", ")]
    missing = [key for key in keys if key.replace(".", "_") in kept]
    if missing:
        raise ValueError(
            f"model.weights={config.weights} does not fit {config.backbone}: it lacks {len(missing)} of its "
            f"tensors, {', '.join(missing[:3])}{_named_in(config.weights, config.backbone)}"
        )


def _named_in(weights: str, backbone: str) -> str:
    """Name timm's network after which a file of weights is called, if it is another one."""
    stem = Path(weights).name.lower()
    named = [name for name in timm.list_models() if stem == name or stem.startswith((f"{name}.", f"{name}-"))]
    likely = max(named, key=len, default=backbone)
    return "" if likely == backbone else f"; by its name the file is of {likely}: --model.backbone {likely}"


# ---------------------------------------------------------------------------------------- strides and sizes


def _has_stride(name: str, stride: int) -> bool:
    """Whether timm can build the network with a deepest map of this stride."""
    try:
        network: Any = timm.create_model(name, features_only=True, output_stride=stride)
    except BUILD_ERRORS:
        return False
    return network.feature_info.reduction()[-1] == stride


def _no_such_stride(name: str, stride: int, own_stride: int) -> ValueError:
    """The error for a stride that the network does not have, naming those that it has."""
    strides = [each for each in OUTPUT_STRIDES if each == own_stride or _has_stride(name, each)]
    if not strides:
        return ValueError(
            f"model.backbone={name} has stride {own_stride} only, which is none of "
            f"{', '.join(map(str, OUTPUT_STRIDES))}; choose another --model.backbone"
        )
    words = " or ".join(map(str, strides))
    return ValueError(
        f"model.backbone={name} with model.output_stride={stride}: {name} has stride {words} only: "
        f"--model.output-stride {words}"
    )


def _of_any_size(name: str, network: nn.Module, stride: int) -> tuple[dict[str, Any], int]:
    """Arguments of timm with which a network at its own stride takes images of any size, and the multiple
    that their sides must be stretched to; tried with a small image.  Raises ValueError if there are none."""
    for size_multiple in (1, stride):
        if _takes(network, size_multiple):
            return {}, size_multiple
    flexible: dict[str, Any] = {"strict_img_size": False}  # the Swin transformers know it
    with contextlib.suppress(TypeError):
        if _takes(timm.create_model(name, features_only=True, **flexible), stride):
            return flexible, stride
    raise ValueError(
        f"model.backbone={name} takes images of one size only; segmentation needs any size: choose a CNN, "
        "Swin, PVTv2, TinyViT or a plain vision transformer as --model.backbone"
    )


@torch.no_grad()
def _takes(network: nn.Module, size_multiple: int) -> bool:
    """Whether an image of ODD_SIZE_PX, stretched to the multiple, passes through the network."""
    training = network.training
    try:
        network.eval()(stretched(torch.zeros(1, 3, *ODD_SIZE_PX), size_multiple))
    except (RuntimeError, AssertionError):
        return False
    finally:
        network.train(training)
    return True


def _freeze_unused(network: nn.Module, size_multiple: int) -> None:
    """Freeze the parameters that none of its maps depends on (the last fusions of HRNet): the ranks of a run
    would wait for their gradients."""
    training, parameters = network.training, list(network.parameters())
    maps = network.eval()(stretched(torch.zeros(1, 3, *ODD_SIZE_PX), size_multiple))
    total = torch.stack([each.sum() for each in maps]).sum()
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)
    network.train(training)


# ------------------------------------------------------------------------------------------ what timm says


@contextlib.contextmanager
def _timm_messages() -> Iterator[list[str]]:
    """Collect what timm logs while it loads weights: it reports missing keys there and goes on."""
    messages: list[str] = []
    logger = logging.getLogger("timm")
    level, propagate = logger.level, logger.propagate
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
