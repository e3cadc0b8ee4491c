import pytest

from tune_cure.search.space.distributions import Distribution


@pytest.mark.parametrize(
    ("distribution", "values", "places"),
    [
        (Distribution(uniform=[2, 4]), [2, 3, 4, 5], [0, 0.5, 1, 1.5]),
        (Distribution(loguniform=[0.01, 1]), [0.01, 0.1, 1], [0, 0.5, 1]),
        (Distribution.model_validate({"int": [1, 5]}), [1, 2, 5], [0, 0.25, 1]),
        (Distribution(choice=["a", 2, 1.5]), ["a", 2, 1.5], [0, 0.5, 1]),
    ],
)
def test_a_value_has_its_place_on_the_scale_that_it_is_searched_on(
    distribution: Distribution, values: list[object], places: list[float]
) -> None:
    assert [distribution.position(value) for value in values] == pytest.approx(places)


@pytest.mark.parametrize("value", [1, 7, 9, 2])
def test_whole_numbers_have_a_grid_too(value: int) -> None:
    assert Distribution.model_validate({"int": [1, 7], "step": 3}).contains(value) == (value in (1, 7))
