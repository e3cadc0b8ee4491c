import json
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.journal_lines import begin, end, epoch
from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search import run_files
from tune_cure.search.journal import Event, Journal, JournalError, JournalFollower, TrialCounts
from tune_cure.utils.yaml_config import ProblemError


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    written = [begin(journal, 0), epoch(journal, 0), end(journal, 0)]
    assert Journal(tmp_path).read() == written


def test_there_may_be_no_journal_yet(tmp_path: Path) -> None:
    assert Journal(tmp_path).read() == []


def test_a_last_line_that_was_cut_short_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    whole = begin(journal, 0)
    with journal.path.open("a") as file:
        file.write('{"event": "epo')
    with caplog.at_level(logging.WARNING):
        assert journal.read() == [whole]
    assert "cut short" in caplog.text


def test_the_line_after_one_that_was_cut_short_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = begin(journal, 0)
    with journal.path.open("a") as file:
        file.write('{"event": "epo')
    assert Journal(tmp_path).load(repair=True).trial_events == [whole]
    after = end(journal, 0)
    assert journal.read() == [whole, after]


@pytest.mark.parametrize("garbage", [b"\0" * 4096, b'{"event": "epo' + b"\0" * 100, b"[1]\n", b"\xff\xfe\n\n"])
def test_an_end_that_a_power_cut_left_as_garbage_is_cut_off(garbage: bytes, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = begin(journal, 0)
    with journal.path.open("ab") as file:
        file.write(garbage)
    assert Journal(tmp_path).load(repair=True).trial_events == [whole]
    after = end(journal, 0)
    assert journal.read() == [whole, after]


def test_a_line_that_cannot_be_written_leaves_none_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    whole = begin(journal, 0)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        end(journal, 0)
    assert journal.read() == [whole]
    assert journal.path.read_bytes().count(b"\n") == 1


def test_a_change_that_restarts_trials_hides_what_those_under_way_did_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (0, 1):
        begin(journal, number)
        epoch(journal, number)
    end(journal, 0)
    journal.append("change", None, settings="", restart=False)
    assert [(event["event"], event["trial"]) for event in journal.read()] == [
        ("trial", 0), ("epoch", 0), ("trial", 1), ("epoch", 1), ("end", 0)
    ]  # fmt: skip
    journal.append("change", None, settings="", restart=True)
    assert [(event["event"], event["trial"]) for event in journal.load(repair=True).trial_events] == [
        ("trial", 0), ("epoch", 0), ("trial", 1), ("end", 0)
    ]  # fmt: skip
    assert len(journal.load().search_events) == 2


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    journal.path.write_text("garbage\n" + journal.path.read_text())
    with pytest.raises(ValueError, match="line 1 is no event"):
        journal.read()


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(tmp_path).append("epoch", 0, train_loss=float("nan"))


@pytest.mark.parametrize("line", ["3", "[1]", "null", "[" * 100_000])
def test_a_line_that_is_no_event_is_an_error(line: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    journal.path.write_text(line + "\n" + journal.path.read_text())  # at the end it may be a crash's doing
    with pytest.raises(JournalError, match="line 1 is no event"):
        journal.read()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line.pop("pgd_accuracy"), "line 2 is no event: pgd_accuracy: is needed, but not given"),
        (lambda line: line.update(pgd_accuracy="high"), "a number is needed, but found 'high' (str)"),
        (lambda line: line.update(pgd_accuracy=1.5), "pgd_accuracy: input should be less than or equal to 1"),
        (lambda line: line.update(objective=None), "objective: a number is needed, but found nothing"),
        (lambda line: line.update(objective=True), "objective: a number is needed, but found True (bool)"),
        (lambda line: line.update(trial="<script>"), "trial: a whole number is needed, but found '<script>' (str)"),
        (lambda line: line.update(trial=7), "line 2: trial 7 was never begun"),
        (lambda line: line.update(lr=[1]), "lr: a number is needed"),
        (lambda line: line.update(ended="tired"), "ended: input should be"),
        (lambda line: line.update(event="halt"), "event: 'halt' is not one of trial, epoch, checkpoint, retry, end"),
        (lambda line: line.update(event=["epoch"]), "event: ['epoch'] is not one of"),
        (lambda line: line.update(event="trial"), "line 2 is no event: origin: is needed, but not given"),
        (lambda line: line.update(event="trial", origin="sampler", hyperparameters={}), "trial 0 begins a second time"),
    ],
)
def test_a_line_that_is_not_what_one_of_its_kind_is_or_cannot_follow_is_an_error_even_at_the_end(
    damage: Callable[[Event], None], said: str, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    line = epoch(journal, 0)
    first = journal.path.read_text().splitlines()[0]
    damage(line)
    journal.path.write_text(f"{first}\n{json.dumps(line)}\n")
    for read in (journal.read, lambda: journal.load(repair=True), lambda: list(JournalFollower(journal.path).read())):
        with pytest.raises(JournalError, match=re.escape(said)) as raised:
            read()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lamda": 1}, "hyperparameters.lamda: unknown key"),
        ({"trial": 3}, "hyperparameters.trial: unknown key"),
        ({"lambda": "much"}, "hyperparameters.lambda: 'much' is not a number"),
        ({"lambda": -1}, "hyperparameters.lambda: "),
        ({"delta": "classy"}, "did you mean 'classic'"),
    ],
)
def test_hyperparameters_that_no_trial_can_have_are_an_error(
    values: dict[str, object], said: str, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    line = begin(journal, 0)
    journal.path.write_text(json.dumps({**line, "hyperparameters": values}) + "\n")
    with pytest.raises(JournalError, match=re.escape(said)):
        journal.read()


def test_an_event_that_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ProblemError, match="unknown key"):
        begin(journal, 0, lamda=1)
    assert not journal.path.exists()


