"""Hyperparameters that a part declares beside its formula, as fields of a dataclass.

A part is a dataclass. A field with `hyperparameter(…)` is a key of `training:` in the YAML: it can be fixed and
searched, and is documented by its description. A field without one takes the value of the key of that name, which
belongs to the configuration that all parts share (`epsilon`, `norm`, …).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

_KEY = "tune_cure"
Part = TypeVar("Part")


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """The declaration of one hyperparameter.

    Attributes:
        default: Its value where none is given.
        description: What it is, with its unit, in one line.
        bounds: Of a number: `ge`, `gt`, `le`, `lt` and their limits.
        choices: Of a name: the names that it may have; None for numbers and booleans.
        unit: Of a number: its unit, for the reference; empty if the description says it.
    """

    default: Any
    description: str
    bounds: Mapping[str, float]
    choices: Mapping[str, Any] | tuple[str, ...] | None
    unit: str


def hyperparameter(
    default: Any,
    description: str,
    *,
    choices: Mapping[str, Any] | tuple[str, ...] | None = None,
    unit: str = "",
    **bounds: float,
) -> Any:
    """Declare a dataclass field as a hyperparameter; see `Hyperparameter` for the arguments."""
    assert bounds.keys() <= {"ge", "gt", "le", "lt"}, bounds
    declared = Hyperparameter(default, description, bounds, choices, unit)
    return dataclasses.field(default=default, metadata={_KEY: declared})


def declared_hyperparameters(part: type) -> dict[str, Hyperparameter]:
    """Return the hyperparameters that a part declares, by the names of its fields, those of its bases first."""
    if not dataclasses.is_dataclass(part):
        return {}
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(part) if _KEY in field.metadata}


def build_part(part: type[Part], config: object) -> Part:
    """Return the part with each of its fields set to the attribute of that name of `config`.

    A declared hyperparameter that `config` lacks has its default.
    """
    assert dataclasses.is_dataclass(part), part
    declared = declared_hyperparameters(part)
    values = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(part)
        if field.init and (field.name not in declared or hasattr(config, field.name))
    }
    return part(**values)
