from pathlib import Path

import pytest

from tests.support.journals import epoch, write_run
from tune_cure.reports import artifacts
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search's folder, where plotly and matplotlib count as missing: drawing takes seconds."""
    monkeypatch.setattr(artifacts, "is_installed", lambda name: False)
    write_run(tmp_path)
    return tmp_path


def test_artifacts_are_current_until_the_search_goes_on(run: Path) -> None:
    artifacts.write_tables_and_report(SearchResult(run))
    assert not artifacts.has_current_artifacts(run)
    artifacts.write_artifacts(SearchResult(run))
    assert artifacts.has_current_artifacts(run)
    epoch(Journal(run), 4, 1, 0.9, 0.9)
    artifacts.write_tables_and_report(SearchResult(run))
    assert not artifacts.has_current_artifacts(run)


def test_artifacts_that_a_running_search_has_outrun_are_not_current(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go_on(result: SearchResult) -> None:
        assert len(result.trials) == 5
        epoch(Journal(run), 4, 1, 0.9, 0.9)

    monkeypatch.setattr(artifacts.tables, "write_best_model", go_on)
    artifacts.write_artifacts(SearchResult(run))
    assert not artifacts.has_current_artifacts(run)


def test_artifacts_without_the_report_are_not_current_if_it_can_be_made(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.write_artifacts(SearchResult(run))
    monkeypatch.setattr(artifacts, "is_installed", lambda name: True)
    assert not artifacts.has_current_artifacts(run)
    (run / run_files.REPORT).touch()
    assert artifacts.has_current_artifacts(run)
