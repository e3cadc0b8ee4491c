import itertools
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, distribution_to_json, json_to_distribution

from tests.support import journal_lines
from tests.support.sampler_studies import make_proposer, propose
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.optuna_space import MAX_STEPS, to_optuna_distribution, to_optuna_value
from tune_cure.search.space.distributions import Distribution


def grids() -> Iterator[tuple[Distribution, list[float]]]:
    """Yield grids in decimals and in 1/255, each with its values as a YAML file spells them."""
    decimals = itertools.product((0, 1, 5, 20), (1, 2, 3, 15, 25), (10, 100))
    fractions = itertools.product((1, 2, 4), (1, 2, 4), (255, 510))
    for low, step, denominator in (*decimals, *fractions):
        for num_steps in (1, 2, 3, 7, 8, 9, 10, 13, 20):
            values = [float(Fraction(low + steps * step, denominator)) for steps in range(num_steps + 1)]
            yield Distribution(uniform=[values[0], values[-1]], step=step / denominator), values


def test_a_grid_has_all_its_values_and_no_other_in_the_study_and_when_the_study_is_read_again() -> None:
    for distribution, values in grids():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            given = to_optuna_distribution(distribution)
            grid = json_to_distribution(distribution_to_json(given))
        assert given == grid
        assert isinstance(grid, FloatDistribution)
        assert grid.step is not None
        assert round((grid.high - grid.low) / grid.step) == len(values) - 1, distribution
        for value in values:
            assert distribution.contains(value), (distribution, value)
            assert grid._contains(to_optuna_value(distribution, value)), (distribution, value)
        assert not distribution.contains(values[0] - distribution.step / 2)
        assert not distribution.contains(values[-1] + distribution.step)


def test_a_grid_too_fine_for_decimals_is_proposed_from_as_a_range() -> None:
    distribution = Distribution(uniform=[0, 1], step=1 / (2 * MAX_STEPS))
    assert to_optuna_distribution(distribution) == FloatDistribution(0, 1)


@pytest.mark.parametrize("start_at_top", [True, False])
@pytest.mark.parametrize(
    ("low", "high", "step"), [("0.01", "0.1", "0.01"), ("4/255", "12/255", "1/255"), ("3/255", "9/255", "1/255")]
)
def test_the_highest_value_of_a_grid_is_proposed_started_from_and_resumed(
    tmp_path: Path, low: str, high: str, step: str, start_at_top: bool
) -> None:
    start = high if start_at_top else low
    space = f"space={{epsilon: {{uniform: [{low}, {high}], step: {step}}}}}"
    spec = tiny(tmp_path, space, f"start_from=[{{epsilon: {start}}}]", "search.sampler=random", "search.trials=60")
    proposer, proposed = make_proposer(spec, tmp_path), []
    for number in range(spec.search.trials):  # as many as the grid has values
        proposed.append(propose(proposer).hyperparameters["epsilon"])
        proposer.tell(number, "completed", 4, {"objective": 0.3})
        journal_lines.end(Journal(tmp_path), number)
    assert proposed[0] == float(Fraction(start))
    assert float(Fraction(high)) in proposed
    assert len(set(proposed)) == round(float(Fraction(high) - Fraction(low)) / float(Fraction(step))) + 1
    assert all(spec.space["epsilon"].contains(value) for value in proposed)
    again = make_proposer(spec, tmp_path)
    assert [trial.params for trial in again.study.trials] == [trial.params for trial in proposer.study.trials]


def test_a_start_keeps_the_digits_that_it_was_given_with(tmp_path: Path) -> None:
    space = "space={lr_max: {uniform: [0.05, 0.5], step: 0.05}}"  # 0.05 + 2 * 0.05 is not 0.15
    spec = tiny(tmp_path, space, "start_from=[{lr_max: 0.15}]")
    assert propose(make_proposer(spec, tmp_path)).hyperparameters == {"lr_max": 0.15}
