"""Lines about how far a sweep is: a trial begins, a trial ends, the user stopped it."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from sparseg.runs.log import duration


def remaining_s(trial_s: float, ages_s: Sequence[float], waiting: int, at_a_time: int) -> float:
    """Return the seconds until a sweep ends, if every trial takes `trial_s`.

    ages_s: how long each running trial has run.  `waiting` trials begin as soon as one of the `at_a_time`
    places is free; a trial that runs longer than `trial_s` is taken to end now.
    """
    ends_s = [max(trial_s - age_s, 0.0) for age_s in ages_s]
    ends_s += [0.0] * (at_a_time - len(ends_s))
    heapq.heapify(ends_s)
    for _ in range(waiting):
        heapq.heapreplace(ends_s, ends_s[0] + trial_s)
    return max(ends_s)


class Progress:
    """Prints a line whenever a trial of a sweep begins or ends.

    The time left is estimated from the mean of the trials that this process saw from their beginning until
    they finished or were pruned; one that failed may have failed at once.
    """

    def __init__(
        self,
        sweep: str,
        *,
        trials: int,
        ended: int,
        at_a_time: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trials` in all, of which `ended` before this process."""
        self.sweep, self.trials, self.ended, self.at_a_time, self.clock = (
            sweep,
            trials,
            ended,
            at_a_time,
            clock,
        )
        self.start_s = clock()
        self.began_s: dict[int, float] = {}
        self.again: set[int] = set()
        self.took_s: list[float] = []

    def begins(self, number: int, point: dict[str, Any], again: bool) -> None:
        """Say that a trial begins, or (`again`) goes on after the process that drove it was ended."""
        self.began_s[number] = self.clock()
        self.again |= {number} if again else set()
        fields = ", ".join(f"{name}={_short(value)}" for name, value in point.items())
        verb = "goes on" if again else "begins"
        self._say(f"trial {number} {verb}, {self.ended + len(self.began_s)} of {self.trials}: {fields}")

    def ends(self, number: int, outcome: str, *, counts: bool) -> None:
        """Say how a trial ended, `outcome` in words; its time tells of others if it `counts`."""
        took_s = self.clock() - self.began_s.pop(number, self.start_s)
        self.ended += 1
        if counts and number not in self.again:
            self.took_s.append(took_s)
        self._say(f"trial {number} {outcome}, in {duration(took_s)}; {self.ended} of {self.trials} ended")

    def _say(self, text: str) -> None:
        elapsed = f"{duration(self.clock() - self.start_s)} elapsed"
        print(f"[{self.sweep}] {text} | {elapsed}, ETA {self._eta()}", flush=True)

    def _eta(self) -> str:
        waiting = self.trials - self.ended - len(self.began_s)
        if not waiting and not self.began_s:
            return duration(0)
        if not self.took_s:
            return "after the first trial"
        ages_s = [self.clock() - began_s for began_s in self.began_s.values()]
        return duration(remaining_s(statistics.fmean(self.took_s), ages_s, max(waiting, 0), self.at_a_time))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stopped(found: dict[str, Any]) -> str:
    """Return the line about a sweep that the user stopped; `found` is what `results.summary` gives."""
    states = [trial["state"] for trial in found["trials"]]
    amid, best = states.count("running"), found["best"]
    stand = ", which stand" if len(states) > amid else ""
    score = ""
    if best:
        percents = f"{100 * best[found['metric']]:.2f} %"
        score = f" (best: trial {best['number']}, {found['metric']} {percents})"
    more = f", amid {amid} more" if amid else ""
    return (
        f"stopped after {len(states) - amid} of {found['wanted']} trials{stand}{score}{more}; the same "
        "command goes on from there"
    )
