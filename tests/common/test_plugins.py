"""Modules of the user's own: where they are found, what is refused, and what a checkpoint may not do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparseg.common import plugins


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder of its own; what a test loads is forgotten with it."""
    folder, known = tmp_path / "here", set(sys.modules)
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(path: Path, text: str = "LOADED = []\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_module_is_found_in_the_current_folder_once_and_at_the_end_of_the_path(here: Path) -> None:
    write(here / "house_nets" / "__init__.py", "")
    write(here / "house_nets" / "small.py")
    before = sys.path[0]
    plugins.load(["house_nets.small"])
    sys.modules["house_nets.small"].LOADED.append("kept")
    plugins.load(["house_nets.small"])
    assert sys.modules["house_nets.small"].LOADED == ["kept"]
    assert (sys.path[0], sys.path[-1]) == (before, str(here))


def test_a_file_is_loaded_by_its_path_with_those_beside_it(here: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "beside_it.py")
    file = write(tmp_path / "elsewhere" / "my_file_nets.py", "import beside_it\n")
    plugins.load([str(file)])
    assert sys.modules["my_file_nets"].beside_it.LOADED == []
    assert plugins.absolute(["../elsewhere/my_file_nets.py", "a.b"]) == (
        str(here / "../elsewhere/my_file_nets.py"),
        "a.b",
    )


def test_a_file_that_another_node_lacks_is_found_by_its_name(here: Path) -> None:
    write(here / "of_the_job.py")
    plugins.load(["/tmp/of/another/node/of_the_job.py"])
    assert "of_the_job" in sys.modules


def test_what_is_missing_is_told_with_the_folder_and_the_remedy(here: Path) -> None:
    with pytest.raises(
        ValueError, match=r"run\.plugins=no_such_nets: there is no module no_such_nets"
    ) as told:
        plugins.load(["no_such_nets"])
    assert str(here) in str(told.value) and "PYTHONPATH" in str(told.value)
    with pytest.raises(ValueError, match=r"no module no_such_package in the current folder"):
        plugins.load(["no_such_package.nets"])


@pytest.mark.parametrize(
    ("text", "told"),
    [("1 / 0\n", "ZeroDivisionError: division by zero"), ("import no_such_dep\n", "no_such_dep")],
)
def test_a_module_that_fails_is_told_with_its_own_error(here: Path, text: str, told: str) -> None:
    write(here / "broken_nets.py", text)
    with pytest.raises(ValueError, match=rf"run\.plugins=broken_nets: importing broken_nets fails .*{told}"):
        plugins.load(["broken_nets"])


@pytest.mark.parametrize("name", ["queue", "json", "time"])
def test_a_file_called_like_a_module_of_pythons_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "elsewhere" / f"{name}.py")
    with pytest.raises(ValueError, match=rf"another module is called {name}, too .*rename yours"):
        plugins.load([str(file)])


def test_the_search_path_is_the_users_own(here: Path) -> None:
    found = plugins.search_path()
    assert found[0] == str(here)
    assert [folder for folder in found if folder.startswith(sys.prefix)] == []
    assert any((Path(folder) / "sparseg").is_dir() for folder in found)
    plugins.extend_path([*found, str(here / "not there")])
    assert set(found) <= {*sys.path} and str(here / "not there") not in sys.path


def test_a_checkpoint_loads_from_the_users_path_and_says_so(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "runs" / "a" / "checkpoint_1"
    write(tmp_path / "elsewhere" / "told_nets.py", "1 / 0\n")  # where the checkpoint says that it was
    file = write(here / "told_nets.py")
    plugins.load_of_checkpoint([str(tmp_path / "elsewhere" / "told_nets.py")], checkpoint)
    assert sys.modules["told_nets"].LOADED == []
    assert str(file) in capsys.readouterr().err
    plugins.load_of_checkpoint(["told_nets"], checkpoint)
    assert capsys.readouterr().err == ""


def test_a_checkpoint_does_not_load_from_the_folder_it_tells_of(tmp_path: Path) -> None:
    file = write(tmp_path / "elsewhere" / "absent_nets.py")
    with pytest.raises(
        ValueError, match=r"ckpt: its network was trained with the plugin absent_nets: there is no"
    ):
        plugins.load_of_checkpoint([str(file)], tmp_path / "ckpt")


@pytest.mark.parametrize("where", ["run/checkpoint_1", "run", "run/checkpoint_1/deeper"])
def test_code_that_comes_with_a_checkpoint_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    write(tmp_path / where / "evil_nets.py", "raise SystemExit('it ran')\n")
    (tmp_path / "run" / "checkpoint_1").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / where)
    with pytest.raises(ValueError, match=r"lies in the checkpoint's own folder; code that comes with"):
        plugins.load_of_checkpoint(["evil_nets"], tmp_path / "run" / "checkpoint_1")
    write(tmp_path / where / "evil_package" / "nets.py", "raise SystemExit('it ran')\n")
    with pytest.raises(ValueError, match="code that comes with"):
        plugins.load_of_checkpoint(["evil_package.nets"], tmp_path / "run" / "checkpoint_1")
