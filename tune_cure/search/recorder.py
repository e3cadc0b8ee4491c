"""Recorder of a search: writes what happens to trials into the journal, and deletes checkpoints that are of no use."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search import run_files
from tune_cure.search.journal import OBJECTIVE, RUNG, Event, Journal, end_reason, end_status
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import FULL_DISK_ERROR, SearchStopper
from tune_cure.search.storage.checkpoint_retention import CheckpointRetention

_logger = logging.getLogger(__name__)


class TrialRecorder:
    """Writes the events of trials into the journal, each at the moment from which on it is true.

    A full disk is not the fault of the trial that meets it, nor is a run's folder that has become read-only or is gone.
    The search ends as if interrupted, nothing more is written, and the trial can go on once there is room.

    Args:
        spec: The search.
        journal: Where events are written.
        stopper: Told of each event.
        delete_file: Deletes a file by its path relative to the run's folder, where that lies on this machine or in an
            object store; raises OSError if it cannot.
    """

    def __init__(
        self, spec: SearchSpec, journal: Journal, stopper: SearchStopper, delete_file: Callable[[str], None]
    ) -> None:
        self.journal, self.stopper = journal, stopper
        self._delete_file = delete_file
        self._retention = CheckpointRetention(spec)
        self._last_checkpoints: dict[int, str] = {}

    def delete_useless(self, events: Iterable[Event]) -> None:
        """Delete the checkpoints that are of no use after these events of the journal."""
        for path in [path for event in events for path in self._retention.take(event)]:
            self._delete(path)

    def on_epoch(self, number: int, result: Mapping[str, Any]) -> None:
        """Record an epoch.

        Args:
            number: The trial's number.
            result: The metrics of docs/columns.md, `OBJECTIVE`, `RUNG` where there is one, `ended` (empty while the
                trial can go on by itself), `done` (whether it ends with this epoch), `hostname` and `pid`.
        """
        metrics = {name: result.get(name) for name in (*EPOCH_METRICS, OBJECTIVE, RUNG)}
        worker = {"host": result["hostname"], "pid": result["pid"]}
        self.record("epoch", number, **metrics, ended=_ended(result) if result["done"] else "", **worker)

    def on_checkpoint(self, number: int, epoch: int, path: str, *, delete_previous: bool = False) -> None:
        """Record a checkpoint that lies on disk and outlasts a power cut.

        Args:
            number: The trial's number.
            epoch: The epoch after which it was written.
            path: Its folder, relative to the run's folder.
            delete_previous: Delete the trial's checkpoint before this one, which Tune keeps otherwise.
        """
        self.record("checkpoint", number, epoch=epoch, path=path)
        previous = self._last_checkpoints.pop(number, None)
        self._last_checkpoints[number] = path
        if delete_previous and previous not in (None, path) and self.stopper.outcome not in ("disk", "ray"):
            self._delete(str(previous))

    def on_retry(self, number: int, attempt: int, reason: str) -> None:
        """Record that a trial failed, and goes back to its last checkpoint for the `attempt`-th time."""
        if not self._is_consequence(reason):
            self.record("retry", number, attempt=attempt, reason=reason)

    def on_end(self, number: int, result: Mapping[str, Any]) -> None:
        """Record the end of a trial, once its last checkpoint is written and the study knows of it.

        Args:
            number: The trial's number.
            result: Its last result, as in `on_epoch`; its epoch is `training_iteration`.
        """
        status = end_status(_ended(result), result)
        reason = end_reason(status, result["training_iteration"])
        if status == "stopped":
            reason = self.stopper.budget.reason_of(number)
        self.record("end", number, status=status, reason=reason)
        self._last_checkpoints.pop(number, None)

    def on_failure(self, number: int, reason: str) -> None:
        """Record the end of a trial that failed more often than `search.retries` allows."""
        if not self._is_consequence(reason):
            self.record("end", number, status="failed", reason=reason)
        self._last_checkpoints.pop(number, None)

    def record(self, event: str, number: int, **details: Any) -> None:
        """Write an event, tell the stopper of it, and delete the checkpoints that it makes useless."""
        if self.stopper.outcome in ("disk", "ray"):
            return  # the journal ends where it first could not be written, or where Ray reports what is not true
        try:
            line = self.journal.append(event, number, **details)
        except OSError as error:  # Ray would only log some of them
            fault = self.stopper.watch.find_fault()
            self.stopper.end("disk", fault or f"{self.journal.path}: cannot be written: {error.strerror}")
        else:
            self.stopper.take(line)
            self.delete_useless([line])

    def _is_consequence(self, reason: str) -> bool:
        """Return whether a trial failed because of something else than itself.

        That is a full disk or a run's folder that cannot be written to: all trials would fail, so the search then ends.
        Or the search has been interrupted: what has sent it SIGTERM may have sent it to the trials, too.
        """
        if self.stopper.outcome == "interrupted":
            return True
        is_full = bool(FULL_DISK_ERROR.search(reason))
        fault = "a trial found the disk full" if is_full else self.stopper.watch.find_fault()
        if fault:
            self.stopper.end("disk", fault)
        return bool(fault)

    def _delete(self, path: str) -> None:
        """Delete the weights of a checkpoint.

        Raises:
            JournalError: The path leads out of the run's folder: in a run that somebody sent, it must delete no file of
                the reader's.
        """
        self.journal.checkpoint_file(path)
        try:
            self._delete_file(f"{path}/{run_files.CHECKPOINT}")
        except FileNotFoundError:
            pass  # deleted by an interrupted session, or by Ray
        except OSError as error:
            _logger.warning("%s: cannot be deleted: %s", path, error)


def _ended(result: Mapping[str, Any]) -> str:
    """Return why a trial ended, as its worker says; if the worker says nothing, the scheduler stopped the trial."""
    return str(result["ended"] or "stopped")
