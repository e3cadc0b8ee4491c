"""Lines that say how a search or a league is continued."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tune_cure.cli.views.console import alert
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files


def say_how_to_continue(reason: str, directory: Path, spec: SearchSpec, command: str, console: Console) -> None:
    """Say why a search or a league ended before its end, and the command that continues it."""
    alert(console, _describe_how_to_continue(reason, directory, spec, command))


@contextmanager
def explaining_interruption(directory: Path, spec: SearchSpec, command: str) -> Iterator[None]:
    """Give the KeyboardInterrupt of Ctrl-C a message: the command that continues."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_describe_how_to_continue("interrupted", directory, spec, command)) from error


def _describe_how_to_continue(reason: str, directory: Path, spec: SearchSpec, command: str) -> str:
    if own_part_files(spec):  # they are found in the working directory alone
        command = f"cd {shlex.quote(os.getcwd())} && {command}"
    return f"{reason}; all state is in {directory}. Continue with:\n  {command}"
