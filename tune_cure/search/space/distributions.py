"""Distribution of one searched hyperparameter: the four kinds that the YAML has."""

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, model_validator

from tune_cure.utils.formatting import format_exactly, shorten_repr
from tune_cure.utils.schema import Number, Schema, parse_number

ON_GRID = 1e-8  # how far a value may lie off the grid, in steps; Optuna allows the same
KINDS = ("uniform", "loguniform", "int", "choice")
WIDE = 100  # ratio of the ends of a range from which on a logarithmic one is the better example


def _check_range(numbers: str) -> BeforeValidator:
    """Return the check that a value is a list of two, before each of the two is checked."""

    def check(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"two {numbers} [low, high] are needed, but found {shorten_repr(value)}")
        return value

    return BeforeValidator(check)


def _check_choice(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise ValueError(f"a list of one or more values is needed, but found {shorten_repr(value)}")
    return value


def _example(value: Any) -> str:
    """Return a distribution that somebody may have meant who wrote `value` in its place."""
    try:
        low, high = map(parse_number, value)
        is_range = bool(low < high)
    except (TypeError, ValueError):
        is_range = False
    if is_range:
        are_whole = type(low) is type(high) is int and high > 1
        kind = "int" if are_whole else "loguniform" if low > 0 and high / low >= WIDE else "uniform"
        return f"{{{kind}: {shorten_repr(value)}}}"
    return f"{{choice: {shorten_repr(value)}}}" if isinstance(value, list) and value else "{loguniform: [0.001, 1]}"


class Distribution(Schema):
    """Distribution that a hyperparameter is drawn from: exactly one of uniform, loguniform, int and choice."""

    uniform: Annotated[list[Number], _check_range("numbers"), Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[low, high], both included; with `step`, low + a multiple of it."
    )
    loguniform: Annotated[list[Number], _check_range("numbers"), Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[low, high] with 0 < low; the logarithm is uniform."
    )
    int_: Annotated[list[StrictInt], _check_range("whole numbers"), Field(min_length=2, max_length=2)] | None = Field(
        default=None, alias="int", description="[low, high], whole numbers, both included; with `step` as above."
    )
    choice: Annotated[list[Any], BeforeValidator(_check_choice), Field(min_length=1)] | None = Field(
        default=None, description="One of these values."
    )
    step: Number | None = Field(default=None, gt=0, description="Grid width, for uniform and int.")

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict | Distribution):
            return value
        advice = "; a fixed value belongs under training" if isinstance(value, bool | int | float | str) else ""
        raise ValueError(
            f"a distribution is needed, such as {_example(value)} (one of {', '.join(KINDS)}), but found "
            f"{'nothing' if value is None else shorten_repr(value)}{advice}"
        )

    @model_validator(mode="after")
    def _is_one_valid_distribution(self) -> "Distribution":
        kinds = [name for name in KINDS if self._values(name) is not None]
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none"
            raise ValueError(f"exactly one of {', '.join(KINDS)} is needed, but found {given}")
        if self.kind == "choice":
            if len({repr(value) for value in self.values}) < len(self.values):
                raise ValueError(f"choice: a value is listed twice in {shorten_repr(self.values)}")
        else:
            low, high = self.values
            if not low < high:
                raise ValueError(f"{self.kind}: low < high must hold, but got [{low:g}, {high:g}]")
            if self.kind == "loguniform" and low <= 0:
                raise ValueError(f"loguniform: 0 < low must hold, but got [{low:g}, {high:g}]")
            if self.step is not None and (high - low) / self.step < 1 - ON_GRID:
                raise ValueError(f"step: must be at most high - low = {high - low:g}, but got {self.step:g}")
        if self.step is not None and self.kind in ("loguniform", "choice"):
            raise ValueError(f"step: goes with uniform and int, not with {self.kind}")
        if self.step is not None and self.kind == "int" and self.step != int(self.step):
            raise ValueError(f"step: must be a whole number with int, but got {self.step:g}")
        return self

    def _values(self, kind: str) -> list[Any] | None:
        values: list[Any] | None = getattr(self, "int_" if kind == "int" else kind)
        return values

    @property
    def kind(self) -> str:
        """The kind that is given: uniform, loguniform, int or choice."""
        return next(kind for kind in KINDS if self._values(kind) is not None)

    @property
    def values(self) -> list[Any]:
        """The bounds [low, high], or the choices."""
        values = self._values(self.kind)
        assert values is not None
        return values

    def contains(self, value: Any) -> bool:
        """Return whether the sampler can propose `value`."""
        if self.kind == "choice":
            return value in self.values
        low, high = self.values
        if self.step is None:
            return isinstance(value, int | float) and bool(low <= value <= high)
        if not isinstance(value, int | float) or not low - self.step < value < high + self.step:
            return False
        steps = (value - low) / self.step
        return 0 <= round(steps) <= self.num_steps and bool(abs(steps - round(steps)) < ON_GRID)

    @property
    def num_steps(self) -> int:
        """The number of steps on the grid, from its lowest value to its highest; `step` must be given."""
        assert self.step is not None
        low, high = self.values
        return math.floor(float((high - low) / self.step) + ON_GRID)

    def count_steps(self, value: float) -> int:
        """Return how many steps above `low` the grid value next to `value` is; `step` must be given."""
        assert self.step is not None
        return round(float((value - self.values[0]) / self.step))

    def grid_value(self, steps: int) -> float:
        """Return the value so many steps above `low`; the highest is `high` itself. `step` must be given."""
        assert self.step is not None
        low, high = self.values
        return float(high if steps == self.num_steps else low + steps * self.step)

    @property
    def grid(self) -> Iterable[Any]:
        """The values one by one, from the lowest to the highest; empty for a range without `step`."""
        if self.kind == "choice":
            return self.values
        low, high = self.values
        if self.kind == "int":
            return range(low, high + 1, int(self.step or 1))
        return () if self.step is None else map(self.grid_value, range(self.num_steps + 1))

    def position(self, value: Any) -> float:
        """Return where `value` lies between low (0) and high (1), on the scale that is searched.

        A choice lies at its index, scaled to the same range; a value that is not one of the choices gives NaN. A number
        of start_from may lie outside of 0 to 1.
        """
        if self.kind == "choice":
            return self.values.index(value) / max(1, len(self.values) - 1) if value in self.values else math.nan
        low, high = map(float, self.values)
        if self.kind == "loguniform":
            return math.log(value / low) / math.log(high / low)
        return (float(value) - low) / (high - low)

    def __str__(self) -> str:
        return self._describe("{:.4g}".format, "{:g}".format)

    @property
    def exact_words(self) -> str:
        """The distribution in words, with all digits of its numbers."""
        return self._describe(format_exactly, format_exactly)

    def _describe(self, format_value: Callable[[float], str], format_step: Callable[[float], str]) -> str:
        values = ", ".join(format_value(value) if isinstance(value, float) else str(value) for value in self.values)
        return f"{self.kind} [{values}]" + (f" step {format_step(self.step)}" if self.step is not None else "")
