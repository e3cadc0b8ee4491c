"""Parsed command lines as frozen dataclasses."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, TypeVar

from tune_cure.utils.errors import TuneCureError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


class UsageError(TuneCureError):
    """A command line that cannot be carried out."""


def read(kind: type[Options], parsed: argparse.Namespace) -> Options:
    """Return the dataclass `kind` with its fields from a parsed command line; lists become tuples."""
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
