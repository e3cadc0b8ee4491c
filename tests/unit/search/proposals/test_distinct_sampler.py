from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, BruteForceSampler

from tests.support import journal_lines
from tests.support.fake_backend import FakeBackend, Script, scripted
from tests.support.sampler_studies import make_proposer, propose
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal
from tune_cure.search.proposals import samplers
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.configurations import identify

FOUR = "space={optimizer: {choice: [sgd, adam]}, regularizer: {choice: [cure, gradalign]}}"
GRID = "space={lr_max: {uniform: [0.04, 0.16], step: 0.04}, cutout: {int: [0, 4], step: 2}}"
CORNER = "space={lr_max: {uniform: [0.1, 0.5]}}"


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run_search(spec: SearchSpec, folder: Path) -> Counter[Any]:
    """Run a search whose best configuration is a corner of the space; count how often each was trained."""

    def script(values: dict[str, Any]) -> Script:
        rate = float(values.get("lr_max", 0.1))
        return Script([0.3 + 0.2 * (values.get("optimizer") == "sgd") + rate / 2])

    result = FakeBackend(spec, folder, scripted(spec, lambda proposal: script(proposal.hyperparameters))).run()
    assert result.outcome == "finished"
    return Counter(identify(spec, values) for values in result.proposals.values())


@pytest.mark.parametrize(
    ("space", "sampler", "trials"),
    [
        (FOUR, "tpe", 4),
        (FOUR, "nsga2", 4),
        (GRID, "tpe", 12),
        (GRID, "qmc", 12),
        (GRID, "cmaes", 12),
        (CORNER, "gp", 13),
    ],
)
def test_no_configuration_is_trained_twice_and_a_small_space_is_trained_whole(
    tmp_path: Path, space: str, sampler: str, trials: int
) -> None:
    settings = [f"search.sampler={sampler}", "search.scheduler=none"]
    spec = tiny(tmp_path, space, "start_from=[]", f"search.trials={13 if space == CORNER else 24}", *settings)
    trained = run_search(spec, tmp_path)
    assert len(trained) == sum(trained.values()) == trials


def test_a_resumed_search_knows_what_was_proposed_and_proposes_the_same_each_time(tmp_path: Path) -> None:
    spec, journal = (
        tiny(tmp_path, GRID, "start_from=[{lr_max: 0.16, cutout: 0}]", "search.trials=12"),
        Journal(tmp_path),
    )
    first = make_proposer(spec, tmp_path)
    for number in range(9):
        propose(first)
        if number != 7:  # which goes on after the interruption
            journal_lines.epoch(journal, number, epoch=4, objective=0.3, ended="completed", pgd_accuracy=0.3)
            journal_lines.end(journal, number)
    kept = journal.path.read_bytes()
    continued = []
    for _ in range(2):
        journal.path.write_bytes(kept)
        again = make_proposer(spec, tmp_path)
        continued.append([propose(again) for _ in range(4)])
        assert again.propose() is None
    assert continued[0] == continued[1]
    assert [proposal.number for proposal in continued[0]] == [7, 9, 10, 11]
    events = [event["hyperparameters"] for event in journal.read() if event["event"] == "trial"]
    assert len({identify(spec, values) for values in events}) == 12


def test_configurations_of_earlier_searches_can_be_proposed_and_a_search_beyond_its_space_goes_on(
    tmp_path: Path,
) -> None:
    table = tmp_path / "earlier.csv"
    table.write_text("optimizer,regularizer,pgd_accuracy_best\n" + "sgd,cure,0.5\nadam,cure,0.4\n" * 6)
    spec = tiny(tmp_path, FOUR, "start_from=[]", f"search.warm_start={table}", "search.trials=4")
    beyond = spec.model_copy(update={"search": spec.search.model_copy(update={"trials": 6})})
    proposer = make_proposer(beyond, tmp_path)
    proposed = [identify(spec, propose(proposer).hyperparameters) for _ in range(6)]
    assert len(set(proposed[:4])) == 4
    assert set(proposed[4:]) <= set(proposed[:4])


def brute_force(seed: int, drawn: int) -> BaseSampler:
    return BruteForceSampler(seed=seed + drawn)


def test_a_sampler_sees_what_it_has_drawn_for_the_trial_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(samplers.SAMPLERS, "brute_force", brute_force)
    spec = tiny(tmp_path, GRID, "start_from=[]", "search.trials=12", "search.sampler=brute_force")
    proposer = make_proposer(spec, tmp_path)
    proposed = [identify(spec, propose(proposer).hyperparameters) for _ in range(12)]
    assert len(set(proposed)) == 12
