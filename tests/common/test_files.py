"""Files on disk: replaced whole or not at all; the cache folder of this user."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from sparseg.common import files
from sparseg.common.process import one_line
from sparseg.config import Config, with_overrides


def _write_often(path: Path, letter: str) -> None:
    for _ in range(30):
        files.write_atomically(path, letter * 50_000)


def test_a_file_is_replaced_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "ä.txt"
    files.write_atomically(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    files.write_atomically(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    assert [file.name for file in path.parent.iterdir()] == ["ä.txt"]
    longest = path.with_name("x" * 251 + ".png")  # 255 bytes, the most that a name may have
    files.write_atomically(longest, b"1")
    assert longest.read_bytes() == b"1"


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "best"
    files.write_atomically(path, "old")
    for name in ("fsync", "replace"):

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, name, full)
            files.write_atomically(path, "new")
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_processes_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "note.json"
    writers = [context.Process(target=_write_often, args=(path, letter)) for letter in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 50_000 and len(set(text)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_folder_is_where_the_user_wants_it(tmp_path: Path, monkeypatch) -> None:
    remote = with_overrides(Config(), {"run.storage": "s3://bucket/runs", "run.name": "a"})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert files.cache_folder() == files.cache_folder(None) == tmp_path / ".cache" / "sparseg"
    assert remote.folder.is_relative_to(tmp_path / ".cache" / "sparseg" / "runs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fast"))
    assert files.cache_folder() == tmp_path / "fast" / "sparseg"
    assert remote.folder.is_relative_to(tmp_path / "fast" / "sparseg" / "runs")
    assert files.cache_folder("~/own") == tmp_path / "own"
    own = with_overrides(remote, {"run.mirror": "~/own"})
    assert own.folder.is_relative_to(tmp_path / "own")


def test_an_error_in_one_line() -> None:
    assert one_line(ValueError("first,\n   then\tmore\n")) == "first, then more"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
