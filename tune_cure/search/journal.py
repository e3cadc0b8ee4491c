"""The journal of a search: an append-only file of JSON lines that says all that happened, in the order it happened.

It is the one record from which tables are built and an interrupted search continues: the Optuna study and ASHA's
rungs are rebuilt from it, and Ray's snapshots are never read. The kinds of line (`event`), each with the `time` in
seconds since 1970:

- `trial`: number, origin (`start_from` or `sampler`), hyperparameters.
- `epoch`: number and the metrics of one epoch.
- `checkpoint`: number, epoch and path, relative to the run's folder where it lies inside.
- `retry`: number, attempt (from 1) and the reason: the trial failed, and goes on from its last checkpoint.
- `end`: number, status (`lines.Status`) and a reason where there is one to give.
- `leader`: number, the epoch of its best weights, and what they reached once the search was over, under which attack
  (see `rescoring`).
- `change`: of no trial: the search was continued with other settings, in words, and whether trials under way restart.
- `resume`: of no trial: the search was continued, after a pause that belongs to nobody.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tune_cure.search import run_files
from tune_cure.search.event_schemas import validate_event
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.yaml_config import ProblemError

OBJECTIVE = "objective"  # of an epoch: what sampler and ASHA compare, the search's metric, finite whatever happens
RUNG = "pgd_accuracy_rung"  # of an epoch at a rung, where asha.steps is given: what trials are compared by there

SEARCH_EVENTS = ("change", "resume")

Event = dict[str, Any]


def end_reason(status: str, epoch: int) -> str:
    """Why a trial ended at `epoch`, where its status alone does not say it."""
    return f"the loss became NaN or infinite in epoch {epoch}" if status == "diverged" else ""


class JournalError(TuneCureError):
    """A journal that is damaged, or that leads out of its run's folder."""


_logger = logging.getLogger(__name__)


class _GarbageError(JournalError):
    """A line that is not even a JSON object."""


class EventReader:
    """Turns the lines of the journal at `path` into events, one after another, and sees to it that they fit together.

    Attributes:
        lines: How many were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._running: set[int] = set()
        self._ended: set[int] = set()

    def read(self, line: bytes) -> Event:
        """The event in the next line.

        Raises:
            JournalError: It is none, or none that can follow those before.
        """
        self.lines += 1
        at = f"{self.path}: line {self.lines}"
        try:
            event: Event = json.loads(line)
            if not line.endswith(b"\n") or not isinstance(event, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise _GarbageError(f"{at} is no event: the file is damaged") from error
        try:
            validate_event(event)
        except ProblemError as problem:
            raise JournalError(f"{at} is no event: {problem.path}: {problem.message}") from problem
        if wrong := self._wrong(event):
            raise JournalError(f"{at}: trial {event['trial']} {wrong}: the file is damaged")
        return {sys.intern(key): of for key, of in event.items()}  # a large journal has each some 100,000 times

    def _wrong(self, event: Event) -> str:
        """What its trial cannot do now; empty if it can."""
        kind, number = event["event"], event["trial"]
        if kind in SEARCH_EVENTS:
            return ""
        if kind == "trial":
            if number in self._running or number in self._ended:
                return "begins a second time"
            self._running.add(number)
        elif number not in self._running and number not in self._ended:
            return "was never begun"
        elif kind == "end":
            if number in self._ended:
                return "ends a second time"
            self._running.remove(number)
            self._ended.add(number)
        return ""


class Journal:
    """The journal of the run in `directory`; `on_event` is told of every line that is appended."""

    def __init__(self, directory: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = directory / run_files.JOURNAL
        self.on_event = on_event

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        return Journal, (self.path.parent,)  # Ray pickles all that it is given; a copy elsewhere has nobody to tell

    def append(self, event: str, number: int | None, **details: Any) -> Event:
        """Writes one line, on the disk before this returns, and returns it.

        Raises:
            OSError: It could not be written. What was written of it is taken back where that is possible.
        """
        line = {"event": event, "trial": number, "time": time.time(), **details}
        content = (json.dumps(line, allow_nan=False) + "\n").encode()
        length = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if self.path.exists():
                os.truncate(self.path, length)
            raise
        if self.on_event:
            self.on_event(line)
        return line

    def read(self) -> list[Event]:
        """All that happened to trials so far; nothing if there is no journal yet.

        What a trial did before a change of settings made it restart is left out.

        An end that a crash cut short or filled with garbage is left out, with a warning.

        Raises:
            JournalError: A line before whole ones is no event: the file was damaged.
        """
        return self.read_all()[0]

    def read_all(self) -> tuple[list[Event], list[Event]]:
        """What `read` returns, and the lines of no trial, from one reading.

        Raises:
            JournalError: As `read`.
        """
        events = self._read()[0]
        return _of_trials(events), [event for event in events if event["event"] in SEARCH_EVENTS]

    def checkpoint_file(self, path: str) -> Path:
        """The file of a checkpoint whose event has this path.

        Raises:
            JournalError: It leads out of the run's folder: somebody who was sent a run must not read files of theirs.
        """
        folder = self.path.parent.resolve()
        file = folder / path / run_files.CHECKPOINT
        try:
            file.exists()
            is_inside = file.resolve().is_relative_to(folder)
        except (OSError, ValueError):  # no file could be called that
            is_inside = False
        if not is_inside:
            raise JournalError(f"{self.path}: the checkpoint {shorten_repr(path)} is not in the run's folder")
        return file

    def repair(self) -> list[Event]:
        """Reads the journal, and cuts off an end that a crash has damaged, so that it can be appended to."""
        events, length = self._read()
        if self.path.exists():
            os.truncate(self.path, length)
        return _of_trials(events)

    def _read(self) -> tuple[list[Event], int]:
        """The events, and the length in bytes of the whole lines that they are."""
        if not self.path.exists():
            return [], 0
        events: list[Event] = []
        length, damage = 0, None
        reader = EventReader(self.path)
        with self.path.open("rb") as file:
            for line in file:
                try:
                    event = reader.read(line)
                except _GarbageError as error:
                    damage = damage or error
                else:
                    if damage:
                        raise damage
                    events.append(event)
                    length += len(line)
        if damage:
            _logger.warning("%s: the end was cut short, and is left out", self.path)
        return events, length


class JournalFollower:
    """Reads the lines that are added to a journal by another process, each once it is whole.

    A search that is resumed may find a last line that a crash cut short, and cut it off: nothing that was read before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self._reader = EventReader(path)

    def read(self) -> Iterator[Event]:
        """The events since the last call; none if there is no journal yet.

        Raises:
            JournalError: A whole line is no event.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.position += len(line)
                yield self._reader.read(line)


def _of_trials(events: list[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if event["event"] not in SEARCH_EVENTS:
            kept.append(event)
        elif event.get("restart"):
            ended = {before["trial"] for before in kept if before["event"] == "end"}
            kept = [before for before in kept if before["event"] == "trial" or before["trial"] in ended]
    return kept
