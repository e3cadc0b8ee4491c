import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.journal_lines import begin, end, epoch
from tests.support.spaces import TINY, tiny
from tune_cure.cli import watch
from tune_cure.cli.main import main
from tune_cure.cli.options import program
from tune_cure.cli.views.live_view import PlainView
from tune_cure.search.journal import Journal, JournalError
from tune_cure.search.progress import SearchState
from tune_cure.search.space.loading import load
from tune_cure.utils import environment, locking

WATCH = [sys.executable, "-m", "tune_cure", "watch"]


def write_trial(journal: Journal, number: int, **more: Any) -> None:
    begin(journal, number)
    accuracies = {"clean_accuracy": 0.7, "pgd_accuracy": 0.4, "pgd_accuracy_best": 0.4, "objective": 0.4}
    epoch(journal, number, **accuracies, **more)
    end(journal, number)


def followed(folder: Path, steps: list[Any]) -> tuple[SearchState, list[str]]:
    """Follows a search in `folder`, each pause being used for the next of `steps`."""
    lines: list[str] = []
    state = watch.follow(folder, lambda state: PlainView(state, lines.append), lambda seconds: steps.pop(0)())
    assert not steps
    return state, lines


def test_watch_prints_each_trial_that_ends_until_all_have_ended(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    state, lines = followed(tmp_path, [lambda: None, lambda: write_trial(journal, 1)])
    assert [line.partition(" ran")[0] for line in lines] == ["[1/2] trial 0", "[2/2] trial 1"]
    assert state.ends.total() == 2


def test_watch_waits_for_a_line_that_is_being_written_and_drops_one_that_was_cut_off(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    write_trial(journal, 1)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-60])

    def finish() -> None:
        with journal.path.open("ab") as file:
            file.write(whole[-60:])

    state, lines = followed(tmp_path, [lambda: None, finish])
    assert len(lines) == state.ends.total() == 2
    journal.path.write_bytes(whole[:-60])

    def resume() -> None:
        journal.load(repair=True)
        journal.append("end", 1, status="completed", reason="")

    state, lines = followed(tmp_path, [lambda: None, resume])
    assert len(lines) == state.ends.total() == 2


