"""The configuration: JSON in and out, checks that name the field, overrides, documentation."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any

import pytest
from declarations import fields_and_texts

from sparseg import config
from sparseg.config import Config, from_dict, load, to_dict, with_overrides

OTHER_VALUES: dict[str, Any] = {
    "data.unlabelled_code": 21,
    "data.num_classes": 21,
    "data.label_path": "labels",
    "data.crop_px": 64,
    "data.colour": True,
    "model.aspp_dilations": (3, 5),
    "model.weights": "file.safetensors",
    "loss.method": "ce+absent",
    "loss.bandwidth": 0.25,
    "optim.max_steps": 12,
    "optim.learning_rate": 1e-5,
    "resources.min_workers": 1,
    "resources.gpus_per_worker": 0.5,
    "run.validate_every": 0.5,
    "run.plugins": ("my.module", "nets/mine.py"),
}


def every_field() -> list[tuple[str, Any, Any]]:
    """(dotted name, type, default) of all fields."""
    found = []
    for section in dataclasses.fields(Config):
        hints = typing.get_type_hints(type(section.default))
        for field in dataclasses.fields(section.default):
            found.append((f"{section.name}.{field.name}", hints[field.name], field.default))
    return found


# ------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("overrides", [{}, OTHER_VALUES], ids=["defaults", "others"])
def test_json_gives_the_same_configuration_back(overrides: dict[str, Any]) -> None:
    before = with_overrides(Config(), overrides)
    after = from_dict(json.loads(json.dumps(to_dict(before))))
    assert after == before
    assert isinstance(after.model.aspp_dilations, tuple)


def test_missing_fields_and_sections_take_their_defaults() -> None:
    assert from_dict({}) == Config()
    assert from_dict({"optim": {"epochs": 3}}) == with_overrides(Config(), {"optim.epochs": 3})


@pytest.mark.parametrize(
    "text", ["{", '{"optim": {"epoch": 3}}', '{"optim": 3}', '{"optim": {"epochs": "x"}}']
)
def test_load_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config.json") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_load_refuses_json_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"config.json"):
        load(path)


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.json"):
        load(tmp_path / "nowhere.json")


# ----------------------------------------------------------------------------------------------------- checks

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data.crop_px": 31}, "data.crop_px"),
    ({"data.scale_min": 0.0}, "data.scale_min"),
    ({"data.scale_min": 3.0}, "data.scale_max"),
    ({"data.keep_labels": 0.0}, "data.keep_labels"),
    ({"data.keep_labels": 1.5}, "data.keep_labels"),
    ({"data.loader_processes": -1}, "data.loader_processes"),
    ({"data.label": "clicks", "data.random_pixels": -1}, "data.random_pixels"),
    ({"data.label": "clicks", "data.clicks_per_class": -1}, "data.clicks_per_class"),
    ({"data.random_pixels": 20}, "data.label=clicks"),
    ({"data.clicks_per_class": 1}, "data.label=clicks"),
    ({"data.label": "clicks", "data.random_pixels": 2, "data.clicks_per_class": 2}, "not both"),
    ({"data.unlabelled_code": 256}, "data.unlabelled_code"),
    ({"data.unlabelled_code": -1}, "data.unlabelled_code"),
    ({"data.num_classes": 1}, "data.num_classes"),
    ({"data.num_classes": config.MAX_CLASSES + 1}, "data.num_classes"),
    ({"data.val_split": "train"}, "data.val_split"),
    ({"model.output_stride": 4}, "model.output_stride"),
    ({"model.feature_channels": 7}, "model.feature_channels"),
    ({"model.aspp_dilations": ()}, "model.aspp_dilations"),
    ({"model.aspp_dilations": (6, 0)}, "model.aspp_dilations"),
    ({"loss.class_balance": 1.5}, "loss.class_balance"),
    ({"loss.sigma": 0.0}, "loss.sigma"),
    ({"loss.bandwidth": 0.0}, "loss.bandwidth"),
    ({"loss.warmup_epochs": -1.0}, "loss.warmup_epochs"),
    *(
        ({f"loss.{name}_weight": -1.0}, f"loss.{name}_weight")
        for name in ("seg", "mix", "label", "sep", "absent")
    ),
    *(
        ({f"optim.{name}": 0}, f"optim.{name}")
        for name in ("epochs", "batch_size", "accumulate", "max_steps")
    ),
    *(({f"optim.{name}": 0.0}, f"optim.{name}") for name in ("learning_rate", "decoder_lr_factor")),
    ({"optim.learning_rate": math.nan}, "optim.learning_rate"),
    *(({f"optim.{name}": -1.0}, f"optim.{name}") for name in ("weight_decay", "poly_power", "clip_norm")),
    ({"optim.momentum": 1.0}, "optim.momentum"),
    ({"optim.ema_decay": 1.0}, "optim.ema_decay"),
    ({"resources.workers": -1}, "resources.workers"),
    ({"resources.workers": 2, "resources.min_workers": 3}, "resources.min_workers"),
    ({"resources.min_workers": 0}, "resources.min_workers"),
    ({"resources.gpus_per_worker": -1.0}, "resources.gpus_per_worker"),
    ({"resources.cpus_per_worker": 0.0}, "resources.cpus_per_worker"),
    ({"resources.max_failures": -1}, "resources.max_failures"),
    ({"resources.max_preemptions": -1}, "resources.max_preemptions"),
    ({"resources.workers": 3, "optim.batch_size": 2}, "optim.batch_size=2.*resources.workers=3"),
    ({"optim.accumulate": 9, "optim.batch_size": 8}, "optim.batch_size=8.*optim.accumulate=9"),
    ({"run.name": ""}, "run.name"),
    ({"run.name": "../run"}, "run.name"),
    ({"run.log_every": 0}, "run.log_every"),
    ({"run.validate_every": 0.0}, "run.validate_every"),
    ({"run.keep": 0}, "run.keep"),
    ({"run.checkpoint_every": -1}, "run.checkpoint_every"),
    *(({"run.plugins": (name,)}, "run.plugins") for name in ("", "my-nets", "my.", "a/b", "nets/my.own.py")),
]


@pytest.mark.parametrize(("overrides", "named"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
def test_a_wrong_value_is_refused_by_name(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        with_overrides(Config(), overrides)
    assert "\n" not in str(caught.value)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"run.seed"):
        with_overrides(Config(), {"run.seed": -1})


@pytest.mark.parametrize(
    "overrides",
    [
        {"data.crop_px": 32, "model.aspp_dilations": (1, 3)},
        {"data.crop_px": 32},  # too small for the dilations of a CNN, and they are not for a transformer
        {"data.keep_labels": 1.0, "data.num_classes": config.MAX_CLASSES},
        {"data.unlabelled_code": 0},
        {"data.label": "clicks", "data.random_pixels": 20},
        {"resources.workers": 0},
        {"optim.batch_size": 8, "optim.accumulate": 2, "resources.workers": 4},
        {"resources.workers": 4, "resources.min_workers": 4},
        {"run.name": "a.b_C-1"},
    ],
    ids=str,
)
def test_what_is_just_allowed_is_taken(overrides: dict[str, Any]) -> None:
    taken = to_dict(with_overrides(Config(), overrides))
    for dotted, value in overrides.items():
        section, name = dotted.split(".")
        assert taken[section][name] == value


# -------------------------------------------------------------------------------------------------- overrides


def test_overrides_replace_what_they_name_and_nothing_else() -> None:
    base = with_overrides(Config(), {"optim.epochs": 7})
    changed = with_overrides(base, {"loss.bandwidth": 0.5, "data.crop_px": 192})
    assert (changed.loss.bandwidth, changed.data.crop_px, changed.optim) == (0.5, 192, base.optim)
    assert base.loss.bandwidth == 1.0
    assert with_overrides(changed, {"loss.bandwidth": 1.0, "data.crop_px": 321}) == base


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("loss.bandwith", "'loss.bandwidth'"),
        ("optim.lerning_rate", "'optim.learning_rate'"),
        ("los.sigma", "'loss.sigma'"),
        ("optim.batchsize", "'optim.batch_size'"),
    ],
)
def test_an_unknown_override_is_told_its_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"unknown field '{name}'; did you mean {nearest}"):
        with_overrides(Config(), {name: 1})


@pytest.mark.parametrize("name", ["loss", "", "loss.sigma.x", "x"])
def test_an_override_that_is_no_field_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown field"):
        with_overrides(Config(), {name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim.learning_rate", "fast"),
        ("optim.learning_rate", True),
        ("optim.learning_rate", None),
        ("optim.epochs", 2.5),
        ("optim.epochs", True),
        ("optim.channels_last", 1),
        ("optim.max_steps", "10"),
        ("data.root", 3),
        ("loss.method", "agnn"),
        ("model.aspp_dilations", 6),
        ("model.aspp_dilations", (6, "x")),
        ("optim", {}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        with_overrides(Config(), {name: value})


def test_whole_numbers_pass_between_int_and_float() -> None:
    changed = with_overrides(
        Config(), {"optim.learning_rate": 1, "optim.epochs": 3.0, "resources.gpus_per_worker": 1}
    )
    values = (changed.optim.learning_rate, changed.optim.epochs, changed.resources.gpus_per_worker)
    assert values == (1.0, 3, 1.0) and [type(value) for value in values] == [float, int, float]


@pytest.mark.parametrize(
    ("dotted", "hint", "default"), every_field(), ids=[name for name, *_ in every_field()]
)
def test_every_default_passes_as_an_override(dotted: str, hint: Any, default: Any) -> None:
    assert with_overrides(Config(), {dotted: default}) == Config()


# ---------------------------------------------------------------------------------------------- documentation


def test_every_field_is_documented_and_typed() -> None:
    found = dict(fields_and_texts())
    assert found.keys() == {name for name, *_ in every_field()}
    assert [name for name, text in found.items() if not (text or "").strip()] == []


def test_nothing_can_be_changed_in_place() -> None:
    for section in (Config(), *(field.default for field in dataclasses.fields(Config))):
        name = dataclasses.fields(section)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, name, None)
