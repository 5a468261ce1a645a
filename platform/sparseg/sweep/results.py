"""What a sweep found: results.json, the table, the best configuration as a command."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import warnings
from pathlib import Path
from typing import Any

import optuna
import rich.console
import rich.table
from optuna.trial import TrialState

from sparseg.common.files import write_atomically
from sparseg.sweep.study import FINISHED, METRICS, Sweep, trial_folder

WORDS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def summary(sweep: Sweep, study: optuna.Study) -> dict[str, Any]:
    """Trials with their values, and the best one; all plain data."""
    trials: list[dict[str, Any]] = [
        {
            "number": trial.number,
            "state": WORDS.get(trial.state, trial.state.name.lower()),
            sweep.metric: trial.values[0] if trial.values and trial.state in FINISHED else None,
            "cost": trial.values[1] if trial.values and sweep.cost else None,
            "params": trial.params,
            "sd": _spread(sweep, trial.user_attrs.get("scores", [])),
            "steps": trial.user_attrs.get("steps", trial.last_step),
            "wall_s": trial.duration.total_seconds() if trial.duration else None,
            "folder": str(trial_folder(sweep, trial.number)),
            "error": trial.user_attrs.get("error"),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]
    complete = [trial for trial in trials if trial["state"] == "finished"]
    best = max(complete, key=lambda trial: trial[sweep.metric], default=None)
    return {
        "sweep": sweep.folder.name,
        "trainer": sweep.trainer.stem,
        "metric": sweep.metric,
        "cost": sweep.cost,
        "front": [trial.number for trial in study.best_trials] if sweep.cost else [],
        "wanted": sweep.trials,
        "trials": trials,
        "importances": _importances(study),
        "best": best and {**best, "command": command(sweep, best["params"])},
    }


def _importances(study: optuna.Study) -> dict[str, float]:
    """Share of each field that all finished trials have in what makes a trial one of the better ones."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 5 or len({trial.values[0] for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    # with two objectives it must be told which, and that one is taken as good where it is low
    target = (lambda trial: -trial.values[0]) if len(study.directions) > 1 else None
    with warnings.catch_warnings(action="ignore"):  # it says the latter
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=target))


def _spread(sweep: Sweep, scores: list[dict[str, Any]]) -> float | None:
    """Standard deviation over a trial's seeds, None with fewer than two."""
    values = [score[METRICS[sweep.metric]] for score in scores]
    return statistics.stdev(values) if len(values) > 1 else None


def write(sweep: Sweep, study: optuna.Study) -> dict[str, Any]:
    """STORAGE/SWEEP/results.json from the study -> what it holds."""
    found = summary(sweep, study)
    write_atomically(sweep.folder / "results.json", json.dumps(found, indent=2))
    return found


def command(sweep: Sweep, params: dict[str, Any]) -> str:
    """The trainer's command that repeats these values as a run of its own."""
    words = ["python", os.path.relpath(sweep.trainer)]
    if sweep.trainer.parent == Path(__file__).resolve().parents[1] / "trainers":  # of an installed package
        words = ["sparseg", "train", sweep.trainer.stem]
    words += sweep.arguments
    for name, value in params.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace(".", ".no-", 1))
        else:
            words += [flag, str(value)]
    words += ["--run.seed", str(sweep.seeds[0])] if sweep.seeds else []
    return shlex.join([*words, "--run.name", f"{sweep.folder.name}-best"])


def outcome(trial: dict[str, Any], metric: str) -> str:
    """How a trial of `summary` ended, in a few words."""
    if trial["error"]:
        return f"failed: {trial['error']}"
    at = f" at step {trial['steps']}" if trial["state"] == "pruned" else ""
    spread = f" ± {100 * trial['sd']:.2f}" if trial["sd"] is not None else ""
    return f"{trial['state']}{at}, {metric} {100 * trial[metric]:.2f}{spread} %"


def show(found: dict[str, Any]) -> None:
    """Print the table, best first, and the best configuration as a command."""
    metric, best = found["metric"], found["best"]
    names = list(dict.fromkeys(name for trial in found["trials"] for name in trial["params"]))
    table = rich.table.Table(title=f"{found['sweep']}: {len(found['trials'])} trials of {found['trainer']}")
    for name in (
        "trial",
        "state",
        f"{metric}, %",
        *([found["cost"]] if found["cost"] else []),
        "steps",
        *names,
    ):
        table.add_column(name.partition(".")[2] or name, justify="left" if name == "state" else "right")
    for trial in sorted(found["trials"], key=lambda t: (t["state"] != "finished", -(t[metric] or 0))):
        score = "" if trial[metric] is None else f"{100 * trial[metric]:.2f}"
        score += "" if trial["sd"] is None else f" ± {100 * trial['sd']:.2f}"
        values = [trial["params"].get(name, "") for name in names]
        marks = " *" if best and trial["number"] == best["number"] else ""
        marks += " ^" if trial["number"] in found["front"] else ""
        table.add_row(
            f"{trial['number']}{marks}",
            trial["state"],
            score,
            *([f"{trial['cost']:.4g}" if trial["cost"] is not None else ""] if found["cost"] else []),
            str(trial["steps"] or ""),
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values),
        )
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 200  # a log file does not wrap
    console.print(table)
    for trial in found["trials"]:
        if trial["error"]:
            print(f"trial {trial['number']} failed: {trial['error']}")
    if found["front"]:
        print(f"^ no other trial has both a higher {metric} and fewer {found['cost']}")
    if best:
        print(f"best: trial {best['number']}, {metric} {100 * best[metric]:.2f} %, {best['folder']}")
        print(f"  {best['command']}")
