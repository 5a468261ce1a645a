"""The commands of docs/methods.md for the release's published form of AGMM resolve to its constants."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny

from sparseg.config import Config, LossConfig, command_line, to_dict

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "methods.md").read_text()

LOSS: dict[str, Any] = {
    "method": "agmm",
    "variance": "published",  # exp(-d^2 / (2 sigma^2)) with
    "sigma": 0.5**0.5,  # sigma^2 = 1/2,
    "distance": "l1",  # d = mean over channels of |F - mu|
    "centroids": "batch",
    "centroid_reduction": "auto",  # the sum over images, where the variance is published
    "target": "similarity",
    "warmup_epochs": 0.0,
    "class_balance": 0.0,
    "only_weight": 0.0,
    "extra_terms": None,
    **{f"{term}_weight": 1.0 for term in ("seg", "mix", "label", "sep", "absent")},
}
OPTIMISER: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "poly_power": 0.9,
    "warmup_steps": 0,
    "max_steps": None,
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "precision": "fp32",
    "accumulate": 1,
}
VOC: dict[str, dict[str, Any]] = {
    "data": {
        "layout": "voc",
        "label": "point",
        "crop_px": 321,
        "scale_min": 0.5,
        "scale_max": 2.0,
        "crop_choice": "random",
        "colour": True,
        "keep_labels": 1.0,
        "num_classes": 21,
        "long_side_px": 0,
        "tile_px": 0,
    },
    "model": {
        "backbone": "resnet101d",  # ResNet-101 with a deep stem
        "output_stride": 8,
        "aspp_dilations": (6, 12, 18),
        "multi_grid": False,
        "feature_channels": 256,
        "separable": False,
        "bilateral": False,
    },
    "loss": LOSS,
    "optim": {
        **OPTIMISER,
        "learning_rate": 1e-3,
        "decoder_lr_factor": 10.0,
        "epochs": 80,
        "batch_size": 64,
    },
}
CITYSCAPES: dict[str, dict[str, Any]] = {
    "data": {
        "layout": "cityscapes",
        "label": "clicks",
        "crop_px": 721,
        "scale_min": 0.5,
        "scale_max": 2.0,
        "crop_choice": "random",
        "colour": False,  # geometric augmentation only
        "keep_labels": 1.0,
        "num_classes": 19,
        "random_pixels": 0,
        "clicks_per_class": 0,
        "long_side_px": 0,
        "tile_px": 0,
    },
    "model": {
        "backbone": "resnet50d",
        "output_stride": 8,
        "aspp_dilations": (12, 24, 36),
        "multi_grid": True,
        "feature_channels": 256,
        "separable": False,
        "bilateral": False,
    },
    "loss": LOSS,
    "optim": {
        **OPTIMISER,
        "learning_rate": 5e-3,
        "decoder_lr_factor": 1.0,
        "epochs": 240,
        "batch_size": 32,
    },
}
"""The release's constants, each from its files; batches are a process's times the number of GPUs it names."""


def resolved(trainer: str) -> Config:
    """The configuration of the document's command for a trainer."""
    (line,) = re.findall(rf"^sparseg train {trainer} --loss\.variance published .*$", DOCUMENT, re.MULTILINE)
    config, dry_run = command_line.parse(tiny.trainer(trainer).recipe(), shlex.split(line)[3:])
    assert not dry_run
    return config


@pytest.mark.parametrize(("trainer", "published"), [("voc", VOC), ("cityscapes", CITYSCAPES)])
def test_the_documents_command_is_the_published_form(
    trainer: str, published: dict[str, dict[str, Any]]
) -> None:
    found = to_dict(resolved(trainer))
    for section, fields in published.items():
        assert {name: found[section][name] for name in fields} == fields
    assert found["model"]["weights"] == "timm" and found["model"]["start"] is None


def test_the_published_form_is_one_flag_from_the_recipe() -> None:
    """Without it the recipe is our default, whose variance is estimated."""
    recipe = tiny.trainer("voc").recipe()
    changed = {
        name
        for name, value in to_dict(resolved("voc"))["loss"].items()
        if value != to_dict(recipe)["loss"][name]
    }
    assert changed == {"variance"} and recipe.loss.variance == LossConfig().variance == "adaptive"
