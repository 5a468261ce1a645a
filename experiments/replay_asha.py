"""What ASHA would have made of a search whose trials all ran to their end: best score and steps.

PYTHONPATH=platform python experiments/replay_asha.py runs/full --first 80 [--trials 12] [--orders 300]

The trials' own validations are told to a study of its own, one trial after the other, in the order in which
they ran and in random others; `sweep/pruning.py` and Optuna's pruner say which of them end early.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sparseg.sweep.pruning import goes_on

Curve = dict[int, float]
Passes = Callable[[optuna.Study, optuna.Trial, int], bool]
NEAR = 0.005  # of the full search's best


def curves(sweep: Path, trials: int | None) -> list[Curve]:
    """Step -> mIoU of the sweep's finished trials."""
    study = optuna.load_study(study_name=sweep.name, storage=f"sqlite:///{sweep.resolve() / 'study.db'}")
    found = study.get_trials(states=(TrialState.COMPLETE,))
    return [trial.intermediate_values for trial in found][:trials]


def replay(order: Sequence[Curve], passes: Passes) -> tuple[float, float]:
    """(best score, share of the steps)."""
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    best, steps = 0.0, 0
    for curve in order:
        trial, last = study.ask(), max(curve)
        for step, value in sorted(curve.items()):
            trial.report(value, step)
            if step < last and not passes(study, trial, step):
                break
        ended = step == last
        study.tell(trial, curve[last] if ended else None, state=None if ended else TrialState.PRUNED)
        best, steps = max(best, curve[last] if ended else 0.0), steps + step
    return best, steps / sum(map(max, order))


def optunas(study: optuna.Study, trial: optuna.Trial, step: int, *, first: int, factor: int) -> bool:
    """Optuna's own rule."""
    study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
    return not trial.should_prune()


def ours(study: optuna.Study, trial: optuna.Trial, step: int, *, first: int) -> bool:
    """The sweeps' rule."""
    return goes_on("asha", study, trial, step, first)


def main() -> None:
    """Print a line for each rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of a sweep with --scheduler none")
    parser.add_argument("--first", type=int, required=True, help="the first rung, steps")
    parser.add_argument("--trials", type=int, help="of the sweep's first ones (default: all)")
    parser.add_argument("--orders", type=int, default=300)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given = curves(options.sweep, options.trials)
    full = max(curve[max(curve)] for curve in given)
    rules: dict[str, Passes] = {
        f"Optuna's, 1 of {factor}": functools.partial(optunas, first=options.first, factor=factor)
        for factor in (2, 3, 4)
    }
    rules["sparseg's"] = functools.partial(ours, first=options.first)
    print(f"{len(given)} trials, best {full:.4f}, first rung at {options.first}")
    for name, passes in rules.items():
        best, share = replay(given, passes)
        shuffle = random.Random(0)
        found = [replay(shuffle.sample(given, len(given)), passes) for _ in range(options.orders)]
        near = sum(best >= full - NEAR and share <= 0.5 for best, share in found) / len(found)
        print(
            f"{name:<16} own order: best {best:.4f} in {share:.0%} of the steps; other orders: "
            f"{statistics.mean(share for _, share in found):.0%} of the steps, {near:.0%} within "
            f"{NEAR} in at most half of them",
            flush=True,
        )


if __name__ == "__main__":
    main()
