"""Commands that fail, as tests run them."""

import pytest

from tune_cure.cli.main import main


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must exit with 2 and one line, having written and printed nothing else."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err
