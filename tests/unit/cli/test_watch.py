import os
import time
from pathlib import Path

import pytest

from tests.support.journal_lines import begin
from tests.support.journals import write_search
from tests.support.spaces import tiny
from tune_cure.cli import watch
from tune_cure.cli.main import main
from tune_cure.reports import artifacts
from tune_cure.search.journal import Journal


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause ends the watching, as Ctrl-C does: nothing is waited for."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupt)


def watched(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["watch", *arguments]) == 0
    return capsys.readouterr().out


def finished(folder: Path, *, written: float = 0.0) -> Path:
    """A search whose trials have all ended, last written to at `written`, in seconds from now."""
    folder.mkdir(parents=True)
    write_search(folder)
    at = time.time() + written
    os.utime(folder / "journal.jsonl", (at, at))
    return folder


def test_a_folder_that_is_not_there_is_said_with_the_searches_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert watched(capsys, str(results / "tiny")) == (
        f"waiting for a search in {results}/tiny, which is not there yet; Ctrl-C ends this\n"
    )
    finished(results / "quickstart")
    assert watched(capsys, str(results / "quickstrat")) == (
        f"waiting for a search in {results}/quickstrat, which is not there yet; {results} has quickstart; did you mean "
        "'quickstart'?; Ctrl-C ends this\n"
    )


def test_without_a_folder_the_run_that_was_written_to_last_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch"]) == 2
    assert capsys.readouterr().err == "tune-cure: results: holds no search yet; name the folder of one\n"
    finished(tmp_path / "results" / "b", written=-5)
    finished(tmp_path / "results" / "a", written=-9)
    said = watched(capsys)
    assert said.startswith("the newest run: results/b\n")
    assert "all 24 trials have ended; the report: results/b/report.html" in said
    monkeypatch.setattr(artifacts, "write_artifacts", lambda result: result.directory / "report.html")
    assert main(["report"]) == 0
    assert capsys.readouterr().out.startswith("the newest run: results/b\nwrote results/b/report.html")


def test_a_folder_of_runs_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "results" / "a")
    finished(tmp_path / "results" / "b")
    assert main(["watch", str(tmp_path / "results")]) == 2
    assert f"holds no search itself, but these: {tmp_path}/results/a, " in capsys.readouterr().err


def test_a_folder_with_neither_search_nor_runs_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path)
    said = watched(capsys, str(tmp_path))
    assert said == f"waiting for a search in {tmp_path}; Ctrl-C ends this\n"
    Journal(tmp_path).path.touch()
    assert watch.is_begun(tmp_path)


def test_the_end_of_a_time_budget_has_a_code_of_its_own_until_the_search_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_dead", lambda directory: True)
    monkeypatch.setattr(watch, "RESUME_LOOKS", 0)
    tiny(tmp_path)
    journal = Journal(tmp_path)
    begin(journal, 0)
    assert main(["watch", str(tmp_path)]) == 1
    assert "the search is not running any more; 0 of 8 trials have ended" in capsys.readouterr().out
    journal.append("pause", None, reason="the time budget is used up")
    assert main(["watch", str(tmp_path)]) == 75
    assert "the time budget is used up; 0 of 8 trials have ended. Continue it with:" in capsys.readouterr().out
    journal.append("resume", None)
    assert main(["watch", str(tmp_path)]) == 1
