"""Lines that say how a command is continued that has ended before its end."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tune_cure.cli.views.console import alert
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.utils.files import DiskError, describe_disk_fault

KEPT = "what is done is kept. Continue with:"


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


@contextmanager
def explaining_disk_fault(command: str) -> Iterator[None]:
    """Add `command`, which continues, to what a full disk is answered with.

    Raises:
        DiskError: The disk is full, or denies access.
    """
    try:
        yield
    except OSError as error:
        if fault := describe_disk_fault(error):
            raise DiskError(f"{fault}; what is done is kept; to continue: {command}") from error
        raise


def _describe_how_to_continue(reason: str, directory: Path, spec: SearchSpec, command: str) -> str:
    if own_part_files(spec):  # they are found in the working directory alone
        command = f"cd {shlex.quote(os.getcwd())} && {command}"
    return f"{reason}; all state is in {directory}. Continue with:\n  {command}"
