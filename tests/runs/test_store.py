"""Runs whose storage is a URL: the mirror follows the store, a run resumes on a node that never saw it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fsspec.implementations.memory import MemoryFileSystem

from sparseg import launch
from sparseg.config import Config
from sparseg.runs import background_save, checkpoint
from sparseg.runs import store as storage
from sparseg.train import loop

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")
URL = "memory://bucket/runs"


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield
    MemoryFileSystem.store.clear()


def configure(folder: Path, node: str, overrides: dict[str, Any] | None = None, url: str = URL) -> Config:
    """A run in the store, as a node sees it whose mirror is folder/node."""
    changes = {"run.storage": url, "run.mirror": str(folder / node), "run.checkpoint_every": 2}
    return tiny.config(folder, {**changes, "run.validate_every": 99.0, **(overrides or {})})


def lines(config: Config) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in found]


def there(store: str = "/bucket/runs/tiny/") -> set[str]:
    return {path.removeprefix(store) for path in MemoryFileSystem.store if path.startswith(store)}


def stop_at(config: Config, step: int) -> Any:
    return lambda: len((config.folder / "metrics.jsonl").read_text().splitlines()) >= step - 1


def test_a_run_goes_on_where_no_file_of_it_is(tmp_path: Path) -> None:
    """Stopped on one node, repeated on another one: equal to a run in a folder that nobody stopped."""
    tiny.dataset(tmp_path)
    plain = tiny.config(tmp_path, {"run.checkpoint_every": 2, "run.validate_every": 99.0})
    expected = loop.run(plain)
    first, second = configure(tmp_path, "one"), configure(tmp_path, "two")
    assert loop.run(first, should_stop=stop_at(first, 3))["steps"] == 3
    shutil.rmtree(first.folder)
    assert loop.run(second) == expected
    assert lines(second) == lines(plain)
    for name, value in checkpoint.load_state(checkpoint.all_of(plain.folder)[-1])[0].items():
        assert torch.equal(checkpoint.load_state(checkpoint.all_of(second.folder)[-1])[0][name], value)
    kept = {name.split("/")[0] for name in there() if "/" in name}
    assert kept == {path.name for path in checkpoint.all_of(second.folder)}
    assert {"best", "iou.json", "metrics.jsonl", "config.json", "environment.json"} <= there()


def test_an_old_mirror_does_not_come_back(tmp_path: Path) -> None:
    """A node still has a run that was moved aside in the store; the new one starts from its first step."""
    tiny.dataset(tmp_path)
    config = configure(tmp_path, "one")
    loop.run(config)
    aside = storage.move_aside(config)
    assert aside is not None and aside.startswith(f"{URL}/tiny.old-")
    assert there() == set() and there(aside.removeprefix("memory:/") + "/")
    stale = configure(tmp_path, "two")
    shutil.copytree(tmp_path / "one", tmp_path / "two", dirs_exist_ok=True)
    stale.folder.mkdir(parents=True, exist_ok=True)
    (stale.folder / "metrics.jsonl").write_text("old\n")
    fake = stale.folder / checkpoint.name_of(6)
    fake.mkdir()
    (fake / "state.pt").touch()
    storage.pull(stale)
    assert list(stale.folder.iterdir()) == []


def test_a_checkpoint_counts_once_its_manifest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.dataset(tmp_path)
    config = configure(tmp_path, "one")
    put, sent = MemoryFileSystem.put_file, []

    def cut(self: Any, local: str, remote: str, **options: Any) -> None:
        sent.append(remote)
        if "checkpoint_0000004" in remote and remote.endswith("manifest.json"):
            raise OSError("connection reset")
        put(self, local, remote, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", cut)
    monkeypatch.setattr(background_save.Saver.__init__, "__defaults__", ((0.0,),))
    with pytest.raises(background_save.SaveError, match=r"step 4 .*connection reset.*that of step 2"):
        loop.run(config)
    tries = [path for path in sent if "checkpoint_0000004" in path and path.endswith("manifest.json")]
    assert len(tries) == 2
    assert any(name.startswith("checkpoint_0000004/") for name in there())
    monkeypatch.undo()
    other = configure(tmp_path, "two")
    storage.pull(other)
    assert [path.name for path in checkpoint.all_of(other.folder)] == [checkpoint.name_of(2)]
    assert loop.run(other)["steps"] == 6


def test_after_whichever_file_a_store_goes_away_what_it_holds_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log reaches as far as the newest checkpoint that counts, and what `best` names is there."""
    tiny.dataset(tmp_path)
    config = configure(tmp_path, "one", {"run.validate_every": 1.0, "run.checkpoint_every": 2})
    sent: list[str] = []
    states: list[dict[str, Any]] = []
    put = MemoryFileSystem.put_file

    def watched(self: Any, local: str, remote: str, **options: Any) -> None:
        put(self, local, remote, **options)
        sent.append(remote)
        states.append(dict(MemoryFileSystem.store))

    monkeypatch.setattr(MemoryFileSystem, "put_file", watched)
    loop.run(config)
    monkeypatch.undo()
    assert len({path.rsplit("/", 1)[0] for path in sent if path.endswith("manifest.json")}) >= 3
    pulled = configure(tmp_path, "two")
    for number, state in enumerate(states):
        MemoryFileSystem.store.clear()
        MemoryFileSystem.store.update(state)
        storage.pull(pulled)
        complete = checkpoint.all_of(pulled.folder)
        if complete:
            values = checkpoint.load_state(complete[-1])[1]
            assert (pulled.folder / "metrics.jsonl").stat().st_size >= values["metrics_bytes"], sent[number]
        if (pulled.folder / "best").exists():
            assert checkpoint.best(pulled.folder) is not None, sent[number]


def test_the_command_itself_runs_refuses_and_moves_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.dataset(tmp_path)
    config = configure(tmp_path, "one")
    result = launch.launch(config)
    again = launch.launch(configure(tmp_path, "two"))
    assert again["miou"] == result["miou"] and "finished already" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"run\.seed=0, this one has 5"):
        launch.launch(configure(tmp_path, "three", {"run.seed": 5}))
    launch.launch(configure(tmp_path, "three", {"run.seed": 5, "run.fresh": True}))
    assert f"moved the earlier run to {URL}/tiny.old-" in capsys.readouterr().out


def test_a_store_that_cannot_be_written_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Any, path: str, *_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuses)
    tiny.dataset(tmp_path)
    with pytest.raises(ValueError, match=r"run\.storage=memory://bucket/runs cannot be written to .*Denied"):
        launch.launch(configure(tmp_path, "one"))
    with pytest.raises(ValueError, match=r"nosuch:// is not known"):
        launch.launch(configure(tmp_path, "one", url="nosuch://bucket/runs"))


def test_words_between_driver_and_workers(tmp_path: Path) -> None:
    for config in (configure(tmp_path, "one"), tiny.config(tmp_path)):
        config.folder.mkdir(parents=True, exist_ok=True)
        storage.forget_stop(config)
        assert not storage.asked_to_stop(config)
        storage.ask_to_stop(config)
        assert storage.asked_to_stop(config)
        storage.forget_stop(config)
        assert not storage.asked_to_stop(config)
        storage.write_note(config, "result.json", {"steps": 3})
        assert storage.read_note(config, "result.json") == {"steps": 3}
        storage.forget_note(config, "result.json")
        with pytest.raises(OSError, match=r"result\.json"):
            storage.read_note(config, "result.json")
