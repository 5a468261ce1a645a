"""A sweep whose driver is killed at random moments, and the process of one of its trials: nothing is lost.

    PYTHONPATH=platform python tests/chaos/sweep_kills.py [--trials 8 --kills 3 --seed 0]

Short runs of the demo, two at a time, on a local Ray.  After each kill the same command is given
again.  Checked: what was finished stays as it was to the last bit, no trial is there twice, N trials end,
the killed process's trial among them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from driving import MARK, processes, wait_until

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, trials: int) -> list[str]:
    """The sweep."""
    words = [sys.executable, "-W", "ignore", str(ROOT / "trainers" / "sweep.py"), "--trainer", "demo"]
    words += ["--space", str(ROOT / "search_spaces" / "mixture.py"), "--trials", str(trials)]
    words += ["--concurrent", "2", "--scheduler", "none", "--sweep.name", "kills"]
    words += ["--run.storage", str(folder / "runs"), "--run.log-every", "5", "--run.checkpoint-every", "10"]
    return [
        *words,
        "--optim.max-steps",
        "40",
        "--resources.workers",
        "0",
        "--resources.threads-per-worker",
        "1",
    ]


def finished(folder: Path) -> dict[int, tuple[Any, ...]]:
    """Number -> (value, parameters) of the finished trials."""
    file = folder / "runs/kills/study.db"
    if not file.is_file():
        return {}
    try:
        study = optuna.load_study(study_name="kills", storage=f"sqlite:///{file}")
    except KeyError:  # killed before it was made
        return {}
    done = study.get_trials(states=(TrialState.COMPLETE,))
    return {trial.number: (trial.value, json.dumps(trial.params)) for trial in done}


def trial_processes() -> list[int]:
    """Processes of ours in which Tune trains a trial."""
    return list(processes("ray::ImplicitFunc"))


def main() -> None:
    """Print what was killed and what came out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="sparseg-sweep-"))
    environment = (
        os.environ | MARK | {"RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    log, before = (folder / "log.txt").open("w"), dict[int, tuple[Any, ...]]()
    for attempt in range(options.kills + 1):
        words = command(folder, options.trials)
        driver = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        last = attempt == options.kills
        if last:  # this time one trial's process
            wait_until(lambda: bool(trial_processes()), 120)
            time.sleep(rng.uniform(4, 12))
            victims = trial_processes()
            assert victims, "no trial was left to kill; give more --trials"
            os.kill(victims[0], signal.SIGKILL)
            print("killed the process of a trial", flush=True)
            code = driver.wait()
            assert code == 0, f"the command ended with {code}; see {folder}/log.txt"
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=rng.uniform(12, 35))
            driver.kill()
            driver.wait()
            wait_until(lambda: not trial_processes(), 60)
            now = finished(folder)
            print(f"killed the driver with {len(now)} of {options.trials} trials finished", flush=True)
        now = finished(folder)
        assert before.items() <= now.items(), "a finished trial is lost or changed"
        before = now
    study = optuna.load_study(study_name="kills", storage=f"sqlite:///{folder}/runs/kills/study.db")
    states = [trial.state for trial in study.trials if trial.state != TrialState.WAITING]
    numbers = [trial.number for trial in study.trials]
    assert len(set(numbers)) == len(numbers) and len(before) == options.trials == len(states), states
    points = [
        json.dumps(trial.params, sort_keys=True) for trial in study.get_trials(states=(TrialState.COMPLETE,))
    ]
    assert len(set(points)) == len(points), "a configuration was tried twice"
    steps = [json.loads(line)["step"] for n in numbers[: options.trials] for line in _lines(folder, n)]
    assert len(steps) == 8 * options.trials, "a step stands twice, or not at all, in a trial's metrics.jsonl"
    print(f"{len(before)} trials finished, each once, every step of each once; {folder} holds them")


def _lines(folder: Path, number: int) -> list[str]:
    text = (folder / f"runs/kills/trial_{number:04d}/metrics.jsonl").read_text()
    return [line for line in text.splitlines() if '"kind": "train"' in line]


if __name__ == "__main__":
    main()
