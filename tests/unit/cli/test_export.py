from pathlib import Path

import pytest

from tests.support.confirmations import write_quick_search
from tests.support.exported_models import write_best_model, write_confirmed_runs
from tune_cure.cli import main as cli
from tune_cure.reports import tables
from tune_cure.search.results import SearchResult


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    found = write_quick_search(tmp_path)
    tables.write_tables(found)
    write_best_model(found)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    try:
        code = cli.main(["export", *map(str, arguments)])
    except SystemExit as exit_:  # argparse's way
        code = int(str(exit_.code))
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_search_is_exported(result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert result.best
    before = {path: path.stat().st_mtime_ns for path in result.directory.rglob("*")}
    assert cli.main(["export", str(result.directory), "--to", str(tmp_path / "new" / "out")]) == 0
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'new' / 'out'}: trial {result.best.trial} of the search digits-search" in said
    assert "its accuracies are those on the validation images that chose it" in said
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {
        "model.safetensors", "config.json", "model.py", "load.py", "README.md", "best_config.csv", "best_config.yaml",
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in before if path != result.directory} == {
        path: time for path, time in before.items() if path != result.directory
    }


def test_the_folder_may_be_named_as_the_output(result: SearchResult, tmp_path: Path) -> None:
    assert cli.main(["export", str(result.directory), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_confirmed_network_is_exported(
    result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_confirmed_runs(result, 1, 2)
    to = tmp_path / "out"
    assert cli.main(["export", str(result.directory), "--to", str(to), "--confirmed", "fgsm", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "plain FGSM" in said and "with seed 2 on 200 training images" in said
    assert "validation images that chose it" not in said
    assert "# digits-search, fgsm, seed 2\n" in (to / "README.md").read_text()
    assert not (to / "best_config.csv").exists()


def test_bad_input_is_one_line_and_writes_nothing(
    result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    assert "the following arguments are required: --to" in refused(capsys, result.directory)
    assert "holds no search" in refused(capsys, tmp_path / "nothing", "--to", to)
    assert "makes no difference without --confirmed" in refused(capsys, result.directory, "--to", to, "--seed", 1)
    assert "invalid int value: 'x'" in refused(capsys, result.directory, "--to", to, "--seed", "x")
    assert "holds no confirmation" in refused(capsys, result.directory, "--to", to, "--confirmed", "fgsm")
    assert "is not an empty folder" in refused(capsys, result.directory, "--to", result.directory)
    assert "unknown argument --two" in refused(capsys, result.directory, "--to", to, "--two")
    (result.directory / "best_model.pt").unlink()
    assert "there is nothing to export" in refused(capsys, result.directory, "--to", to)
    assert not to.exists()
