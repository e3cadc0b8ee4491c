"""Tests of every sampler; the Gaussian process takes seconds."""

from pathlib import Path

import optuna
import pytest

from tests.support.sampler_studies import make_proposer, peak, propose, propose_values
from tests.support.spaces import tiny
from tune_cure.search import results
from tune_cure.search.proposals import samplers


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(params=samplers.SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "cmaes":
        pytest.importorskip("cmaes")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return str(request.param)


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "cmaes"], indirect=True)
def test_samplers_that_learn_propose_nearer_to_the_optimum(name: str) -> None:
    proposals = propose_values(name, 70, peak)
    early, late = (sum(map(peak, part)) / len(part) for part in (proposals[:15], proposals[-15:]))
    assert late > early + 0.1


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsga2", "qmc"])
def test_samplers_of_several_metrics_propose_new_values_to_the_end(tmp_path: Path, sampler: str) -> None:
    metrics = "search.metric=[pgd_accuracy_best, clean_accuracy]"
    constraint = "search.constraints=[clean_accuracy >= 0.3]"
    spec = tiny(tmp_path, metrics, constraint, f"search.sampler={sampler}", "start_from=[]", "search.trials=30")
    proposer = make_proposer(spec, tmp_path)
    for number in range(25):
        h = propose(proposer).hyperparameters["h"]
        metrics = {"pgd_accuracy_best": 2 - h, "clean_accuracy": h / 2, "objective": 0.0}
        status, epoch = ("stopped", 1) if number % 3 else ("completed", 4)
        proposer.tell(number, status, epoch, metrics)
    assert results.trials(tmp_path)["h"].nunique() > 15  # genes of parents come again
