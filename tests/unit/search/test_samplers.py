import importlib.util
import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tune_cure.search import samplers

NUMBERS = {"lr_max": FloatDistribution(0.01, 1.0, log=True), "batch_size": IntDistribution(32, 128, step=32)}
SPACE = {**NUMBERS, "delta": CategoricalDistribution(["classic", "random"])}
Values = dict[str, Any]


@pytest.fixture(params=samplers.SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "cmaes":
        pytest.importorskip("cmaes")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return str(request.param)


def search(name: str, trials: int, objective: Callable[[Values], float], seed: int = 0) -> list[Values]:
    """The proposals of a study, every third trial of which is stopped after its first epoch."""
    study = optuna.create_study(sampler=samplers.make(name, seed, 0), direction="maximize")
    proposals = []
    for number in range(trials):
        trial = study.ask(NUMBERS if name == "cmaes" else SPACE)
        proposals.append(trial.params)
        if number % 3 == 2:
            trial.report(objective(trial.params) / 2, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, objective(trial.params))
    return proposals


def peak(values: Values) -> float:
    """Highest at a learning rate of 0.1 with `classic`."""
    return 1.0 - abs(math.log10(values["lr_max"]) + 1) - 0.5 * (values.get("delta") == "random")


def test_every_sampler_proposes_values_of_the_space_repeatably(name: str) -> None:
    proposals = search(name, 14, peak)
    space = NUMBERS if name == "cmaes" else SPACE
    for values in proposals:
        assert values.keys() == space.keys()
        assert all(space[key]._contains(space[key].to_internal_repr(value)) for key, value in values.items())
    assert len({values["lr_max"] for values in proposals}) == len(proposals)
    assert search(name, 14, peak) == proposals
    assert search(name, 14, peak, seed=1) != proposals


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "cmaes"], indirect=True)
def test_those_that_learn_draw_nearer_to_the_peak(name: str) -> None:
    proposals = search(name, 70, peak)
    early, late = (sum(map(peak, part)) / len(part) for part in (proposals[:15], proposals[-15:]))
    assert late > early + 0.1


@pytest.mark.parametrize("name", samplers.SAMPLERS, indirect=True)
def test_a_search_that_goes_on_does_not_repeat_its_draws(name: str) -> None:
    again: list[Values] = []
    for drawn in (0, 3):  # the study is made anew, and knows the trials of before
        study = optuna.create_study(sampler=samplers.make(name, 0, drawn))
        for values in again:
            space = {key: SPACE[key] for key in values}
            study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=-peak(values)))
        for _ in range(3):
            trial = study.ask(NUMBERS if name == "cmaes" else SPACE)
            again.append(trial.params)
            study.tell(trial, -peak(trial.params))
    assert len({values["lr_max"] for values in again}) == 6


def test_what_cmaes_cannot_search_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert samplers.unfit("cmaes", choice="delta") == "cmaes searches numbers, but space.delta is a choice"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'tune-cure[cmaes]'" in samplers.unfit("cmaes")
    assert not samplers.unfit("tpe", choice="delta")
