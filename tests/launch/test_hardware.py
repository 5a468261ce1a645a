"""Which recipe suits the machine: told from its devices and the environment, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from sparseg import launch
from sparseg.launch import hardware


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware, "GPU_DEVICES", ("no-such-device[0-9]*",))
    monkeypatch.setattr(hardware, "GPU_OF_WINDOWS", Path("/no/such/library"))


def test_a_machine_without_a_device_has_none() -> None:
    assert not launch.may_have_gpu()


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"])
def test_a_cluster_may_have_gpus(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "10.0.0.1:6379")
    assert launch.may_have_gpu()


def test_a_device_counts_unless_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "GPU_DEVICES", ("nul[l]",))
    assert launch.may_have_gpu()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not launch.may_have_gpu()


def test_the_folder_recipe_takes_the_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.trainer("folder")
    small = folder.recipe()
    assert small == folder.on_laptop() and small.resources.workers == 0
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    large = folder.recipe()
    assert large == folder.on_gpu() and large.resources.workers == 1
    assert small.data.layout == large.data.layout == "folder"
    assert small.model.weights == large.model.weights == "auto"
    assert small.data.crop_choice == large.data.crop_choice == "labelled"
