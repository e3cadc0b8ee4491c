import json
from pathlib import Path

import pytest

from tests.support.journals import epoch, write_search
from tune_cure.reports.figures import importance
from tune_cure.reports.made_files import MadeFiles
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose importance is computed, in a made-up way."""
    folders: list[Path] = []

    def explain(result: SearchResult) -> importance.Shares:
        folders.append(result.directory)
        return {"PGD accuracy": {"lambda": 0.5, "h": 1 / 3}}

    monkeypatch.setattr(importance, "explain", explain)
    return folders


def test_shares_are_computed_once_for_the_same_trials(tmp_path: Path, counted: list[Path]) -> None:
    write_search(tmp_path)
    first = importance.write_importance(SearchResult(tmp_path))
    assert importance.write_importance(SearchResult(tmp_path)) == first
    assert list(first["PGD accuracy"]) == ["lambda", "h"]
    assert json.loads((tmp_path / run_files.IMPORTANCE).read_text()) == first
    assert len(counted) == 1
    epoch(Journal(tmp_path), 2, 12, 0.9, 0.9)
    importance.write_importance(SearchResult(tmp_path))
    assert len(counted) == 2


def test_shares_of_an_earlier_report_are_deleted_when_none_are_found(
    tmp_path: Path, counted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_search(tmp_path)
    importance.write_importance(SearchResult(tmp_path))
    epoch(Journal(tmp_path), 2, 12, 0.9, 0.9)
    monkeypatch.setattr(importance, "explain", lambda result: {})
    assert importance.write_importance(SearchResult(tmp_path)) == {}
    assert not (tmp_path / run_files.IMPORTANCE).exists()


@pytest.mark.parametrize("content", ["[]", '{"a": 3}', '{"a": {"h": "x"}}', '{"a": {"h": NaN}}', "{", ""])
def test_a_file_that_somebody_changed_with_its_record_is_computed_anew(
    content: str, tmp_path: Path, counted: list[Path]
) -> None:
    write_search(tmp_path)
    first = importance.write_importance(SearchResult(tmp_path))
    file, made = tmp_path / run_files.IMPORTANCE, MadeFiles(tmp_path / run_files.MADE)
    source = importance._digest_inputs(SearchResult(tmp_path))
    assert made.is_current(file, source)
    file.write_text(content)
    made.add(file, source)
    made.write()
    assert importance.write_importance(SearchResult(tmp_path)) == first
    assert len(counted) == 2
