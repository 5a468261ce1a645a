"""The law of labels: found again where it made the data, honest where it did not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize

from sparseg.planning import learning_curve
from sparseg.planning.learning_curve import Law

BUDGETS = np.array([5.0, 10, 20, 50, 100]).repeat(3)
TRUE = Law(0.62, 0.7, 0.6)


def data(noise: float, seed: int = 0) -> np.ndarray:
    clean = np.array([TRUE.at(n) for n in BUDGETS])
    return clean + noise * np.random.default_rng(seed).standard_normal(len(clean))


def test_the_law_that_made_the_data_is_found() -> None:
    law = learning_curve.fit(BUDGETS, data(0))
    for n in (3, 15, 80, 400):
        assert law.at(n) == pytest.approx(TRUE.at(n), abs=2e-3)
    assert law.labels_for(0.55) == pytest.approx(TRUE.labels_for(0.55), rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_no_worse_than_a_general_optimizer(seed: int) -> None:
    score = data(0.01, seed)

    def error(parameters: np.ndarray) -> float:
        law = Law(*parameters)
        return float(sum((law.at(n) - y) ** 2 for n, y in zip(BUDGETS, score, strict=True)))

    law = learning_curve.fit(BUDGETS, score)
    bounds = [(0, 1), (0, 5), (0.05, 3)]
    theirs = scipy.optimize.minimize(error, [0.6, 0.5, 0.5], bounds=bounds, method="L-BFGS-B")
    assert error(np.array([law.ceiling, law.gap, law.exponent])) <= theirs.fun * 1.01 + 1e-9


def test_slope_and_budget_agree_with_the_curve() -> None:
    step = 1e-4
    assert TRUE.slope(20) == pytest.approx((TRUE.at(20 + step) - TRUE.at(20 - step)) / (2 * step), rel=1e-5)
    assert TRUE.at(TRUE.labels_for(0.5)) == pytest.approx(0.5)
    assert TRUE.labels_for(0.62) == math.inf
    assert Law(0.5, 0.0, 1.0).labels_for(0.4) == 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(40):
        laws = learning_curve.resampled(BUDGETS, data(0.01, seed), count=60, seed=seed)
        low, high = learning_curve.interval([law.at(30) for law in laws])
        inside += low <= TRUE.at(30) <= high
    assert 30 <= inside <= 40  # 36 expected


def test_a_score_cannot_pass_1_and_does_not_fall() -> None:
    rising = learning_curve.fit(np.array([1.0, 10, 100]), np.array([0.1, 0.6, 0.999]))
    assert rising.ceiling <= 1
    falling = learning_curve.fit(np.array([1.0, 10, 100]), np.array([0.6, 0.5, 0.4]))
    assert falling.gap == 0 and falling.at(7) == pytest.approx(0.5)


def test_too_few_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="a law needs 3 budgets above 0 labels an image, found 5, 10"):
        learning_curve.fit(np.array([5.0, 5, 10]), np.array([0.1, 0.2, 0.3]))


def test_a_held_out_budget_is_predicted_from_the_others() -> None:
    predicted = learning_curve.held_out(BUDGETS, data(0))
    assert [n for n, _, _ in predicted] == [5, 10, 20, 50, 100]
    for _, measured, prediction in predicted:
        assert prediction == pytest.approx(measured, abs=0.01)


def test_an_interval_of_budgets_may_be_open() -> None:
    assert learning_curve.interval([1.0, 2.0, math.inf, math.inf])[1] == math.inf
