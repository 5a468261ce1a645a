"""Every trainer: its recipe is a valid configuration with the release's values, importing it does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fixtures
import pytest
import tiny

from sparseg import config
from sparseg.config import Config, with_overrides

RECIPES = [name for name in tiny.TRAINERS if name != "sweep"]

# shared/method.md, "Recipes of the release"
RELEASE: dict[str, dict[str, Any]] = {
    "voc": {
        "data.crop_px": 321,
        "data.num_classes": 21,
        "data.colour": True,
        "data.scale_min": 0.5,
        "data.scale_max": 2.0,
        "model.backbone": "resnet101d",
        "model.output_stride": 8,
        "model.aspp_dilations": (6, 12, 18),
        "model.multi_grid": False,
        "model.feature_channels": 256,
        "optim.optimizer": "sgd",
        "optim.epochs": 80,
        "optim.batch_size": 64,
        "optim.momentum": 0.9,
        "optim.weight_decay": 1e-4,
        "optim.learning_rate": 1e-3,
        "optim.decoder_lr_factor": 10.0,
        "optim.poly_power": 0.9,
    },
    "cityscapes": {
        "data.crop_px": 721,
        "data.num_classes": 19,
        "data.colour": False,
        "data.scale_min": 0.5,
        "data.scale_max": 2.0,
        "model.backbone": "resnet50d",
        "model.output_stride": 8,
        "model.aspp_dilations": (12, 24, 36),
        "model.multi_grid": True,
        "model.feature_channels": 256,
        "optim.optimizer": "sgd",
        "optim.epochs": 240,
        "optim.batch_size": 32,
        "optim.momentum": 0.9,
        "optim.weight_decay": 1e-4,
        "optim.learning_rate": 5e-3,
        "optim.decoder_lr_factor": 1.0,
        "optim.poly_power": 0.9,
    },
    "camvid": {
        "data.num_classes": 11,
        "data.label": "clicks",
        "data.random_pixels": 20,
        "loss.method": "ce",  # its docstring says why
    },
    "folder": {"data.layout": "folder", "data.label": "point", "loss.method": "ce"},
}


def test_the_trainers_of_the_design_are_there() -> None:
    assert set(RELEASE) <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_a_valid_configuration_that_survives_json(name: str) -> None:
    recipe = tiny.trainer(name).recipe()
    assert isinstance(recipe, Config)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe)))) == recipe
    assert with_overrides(recipe, {}) == recipe


@pytest.mark.parametrize("name", RELEASE)
def test_recipe_has_the_release_values(name: str) -> None:
    values = config.to_dict(tiny.trainer(name).recipe())
    for dotted, value in {"loss.method": "agmm", **RELEASE[name]}.items():
        section, field = dotted.split(".")
        assert values[section][field] == value, dotted
    assert [values["loss"][f"{term}_weight"] for term in ("seg", "mix", "label", "sep", "absent")] == [
        1.0
    ] * 5


@pytest.mark.parametrize("name", tiny.TRAINERS)
def test_importing_a_trainer_does_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trainer", "--no-such-flag"])
    before = dict(os.environ)
    module = tiny.trainer(name)
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []
    assert {**os.environ} == {
        **before,
        **{k: v for k, v in os.environ.items() if k == "RAY_CLIENT_MODE"},
    }  # by ray
    assert module.__doc__ and f"python trainers/{name}.py" in module.__doc__


@pytest.mark.slow
def test_dry_run_prints_the_plan_and_trains_nothing(tmp_path: Path) -> None:
    """Eight images, batch 4, three epochs: six steps."""
    root = fixtures.camvid(tmp_path / "camvid", train=8, val=2)
    words = f"--dry-run --data.root {root} --run.storage {tmp_path}/runs --resources.workers 0"
    words += " --optim.batch-size 4 --optim.epochs 3 --model.backbone test_efficientnet --data.crop-px 32"
    words += " --model.aspp-dilations 1"
    command = [sys.executable, str(tiny.ROOT / "trainers" / "camvid.py"), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    start = done.stdout.index("dataset  ")
    *plan, text = done.stdout[start:].split("\n", 7)
    printed = config.from_dict(json.loads(text))
    assert (printed.optim.epochs, printed.optim.batch_size, printed.data.random_pixels) == (3, 4, 20)
    words = [line.split()[0] for line in plan]
    assert words == ["dataset", "splits", "classes", "batch", "labels", "parameters", "steps"]
    assert plan[1] == "splits       train 8, val 2 images"
    assert plan[2].startswith("classes      11: ")
    assert "(4, 3, 32, 32)" in plan[3] and plan[6].startswith("steps        6 (3.00")
    assert not (tmp_path / "runs" / "camvid").exists()
