import logging
from pathlib import Path

import pytest

from tune_cure.journal import CHECKPOINT_FILE, Journal, JournalError


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    written = [journal.append("trial", 0, origin="sampler", hyperparameters={"h": 1.5}), journal.append("end", 0)]
    assert Journal(tmp_path).read() == written


def test_there_may_be_no_journal_yet(tmp_path: Path) -> None:
    assert Journal(tmp_path).read() == []


def test_a_last_line_that_was_cut_short_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    whole = journal.append("trial", 0)
    with journal.path.open("a") as file:
        file.write('{"event": "epo')
    with caplog.at_level(logging.WARNING):
        assert journal.read() == [whole]
    assert "cut short" in caplog.text


def test_the_line_after_one_that_was_cut_short_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = journal.append("trial", 0)
    with journal.path.open("a") as file:
        file.write('{"event": "epo')
    assert Journal(tmp_path).repair() == [whole]
    after = journal.append("end", 0)
    assert journal.read() == [whole, after]


@pytest.mark.parametrize("garbage", [b"\0" * 4096, b'{"event": "epo' + b"\0" * 100, b"[1]\n", b"\xff\xfe\n\n"])
def test_an_end_that_a_power_cut_left_as_garbage_is_cut_off(garbage: bytes, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = journal.append("trial", 0)
    with journal.path.open("ab") as file:
        file.write(garbage)
    assert Journal(tmp_path).repair() == [whole]
    after = journal.append("end", 0)
    assert journal.read() == [whole, after]


def test_a_line_that_cannot_be_written_leaves_none_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    whole = journal.append("trial", 0)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append("end", 0)
    assert journal.read() == [whole]
    assert journal.path.read_bytes().count(b"\n") == 1


def test_a_change_that_restarts_trials_hides_what_those_under_way_did_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (0, 1):
        journal.append("trial", number)
        journal.append("epoch", number, epoch=1)
    journal.append("end", 0, status="completed")
    journal.append("change", None, settings="", restart=False)
    assert [(event["event"], event["trial"]) for event in journal.read()] == [
        ("trial", 0), ("epoch", 0), ("trial", 1), ("epoch", 1), ("end", 0)
    ]  # fmt: skip
    journal.append("change", None, settings="", restart=True)
    assert [(event["event"], event["trial"]) for event in journal.repair()] == [
        ("trial", 0), ("epoch", 0), ("trial", 1), ("end", 0)
    ]  # fmt: skip
    assert len(journal.read_all()[1]) == 2


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("trial", 0)
    journal.path.write_text("garbage\n" + journal.path.read_text())
    with pytest.raises(ValueError, match="line 1 is no event"):
        journal.read()


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(tmp_path).append("epoch", 0, train_loss=float("nan"))


@pytest.mark.parametrize("line", ["3", "[1]", "null", "[" * 100_000, '{"trial": "<script>"}'])
def test_a_line_that_is_no_event_is_an_error(line: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.write_text(line + '\n{"event": "trial", "trial": 0}\n')  # at the end it may be a crash's doing
    with pytest.raises(JournalError, match="line 1 is no event"):
        journal.read()


def test_a_checkpoint_is_found_where_the_run_was_moved_to(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    file = Journal(tmp_path / "moved").checkpoint_file("trials/trial_00001/checkpoint_000001")
    assert file == tmp_path / "moved" / "trials/trial_00001/checkpoint_000001" / CHECKPOINT_FILE


@pytest.mark.parametrize("path", ["/home", "../other", "trials/../..", "out"])
def test_a_checkpoint_outside_of_the_runs_folder_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(JournalError, match="is not in the run's folder"):
        Journal(tmp_path / "run").checkpoint_file(path)
