import os
import time
from pathlib import Path

import pytest

from tests.support.command_line import typed_arguments
from tests.support.journal_lines import begin, end, epoch
from tests.support.journals import write_search
from tests.support.leagues import write_league
from tests.support.old_runs import copy_run
from tests.support.spaces import tiny
from tune_cure.cli import watch
from tune_cure.cli.main import main
from tune_cure.cli.options import program
from tune_cure.cli.views.live_view import PlainView
from tune_cure.reports import artifacts
from tune_cure.search.journal import Journal
from tune_cure.search.progress import SearchState
from tune_cure.search.results import SearchResult


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
    assert f"all 24 trials have ended; {program()} report results/b writes the report" in " ".join(said.split())
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


def test_a_search_that_was_killed_while_its_leaders_were_judged_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_run("finished", tmp_path)
    (folder / "report.html").touch()
    assert f"all 6 trials have ended; the report: {folder}/report.html\n" in watched(capsys, str(folder))
    journal = folder / "journal.jsonl"
    journal.write_text("".join(line for line in journal.open() if '"leader"' not in line))
    left = "6 of 6 trials have ended, but not all leaders are judged again. Continue it with:\n"
    assert main(["watch", str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"no process of this machine runs the search; {left}" in said
    assert typed_arguments(said.splitlines()[-1]) == ["search", "--resume", str(folder)]
    monkeypatch.setattr(watch, "is_dead", lambda directory: True)
    assert main(["watch", str(folder)]) == 1
    assert f"the search is not running any more; {left}" in capsys.readouterr().out


def test_what_a_change_of_settings_has_discarded_is_forgotten(tmp_path: Path) -> None:
    tiny(tmp_path, "search.budget_epochs=30", "asha.control=0.5", "search.trials=1")
    journal = Journal(tmp_path)
    begin(journal, 0)
    for number in (1, 2, 3):
        epoch(journal, 0, epoch=number, pgd_accuracy=0.5, clean_accuracy=0.9, objective=0.5)
    journal.append("change", None, settings="evaluation.epsilon: 0.1 -> 0.3", restart=True)
    epoch(journal, 0, epoch=1, pgd_accuracy=0.1, clean_accuracy=0.9, objective=0.1)
    end(journal, 0)
    state = watch.follow(tmp_path, lambda state: PlainView(state, lambda line: None))
    expected = SearchState(state.spec, state.started)
    for event in journal.read():
        expected.update(event)
    assert (state.epochs, state.budget.spent) == (1, 1.0)
    assert state.best and state.best.best and state.best.best["pgd_accuracy"] == 0.1
    assert (state.trials, state.best, state.rungs) == (expected.trials, expected.best, expected.rungs)


def test_the_settings_of_a_resumed_search_hold_for_its_earlier_events_too(tmp_path: Path) -> None:
    tiny(tmp_path, "start_from=[]", "search.budget_epochs=30")
    journal = Journal(tmp_path)
    begin(journal, 0)
    for number in (1, 2):
        epoch(journal, 0, epoch=number, pgd_accuracy=0.5, clean_accuracy=0.9, objective=0.5)
    states: list[SearchState] = []

    def show(state: SearchState) -> PlainView:
        states.append(state)
        return PlainView(state, lambda line: None)

    def resume(seconds: float) -> None:
        tiny(tmp_path, "start_from=[]", "search.budget_epochs=40", "asha.control=0.5")
        os.utime(tmp_path / "spec.yaml", (time.time() + 60, time.time() + 60))
        end(journal, 0)
        pauses.pop()

    pauses = [resume]
    with pytest.raises(IndexError):  # at the second pause
        watch.follow(tmp_path, show, lambda seconds: pauses[0](seconds))
    (state,) = states
    assert (state.epochs, state.epochs_now, state.budget.limit, state.budget.spent) == (2, 0, 40, 2.0)
    assert [rung.trials for rung in state.rungs] == [0, 0]
    assert state.ends.total() == 1


def test_a_search_that_was_resumed_with_fewer_trials_than_had_begun_is_followed_until_these_have_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_dead", lambda directory: True)
    monkeypatch.setattr(watch, "RESUME_LOOKS", 0)
    tiny(tmp_path, "search.trials=1", "start_from=[]", "rescore.top=0")
    journal = Journal(tmp_path)
    for number in range(2):
        begin(journal, number)
        epoch(journal, number, pgd_accuracy=0.5, clean_accuracy=0.9, objective=0.5)
    end(journal, 0)
    assert main(["watch", str(tmp_path)]) == 1
    assert "the search is not running any more; 1 of 2 trials have ended. Continue it" in capsys.readouterr().out
    end(journal, 1)
    assert "all 2 trials have ended" in watched(capsys, str(tmp_path))
    assert SearchResult(tmp_path).summary["trials_planned"] == 2


def test_a_league_is_answered_with_the_folders_of_its_methods_also_while_it_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_league(seconds: float = 0) -> None:
        (tmp_path / "league").mkdir()
        write_league(tmp_path / "league", {"cure": "cure", "fgsm": "fgsm_rs"})
        for journal in tmp_path.glob("league/*/journal.jsonl"):
            journal.unlink()  # none is there while the methods are measured

    monkeypatch.setattr(watch.time, "sleep", begin_league)
    for is_there in (False, True):
        assert (tmp_path / "league").exists() == is_there
        assert main(["watch", str(tmp_path / "league")]) == 2
        said = capsys.readouterr().err
        assert said == (
            f"tune-cure: {tmp_path}/league: holds a league; watch one of its searches: {tmp_path}/league/cure or "
            f"{tmp_path}/league/fgsm\n"
        )
