"""Commands as tests run them: those that fail, and those that another command has printed."""

import errno
import os
import shlex

import pytest

from tune_cure.cli.main import main
from tune_cure.cli.options import program


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must exit with 2 and one line, having written and printed nothing else."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full from now on: no file that must survive a power cut can be written."""

    def sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)


def typed_arguments(command: str) -> list[str]:
    """Return the arguments of a printed command, which must start this program as a shell finds it."""
    start = f"{program()} "
    assert command.strip().startswith(start)
    return shlex.split(command.strip().removeprefix(start))
