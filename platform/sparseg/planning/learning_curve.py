"""How a score grows with the labels: a saturating power law, its uncertainty, the budget for a target.

y(n) = ceiling - gap * n ** -exponent, n in labels per image.  Such laws describe learning curves of many
networks over the size of the training set (Hestness et al., 2017); here the images stay, their labels grow.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS = np.geomspace(0.05, 3.0, 80)
FEWEST_BUDGETS = 3


@dataclasses.dataclass(frozen=True)
class Law:
    """ceiling - gap * n ** -exponent."""

    ceiling: float
    gap: float
    exponent: float

    def at(self, labels: float) -> float:
        """Score with so many labels per image."""
        return float(self.ceiling - self.gap * labels**-self.exponent)

    def slope(self, labels: float) -> float:
        """Gain of score per further label per image."""
        return float(self.gap * self.exponent * labels ** (-self.exponent - 1))

    def labels_for(self, score: float) -> float:
        """Labels per image that reach the score; inf if the ceiling is not above it."""
        if score >= self.ceiling:
            return math.inf
        if self.gap == 0:
            return 0.0
        return float((self.gap / (self.ceiling - score)) ** (1 / self.exponent))


def fit(labels_N: Floats, score_N: Floats) -> Law:
    """Least squares; gap >= 0, ceiling <= 1.  For each exponent of a grid the rest is linear: no start value,
    no local minimum.  Raises ValueError with fewer than three different budgets."""
    budgets = sorted(set(labels_N.tolist()))
    if len(budgets) < FEWEST_BUDGETS or budgets[0] <= 0:
        raise ValueError(
            f"a law needs {FEWEST_BUDGETS} budgets above 0 labels an image, found "
            f"{', '.join(f'{n:g}' for n in budgets) or 'none'}"
        )
    best: tuple[float, Law] | None = None
    for exponent in EXPONENTS:
        x_N = labels_N**-exponent
        spread_N = x_N - x_N.mean()
        gap = max(-float(spread_N @ score_N) / float(spread_N @ spread_N), 0.0)
        ceiling = float(score_N.mean() + gap * x_N.mean())
        if ceiling > 1:  # the best line through (0, 1)
            ceiling, gap = 1.0, max(float(x_N @ (1 - score_N)) / float(x_N @ x_N), 0.0)
        error = float(np.square(score_N - ceiling + gap * x_N).sum())
        if best is None or error < best[0]:
            best = error, Law(ceiling, gap, float(exponent))
    assert best is not None
    return best[1]


def resampled(labels_N: Floats, score_N: Floats, count: int = 400, seed: int = 0) -> list[Law]:
    """Laws of `count` data sets like this one: the fitted values plus residuals drawn with replacement, which
    are enlarged for the three parameters that the fit has taken from them."""
    law, rng = fit(labels_N, score_N), np.random.default_rng(seed)
    fitted_N = np.array([law.at(n) for n in labels_N])
    freedom = max(len(score_N) - 3, 1)
    residual_N = (score_N - fitted_N) * math.sqrt(len(score_N) / freedom)
    return [fit(labels_N, fitted_N + rng.choice(residual_N, len(residual_N))) for _ in range(count)]


def interval(values: list[float], share: float = 0.9) -> tuple[float, float]:
    """Central interval that holds this share of the values; inf counts as the largest."""
    ordered = sorted(values)
    low = ordered[math.floor((1 - share) / 2 * (len(ordered) - 1))]
    return low, ordered[math.ceil((1 + share) / 2 * (len(ordered) - 1))]


def held_out(labels_N: Floats, score_N: Floats) -> list[tuple[float, float, float]]:
    """(budget, measured mean, prediction from all other budgets), for each budget whose others suffice."""
    found = []
    for budget in sorted(set(labels_N.tolist())):
        others = labels_N != budget
        if len(set(labels_N[others].tolist())) >= FEWEST_BUDGETS:
            law = fit(labels_N[others], score_N[others])
            found.append((budget, float(score_N[~others].mean()), law.at(budget)))
    return found
