"""What every configuration of the project shares: immutability, strict keys and types, fractions, registered names."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

from tune_cure.utils.formatting import shorten_repr

MAX_SEED = 2**31 - 1  # numpy's take twice as much, but a search adds to its own
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Schema(BaseModel):
    """A frozen configuration: unknown keys, lax types, infinities and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def parse_number(value: Any) -> Any:
    """Turns the strings that a YAML file may hold in place of a number into that number: '8/255', '1e-4'.

    PyYAML reads both as strings (YAML 1.1 wants a dot in `1.0e-4`). Everything else is returned untouched, for
    the type check that follows to judge.

    Raises:
        ValueError: The string is neither a number nor a fraction of two numbers, or divides by zero.
    """
    if not isinstance(value, str):
        return value
    numerator, slash, denominator = (part.strip() for part in value.partition("/"))
    if not _NUMBER.fullmatch(numerator) or (slash and not _NUMBER.fullmatch(denominator)):
        raise ValueError(f"{shorten_repr(value)} is not a number or a fraction such as 8/255")
    if not slash:
        return float(numerator)
    if float(denominator) == 0:
        raise ValueError(f"{shorten_repr(value)} divides by zero")
    return float(numerator) / float(denominator)


Number = Annotated[float, BeforeValidator(parse_number)]
"""A float that YAML may also spell as a fraction (`8/255`) or in exponent form (`1e-4`)."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'classic'?` where one of `choices` is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class OneOf:
    """Checks that a name is one of `choices`; the error lists them."""

    choices: Mapping[str, Any] | tuple[str, ...]

    def __call__(self, name: str) -> str:
        if name not in self.choices:
            raise ValueError(
                f"{shorten_repr(name)} is not one of {', '.join(self.choices)}{did_you_mean(name, self.choices)}"
            )
        return name


def one_of(choices: Mapping[str, Any] | tuple[str, ...]) -> AfterValidator:
    """The validator of a name that must be a key of the registry `choices`."""
    return AfterValidator(OneOf(choices))


def choices(field: FieldInfo) -> list[str]:
    """The names that a field with `one_of` may have; none if it takes something else."""
    checks = (getattr(metadata, "func", None) for metadata in field.metadata)
    return [name for check in checks if isinstance(check, OneOf) for name in check.choices]
