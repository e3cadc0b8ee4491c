"""Registries: the parts of one kind (networks, attacks, …) by name, open to parts of the user's own.

A name is one of four: a registered name; a name that an installed package adds by an entry point; `family:name`, which
a function of the registry makes a part of; or `module:name`, an object in a module of the user's. A `module:name` is
imported only by `Registry.resolve`, never when a file is read.
The project's own parts are imported when they are first looked up, so that reading a file does not wait for torch.
"""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import shorten_repr

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Part = TypeVar("Part")
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class PartError(TuneCureError):
    """A part that cannot be found or used."""


def is_reference(name: object) -> bool:
    """Return whether `name` has the shape of `package.module:name`."""
    return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'classic'?` where one of `choices` is close to `name`, else an empty text."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Declared:
    """A part of the project whose module is imported when the part is looked up.

    Attributes:
        reference: The part, as `module:name`.
        declaration: The base class of the part that has its hyperparameters, and needs no formula.
    """

    reference: str
    declaration: type


class Registry(MutableMapping[str, Part]):
    """The parts of one kind by name. It can be read and written like a dictionary.

    Iteration gives the registered names, then those of installed packages. Looking up a name of an installed package
    imports that package. Looking up a `module:name` finds it only once `resolve` has imported it.

    Args:
        kind: What one part is called in errors, for example `network`. Installed packages add parts by entry points of
            the group `tune_cure.networks`; a space in the kind becomes an underscore.
        parts: The project's own parts. A text stands for the object that it names as `module:name`, and is imported
            when that part is first looked up; `Declared` says beforehand what its hyperparameters are.
        accepts: Whether an object can be a part.
        expected: What `accepts` asks for, in words.
        families: Functions that return the part of a name, by what stands before the colon in `family:name`. They raise
            a PartError where there is none. A text names one as `module:name`.
    """

    def __init__(
        self,
        kind: str,
        parts: Mapping[str, Part | str | Declared],
        *,
        accepts: Callable[[object], bool] = callable,
        expected: str = "a function or a class",
        families: Mapping[str, Callable[[str], Part] | str] | None = None,
    ) -> None:
        self.kind, self.accepts, self.expected = kind, accepts, expected
        self.families = families or {}
        self._parts: dict[str, Part | str] = {}
        self._declarations: dict[str, type] = {}
        for name, part in parts.items():
            if isinstance(part, Declared):
                self._declarations[name], part = part.declaration, part.reference
            self._parts[name] = part if isinstance(part, str) else self._checked(name, part)
        self._imported: dict[str, Part] = {}
        self._expected: set[str] = set()
        self._builtin = frozenset(parts)

    @property
    def declarations(self) -> list[Any]:
        """The declaration of each part that this process knows already, each once: see `declaration`."""
        return list(dict.fromkeys(self.declaration(name) for name in [*self._parts, *self._imported]))

    def declaration(self, name: str) -> Any:
        """Return what says which hyperparameters a part has: its `Declared.declaration`, else the part itself.

        Returns:
            None if there is no such part, or it is a `module:name` that this process has not imported.
        """
        return self._declarations.get(name) or self.get(name)

    @property
    def group(self) -> str:
        """The entry-point group of this kind."""
        return f"tune_cure.{self.kind.replace(' ', '_')}{'es' if self.kind.endswith('s') else 's'}"

    def register(self, name: str, part: Part) -> None:
        """Add `part` under `name` in this process.

        Raises:
            PartError: The name stands for another part already, cannot be a name, or the object is of another kind.
        """
        if not name or ":" in name or name != name.strip():
            raise PartError(f"{shorten_repr(name)} cannot be the name of a {self.kind}: no colon and no outer spaces")
        if name in self._parts and self[name] is not part:
            raise PartError(f"there is a {self.kind} named {name!r} already")
        self._parts[name] = self._checked(name, part)

    def is_builtin(self, name: str) -> bool:
        """Return whether `name` is that of one of the project's own parts."""
        return name in self._builtin

    def expect(self, name: str) -> None:
        """Accept `name` in what is read from now on: its part is in a module that is not imported."""
        self._expected.add(name)

    def is_unread(self, name: object) -> bool:
        """Return whether `name` can stand for a part that this process has not imported."""
        return isinstance(name, str) and name not in self and (is_reference(name) or name in self._expected)

    def forget_module(self, module: str) -> None:
        """Forget the parts that were found in `module` by a `module:name`."""
        self._imported = {name: part for name, part in self._imported.items() if name.partition(":")[0] != module}

    def resolve(self, name: str) -> Part:
        """Return the part that `name` stands for; import its module where the name is a `module:name`.

        Raises:
            PartError: No part has this name, its module cannot be imported, or it is of another kind.
        """
        if name not in self and is_reference(name):
            add_working_directory()
            self._imported[name] = self._checked(name, _imported(name, self.kind))
        if name not in self:
            raise PartError(self.unknown(name))
        return self[name]

    def unknown(self, name: object) -> str:
        """Return the message that no part is called `name`."""
        if self.is_unread(name):
            return f"{self.kind} {name!r} is the user's own, and the search's parts are not imported here"
        hint = did_you_mean(name, self) if isinstance(name, str) else ""
        names = [*self, *(f"{family}:NAME" for family in self.families)]
        return f"{shorten_repr(name)} is not one of {', '.join(names)}{hint}"

    def _checked(self, name: str, part: object) -> Part:
        if not self.accepts(part):
            raise PartError(f"{self.kind} {name!r}: {self.expected} is needed, but found {shorten_repr(part)}")
        return cast(Part, part)

    def _entry_points(self) -> "dict[str, EntryPoint]":
        return _entry_points(self.group)

    def __contains__(self, name: object) -> bool:
        return (
            name in self._parts
            or name in self._imported
            or (isinstance(name, str) and self.is_of_family(name))
            or name in self._entry_points()
        )

    def is_of_family(self, name: str) -> bool:
        """Return whether `name` is a `family:name`."""
        family, _, rest = name.partition(":")
        return family in self.families and bool(rest)

    def __getitem__(self, name: str) -> Part:
        if name in self._parts:
            part = self._parts[name]
            if isinstance(part, str):
                self._parts[name] = part = self._checked(name, _imported(part, self.kind))
            return part
        if name not in self._imported and self.is_of_family(name):
            family, _, rest = name.partition(":")
            make = self.families[family]
            if isinstance(make, str):
                make = cast(Callable[[str], Part], _imported(make, self.kind))
            self._imported[name] = make(rest)
        if name in self._imported:
            return self._imported[name]
        entry_point = self._entry_points()[name]
        try:
            part = entry_point.load()
        except Exception as error:  # the package's own code runs, which can raise anything
            raise PartError(
                f"{self.kind} {name!r}: {entry_point.value} cannot be imported: {describe_error(error)}"
            ) from error
        self._parts[name] = checked = self._checked(name, part)
        return checked

    def __setitem__(self, name: str, part: Part) -> None:
        self._parts[name] = part

    def __delitem__(self, name: str) -> None:
        del self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._parts, *self._entry_points()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        return self is other  # comparing items would import every installed part

    __hash__ = object.__hash__


@cache
def _entry_points(group: str) -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {entry_point.name: entry_point for entry_point in entry_points(group=group)}


def _imported(reference: str, kind: str) -> object:
    """Return the object that `module:name` names."""
    module_name, _, attribute = reference.partition(":")
    module = import_module(module_name, kind, reference)
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise PartError(
            f"{kind} {reference!r}: module {module_name} has no {attribute}{did_you_mean(attribute, names)}"
        )
    found: object = getattr(module, attribute)
    return found


def add_working_directory() -> None:
    """Make the modules in the working directory importable, after all others."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` has it


def import_module(name: str, kind: str, reference: str) -> ModuleType:
    """Return the module `name`.

    Args:
        name: The module's name.
        kind: What is looked for in it, for errors.
        reference: How the user named that, for errors.

    Raises:
        PartError: The module cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # the module's own code runs, which can raise anything
        raise PartError(f"{kind} {reference!r}: module {name} cannot be imported: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """Return the kind of an error that the user's own code raised, and the first line of its message."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def local_modules(references: Iterable[str]) -> list[Path]:
    """Return the files and package folders in the working directory that `module:name` references need.

    The processes of trials on other machines have no such directory: these files must be sent there. References to
    installed packages need nothing. Nothing is imported.
    """
    found: dict[Path, None] = {}
    for reference in references:
        top = reference.partition(":")[0].partition(".")[0]
        spec = PathFinder.find_spec(top, [os.getcwd()])
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            found[origin.parent if origin.name == "__init__.py" else origin] = None
    return list(found)
