import logging
from pathlib import Path

import pytest

from tune_cure.journal import Journal


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


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("trial", 0)
    journal.path.write_text("garbage\n" + journal.path.read_text())
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        journal.read()


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(tmp_path).append("epoch", 0, train_loss=float("nan"))
