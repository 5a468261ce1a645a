"""Fixtures and environment of all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports these packages, and inherited by every subprocess of a test.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Beside other test processes each has a core: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1" if os.environ.get("PYTEST_XDIST_WORKER") else "2")

import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(min(int(os.environ["OMP_NUM_THREADS"]), os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def _no_driver_left() -> Iterator[None]:
    """A failed test must not leave a run behind for the next one."""
    yield
    driving = sys.modules.get("driving")
    while driving is not None and driving.STARTED:
        driving.STARTED.pop().clear()


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray with two CPU slots and its dashboard, for all tests of this process that leave it as it was."""
    from heads import head

    with head(tmp_path_factory.mktemp("head") / "head.log", "--num-cpus", "2") as found:
        yield found


@pytest.fixture
def fast_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """For clusters that a test starts itself: lost nodes are noticed in seconds, processes are marked."""
    from driving import FAST, MARK

    for name, value in {**FAST, **MARK}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the project, ../shared/data; its tests also carry @pytest.mark.shared."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data at {folder}, which is not there")
    return folder
