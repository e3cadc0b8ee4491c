import itertools
from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.search.space.configurations import MAX_COUNTED, count_possible_trials, identify, list_configurations

OPTIMIZERS = "optimizer: {choice: [sgd, adam]}"


def test_each_configuration_of_a_space_is_listed_once_without_hyperparameters_that_make_no_difference(
    tmp_path: Path,
) -> None:
    attacks = "attack: {choice: [fgsm, pgd]}, attack_steps: {int: [2, 6], step: 2}"
    spec = tiny(tmp_path, f"space={{{attacks}, lr_max: {{uniform: [0.1, 0.2], step: 0.1}}}}", "start_from=[]")
    found = list(list_configurations(spec))
    expected = [{"attack": "fgsm"}, *({"attack": "pgd", "attack_steps": steps} for steps in (2, 4, 6))]
    assert sorted(map(repr, found)) == sorted(
        repr({**values, "lr_max": rate}) for values, rate in itertools.product(expected, (0.1, 0.2))
    )


@pytest.mark.parametrize(
    ("space", "possible"),
    [
        (f"{{{OPTIMIZERS}}}", 2),
        (f"{{{OPTIMIZERS}, lr_max: {{uniform: [0.1, 0.5], step: 0.1}}}}", 8),
        (f"{{{OPTIMIZERS}, lr_max: {{uniform: [0.1, 0.5]}}}}", 8),
        (f"{{{OPTIMIZERS}, lr_max: {{uniform: [0.1, 0.5], step: 1e-90}}}}", 8),
        ("{lambda: {choice: [0.0, 0.1]}, h: {uniform: [0.5, 1]}}", 8),  # without a penalty h makes no difference
        ("{optimizer: {choice: [adam]}, momentum: {uniform: [0.5, 0.9]}, cutout: {int: [1, 4]}}", 4),
    ],
)
def test_a_search_has_no_more_trials_than_its_space_has_configurations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, space: str, possible: int
) -> None:
    spec = tiny(tmp_path, f"space={space}", "start_from=[]")
    assert spec.search.trials == count_possible_trials(spec) == possible
    text = f"search.trials: 8, but the space has only {possible} configurations; each is trained once"
    assert caplog.messages == [text] * (possible < 8)


def test_more_configurations_than_are_counted_limit_no_number_of_trials(tmp_path: Path) -> None:
    space = f"space={{lr_max: {{uniform: [1, 2], step: {1 / MAX_COUNTED}}}}}"
    trials = tiny(tmp_path, space, "start_from=[]", "search.trials=1000000").search.trials
    assert trials == 1000000


def test_a_recorded_search_keeps_the_number_of_its_trials(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").touch()
    assert tiny(tmp_path, f"space={{{OPTIMIZERS}}}", "start_from=[]", "search.trials=24").search.trials == 24


def test_a_recorded_search_keeps_a_start_that_was_trained_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "journal.jsonl").touch()
    starts = [{"lr_max": 0.15}, {"lr_max": 0.15}, {"lr_max": 0.2}]
    spec = tiny(tmp_path, "space={lr_max: {uniform: [0.05, 0.5]}}", f"start_from={starts}")
    assert (spec.start_from, caplog.messages) == (starts, [])


def test_a_value_on_a_grid_is_the_same_whatever_its_last_digits(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "space={lr_max: {uniform: [0.05, 0.5], step: 0.05}, h: {uniform: [0.5, 2]}}", "start_from=[]")
    first, same, other = ({"lr_max": rate, "h": 1.0} for rate in (0.15, 0.05 + 2 * 0.05, 0.2))
    assert first != same
    assert identify(spec, first) == identify(spec, same) != identify(spec, other)


def test_a_start_that_is_given_twice_is_trained_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space = "space={lr_max: {uniform: [0.05, 0.5], step: 0.05}}"
    spec = tiny(tmp_path, space, "start_from=[{lr_max: 0.15}, {lr_max: 0.2}, {lr_max: 0.15000000000000002}]")
    assert spec.start_from == [{"lr_max": 0.15}, {"lr_max": 0.2}]
    assert caplog.messages == ["start_from[2]: left out, for it is the same as start_from[0]"]
