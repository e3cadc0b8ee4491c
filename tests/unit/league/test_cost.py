from pathlib import Path

import pytest

from tests.support.leagues import plan_league, write_league
from tests.support.spaces import TINY
from tune_cure.confirmation.cost import estimate_run
from tune_cure.data import splits
from tune_cure.league.cost import EpochCost, count_epochs, estimate_confirmation, estimate_seconds, measure_epoch
from tune_cure.search.duration import EPOCH_OVERHEAD, START_SECONDS
from tune_cure.search.results import SearchResult
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


def test_a_run_of_the_confirmation_takes_what_its_trial_took_in_the_search_of_its_method(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, falling=("fgsm",))
    jobs = plan_league(league, examples=50)
    costs = estimate_confirmation(league.results(), jobs, num_searched=600, num_classes=10)
    assert list(costs) == ["cure", "cure-preset", "fgsm"]  # the preset of fgsm has won its search
    result, job = league.results()["cure"], jobs[0]
    assert result.best is not None
    assert costs["cure"] == estimate_run(result, result.best.trial, job, num_searched=600, num_classes=10)
    epochs = job.training.epochs
    assert costs["cure"].training == pytest.approx(epochs * (seconds_of_an_epoch(result) + 0.1))
    assert costs["cure"].autoattack == pytest.approx(11 * costs["cure"].pgd)
    three = estimate_confirmation(league.results(), jobs, num_searched=600, num_classes=3)
    assert three["cure"].autoattack == pytest.approx(3.5 * costs["cure"].pgd)


def seconds_of_an_epoch(result: SearchResult) -> float:
    (seconds,) = result.epochs["train_seconds"].unique()
    return float(seconds)
