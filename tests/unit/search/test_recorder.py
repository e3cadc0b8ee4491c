import errno
import logging
import os
from pathlib import Path

import pytest

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search.journal import Event, Journal, JournalError
from tune_cure.search.proposals.recorded_trials import recorded_trials
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.stopping import SearchStopper

NO_SPACE = f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'trainer.pt'"


class Recording:
    """A recorder, and which files it deleted."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.spec, self.journal, self.deleted = tiny(folder, *overrides), Journal(folder), list[str]()
        self.journal.path.touch()
        self.stopper = SearchStopper(self.spec, folder, None, [])
        self.recorder = TrialRecorder(self.spec, self.journal, self.stopper, self.deleted.append)

    def epoch(
        self, number: int, epoch: int, accuracy: float, *, ended: str = "", done: bool | None = None, **more: object
    ) -> None:
        metrics = dict.fromkeys(EPOCH_METRICS) | {"epoch": epoch, "skipped_steps": 0, "pgd_accuracy": accuracy} | more
        state = {"ended": ended, "done": bool(ended) if done is None else done, "training_iteration": epoch}
        result = {**metrics, "objective": accuracy, **state, "hostname": "here", "pid": 7}
        self.recorder.on_epoch(number, result)
        self.recorder.on_checkpoint(number, epoch, f"trials/trial_{number}/checkpoint_{epoch}")
        if result["done"]:
            self.recorder.on_end(number, result)

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.journal.read() if event["event"] == kind]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    recording = Recording(tmp_path, "rescore.top=1")
    for number in range(3):
        journal_lines.begin(recording.journal, number)
    return recording


def test_an_epoch_is_recorded_with_its_metrics_and_its_worker(recording: Recording) -> None:
    recording.epoch(0, 1, 0.3)
    (event,) = recording.events("epoch")
    assert {name: event[name] for name in ("trial", "epoch", "pgd_accuracy", "objective", "host", "pid", "ended")} == {
        "trial": 0, "epoch": 1, "pgd_accuracy": 0.3, "objective": 0.3, "host": "here", "pid": 7, "ended": "",
    }  # fmt: skip


def test_a_trial_that_does_not_say_how_it_ended_was_stopped_by_the_scheduler(recording: Recording) -> None:
    recording.epoch(0, 1, 0.3, done=True)
    recording.epoch(1, 4, 0.3, ended="completed")
    recording.epoch(2, 2, 0.1, ended="diverged")
    assert [event["ended"] for event in recording.events("epoch")] == ["stopped", "completed", "diverged"]
    ends = [(event["status"], event["reason"]) for event in recording.events("end")]
    diverged = ("diverged", "the loss became NaN or infinite in epoch 2")
    assert ends == [("stopped", ""), ("completed", ""), diverged]


def test_a_trial_that_the_scheduler_stops_while_it_is_overfitted_ends_as_overfitted(recording: Recording) -> None:
    for number, collapsed in ((0, [True, True]), (1, [True, False])):  # the second one has recovered
        for epoch, is_collapsed in enumerate(collapsed, start=1):
            recording.epoch(number, epoch, 0.3, done=epoch == 2, catastrophic_overfitting=is_collapsed)
    assert [event["status"] for event in recording.events("end")] == ["catastrophic_overfitting", "stopped"]
    last = [event["ended"] for event in recording.events("epoch") if event["epoch"] == 2]
    assert last == ["stopped", "stopped"]  # a rule that is rebuilt from the journal sees what it saw before
    trials = list(recorded_trials(event for event in recording.journal.read() if event["event"] != "end"))
    assert [trial.ended for trial in trials[:2]] == ["catastrophic_overfitting", "stopped"]  # after a crash before it


def test_a_retry_has_its_attempt_and_reason_and_a_failure_too_many_ends_the_trial(recording: Recording) -> None:
    recording.recorder.on_retry(0, 1, "RuntimeError: a")
    recording.recorder.on_failure(0, "RuntimeError: b")
    assert [(event["attempt"], event["reason"]) for event in recording.events("retry")] == [(1, "RuntimeError: a")]
    assert [(event["status"], event["reason"]) for event in recording.events("end")] == [("failed", "RuntimeError: b")]


def test_the_checkpoint_of_a_trial_that_ends_behind_the_leaders_is_deleted(recording: Recording) -> None:
    recording.epoch(0, 4, 0.5, ended="completed")
    recording.epoch(1, 4, 0.4, ended="completed")
    assert recording.deleted == ["trials/trial_1/checkpoint_4/trainer.pt"]
    recording.epoch(2, 4, 0.6, ended="completed")
    assert recording.deleted[1:] == ["trials/trial_0/checkpoint_4/trainer.pt"]


def test_a_resumed_search_deletes_what_the_interrupted_one_could_not(recording: Recording) -> None:
    recording.epoch(0, 4, 0.5, ended="completed")
    recording.epoch(1, 4, 0.4, ended="completed")
    resumed = TrialRecorder(recording.spec, recording.journal, recording.stopper, recording.deleted.append)
    resumed.delete_useless(recording.journal.read())
    assert recording.deleted == ["trials/trial_1/checkpoint_4/trainer.pt"] * 2


@pytest.mark.parametrize("delete_previous", [False, True])
def test_the_checkpoint_before_is_deleted_where_tune_does_not(recording: Recording, delete_previous: bool) -> None:
    for epoch in (1, 2, 3):
        recording.recorder.on_checkpoint(0, epoch, f"trials/0/checkpoint_{epoch}", delete_previous=delete_previous)
    deleted = [f"trials/0/checkpoint_{epoch}/trainer.pt" for epoch in (1, 2)]
    assert recording.deleted == (deleted if delete_previous else [])


@pytest.mark.parametrize("last", ["on_retry", "on_failure"])
def test_a_trial_that_finds_the_disk_full_neither_fails_nor_is_recorded_and_the_search_ends(
    recording: Recording, last: str
) -> None:
    if last == "on_retry":
        recording.recorder.on_retry(0, 1, NO_SPACE)
    else:
        recording.recorder.on_failure(0, NO_SPACE)
    recording.epoch(1, 1, 0.5)
    assert (recording.stopper.outcome, recording.stopper.reason) == ("disk", "a trial found the disk full")
    assert {event["event"] for event in recording.journal.read()} == {"trial"}


def test_a_journal_that_cannot_be_written_ends_the_search_and_what_is_written(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **details: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recording.epoch(0, 1, 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        recording.epoch(0, 2, 0.3)
    recording.epoch(0, 3, 0.3)
    assert recording.stopper.outcome == "disk"
    assert recording.stopper.reason == f"{recording.journal.path}: cannot be written: No space left on device"
    assert [event["epoch"] for event in recording.events("epoch")] == [1]


@pytest.mark.parametrize("last", ["on_retry", "on_failure", "on_epoch"])
def test_nothing_more_is_recorded_once_the_folder_is_gone_and_no_journal_is_begun_anew(
    recording: Recording, tmp_path: Path, last: str
) -> None:
    recording.journal.path.unlink()
    if last == "on_epoch":
        recording.epoch(0, 1, 0.3)
    else:
        getattr(recording.recorder, last)(0, *([1] if last == "on_retry" else []), "FileNotFoundError: trainer.pt")
    recording.epoch(1, 1, 0.3)
    assert (recording.stopper.outcome, recording.stopper.reason) == ("disk", f"{tmp_path} was deleted or moved away")
    assert not recording.journal.path.exists()


def test_a_file_that_cannot_be_deleted_is_a_warning_and_one_that_is_gone_is_none(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (FileNotFoundError(), PermissionError(errno.EACCES, "Permission denied")):

        def refuse(path: str, error: OSError = error) -> None:
            raise error

        recorder = TrialRecorder(recording.spec, recording.journal, recording.stopper, refuse)
        with caplog.at_level(logging.WARNING):
            recorder.on_checkpoint(0, 1, "trials/0/checkpoint_1")
            recorder.on_checkpoint(0, 2, "trials/0/checkpoint_2", delete_previous=True)
    assert [record.getMessage() for record in caplog.records] == [
        "trials/0/checkpoint_1: cannot be deleted: [Errno 13] Permission denied"
    ]


def test_no_file_outside_of_the_runs_folder_is_deleted(recording: Recording) -> None:
    recording.recorder.on_checkpoint(0, 1, "../elsewhere")
    with pytest.raises(JournalError, match="is not in the run's folder"):
        recording.recorder.on_checkpoint(0, 2, "trials/0/checkpoint_2", delete_previous=True)
    assert recording.deleted == []


@pytest.mark.parametrize("last", ["on_retry", "on_failure"])
def test_a_trial_that_fails_after_an_interruption_is_not_recorded_as_failed(recording: Recording, last: str) -> None:
    before = recording.journal.read()
    recording.stopper.end("interrupted", "")
    getattr(recording.recorder, last)(0, *([1] if last == "on_retry" else []), "the worker process died")
    assert recording.journal.read() == before
    recording.epoch(1, 1, 0.3)
    assert len(recording.events("epoch")) == 1  # what trials still do is recorded


def test_nothing_is_recorded_of_trials_once_ray_has_died(recording: Recording) -> None:
    recording.epoch(0, 1, 0.3)
    before = recording.journal.read()
    recording.stopper.end("ray", "Ray has died, or was killed")
    recording.recorder.on_retry(0, 1, "the worker process died")
    recording.recorder.on_failure(1, "the worker process died")
    recording.epoch(2, 1, 0.3)
    assert recording.journal.read() == before
    assert recording.deleted == []
