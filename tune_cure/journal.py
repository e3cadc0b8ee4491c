"""The journal of a search: an append-only file of JSON lines that says all that happened, in the order it happened.

It is the one record from which tables are built and an interrupted search continues; Ray's snapshots and the Optuna
study are checked against it. Four kinds of line (`event`), each with the `time` in seconds since 1970:

- `trial`: number, origin (`start_from` or `sampler`), hyperparameters.
- `epoch`: number and the metrics of one epoch.
- `checkpoint`: number, epoch and path, relative to the run's folder where it lies inside.
- `end`: number, status (one of `STATUSES`) and a reason where there is one to give.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_cure.words import shown

FILE = "journal.jsonl"
CHECKPOINT_FILE = "trainer.pt"  # in a checkpoint's folder: a Trainer's state_dict
OBJECTIVE = "objective"  # of an epoch: what sampler and ASHA compare, the search's metric, finite whatever happens
STATUSES = ("completed", "stopped", "diverged", "catastrophic_overfitting", "failed")

Event = dict[str, Any]


class JournalError(ValueError):
    """A journal that is damaged, or leads out of its run's folder. Its text is one line."""


_logger = logging.getLogger(__name__)


def parse_line(line: bytes, path: Path, number: int) -> Event:
    """A line of the journal at `path`, its `number` from 1.

    Raises:
        JournalError: It is no event.
    """
    try:
        event: Event = json.loads(line)
        if not isinstance(event, dict) or not isinstance(event.get("trial", 0), int | None):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{path}: line {number} is no event: the file is damaged") from error
    return event


class Journal:
    """The journal of the run in `directory`; `on_event` is told of every line that is appended."""

    def __init__(self, directory: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = directory / FILE
        self.on_event = on_event

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        return Journal, (self.path.parent,)  # Ray pickles all that it is given; a copy elsewhere has nobody to tell

    def append(self, event: str, number: int, **details: Any) -> Event:
        """Writes one line, at once and whole, and returns it."""
        line = {"event": event, "trial": number, "time": time.time(), **details}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self.on_event:
            self.on_event(line)
        return line

    def read(self) -> list[Event]:
        """All lines so far; none if there is no journal yet.

        A last line that a crash cut short is left out, with a warning.

        Raises:
            JournalError: A line before the last is no event: the file was damaged.
        """
        return self._read()[0]

    def checkpoint_file(self, path: str) -> Path:
        """The file of a checkpoint whose event has this path.

        Raises:
            JournalError: It leads out of the run's folder: somebody who was sent a run must not read files of theirs.
        """
        folder = self.path.parent.resolve()
        file = folder / path / CHECKPOINT_FILE
        if not file.resolve().is_relative_to(folder):
            raise JournalError(f"{self.path}: the checkpoint {shown(path)} is not in the run's folder")
        return file

    def repair(self) -> list[Event]:
        """Reads the journal, and cuts off a last line that a crash cut short, so that it can be appended to."""
        events, length = self._read()
        if self.path.exists():
            os.truncate(self.path, length)
        return events

    def _read(self) -> tuple[list[Event], int]:
        """The events, and the length in bytes of the whole lines."""
        if not self.path.exists():
            return [], 0
        events: list[Event] = []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for index, line in enumerate(content[:whole].splitlines(), start=1):
            events.append(parse_line(line, self.path, index))
        if whole < len(content):
            _logger.warning("%s: the last line was cut short and is left out", self.path)
        return events, whole
