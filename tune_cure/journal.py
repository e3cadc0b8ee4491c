"""The journal of a search: an append-only file of JSON lines that says all that happened, in the order it happened.

It is the one record from which tables are built and an interrupted search continues: the Optuna study and ASHA's
rungs are rebuilt from it, and Ray's snapshots are never read. The kinds of line (`event`), each with the `time` in
seconds since 1970:

- `trial`: number, origin (`start_from` or `sampler`), hyperparameters.
- `epoch`: number and the metrics of one epoch.
- `checkpoint`: number, epoch and path, relative to the run's folder where it lies inside.
- `retry`: number, attempt (from 1) and the reason: the trial failed, and goes on from its last checkpoint.
- `end`: number, status (one of `STATUSES`) and a reason where there is one to give.
- `change`: of no trial: the search was continued with other settings, in words, and whether trials under way restart.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "journal.jsonl"
CHECKPOINT_FILE = "trainer.pt"  # in a checkpoint's folder: a Trainer's state_dict
OBJECTIVE = "objective"  # of an epoch: what sampler and ASHA compare, the search's metric, finite whatever happens
STATUSES = ("completed", "stopped", "diverged", "catastrophic_overfitting", "failed")

Event = dict[str, Any]

_logger = logging.getLogger(__name__)


class Journal:
    """The journal of the run in `directory`; `on_event` is told of every line that is appended."""

    def __init__(self, directory: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = directory / FILE
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
            ValueError: A line before whole ones is not JSON: the file was damaged.
        """
        return _of_trials(self._read()[0])

    def changes(self) -> list[Event]:
        """The lines of kind `change`."""
        return [event for event in self._read()[0] if event["event"] == "change"]

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
        content = self.path.read_bytes()
        events: list[Event] = []
        length, damaged = 0, 0
        for index, line in enumerate(content.splitlines(keepends=True), start=1):
            event = _event(line)
            if event is None:
                damaged = damaged or index
            elif damaged:
                raise ValueError(f"{self.path}: line {damaged} is not JSON: the file is damaged")
            else:
                events.append(event)
                length += len(line)
        if damaged:
            _logger.warning("%s: the end was cut short (line %d) and is left out", self.path, damaged)
        return events, length


def _event(line: bytes) -> Event | None:
    """The event that a line is; None if it is not a whole one."""
    try:
        event = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _of_trials(events: list[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if event["event"] != "change":
            kept.append(event)
        elif event["restart"]:
            ended = {before["trial"] for before in kept if before["event"] == "end"}
            kept = [before for before in kept if before["event"] == "trial" or before["trial"] in ended]
    return kept
