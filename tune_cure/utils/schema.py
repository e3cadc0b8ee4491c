"""Base of every configuration of the project: immutability, strict keys and types, fractions, registered names."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.hyperparameters import Hyperparameter, declared_hyperparameters
from tune_cure.utils.registry import PartError, Registry, did_you_mean

MAX_SEED = 2**31 - 1  # numpy's take twice as much, but a search adds to its own
MAX_PATH = 4000  # characters; systems take a little more
MAX_NUMBER = 1e100  # far beyond what float32 holds; sums, squares and axes of such numbers are finite
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Schema(BaseModel):
    """A frozen configuration: unknown keys, lax types, infinities and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def absolute_path(path: str) -> str:
    """Return a path as an absolute one unless it begins with ~: other processes and sessions work in other folders.

    Raises:
        ValueError: No file can have this path.
    """
    is_invalid = any("\ud800" <= character <= "\udfff" for character in path)  # half a pair: in no file's name
    if is_invalid or "\0" in path or len(path) > MAX_PATH:
        raise ValueError(f"a path is needed, but found {shorten_repr(path)}")
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{shorten_repr(path)} begins with the home of somebody who is not known here") from error
    return path if path.startswith("~") else os.path.abspath(path)


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


def _check_magnitude(number: float) -> float:
    if number and not 1 / MAX_NUMBER <= abs(number) <= MAX_NUMBER:
        raise ValueError(f"0 or a magnitude from {1 / MAX_NUMBER:g} to {MAX_NUMBER:g} is needed, but found {number:g}")
    return number


Number = Annotated[float, BeforeValidator(parse_number), AfterValidator(_check_magnitude)]
"""A float that YAML may also spell as a fraction (`8/255`) or in exponent form (`1e-4`)."""


@dataclass(frozen=True)
class OneOf:
    """Validator of a name: one of `choices`, which the error lists.

    Where `choices` is a `Registry`, the name of a part that is not imported passes, too (`Registry.is_unread`).

    Args:
        choices: The names.
        any_case: Accept a name in any case, and return it as `choices` spells it in lower case.
    """

    choices: Mapping[str, Any] | tuple[str, ...]
    any_case: bool = False

    def __call__(self, name: str) -> str:
        if self.any_case and name.lower() in self.choices:
            return name.lower()
        if name in self.choices or (isinstance(self.choices, Registry) and self.choices.is_unread(name)):
            return name
        if isinstance(self.choices, Registry):
            raise ValueError(self.choices.unknown(name))
        raise ValueError(
            f"{shorten_repr(name)} is not one of {', '.join(self.choices)}{did_you_mean(name, self.choices)}"
        )


def one_of(choices: Mapping[str, Any] | tuple[str, ...], *, any_case: bool = False) -> AfterValidator:
    """Return the validator of a name that must be one of `choices`; see `OneOf`."""
    return AfterValidator(OneOf(choices, any_case))


def choices(field: FieldInfo) -> list[str]:
    """Return the names that a field with `one_of` may have; an empty list if it takes something else."""
    checks = (getattr(metadata, "func", None) for metadata in field.metadata)
    return [name for check in checks if isinstance(check, OneOf) for name in check.choices]


def with_hyperparameters(
    name: str, base: type[Schema], parts: Iterable[Any], *, beside: Iterable[Any] = ()
) -> type[Schema]:
    """Return a subclass of `base` with a field for each hyperparameter that one of `parts` declares.

    Parts that derive from each other share their hyperparameters.

    Args:
        name: Of the subclass.
        base: The class with the fields that all parts share.
        parts: The parts whose hyperparameters are added.
        beside: Parts whose hyperparameters `base` has already.

    Raises:
        PartError: Two parts declare one name differently, or a part declares a name that `base` has.
    """
    fields: dict[str, Any] = {}
    declared: dict[str, Hyperparameter] = {}
    for part in beside:
        declared |= declared_hyperparameters(part)
    present = base.model_fields.keys()
    for part in parts:
        hints = get_type_hints(part) if isinstance(part, type) else {}
        for key, hyperparameter in declared_hyperparameters(part).items():
            if (key in present and key not in declared) or declared.get(key, hyperparameter) != hyperparameter:
                raise PartError(
                    f"{part.__module__}.{part.__qualname__}: there is a hyperparameter {key} already; rename it, or "
                    "leave out its hyperparameter() to take the value that is given there"
                )
            declared[key] = hyperparameter
            if key not in present:
                fields[key] = _field(hints[key], hyperparameter)
    return create_model(name, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields)


def _field(kind: Any, declared: Hyperparameter) -> Any:
    """Return a declared hyperparameter as pydantic takes it: its type with checks, and its description and bounds."""
    if declared.choices is not None:
        kind = Annotated[str, one_of(declared.choices)]
    elif kind is float:
        kind = Number
    elif kind == float | None:
        kind = Number | None
    bounds: dict[str, Any] = dict(declared.bounds)
    return kind, Field(default=declared.default, description=declared.description, **bounds)
