"""A new round of training: a run that starts from the network of an earlier one (`model.start`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors

from sparseg.common import object_store
from sparseg.config import ModelConfig
from sparseg.runs import checkpoint

if TYPE_CHECKING:  # the driver of a run on Ray looks for checkpoints, and loads no torch for it
    from torch import nn


def untrained(config: ModelConfig) -> ModelConfig:
    """The configuration of the network that the tensors of `config.start` are put into: without weights."""
    return dataclasses.replace(config, weights="none") if config.start is not None else config


def resolve(start: str) -> Path:
    """The checkpoint that `model.start` means, absolute: itself, or a run's best one, else its newest.

    Raises ValueError if there is none, or if it is a URL.
    """
    if object_store.is_url(start):
        raise ValueError(f"model.start={start} is a URL; copy the checkpoint into a folder, and give that")
    try:
        return checkpoint.resolve(Path(start).expanduser()).absolute()
    except ValueError as error:
        raise ValueError(f"model.start: {error}") from error


def load(network: nn.Module, start: str, names: Sequence[str]) -> None:
    """Put the tensors of a checkpoint's network into `network`, whose outputs stand for the classes `names`.

    Raises ValueError, in one line, for other classes or the same in another order, and for a network of
    another kind.
    """
    from safetensors.torch import load_file

    path = resolve(start)
    file = path / "model.safetensors"
    told = checkpoint.read_metadata(file)
    classes = json.loads(told["classes"])
    if classes != list(names):
        raise ValueError(
            f"model.start: the classes of {path} are {', '.join(classes)}, the data's are "
            f"{', '.join(names)}; a new round wants the same in the same order: mend the data's classes, or "
            "leave --model.start out"
        )
    try:
        tensors = load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"model.start: {file} cannot be read ({error}); it is damaged") from error
    wanted = network.state_dict()
    differing = [
        name
        for name in sorted({*wanted, *tensors})
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    ]
    if differing:
        backbone = json.loads(told["config"])["model"]["backbone"]
        raise ValueError(
            f"model.start: {path} is a network of another kind (backbone {backbone}; {len(differing)} "
            f"tensors differ, the first is {differing[0]}); give the section model of its config.json, or "
            "leave --model.start out"
        )
    network.load_state_dict(tensors)
