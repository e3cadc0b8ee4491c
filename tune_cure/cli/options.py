"""Parsed command lines as frozen dataclasses."""

import argparse
import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tune_cure.search import run_files
from tune_cure.utils.errors import TuneCureError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tune_cure.search.results import SearchResult

Options = TypeVar("Options", bound="DataclassInstance")


PARTS_HELP = "the file of your own parts, in the place of the one that the run was begun with"


class UsageError(TuneCureError):
    """A command line that cannot be carried out."""


def read(kind: type[Options], parsed: argparse.Namespace) -> Options:
    """Return the dataclass `kind` with its fields from a parsed command line; lists become tuples."""
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add a run's folder, which may be left out, to a command's arguments; see `find_folder`."""
    folder_help = f"the run's folder (default: the newest run in {run_files.RESULTS}/)"
    parser.add_argument("directory", type=Path, nargs="?", metavar="FOLDER", help=folder_help)


def find_folder(directory: Path | None, say: Callable[[str], None]) -> Path:
    """Return the run's folder that the user named, or else the newest run, which is said.

    Raises:
        UsageError: None is named, and there is no run in the default folder of results.
    """
    if directory is not None:
        return directory
    runs = run_files.find_runs(run_files.RESULTS)
    if not runs:
        raise UsageError(f"{run_files.RESULTS}: holds no search yet; name the folder of one")
    say(f"the newest run: {runs[0]}")
    return runs[0]


def folder_of(search: "SearchResult | str | Path") -> Path:
    """Return the folder of a search that a public function was given."""
    return Path(search) if isinstance(search, str | Path) else search.directory


def program() -> str:
    """Return what starts this program from any working directory: its name if that is found on the PATH."""
    installed = Path(sys.executable).with_name("tune-cure")
    is_found = shutil.which("tune-cure") == str(installed)
    return "tune-cure" if is_found else f"{shlex.quote(sys.executable)} -m tune_cure"
