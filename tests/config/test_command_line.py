"""The command line of a trainer: every field is a flag with its help; what is wrong is one line, code 2."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import tiny
from declarations import fields_and_texts

from sparseg.config import Config, command_line, to_dict, with_overrides
from sparseg.config.short_help import BASIC


def documented_flags() -> dict[str, str]:
    """--flag -> its documentation, from the source of config/."""
    return {f"--{name}".replace("_", "-"): text for name, text in fields_and_texts() if text is not None}


def letters(text: str) -> str:
    """Letters and digits alone: what is left of a text whatever the box drawn around it."""
    return re.sub(r"\x1b\[[0-9;]*m|[^A-Za-z0-9]", "", text)


@pytest.fixture(scope="module")
def help_text() -> str:
    """What `python trainers/voc.py --help-all` prints."""
    module, patch = tiny.trainer("voc"), pytest.MonkeyPatch()
    patch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(io.StringIO()) as stdout, pytest.raises(SystemExit) as stop:
        command_line.parse(module.recipe(), ["--help-all"], description=module.__doc__ or "")
    patch.undo()
    assert stop.value.code in (0, None)
    return stdout.getvalue()


def test_there_are_flags_to_look_for() -> None:
    assert len(documented_flags()) == sum(len(fields) for fields in to_dict(Config()).values()) > 50


@pytest.mark.parametrize("flag", documented_flags())
def test_every_field_is_a_flag_with_help(flag: str, help_text: str) -> None:
    assert re.search(rf"{re.escape(flag)}\b(?!-)", help_text) is not None
    assert letters(documented_flags()[flag]) in letters(help_text)


@pytest.mark.parametrize("name", [name for name in tiny.TRAINERS if name != "sweep"])
def test_the_first_screen_has_the_flags_that_most_runs_need(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tiny.trainer(name)
    with pytest.raises(SystemExit) as stop:
        command_line.parse(module.recipe(), ["--help"], description=module.__doc__ or "", prog="x")
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0 and len(lines) <= 40 and max(map(len, lines)) <= 110
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert shown == [
        *("--" + name.replace("_", "-") for name in BASIC),
        "--config",
        "--dry-run",
        "--help-all",
    ]
    assert f"[{module.recipe().model.backbone}]" in "\n".join(lines)


def test_help_shows_the_recipes_values_and_the_two_other_flags(help_text: str) -> None:
    assert "(default: resnet101d)" in help_text and "(default: 64)" in help_text
    assert "--config FILE" in help_text and "--dry-run" in help_text
    assert "PASCAL VOC 2012" in help_text


# ---------------------------------------------------------------------------------------------- what is taken


def test_without_flags_the_recipe_comes_out() -> None:
    recipe = with_overrides(Config(), {"optim.epochs": 7})
    assert command_line.parse(recipe, []) == (recipe, False)


def test_flags_go_over_the_recipe() -> None:
    recipe = with_overrides(Config(), {"optim.epochs": 7, "optim.batch_size": 5})
    words = "--optim.epochs 2 --loss.method ce+absent --model.aspp-dilations 3 5 --data.colour --dry-run"
    settings, dry_run = command_line.parse(recipe, [*words.split(), "--optim.no-channels-last"])
    expected = {
        "optim.epochs": 2,
        "loss.method": "ce+absent",
        "model.aspp_dilations": (3, 5),
        "data.colour": True,
        "optim.channels_last": False,
    }
    assert settings == with_overrides(recipe, expected) and dry_run


@pytest.mark.parametrize("form", ["--config {}", "--config={}", "--run.config {}"])
def test_a_saved_run_replaces_the_recipe_and_flags_go_over_it(tmp_path: Path, form: str) -> None:
    saved = with_overrides(Config(), {"optim.epochs": 7, "data.unlabelled_code": 21})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(saved)))
    recipe = with_overrides(Config(), {"optim.batch_size": 5})
    settings, _ = command_line.parse(recipe, ["--optim.epochs", "2", *form.format(path).split()])
    assert settings == with_overrides(saved, {"optim.epochs": 2})


# -------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--optim.epoch 3", "Unrecognized options: --optim.epoch, 3; did you mean --optim.epochs"),
        ("--dry-runn", "--dry-runn"),
        ("stray", "stray"),
        ("--optim.epochs three", "--optim.epochs.*three"),
        ("--optim.epochs", "--optim.epochs"),
        ("--data.label dots", "--data.label.*point.*scribble.*clicks"),
        ("--loss.method agnn", "agnn.*--loss.method.*agmm"),
        ("--optim.learning-rate -1", "optim.learning_rate must be > 0"),
        ("--run.name a/b", "run.name"),
        ("--model.aspp-dilations 6 x", "--model.aspp-dilations"),
        ("--resources.workers 2 --optim.batch-size 1", "optim.batch_size=1"),
        ("--config", "--config"),
        ("--config=", "--config"),
        ("--config nowhere.json", "nowhere.json"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    words: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Config(), words.split())
    out, err = capsys.readouterr()
    assert (stop.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(f"error: .*{named}", err), err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "config.json"),
        ("[]", "config.json"),
        ('{"optim": {"epoch": 3}}', "'optim.epoch'; did you mean 'epochs'"),
        ('{"optim": {"epochs": 0}}', "optim.epochs must be > 0"),
        ('{"loss": {"method": "agnn"}}', "loss.method must be one of"),
    ],
)
def test_a_wrong_config_file_is_one_line_and_exit_code_2(
    tmp_path: Path, text: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Config(), ["--config", str(path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert named in err and str(path) in err
