from pathlib import Path
from statistics import fmean

import pytest

from tests.support.fake_backend import KilledError, Script
from tests.support.fake_league import FakeLeague
from tests.support.spaces import TINY
from tune_cure.league.budget import BudgetUnit, coarse_methods, equal_budget, with_budget
from tune_cure.search.budget import SPENT
from tune_cure.search.journal import Event, Journal
from tune_cure.search.proposals.auto_sampler import resolve_sampler
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load_mapping
from tune_cure.utils.yaml_parser import parse

COSTS = {"cheap": 0.4, "usual": 1.0, "dear": 3.1}  # seconds of training in an epoch


def searches(unit: BudgetUnit, trials: int, *, epochs: int = 6) -> dict[str, SearchSpec]:
    """Return a search for each of `COSTS`, with equal budgets."""
    budget = equal_budget(trials, unit, dict.fromkeys(COSTS, epochs), COSTS)
    specs = {}
    for name, seconds in COSTS.items():
        spec = load_mapping(parse(TINY), ["search.sampler=random", f"training.epochs={epochs}"])
        specs[name] = with_budget(spec.model_copy(update={"name": name}), unit, budget, seconds)
    return specs


def scripts(name: str, proposal: Proposal) -> Script:
    """Return a trial whose epochs cost about what is usual for its method, and whose accuracy is its `lambda`."""
    unevenness = 0.8 + 0.4 * (proposal.number * 7 % 10) / 10
    return Script([proposal.hyperparameters["lambda"]], seconds=COSTS[name] * unevenness)


def run(folder: Path, unit: BudgetUnit, trials: int = 10) -> tuple[dict[str, SearchResult], FakeLeague]:
    league = FakeLeague(searches(unit, trials), folder, scripts)
    return league.run(), league


def test_training_seconds_are_equal_within_5_percent_for_methods_of_very_different_cost(tmp_path: Path) -> None:
    results, _ = run(tmp_path, "seconds")
    spent = {name: float(result.epochs["train_seconds"].sum()) for name, result in results.items()}
    assert max(spent.values()) < 1.05 * min(spent.values())
    assert fmean(spent.values()) == pytest.approx(10 * 6 * fmean(COSTS.values()), rel=0.03)
    assert [result.outcome for result in results.values()] == ["finished"] * 3
    trials = {name: len(result.trials) for name, result in results.items()}
    assert trials["cheap"] > trials["usual"] > trials["dear"] > 3  # cheap steps earn more trials


def test_epochs_are_equal_where_they_are_the_budget(tmp_path: Path) -> None:
    results, _ = run(tmp_path, "epochs")
    assert {name: len(result.epochs) for name, result in results.items()} == dict.fromkeys(COSTS, 60)


def test_the_last_trials_say_that_the_budget_is_spent(tmp_path: Path) -> None:
    results, _ = run(tmp_path, "seconds")
    for result in results.values():
        unfinished = result.trials[result.trials["status"] == "unfinished"]
        assert unfinished.empty
        assert set(result.trials["reason"]) <= {"", SPENT}
    assert any(SPENT in set(result.trials["reason"]) for result in results.values())


def test_no_method_waits_while_another_one_runs_ahead(tmp_path: Path) -> None:
    league = FakeLeague(searches("seconds", 10), tmp_path, scripts)
    lag = []

    def measure_lag(name: str, event: Event) -> bool:
        budgets = [backend.stopper.budget for backend in league.backends.values()]
        if event["event"] == "epoch" and all(not budget.is_committed for budget in budgets):
            shares = [budget.committed_share for budget in budgets]
            lag.append(max(shares) - min(shares))
        return False

    for name, backend in league.backends.items():
        backend.proposer.journal.on_event = _followed_by(backend.proposer.journal.on_event, name, measure_lag)
    league.run()
    dearest = 6 * 1.2 * COSTS["dear"] / (10 * 6 * fmean(COSTS.values()))  # a whole trial's share of its budget
    assert max(lag) < 1.1 * dearest
    assert league.num_idle < 15  # of some 200 epochs: only the last trials leave a worker idle


def _followed_by(first, name, second):  # type: ignore[no-untyped-def]
    def both(event: Event) -> None:
        first(event)
        second(name, event)

    return both


def test_a_league_that_was_killed_goes_on_without_losing_or_repeating_a_trial(tmp_path: Path) -> None:
    def kill_at(name: str, event: Event) -> bool:
        return name == "usual" and event["event"] == "epoch" and event["trial"] == 5 and event["epoch"] == 1

    with pytest.raises(KilledError):
        FakeLeague(searches("seconds", 10), tmp_path, scripts, kill_at=kill_at).run()
    before = {name: Journal(tmp_path / name).read() for name in COSTS}
    results = FakeLeague(searches("seconds", 10), tmp_path, scripts, resume=True).run()
    for name, result in results.items():
        assert not result.trials["status"].eq("unfinished").any()
        begun = [event["trial"] for event in result.events if event["event"] == "trial"]
        assert begun == list(range(len(begun)))
        assert [event["trial"] for event in before[name] if event["event"] == "trial"] == begun[: _count(before[name])]
    spent = [float(result.epochs["train_seconds"].sum()) for result in results.values()]
    assert max(spent) < 1.05 * min(spent)


def _count(events: list[Event]) -> int:
    return sum(event["event"] == "trial" for event in events)


def test_a_method_whose_trials_all_fail_ends_alone(tmp_path: Path) -> None:
    def failing(name: str, proposal: Proposal) -> Script:
        script = scripts(name, proposal)
        failures = {1: ["broken"] * 9} if name == "usual" else {}
        return Script(script.accuracies, seconds=script.seconds, failures=failures)

    results = FakeLeague(searches("seconds", 10), tmp_path, failing).run()
    assert {name: result.outcome for name, result in results.items()} == {
        "cheap": "finished",
        "usual": "failing",
        "dear": "finished",
    }


@pytest.mark.parametrize(("trials", "sampler"), [(23, "tpe"), (24, "gp"), (48, "gp"), (49, "tpe")])
def test_auto_stands_for_the_same_sampler_by_seconds_as_by_epochs(trials: int, sampler: str) -> None:
    settings = ["search.sampler=auto", "search.scheduler=none", "training.epochs=7"]
    spec = load_mapping(parse(TINY), settings)
    for unit in ("seconds", "epochs"):
        budget = equal_budget(trials, unit, {"only": 7}, {"only": 0.1})  # type: ignore[arg-type]
        assert resolve_sampler(with_budget(spec, unit, budget, 0.1))[0] == sampler  # type: ignore[arg-type]


def test_methods_of_which_an_epoch_is_too_large_a_part_of_the_budget_are_named() -> None:
    assert coarse_methods(100, {"cheap": 1.0, "dear": 5.1}) == ["dear"]
