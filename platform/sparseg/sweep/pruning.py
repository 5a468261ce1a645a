"""When the trials of a sweep are compared, and which of them go on."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState

from sparseg.config import METHODS, Config
from sparseg.sweep.space import Space, ends, methods_of

REDUCTION = 4
"""Of the trials seen at a rung one in so many goes on; the next rung is so many times as far (Li et al.)."""


def first_rung(space: Space, base: Config, total_steps: int, steps_per_epoch: float) -> int:
    """The step at which trials are compared first: a ninth of the steps, or the end of the longest warm-up
    (of the rate, of the terms that wait), before which trials do not show what they differ in; at most a
    quarter, so that what ends there has saved three."""

    def longest(name: str) -> float:
        section, field = name.split(".")
        own = getattr(getattr(base, section), field)
        return max(own, *ends(space[name])) if name in space else float(own)

    warms_up = any(METHODS[name].warms_up for name in methods_of(space, base))
    warms_up = warms_up or base.loss.extra_terms is not None
    terms = longest("loss.warmup_epochs") * steps_per_epoch if warms_up else 0.0
    warm = math.ceil(max(longest("optim.warmup_steps"), terms))
    return max(1, min(max(total_steps // 9, warm), total_steps // 4))


def goes_on(scheduler: str, study: optuna.Study, trial: optuna.Trial, step: int, first: int) -> bool:
    """Whether a trial that reported at `step` is trained further; `first`: see `first_rung`.

    asha: of all that came to a rung before, a trial must be among the best quarter (at least one) to pass it
    (Li et al., MLSys 2020, with stops for their promotions).  Optuna's own rule lets pass whatever equals the
    best, and trials that differ in what a warm-up keeps off are equal to the last bit: it stopped none of
    them and took 56 % of a full search's steps where this takes 44 (RESULTS.md, Sweeps).  Here the first goes
    on.
    """
    match scheduler:
        case "asha":
            return _among_the_best(study, trial.number, step, first)
        case "median":
            study.pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=first)
            return not trial.should_prune()
    return True


def _among_the_best(study: optuna.Study, number: int, step: int, first: int) -> bool:
    trials = study.get_trials(deepcopy=False)
    reported = sorted(trials[number].intermediate_values)
    rung = first
    while rung * REDUCTION <= step:
        rung *= REDUCTION
    if step < rung or any(rung <= before < step for before in reported):
        return True  # between two rungs
    own = trials[number].intermediate_values[step]
    others = []
    for trial in trials:
        values = trial.intermediate_values
        arrived = min((step for step in values if step >= rung), default=None)
        if arrived is not None and trial.number != number and trial.state is not TrialState.FAIL:
            others.append(values[arrived])
    ahead = sum(value >= own for value in others)
    return not math.isnan(own) and ahead < max(1, (len(others) + 1) // REDUCTION)
