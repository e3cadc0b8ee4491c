import logging
import threading
from pathlib import Path

import pandas as pd
import pytest

from tests.support.journals import VALUES, epoch, write_run
from tune_cure.reports import refresh, tables
from tune_cure.reports.refresh import ReportRefresher
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.trial_table import SearchRecord


def test_the_tables_of_a_running_search_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "PAUSE", 0.01)
    monkeypatch.setattr(refresh, "SHARE", 1.0)  # or a slow machine would wait for twenty times as long as it writes
    written = threading.Event()
    write = tables.write_tables
    monkeypatch.setattr(tables, "write_tables", lambda result: (write(result), written.set()))
    write_run(tmp_path)
    record = SearchRecord(Journal(tmp_path).load())
    with ReportRefresher(tmp_path, record):
        assert written.wait(30)
        epoch(Journal(tmp_path, record.take), 4, 1, 0.9, 0.9)
        written.clear()
        assert written.wait(30)
        written.clear()
        assert written.wait(30)  # one that began after the epoch
        assert pd.read_csv(tmp_path / "trials.csv").set_index("trial").loc[4, "pgd_accuracy_best"] == 0.9
    assert (tmp_path / "report.html").exists()


def test_a_table_that_cannot_be_written_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refresh, "PAUSE", 0.01)
    tries = threading.Semaphore(0)

    def full(result: SearchResult) -> None:
        tries.release()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_tables", full)
    write_run(tmp_path)
    Journal(tmp_path).append("trial", 5, origin="sampler", hyperparameters=VALUES)
    with caplog.at_level(logging.WARNING), ReportRefresher(tmp_path, SearchRecord(Journal(tmp_path).load())):
        assert tries.acquire(timeout=30)
        assert tries.acquire(timeout=30)
    assert "No space left on device" in caplog.text
