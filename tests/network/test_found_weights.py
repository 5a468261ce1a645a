"""model.weights=auto: timm's weights where they are at hand, else random ones, said and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import tiny

from sparseg import config, launch
from sparseg.config import ModelConfig
from sparseg.launch import prepare
from sparseg.network import backbone

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")
AUTO = ModelConfig(backbone="resnet10t", weights="auto")


def test_weights_that_timm_gives_are_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr(timm, "create_model", lambda name, **how: asked.append((name, how)))
    assert backbone.found_weights(AUTO).weights == "timm"
    assert asked == [("resnet10t", {"pretrained": True})] and capsys.readouterr().out == ""


def test_without_them_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run without the network (HF_HUB_OFFLINE in conftest.py), and timm's cache lacks resnet10t."""
    assert backbone.found_weights(AUTO).weights == "none"
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "--model.weights auto found no pretrained weights of resnet10t" in told


def test_timm_has_none_of_some_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert not timm.is_model_pretrained("botnet50ts_256")
    found = backbone.found_weights(ModelConfig(backbone="botnet50ts_256", weights="auto"))
    assert found.weights == "none" and "No pretrained weights exist" in capsys.readouterr().out


@pytest.mark.parametrize("weights", ["none", "timm", "file.safetensors"])
def test_a_choice_of_the_user_stands(weights: str) -> None:
    chosen = ModelConfig(backbone="resnet10t", weights=weights)
    assert backbone.found_weights(chosen) is chosen


def test_the_run_records_what_it_found_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.dataset(tmp_path)
    run = tiny.config(tmp_path, {"model.weights": "auto", "resources.workers": 0, "optim.max_steps": 2})
    launch.launch(run)
    assert config.load(run.folder / "config.json").model.weights == "none"
    assert "auto found no pretrained weights" in capsys.readouterr().out
    monkeypatch.setattr(backbone, "found_weights", lambda model: pytest.fail("looked for weights again"))
    assert prepare.prepare(run)[0].model.weights == "none"


def test_a_new_round_looks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.dataset(tmp_path)
    first = tiny.config(tmp_path, {"resources.workers": 0, "optim.max_steps": 2})
    launch.launch(first)
    monkeypatch.setattr(backbone, "found_weights", lambda model: pytest.fail("looked for weights"))
    second = {"run.name": "second", "model.weights": "auto", "model.start": str(first.folder)}
    found, _ = prepare.prepare(config.with_overrides(first, second))
    assert found.model.weights == "none"
