"""Parsed command lines as frozen dataclasses."""

import argparse
import dataclasses
import logging
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tune_cure.search import run_files
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import spell_out

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tune_cure.search.results import SearchResult

_logger = logging.getLogger(__name__)

Options = TypeVar("Options", bound="DataclassInstance")

EXIT_MORE_TO_DO = 75  # EX_TEMPFAIL of sysexits.h, on which batch systems run a job again

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


def positive(text: str) -> int:
    """Return a whole number of at least 1 from a command line."""
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, but found {text!r}")
    return number


def several(text: str) -> int:
    """Return a number of images from a command line."""
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError("at least 2 are needed: one image has no spread")
    return number


def radius(text: str) -> float:
    """Return a radius in pixel units from a command line, which may spell it as a fraction."""
    from tune_cure.utils.schema import parse_number  # pydantic takes long to import

    try:
        number = float(parse_number(text))
    except (ValueError, TypeError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"a radius such as 4/255 or 0.5 is needed, but found {text!r}")
    return number


def duration(text: str) -> float:
    """Return the seconds of a duration from a command line: 2h, 90s."""
    from tune_cure.utils.yaml_config import parse_duration  # pydantic takes long to import

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def progress(quiet: bool) -> Callable[[str], None]:
    """Return what takes lines of progress: print, or the logger where that shows them or nothing is to be printed."""
    if quiet or (_logger.isEnabledFor(logging.INFO) and _logger.hasHandlers()):
        return partial(_logger.info, "%s")
    return lambda line: print(spell_out(line), flush=True)


def program() -> str:
    """Return what starts this program from any working directory: its name if that is found on the PATH."""
    installed = Path(sys.executable).with_name("tune-cure")
    is_found = shutil.which("tune-cure") == str(installed)
    return "tune-cure" if is_found else f"{shlex.quote(sys.executable)} -m tune_cure"