def test_a_listener_is_told_of_what_a_reader_finds_in_the_file(tmp_path: Path) -> None:
    told: list[Event] = []
    journal = Journal(tmp_path, told.append)
    written = [begin(journal, 0, h=1, momentum=0), epoch(journal, 0, lr=np.float64(0.1))]
    assert told == written == journal.read()
    assert [type(value) for value in told[0]["hyperparameters"].values()] == [float] * 5


def test_a_trial_ends_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    end(journal, 0)
    end(journal, 0, "failed")
    with pytest.raises(JournalError, match="line 3: trial 0 ends a second time"):
        journal.read()


def test_metrics_that_later_versions_add_are_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    written = epoch(journal, 0, cosine=0.3)
    assert journal.read()[1] == written


def test_a_journal_of_a_large_search_is_read_in_seconds(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    metrics = dict.fromkeys(EPOCH_METRICS, 0.123456789) | {"catastrophic_overfitting": False, "skipped_steps": 0}
    epoch(journal, 0, **{**metrics, "epoch": 1})
    first, line = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(first + 30_000 * line)
    started = time.process_time()
    assert len(journal.read()) == 30_001
    assert time.process_time() - started < 2.0


def test_a_checkpoint_is_found_where_the_run_was_moved_to(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    file = Journal(tmp_path / "moved").checkpoint_file("trials/trial_00001/checkpoint_000001")
    assert file == tmp_path / "moved" / "trials/trial_00001/checkpoint_000001" / run_files.CHECKPOINT


@pytest.mark.parametrize("path", ["/home", "../other", "trials/../..", "out", "x\0", "x" * 300])
def test_a_checkpoint_outside_of_the_runs_folder_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(JournalError, match="is not in the run's folder"):
        Journal(tmp_path / "run").checkpoint_file(path)


def test_trials_are_counted_from_the_history_and_from_each_event_after_it(tmp_path: Path) -> None:
    counts = TrialCounts()
    journal = Journal(tmp_path, counts.take)
    for number in range(3):
        begin(journal, number)
        epoch(journal, number)
    end(journal, 1)
    for counted in (counts, TrialCounts(journal.read())):
        assert (counted.num_begun, counted.num_ended) == (3, 1)
    journal.append("resume", None)
    end(journal, 0)
    assert (counts.num_begun, counts.num_ended) == (3, 2)


def test_a_hyperparameter_of_a_part_that_is_not_imported_is_read_as_the_space_has_it(tmp_path: Path) -> None:
    hyperparameters = {"power": 1.5, "lambda": 0.1}
    event = {"event": "trial", "trial": 0, "time": 1.0, "origin": "sampler", "hyperparameters": hyperparameters}
    (tmp_path / "journal.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(JournalError, match=r"hyperparameters\.power: unknown key"):
        Journal(tmp_path).load()
    (tmp_path / "spec.yaml").write_text("space: {power: {uniform: [1, 2]}, lambda: {uniform: [0, 1]}}\n")
    (read,) = Journal(tmp_path).load().trial_events
    assert read["hyperparameters"] == hyperparameters


def test_a_journal_that_is_a_hard_link_changes_nothing_under_its_other_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    begin(Journal(tmp_path / "run"), 0)
    damaged = (tmp_path / "run" / "journal.jsonl").read_bytes() + b'{"event'
    other = tmp_path / "mine"
    for act in (lambda journal: epoch(journal, 0), lambda journal: journal.load(repair=True)):
        other.write_bytes(damaged)
        (tmp_path / "run" / "journal.jsonl").unlink()
        os.link(other, tmp_path / "run" / "journal.jsonl")
        act(Journal(tmp_path / "run"))
        assert other.read_bytes() == damaged
        assert (tmp_path / "run" / "journal.jsonl").read_bytes() != damaged


def test_texts_for_people_have_no_control_characters(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    begin(journal, 0)
    journal.append("retry", 0, attempt=1, reason="\x1b]0;owned\x07\u202egnp")
    journal.append("end", 0, status="failed", reason="line\nline")
    journal.append("change", None, settings="\x9b2J", restart=False)
    content = journal.load()
    assert [event["reason"] for event in content.trial_events[1:]] == [r"\x1b]0;owned\x07\u202egnp", r"line\nline"]
    assert content.search_events[0]["settings"] == r"\x9b2J"
