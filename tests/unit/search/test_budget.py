from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_backend import Script, run_scripted
from tests.support.spaces import tiny
from tune_cure.search.budget import SPENT, Budget
from tune_cure.search.journal import Event
from tune_cure.search.patience import describe_early_end, is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load
from tune_cure.utils.yaml_config import SpecError


def begun(trial: int, **hyperparameters: Any) -> Event:
    return {"event": "trial", "trial": trial, "hyperparameters": hyperparameters}


def trained(trial: int, epoch: int, seconds: float | None) -> Event:
    return {"event": "epoch", "trial": trial, "epoch": epoch, "train_seconds": seconds}


def ended(trial: int) -> Event:
    return {"event": "end", "trial": trial}


def test_a_search_without_a_budget_has_no_end_to_it(tmp_path: Path) -> None:
    budget = Budget(tiny(tmp_path), [begun(0), trained(0, 1, 1e9)])
    assert (budget.limit, budget.share, budget.committed_share, budget.words) == (None, 0.0, 0.0, "")
    assert not budget.is_committed
    assert not budget.is_spent
    assert budget.goes_on(0, 2, 1e9)


def test_running_trials_count_with_all_epochs_that_they_may_still_train(tmp_path: Path) -> None:
    budget = Budget(tiny(tmp_path, "search.budget_seconds=100"), epoch_seconds=3.0)
    assert budget.words == "1 min 40 s of training"
    budget.take(begun(0))
    assert budget.committed_share == pytest.approx(0.12)  # four epochs as expected
    budget.take(trained(0, 1, 5.0))
    assert (budget.share, budget.committed_share) == (pytest.approx(0.05), pytest.approx(0.20))
    budget.take(begun(1))  # costs what epochs have cost
    assert budget.committed_share == pytest.approx(0.40)
    budget.take(ended(0))
    assert budget.committed_share == pytest.approx(0.25)


def test_the_epochs_of_a_trial_count_where_they_are_searched(tmp_path: Path) -> None:
    budget = Budget(tiny(tmp_path, "search.budget_epochs=100"), [begun(0, epochs=40)])
    assert budget.committed_share == pytest.approx(0.40)


def test_an_epoch_that_runs_twice_counts_once(tmp_path: Path) -> None:
    budget = Budget(tiny(tmp_path, "search.budget_seconds=100"))
    for event in (begun(0), trained(0, 1, 5.0), trained(0, 2, 5.0), trained(0, 2, 7.0)):
        budget.take(event)
    assert budget.spent == pytest.approx(12.0)


def test_a_trial_goes_on_if_more_than_half_of_its_next_epoch_fits_beside_those_under_way(tmp_path: Path) -> None:
    history = [begun(0), begun(1), trained(0, 1, 2.0), trained(1, 1, 4.0)]
    assert Budget(tiny(tmp_path, "search.budget_seconds=13.1"), history).goes_on(0, 2, 2.0)  # 8, 4 under way, 1
    budget = Budget(tiny(tmp_path, "search.budget_seconds=12.9"), history)
    assert not budget.goes_on(0, 2, 2.0)
    assert (budget.reason_of(0), budget.reason_of(1)) == (SPENT, "")


def test_a_diverged_epoch_without_seconds_costs_nothing(tmp_path: Path) -> None:
    budget = Budget(tiny(tmp_path, "search.budget_seconds=10"), [begun(0), trained(0, 1, None), ended(0)])
    assert budget.spent == 0.0


def test_a_search_spends_its_epochs_exactly_and_says_why_its_last_trial_was_stopped(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.budget_epochs=10", "search.trials=50", "search.scheduler=none")
    result, _ = run_scripted(spec, tmp_path, lambda proposal: Script([0.1 * (proposal.number + 1)]))
    assert (result.outcome, len(result.epochs)) == ("finished", 10)
    assert result.trials[["status", "epochs_trained", "reason"]].to_numpy().tolist() == [
        ["completed", 4, ""], ["completed", 4, ""], ["stopped", 2, SPENT],
    ]  # fmt: skip
    read = SearchResult(tmp_path)
    assert is_search_over(read)
    assert describe_early_end(read) == "its budget of 10 epochs of training is spent"


def test_a_budget_stops_the_first_configuration_too(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.budget_epochs=3", "search.trials=50")
    result, _ = run_scripted(spec, tmp_path, lambda proposal: Script([0.5]))
    assert result.trials[["origin", "status", "epochs_trained"]].to_numpy().tolist() == [["start_from", "stopped", 3]]


def test_two_budgets_are_refused(tmp_path: Path) -> None:
    tiny(tmp_path)
    with pytest.raises(SpecError, match=r"search\.budget_epochs: is given beside search\.budget_seconds; keep one"):
        load(tmp_path / "spec.yaml", ["search.budget_epochs=3", "search.budget_seconds=3"])
