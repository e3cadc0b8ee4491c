import pytest

from tests.support.spaces import TINY
from tune_cure.data import splits
from tune_cure.league.cost import EpochCost, count_epochs, estimate_seconds, measure_epoch
from tune_cure.search.duration import EPOCH_OVERHEAD, START_SECONDS
from tune_cure.search.space.loading import load_mapping
from tune_cure.utils.yaml_parser import parse

COSTS = {
    "cheap": EpochCost(train_seconds=0.5, eval_seconds=0.1),
    "dear": EpochCost(train_seconds=2.0, eval_seconds=0.1),
}


def test_cheap_epochs_earn_more_of_them_with_a_budget_in_seconds() -> None:
    assert [count_epochs("seconds", 100.0, cost) for cost in COSTS.values()] == [200.0, 50.0]
    assert [count_epochs("epochs", 100.0, cost) for cost in COSTS.values()] == [100.0, 100.0]


def test_the_time_of_a_league_counts_evaluations_though_budgets_do_not() -> None:
    seconds = estimate_seconds("seconds", 100.0, COSTS, concurrent=2)
    assert seconds == pytest.approx(START_SECONDS + (2 * 100 + 250 * (0.1 + EPOCH_OVERHEAD)) / 2)


def test_an_epoch_is_measured_with_its_evaluation() -> None:
    spec = load_mapping(parse(TINY))
    cost = measure_epoch(spec, splits.load(spec.data))
    assert 0.001 < cost.train_seconds < 60
    assert 0 < cost.eval_seconds < 60
