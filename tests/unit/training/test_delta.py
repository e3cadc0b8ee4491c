"""`delta`, the older word for regularizer and direction, is understood wherever hyperparameters are given."""

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from tune_cure.training.config import TrainingConfig, hyperparameter_value, parse_hyperparameter, parse_training
from tune_cure.training.delta import collapse_delta, delta_names, expand_delta, say_delta_in, split_delta
from tune_cure.training.run import resolve
from tune_cure.utils.yaml_config import ProblemError, first_problem


@pytest.mark.parametrize("name", delta_names())
def test_every_name_stands_for_a_regularizer_and_a_direction(name: str) -> None:
    config = TrainingConfig(delta=name)
    assert config == TrainingConfig.model_validate({"delta": name}) == parse_training({"delta": name})
    assert config == TrainingConfig(**split_delta(name))
    assert collapse_delta(config.regularizer, config.direction) == hyperparameter_value(config, "delta") == name
    assert "delta" not in config.model_dump()
    assert parse_hyperparameter("delta", name, "training.delta") == name


def test_the_names_are_those_of_version_0_1_0() -> None:
    assert set(delta_names()) >= {"classic", "gradient", "random", "fgsm", "linf", "gradalign", "llr", "none"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delta": "clasic"}, r"'clasic' is not one of classic, .*none; did you mean 'classic'\?"),
        ({"delta": 3}, "one of classic, .* is needed, but found 3"),
        (
            {"delta": "none", "regularizer": "none"},
            "says regularizer and direction in one word; leave out delta or reg",
        ),
        ({"delta": "fgsm", "direction": "fgsm"}, "says regularizer and direction in one word; leave out delta or dir"),
    ],
)
def test_a_wrong_delta_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate(values)
    problem = first_problem(caught.value, TrainingConfig)
    assert problem.path == "delta"
    with pytest.raises(ProblemError, match=message) as told:
        resolve({"training": values})
    assert told.value.path == "training.delta"


def test_it_is_expanded_in_place_and_below_a_section() -> None:
    assert list(expand_delta({"a": 1, "delta": "llr", "b": 2})) == ["a", "regularizer", "direction", "b"]
    saved = {"data.dataset": "digits", "training.delta": "random"}
    expanded = {"data.dataset": "digits", "training.regularizer": "cure", "training.direction": "random"}
    assert expand_delta(saved, section="training.") == expanded


def test_an_earlier_searchs_words_are_translated_into_those_of_a_space() -> None:
    old, new = {"delta": 1}, {"regularizer": 1, "direction": 1}
    assert say_delta_in({"delta": "fgsm", "h": 1}, old) == {"delta": "fgsm", "h": 1}
    assert say_delta_in({"delta": "fgsm"}, new) == {"regularizer": "cure", "direction": "fgsm"}
    assert say_delta_in({"regularizer": "none", "h": 1}, old) == {"delta": "none", "h": 1}
    assert say_delta_in({"direction": "fgsm"}, old) == {"delta": "fgsm"}
    assert say_delta_in({"regularizer": float("nan")}, old) == {}


def test_a_configuration_can_be_pickled() -> None:
    config = TrainingConfig(delta="fgsm", step_size="10/255", norm="L2")
    assert pickle.loads(pickle.dumps(config)) == config
