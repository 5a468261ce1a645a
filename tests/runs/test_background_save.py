"""Saves run beside the training, in order, and are tried again; a failure is kept for the run to see."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from sparseg.runs.background_save import SaveError, Saver


def test_a_save_runs_beside_and_the_next_one_waits(tmp_path: Path) -> None:
    go, order = threading.Event(), []

    def slow() -> None:
        assert go.wait(10)
        order.append(1)

    with Saver(tmp_path) as saver:
        saver.submit(1, slow)
        order.append(0)  # while the save stands still
        threading.Timer(0.1, go.set).start()
        saver.submit(2, lambda: order.append(2))
    assert order == [0, 1, 2]
    assert (saver.last_good, saver.error) == (2, None)


def test_storage_that_comes_back_costs_a_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tries: list[float] = []

    def write() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise OSError("connection reset")

    with Saver(tmp_path, waits_s=(0.01, 0.05, 1.0)) as saver:
        saver.submit(7, write)
    assert saver.error is None and saver.last_good == 7 and len(tries) == 3
    assert tries[2] - tries[1] >= 0.05 > 0.01
    assert capsys.readouterr().err.count("connection reset") == 2


def test_storage_that_stays_away_is_an_error_and_nothing_follows(tmp_path: Path) -> None:
    later: list[int] = []

    def write() -> None:
        raise OSError(28, "No space left on device")

    with Saver(tmp_path, waits_s=(0.0,)) as saver:
        saver.submit(3, lambda: None)
        saver.submit(4, write)
        saver.wait()
        saver.submit(5, lambda: later.append(5))
    assert isinstance(saver.error, SaveError) and later == []
    assert "step 4" in str(saver.error) and "that of step 3" in str(saver.error)


def test_a_mistake_of_ours_is_not_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        raise TypeError("cannot pickle")

    with Saver(tmp_path, waits_s=(9.0, 9.0)) as saver:
        saver.submit(1, write)
    assert len(tries) == 1 and isinstance(saver.error, SaveError) and "none of this run" in str(saver.error)
