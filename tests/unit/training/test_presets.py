"""Methods by name: what each stands for, and what is given beside it."""

import pytest

from tune_cure.search.space.distributions import Distribution
from tune_cure.training.config import HYPERPARAMETERS, parse_training
from tune_cure.training.interactions import find_conflict, inactive_hyperparameters
from tune_cure.training.presets import (
    METHODS,
    NO_METHOD,
    Preset,
    describe_method,
    expand_method,
    expand_space,
    expand_start,
)
from tune_cure.utils.yaml_config import ProblemError

NAMES = [name for name in METHODS if name != NO_METHOD]
PUBLISHED = {  # by hand, from the papers
    "fgsm_rs": {"attack": "fgsm", "init": "uniform", "alpha": 1.25, "regularizer": "none"},
    "n_fgsm": {"attack": "fgsm", "init": "clipped_noise", "noise": 2, "alpha": 1, "regularizer": "none"},
    "trades": {"adversarial_weight": 0, "clean_weight": 1, "trades_weight": 6, "attack_steps": 10},
    "mart": {"adversarial_weight": 1, "boosted_weight": 1, "mart_weight": 5},
    "gradalign": {"init": "zero", "lambda": 0.2, "penalty_two_sided": False},
    "elle": {"init": "zero", "lambda": 1000},
    "elle_a": {"lambda": 4000, "elle_decay": 0.99, "elle_sensitivity": 2},
    "gat": {"init": "bernoulli", "adversarial_weight": 0, "clean_weight": 1, "lambda": 40, "lambda_schedule": "late"},
    "nuat": {"guide": "nuclear", "lambda": 4, "lambda_schedule": "ramp"},
    "free": {"replays": 8},
    "fgsm_pgi": {"attack": "fgsm_pgi", "lambda": 10, "pgi_momentum": 0.3, "pgi_reset": 40},
    "aaer": {"init": "clipped_noise", "noise": 2, "alpha": 1, "lambda": 0.15, "attack_statistics": "batch"},
    "ssat": {"ssat_points": 3},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_method_is_a_hyperparameter_that_has_an_effect_in_it(name: str) -> None:
    preset = METHODS[name]
    config = parse_training(expand_method({"method": name}))
    assert preset.keys.keys() <= set(HYPERPARAMETERS)
    assert find_conflict(config) is None
    idle = inactive_hyperparameters(config).keys() & preset.keys.keys()
    assert idle <= {"regularizer"}, idle
    assert {key: getattr(config, HYPERPARAMETERS[key]) for key in preset.keys} == dict(preset.keys)


@pytest.mark.parametrize("name", NAMES)
def test_the_space_of_a_method_holds_the_values_of_its_paper_and_has_reasons(name: str) -> None:
    preset = METHODS[name]
    assert preset.space
    assert preset.title
    assert preset.source
    assert preset.ranges
    config = parse_training(expand_method({"method": name}))
    for key, distribution in preset.space.items():
        assert Distribution.model_validate(distribution).contains(preset.keys[key]), key
        assert key not in inactive_hyperparameters(config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_method_stands_for_the_values_of_its_paper(name: str) -> None:
    config = parse_training(expand_method({"method": name}))
    assert {key: getattr(config, HYPERPARAMETERS[key]) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_two_methods_never_stand_for_the_same() -> None:
    configs = [parse_training(expand_method({"method": name})).model_copy(update={"method": ""}) for name in NAMES]
    assert all(one != other for index, one in enumerate(configs) for other in configs[:index])


def test_a_key_that_is_given_or_searched_overrides_the_method() -> None:
    expanded = expand_method({"method": "gat", "lambda": 3, "guide_every": 1}, beside=["guide_weight"])
    assert (expanded["lambda"], expanded["guide_every"], expanded["regularizer"]) == (3, 1, "gat")
    assert "guide_weight" not in expanded


def test_a_key_that_says_the_same_in_other_words_overrides_the_method() -> None:
    assert "alpha" not in expand_method({"method": "n_fgsm", "step_size": 0.02})
    assert "alpha" in expand_method({"method": "n_fgsm", "step_size": None})
    assert "regularizer" not in expand_method({"method": "gradalign", "delta": "classic"})
    assert "alpha" not in expand_method({"method": "n_fgsm"}, beside=["step_size"])


def test_without_a_method_nothing_is_added() -> None:
    assert expand_method({"lambda": 3}) == {"lambda": 3}
    assert expand_method({"method": "none", "lambda": 3}) == {"method": "none", "lambda": 3}
    assert describe_method({"lambda": 3}) == ""


def test_a_configuration_itself_takes_a_method_as_a_remark() -> None:
    """What a run has recorded is not changed by a preset of today."""
    assert parse_training({"method": "gat", "lambda": 3}).regularizer == "cure"


def test_an_unknown_method_is_an_error_with_the_names() -> None:
    with pytest.raises(ProblemError, match=r"'ngfsm' is not one of none, fgsm_rs, n_fgsm.*did you mean 'n_fgsm'"):
        expand_method({"method": "ngfsm"})


def test_the_space_of_a_method_stands_where_its_name_does_without_what_is_given() -> None:
    preset = METHODS["gat"]
    space = {"lr_max": {"uniform": [0.1, 0.2]}, "method": "default", "lambda": {"uniform": [1, 2]}}
    assert expand_space(space, {}, preset) == {
        "lr_max": {"uniform": [0.1, 0.2]},
        "guide_weight": preset.space["guide_weight"],
        "lambda": {"uniform": [1, 2]},
    }
    assert list(expand_space(space, {"guide_weight": 2}, preset)) == ["lr_max", "lambda"]
    assert expand_start({"method": "default", "lr_max": 0.1}, ["lambda", "lr_max"], preset, "") == {
        "lambda": 40,
        "lr_max": 0.1,
    }
    assert expand_start({"method": "default", "lambda": 1.5}, ["lambda"], preset, "") == {"lambda": 1.5}


@pytest.mark.parametrize(
    ("value", "preset", "said"),
    [
        ({"choice": ["gat", "nuat"]}, METHODS["gat"], "methods are not searched: search each, then tune-cure compare"),
        ("default", None, "is needed: space.method stands for the space of that method"),
    ],
)
def test_a_method_is_not_searched_and_its_space_needs_it(value: object, preset: Preset | None, said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        expand_space({"method": value}, {}, preset)


def test_a_start_without_a_method_cannot_take_its_values() -> None:
    with pytest.raises(ProblemError, match=r"takes default, which stands for the values of training\.method"):
        expand_start({"method": "default"}, [], None, "start_from[0]")


def test_a_method_in_words_says_what_it_stands_for_and_what_is_given_instead() -> None:
    training = expand_method({"method": "gradalign", "init": "uniform"}, beside=["lambda"])
    assert describe_method(training, ["lambda", "lr_max"]) == (
        "gradalign (FGSM from the image and GradAlign; Andriushchenko and Flammarion 2020, arXiv 2007.02617): "
        "attack fgsm  alpha 1  regularizer gradalign  penalty_two_sided False; given instead: init uniform; "
        "searched: lambda"
    )
