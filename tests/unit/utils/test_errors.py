import ast
import pickle
from pathlib import Path

import pytest

import tune_cure
from tune_cure.cli import main as cli_main
from tune_cure.search.space.loading import load
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.yaml_config import SpecError

PACKAGE = Path(tune_cure.__file__).parent
INTERNAL = {
    "ProblemError",  # always turned into a SpecError, a FolderError or a JournalError, with the file's name
    "WorkLeftBehindError",  # a second Ctrl-C
}


def error_bases() -> dict[str, str]:
    """The first base of every error class of the package, by the class's name; read from the source, without Ray."""
    classes = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    return {node.name: ast.unparse(node.bases[0]).rpartition(".")[2] for node in classes}


def test_every_error_of_the_package_is_a_tune_cure_error() -> None:
    bases = error_bases()

    assert {"SpecError", "FolderError", "DataError", "JournalError", "ResultsError", "UsageError"} < bases.keys()
    for name in bases.keys() - INTERNAL:
        base = name
        while base in bases and base != "TuneCureError":
            base = bases[base]
        assert base == "TuneCureError", name


def test_the_text_is_one_line_whatever_a_file_is_called() -> None:
    error = TuneCureError("a\nb\x1b[31m: cannot be read")

    assert str(error) == "a\\nb\\x1b[31m: cannot be read"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # Ray sends errors from process to process


def test_callers_of_the_api_can_catch_it_as_a_value_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load("/nowhere.yaml", [])
    assert issubclass(SpecError, TuneCureError)


def test_a_command_prints_the_error_alone_and_exits_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main(["report", "/nowhere"]) == TuneCureError.exit_code == 2
    error = capsys.readouterr().err
    assert error.startswith("tune-cure: /nowhere") and error.count("\n") == 1
