"""Whole sweeps on Ray."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from heads import Head
from sweeping import ROOT, tiny_sweep

from sparseg import sweep
from sparseg.common.process import Interrupted
from sparseg.sweep import runner

pytestmark = pytest.mark.slow


def run(command: list[str], folder: Path, address: str) -> dict[str, Any]:
    """What results.json holds once the command, on the Ray at an address, has ended."""
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sweep_survives_a_failing_trial_is_not_repeated_and_starts_afresh(
    tmp_path: Path, ray_head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: list[int] = []

    def interrupted(sweep: Any, study: Any, trials: int) -> None:
        missing.append(trials)
        raise KeyboardInterrupt

    command, folder = tiny_sweep(tmp_path, "--seeds", "0", "1", "--keep", "best")
    found = run(command, folder, ray_head.address)
    good, bad = found["trials"]
    assert (good["state"], good["steps"]) == ("finished", 4)
    assert bad["state"] == "failed" and "not finite" in bad["error"]
    assert found["best"]["number"] == 0
    for seed in (0, 1):
        for name in ("config.json", "metrics.jsonl", "best", "environment.json"):
            assert (Path(good["folder"]) / f"seed_{seed}" / name).is_file(), name
    assert good["sd"] is not None
    before = times(Path(good["folder"]))
    assert run(command, folder, ray_head.address) == found
    assert times(Path(good["folder"])) == before

    monkeypatch.setattr(runner, "_tune", interrupted)
    anew, _ = sweep.parse(ROOT / "trainers", [*command[2:], "--run.fresh", "--trials", "1"])
    with pytest.raises(Interrupted):
        runner.run(anew)
    assert missing == [1]
    (aside,) = folder.parent.glob(f"{folder.name}.old-*")
    assert sorted(before.values()) == sorted(times(aside / Path(good["folder"]).name).values())