def test_watch_follows_a_search_that_is_resumed_with_more_trials_to_its_new_end(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    spec = load(tmp_path / "spec.yaml", ["search.trials=3"])

    def resume() -> None:
        time.sleep(0.02)  # file systems' clocks are coarse
        (tmp_path / "spec.yaml").write_text(spec.to_yaml())
        write_trial(journal, 1)

    state, lines = followed(tmp_path, [resume, lambda: write_trial(journal, 2)])
    assert lines[-1].startswith("[3/3] trial 2")
    assert state.epochs_now == 2  # for the rate, those since it was resumed
    assert state.started == (tmp_path / "spec.yaml").stat().st_mtime


@pytest.fixture
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that is not running is given no time to be resumed."""
    monkeypatch.setattr(watch, "RESUME_LOOKS", 0)


def test_watch_waits_for_a_search_that_is_about_to_be_resumed(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    with locking.hold_run_lock(tmp_path):
        environment.write(tmp_path, "digits")
    assert watch.is_dead(tmp_path)
    with contextlib.ExitStack() as resumed:

        def resume() -> None:
            resumed.enter_context(locking.hold_run_lock(tmp_path))

        steps = [lambda: None, resume, lambda: write_trial(journal, 1), resumed.close]
        state, lines = followed(tmp_path, steps)
    assert lines[1] == "the search is not running; waiting 10 s for it to be resumed"
    assert [line.partition(" ran")[0] for line in [lines[0], *lines[2:]]] == ["[1/2] trial 0", "[2/2] trial 1"]
    assert state.ends.total() == 2


def test_watch_ends_once_a_search_that_is_not_running_is_not_resumed_for_some_seconds(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2")
    write_trial(Journal(tmp_path), 0)
    with locking.hold_run_lock(tmp_path):
        environment.write(tmp_path, "digits")
    state, _ = followed(tmp_path, [lambda: None] * watch.RESUME_LOOKS)
    assert state.ends.total() == 1


def test_watch_follows_a_search_whose_trials_have_ended_while_a_process_still_runs_it(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=1")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    more = load(tmp_path / "spec.yaml", ["search.trials=2"])
    with contextlib.ExitStack() as running:
        running.enter_context(locking.hold_run_lock(tmp_path))

        def resume() -> None:
            time.sleep(0.02)  # file systems' clocks are coarse
            (tmp_path / "spec.yaml").write_text(more.to_yaml())

        _, lines = followed(tmp_path, [resume, lambda: write_trial(journal, 1), running.close])
    assert [line.partition(" ran")[0] for line in lines] == ["[1/1] trial 0", "[2/2] trial 1"]


@pytest.mark.usefixtures("_no_wait")
def test_watch_says_that_no_process_runs_the_search_and_prints_the_command_that_resumes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path)
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    with locking.hold_run_lock(tmp_path):
        environment.write(tmp_path, "digits")
        begin(journal, 1)
        assert not watch.is_dead(tmp_path)
    assert main(["watch", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "the search is not running any more; 1 of 8 trials have ended. Continue it with:\n" in said
    assert said.endswith(f" search --resume {tmp_path}\n")
    end(journal, 1)  # between two trials
    assert main(["watch", str(tmp_path)]) == 1
    assert "2 of 8 trials have ended. Continue it with:\n" in capsys.readouterr().out


def test_watch_says_that_a_search_ended_early_by_its_patience_and_prints_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path, "search.patience=1")
    journal = Journal(tmp_path)
    write_trial(journal, 0)
    begin(journal, 1)
    state, _ = followed(tmp_path, [lambda: None, lambda: end(journal, 1)])  # nothing says that it is dead
    assert state.ends.total() == 2
    assert main(["watch", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"2 of 8 trials have ended; {program()} report {tmp_path} writes the report\n" in said
    assert "ended early: the last 1 trial improved nothing; to go on, raise search.patience and --resume" in said
    assert "Continue" not in said


@pytest.mark.parametrize(
    "content",
    ['{"host": "elsewhere"}', '{"resumed": [{"host": "elsewhere"}]}', "{}", "[]", "{", '{"resumed": 3}', '{"host": 3}'],
)
def test_watch_does_not_say_whether_another_machine_runs_the_search(content: str, tmp_path: Path) -> None:
    with locking.hold_run_lock(tmp_path):
        pass
    assert not watch.is_dead(tmp_path)
    (tmp_path / "environment.json").write_text(content)
    assert not watch.is_dead(tmp_path)


def test_watch_changes_no_file_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path, "search.trials=1")
    write_trial(Journal(tmp_path), 0)

    def state() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}

    before = state()
    tmp_path.chmod(0o555)
    try:
        assert main(["watch", str(tmp_path)]) == 0
    finally:
        tmp_path.chmod(0o755)
    assert state() == before
    assert f"all 1 trials have ended; {program()} report {tmp_path} writes the report\n" in capsys.readouterr().out


def test_watch_answers_a_damaged_journal_with_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path)
    (tmp_path / "journal.jsonl").write_text("garbage\n")
    with pytest.raises(JournalError, match="line 1 is no event"):
        followed(tmp_path, [])
    assert main(["watch", str(tmp_path)]) == 2
    assert main(["watch", str(tmp_path / "spec.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_watch_waits_for_a_run_that_does_not_exist_yet_and_ctrl_c_ends_watch_alone(tmp_path: Path) -> None:
    out = tmp_path / "results" / "tiny"
    process = subprocess.Popen([*WATCH, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"waiting for a search in {out}, which is not there yet; Ctrl-C ends this\n"
    out.mkdir(parents=True)
    tiny(out)
    write_trial(Journal(out), 0)
    assert process.stdout.readline().startswith("[1/8] trial 0 ran to the end")
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed, errors) == (0, "", "")


@pytest.mark.ray
def test_a_running_search_is_watched_from_another_terminal(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    watching = subprocess.Popen([*WATCH, str(out)], stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "run_search.py", "--space", str(tmp_path / "tiny.yaml"), "--output", str(out)]
    short = ["--set", "search.trials=3", "--set", "training.epochs=2"]
    search = subprocess.run([*command, *short], capture_output=True, text=True, check=True)
    printed, _ = watching.communicate(timeout=60)
    ends = re.compile(r"^\[\d/3\] trial .*$", re.MULTILINE)
    assert watching.returncode == 0
    assert len(ends.findall(printed)) == 3
    assert ends.findall(printed) == ends.findall(search.stdout)
