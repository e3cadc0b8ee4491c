from typing import Annotated

import pytest
from pydantic import ValidationError

from tune_cure.utils.schema import Number, Schema, choices, one_of


class Example(Schema):
    radius: Number = 0.0
    name: Annotated[str, one_of(("classic", "random"))] = "classic"


@pytest.mark.parametrize(
    ("written", "value"), [("8/255", 8 / 255), ("1e-4", 1e-4), (" 3 / 4 ", 0.75), ("-.5", -0.5), (2, 2.0), (0.1, 0.1)]
)
def test_a_number_may_be_a_fraction_or_in_exponent_form(written: object, value: float) -> None:
    assert Example(radius=written).radius == value  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["8/0", "eight", "1/2/3", "", "nan", "inf", "0x10", True, None, [1]])
def test_anything_else_is_no_number(written: object) -> None:
    with pytest.raises(ValidationError):
        Example(radius=written)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["1e308", 1e101, -1e300, 1e-101, 5e-324, "1e400", "1e-200/1"])
def test_a_number_that_no_float32_is_near_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        Example(radius=written)  # type: ignore[arg-type]


def test_an_unknown_name_is_answered_with_the_choices_and_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"'clasic' is not one of classic, random; did you mean 'classic'\?"):
        Example(name="clasic")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Example().radius = 1.0  # type: ignore[misc]


def test_the_choices_of_a_field_can_be_listed() -> None:
    assert choices(Example.model_fields["name"]) == ["classic", "random"]
    assert choices(Example.model_fields["radius"]) == []
