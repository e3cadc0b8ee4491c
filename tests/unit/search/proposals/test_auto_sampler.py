from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.sampler_studies import make_proposer
from tests.support.spaces import tiny
from tune_cure.search.proposals.auto_sampler import SearchTraits, choose_sampler, read_traits, resolve_sampler
from tune_cure.search.proposals.distinct_sampler import DistinctSampler
from tune_cure.search.proposals.samplers import unfit

MEASURED = SearchTraits(num_keys=4, num_trials=48)


@pytest.mark.parametrize(
    ("changes", "sampler", "reason"),
    [
        ({}, "gp", "48 trials over 4 numbers, and none is stopped in the first third of its epochs"),
        ({"num_trials": 24}, "gp", "24 trials over 4 numbers, and none is stopped in the first third of its epochs"),
        ({"num_keys": 1}, "gp", "48 trials over 1 number, and none is stopped in the first third of its epochs"),
        (
            {"first_rung": 9 / 27},
            "gp",
            "48 trials over 4 numbers, and none is stopped in the first third of its epochs",
        ),
        ({"num_trials": 23}, "tpe", "fewer than 24 trials"),
        ({"num_trials": 39, "first_rung": 9 / 27}, "tpe", "fewer than 40 trials"),
        ({"num_trials": 49}, "tpe", "more than 48 trials"),
        (
            {"num_trials": 80, "first_rung": 9 / 27},
            "gp",
            "80 trials over 4 numbers, and none is stopped in the first third of its epochs",
        ),
        ({"num_trials": 81, "first_rung": 9 / 27}, "tpe", "more than 80 trials"),
        ({"num_keys": 5}, "tpe", "more than 4 hyperparameters"),
        ({"choice": "direction"}, "tpe", "direction is a choice"),
        ({"first_rung": 8 / 27}, "tpe", "trials may be stopped in the first third of their epochs"),
        ({"is_constrained": True}, "tpe", "there are constraints"),
        ({"num_metrics": 2}, "tpe", "there are 2 metrics"),
        ({"at_times": "h", "choice": "direction"}, "tpe", "only some trials have h"),
    ],
)
def test_auto_is_the_sampler_that_was_better_in_searches_of_this_kind(
    changes: dict[str, object], sampler: str, reason: str
) -> None:
    traits = replace(MEASURED, **changes)
    assert choose_sampler(traits) == (sampler, reason)
    assert not unfit(
        sampler,
        choice=traits.choice,
        at_times=traits.at_times,
        constrained=traits.is_constrained,
        objectives=traits.num_metrics,
        warm=True,
    ), "what auto stands for can search the space"


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        (["search.scheduler=none", "search.trials=30"], "StoppedTrialsGPSampler"),
        (["search.scheduler=none", "search.trials=999", "search.budget_epochs=120"], "StoppedTrialsGPSampler"),
        (["search.scheduler=asha", "search.trials=40", "asha.grace_period=2"], "StoppedTrialsGPSampler"),
        (["search.scheduler=none", "search.trials=999", "search.budget_epochs=24"], "TPESampler"),
        (["search.scheduler=asha", "search.trials=40"], "TPESampler"),
        (["search.scheduler=median", "search.trials=40", "asha.grace_period=2"], "TPESampler"),
        (["search.scheduler=none", "search.trials=30", "space.optimizer={choice: [sgd, adam]}"], "TPESampler"),
        (["search.scheduler=none", "search.trials=30", "space.direction={choice: [classic, random]}"], "TPESampler"),
    ],
)
def test_a_search_by_auto_has_the_sampler_that_suits_it(tmp_path: Path, settings: list[str], sampler: str) -> None:
    spec = tiny(tmp_path, "search.sampler=auto", "start_from=[]", *settings)
    used = make_proposer(spec, tmp_path).study.sampler
    assert isinstance(used, DistinctSampler)
    assert type(used.inner).__name__ == sampler


def test_a_sampler_that_is_named_stays_and_has_no_reason(tmp_path: Path) -> None:
    assert resolve_sampler(tiny(tmp_path, "search.sampler=random")) == ("random", "")


def test_a_key_that_is_inactive_in_every_trial_is_no_dimension(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "start_from=[]", "space.momentum={uniform: [0.5, 0.9]}")
    without = tiny(tmp_path, "start_from=[]", "space.momentum={uniform: [0.5, 0.9]}", "training.optimizer=adam")
    assert read_traits(spec).num_keys == read_traits(without).num_keys + 1
    assert read_traits(without).at_times is None
