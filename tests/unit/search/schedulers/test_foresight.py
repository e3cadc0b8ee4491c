from itertools import combinations
from math import asin, pi, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kendalltau

from tune_cure.search.schedulers.foresight import Estimate, RankCorrelation, chance_of_stopping_best

CONTROL = 0.1


def correlate(early: NDArray[np.float64], final: NDArray[np.float64], weights: NDArray[np.float64]) -> RankCorrelation:
    correlation = RankCorrelation()
    for trial in zip(early, final, weights, strict=True):
        correlation.add(*map(float, trial))
    return correlation


def known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def test_the_correlation_of_equally_weighted_trials_is_kendalls() -> None:
    early, final = np.random.default_rng(0).normal(size=(2, 40))
    correlation = correlate(early, final, np.full(40, 3.0))
    assert known(correlation.estimate()).value == pytest.approx(kendalltau(early, final).statistic)
    assert correlation.effective_trials == pytest.approx(40)


def test_a_pair_counts_by_the_product_of_its_weights_and_a_tie_as_neither() -> None:
    early, final = np.array([1.0, 2, 3, 3, 5, 6]), np.array([2.0, 1, 4, 5, 5, 9])
    weights = np.array([1.0, 2, 1, 3, 1, 2])
    agreement = pairs = 0.0
    for one, other in combinations(range(6), 2):
        weight = weights[one] * weights[other]
        agreement += weight * np.sign(early[one] - early[other]) * np.sign(final[one] - final[other])
        pairs += weight
    correlation = correlate(early, final, weights)
    assert known(correlation.estimate()).value == pytest.approx(agreement / pairs)
    assert correlation.effective_trials == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_few_trials_say_nothing_and_trials_that_all_agree_leave_the_end_of_the_interval_open() -> None:
    rising = np.arange(9.0)
    assert correlate(rising[:4], rising[:4], np.ones(4)).estimate() is None
    assert (
        correlate(rising, rising, np.array([100.0, *np.ones(8)])).estimate() is None
    )  # one trial outweighs all others
    agreeing = known(correlate(rising, rising, np.ones(9)).estimate())
    assert (agreeing.value, agreeing.high) == (1.0, 1.0)
    assert 0 < agreeing.low < 0.7
    opposed = known(correlate(rising, -rising, np.ones(9)).estimate())
    assert (opposed.value, opposed.low, opposed.high) == (-1.0, -1.0, -agreeing.low)


def stopped_by_thirds(early: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each trial, in its order, is behind the best third of those that reached the rung before it."""
    return np.array([early[n] < np.percentile(early[:n], 200 / 3) if n else False for n in range(len(early))])


def draw_search(random: np.random.Generator, rho: float, trials: int = 60) -> tuple[NDArray[np.float64], ...]:
    """Early values, final values and weights of the trials of a search that are known to their end, and whether each
    would have been stopped."""
    early = random.normal(size=trials)
    final = rho * early + sqrt(1 - rho**2) * random.normal(size=trials)
    stopped = stopped_by_thirds(early)
    seen = ~stopped | (random.random(trials) < CONTROL)
    return early[seen], final[seen], np.where(stopped, 1 / CONTROL, 1.0)[seen], stopped[seen].astype(float)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6, 0.9])
def test_the_estimate_is_unbiased_and_its_interval_has_the_truth_in_nine_of_ten_searches(rho: float) -> None:
    random, truth = np.random.default_rng(1), 2 / pi * asin(rho)
    searches = [draw_search(random, rho) for _ in range(120)]
    found = [estimate for *trials, _ in searches if (estimate := correlate(*trials).estimate())]
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean() - truth) < 3 * values.std() / sqrt(len(values)) + 0.02
    assert np.mean([estimate.low <= truth <= estimate.high for estimate in found]) >= 0.9


def test_without_the_weights_the_trials_that_went_on_would_mislead() -> None:
    random, rho = np.random.default_rng(1), 0.6
    searches = [draw_search(random, rho) for _ in range(60)]
    naive = [known(correlate(early, final, np.ones(len(early))).estimate()).value for early, final, *_ in searches]
    assert np.mean(naive) < 2 / pi * asin(rho) - 0.05


@pytest.mark.parametrize(("rho", "low", "high"), [(0.0, 0.45, 0.75), (0.6, 0.1, 0.35), (0.95, 0.0, 0.12)])
def test_the_chance_of_stopping_the_best_agrees_with_how_often_that_happens(
    rho: float, low: float, high: float
) -> None:
    random = np.random.default_rng(2)
    is_best_stopped, chances = [], []
    for _ in range(200):
        early = random.normal(size=60)
        final = rho * early + sqrt(1 - rho**2) * random.normal(size=60)
        stopped = stopped_by_thirds(early)
        is_best_stopped.append(stopped[final.argmax()])
        seen = ~stopped | (random.random(60) < CONTROL)
        weights = np.where(stopped, 1 / CONTROL, 1.0)[seen]
        chances.append(chance_of_stopping_best(list(final[seen]), list(stopped[seen]), list(weights)))
    truth = np.mean(is_best_stopped)
    assert low <= truth < high
    assert abs(np.mean([chance.value for chance in chances]) - truth) < 0.15
    assert np.mean([chance.low - 0.01 <= truth <= chance.high for chance in chances]) >= 0.9


def test_the_chance_stays_finite_where_the_best_trials_are_all_on_one_side() -> None:
    finals = [float(value) for value in range(10)]
    stopped = [value < 7 for value in finals]
    good = chance_of_stopping_best(finals, stopped, [1.0] * 10)
    bad = chance_of_stopping_best(finals, [not one for one in stopped], [1.0] * 10)
    assert 0 < good.low < good.value < 0.1 < good.high < 0.8
    assert bad.value == pytest.approx(1 - good.value)
