import importlib.util

import optuna
import pytest

from tests.support.sampler_studies import NUMBERS, SPACE, Values, peak, propose_values
from tune_cure.search.proposals import samplers


@pytest.fixture(params=samplers.SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "cmaes":
        pytest.importorskip("cmaes")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return str(request.param)


def test_every_sampler_proposes_values_of_the_space_repeatably(name: str) -> None:
    proposals = propose_values(name, 14, peak)
    space = NUMBERS if name == "cmaes" else SPACE
    for values in proposals:
        assert values.keys() == space.keys()
        assert all(space[key]._contains(space[key].to_internal_repr(value)) for key, value in values.items())
    assert len({values["lr_max"] for values in proposals}) == len(proposals)
    assert propose_values(name, 14, peak) == proposals
    assert propose_values(name, 14, peak, seed=1) != proposals


@pytest.mark.parametrize("name", samplers.SAMPLERS, indirect=True)
def test_a_search_that_goes_on_does_not_repeat_its_draws(name: str) -> None:
    again: list[Values] = []
    for drawn in (0, 3):  # the study is made anew, and knows the trials of before
        study = optuna.create_study(sampler=samplers.make_sampler(name, 0, drawn))
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
