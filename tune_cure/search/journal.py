"""Journal of a search: an append-only file of JSON lines, one for each event, in the order of the events.

It is the only record that tables are built from and that an interrupted search is resumed from. The Optuna study and
the rungs of early stopping are rebuilt from it; Ray's snapshots are never read. Each event has a kind (`event`), a
trial's number (`trial`) and a `time` in seconds since 1970. The kinds, whose keys `event_schemas` lists:

- `trial`: a trial begins. Its origin (`start_from` or `sampler`) and its hyperparameters.
- `epoch`: the metrics of one epoch.
- `checkpoint`: epoch and path of a checkpoint; the path is relative to the run's folder if it lies inside.
- `retry`: the trial failed and continues from its last checkpoint. The attempt (from 1) and the reason.
- `end`: the trial's status (`event_schemas.Status`), and a reason if the status does not say everything.
- `leader`: a leading trial was judged again once the search was over: the epoch of its best weights, their accuracies
  and the attack (`SearchSpec.rescoring`).
- `change`: the search was resumed with other settings. The settings in words, and whether running trials restart.
- `pause`: the time budget ended the search before its end. The reason in words. (Searches of version 0.1.0 lack it.)
- `resume`: the search was resumed. The pause before it does not count as the search's time.

`change`, `pause` and `resume` belong to the search as a whole: their `trial` is null.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tune_cure.search import run_files
from tune_cure.search.event_schemas import validate_event
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import replace_bytes
from tune_cure.utils.formatting import one_line, shorten_repr
from tune_cure.utils.yaml_config import ProblemError, SpecError, read_mapping

OBJECTIVE = "objective"  # key of an epoch: the value of the search's metric, which sampler and scheduler compare
RUNG = "pgd_accuracy_rung"  # key of an epoch at a rung, if `asha` names an attack: the value that is compared there

SEARCH_EVENTS = ("change", "pause", "resume")

SHOWN_TEXTS = frozenset(("reason", "settings", "host"))  # free text, for people: it may be from somebody else

Event = dict[str, Any]

_logger = logging.getLogger(__name__)


def end_status(ended: str, epoch: Mapping[str, Any]) -> str:
    """Return the status of a trial by its last epoch: one that is stopped while it is overfitted ends as overfitted.

    Args:
        ended: Why no epoch followed, as the epoch's event says.
        epoch: The epoch's metrics.
    """
    return "catastrophic_overfitting" if ended == "stopped" and epoch["catastrophic_overfitting"] else ended


def end_reason(status: str, epoch: int) -> str:
    """Return why a trial ended at `epoch`; empty if its status says it already."""
    return f"the loss became NaN or infinite in epoch {epoch}" if status == "diverged" else ""


class JournalError(TuneCureError):
    """A journal that is damaged, or that leads out of its run's folder."""


class _GarbageError(JournalError):
    """A line that is not a JSON object. At the end of a journal a crash may have left it."""


@dataclass(frozen=True)
class JournalContent:
    """Everything that one reading of a journal found.

    Attributes:
        trial_events: The events of trials. What running trials did before a change of settings that restarted them is
            left out.
        search_events: The events of the search as a whole: changes of settings and resumes.
    """

    trial_events: list[Event]
    search_events: list[Event]


class TrialCounts:
    """Numbers of trials that have begun and ended, kept current event by event.

    Args:
        history: The events of trials so far.
    """

    def __init__(self, history: Iterable[Event] = ()) -> None:
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        for event in history:
            self.take(event)

    def take(self, event: Event) -> None:
        """Count one more event of a trial."""
        if event["event"] == "trial":
            self._begun.add(event["trial"])
        elif event["event"] == "end":
            self._ended.add(event["trial"])

    @property
    def num_begun(self) -> int:
        """Return the number of trials that have begun, ended ones included."""
        return len(self._begun)

    @property
    def num_ended(self) -> int:
        """Return the number of trials that have ended."""
        return len(self._ended)

    def count_left(self, planned: int) -> int:
        """Return how many trials have not ended: those that have begun, and those of `planned` that are to begin.

        A search that was resumed with fewer trials than it had begun trains each of them to its end.
        """
        return max(planned, self.num_begun) - self.num_ended


class EventReader:
    """Parser of a journal's lines, which also checks that each event can follow those before it.

    Args:
        path: The journal's path, for errors.

    Attributes:
        num_lines: How many lines were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_lines = 0
        self._running: set[int] = set()
        self._ended: set[int] = set()

    def read(self, line: bytes) -> Event:
        """Return the event in the next line.

        Raises:
            JournalError: The line is not an event, or not one that can follow those before.
        """
        self.num_lines += 1
        place = f"{self.path}: line {self.num_lines}"
        try:
            event: Event = json.loads(line)
            if not line.endswith(b"\n") or not isinstance(event, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise _GarbageError(f"{place} is no event: the file is damaged") from error
        try:
            validate_event(event, lambda: _searched_keys(self.path))
        except ProblemError as problem:
            raise JournalError(f"{place} is no event: {problem.path}: {problem.message}") from problem
        if contradiction := self._find_contradiction(event):
            raise JournalError(f"{place}: trial {event['trial']} {contradiction}: the file is damaged")
        for key in SHOWN_TEXTS & event.keys():
            event[key] = one_line(event[key])
        # A large journal has each key some 100,000 times: interned, they share their memory.
        return {sys.intern(key): value for key, value in event.items()}

    def _find_contradiction(self, event: Event) -> str:
        """Return how the event contradicts those before it, in words; empty if it does not."""
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
    """The journal of one run.

    Args:
        directory: The run's folder.
        on_event: Called with every event that is appended.
    """

    def __init__(self, directory: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = directory / run_files.JOURNAL
        self.on_event = on_event
        self._is_begun = False

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        return Journal, (self.path.parent,)  # Ray pickles what it is given; a copy in another process has no listener

    def append(self, event: str, number: int | None, **details: Any) -> Event:
        """Append one event, and return it once it is on the disk.

        Args:
            event: The kind of event.
            number: The trial's number; None for an event of the search as a whole.
            details: The other keys of the event.

        Returns:
            The event as a reader of the journal finds it: hyperparameters have the types of `TrainingConfig`. The
            listener gets the same one, so that what is made of it is what is made of the file.

        Raises:
            OSError: The event could not be written. A part that was written is removed if possible.
        """
        content = json.dumps({"event": event, "trial": number, "time": time.time(), **details}, allow_nan=False)
        line: Event = json.loads(content)
        validate_event(line, lambda: _searched_keys(self.path))
        self._own_file()
        length = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self._open_at_end() as file:
                file.write(f"{content}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # where it cannot be opened
                os.truncate(self.path, length)
            raise
        if self.on_event:
            self.on_event(line)
        return line

    def read(self) -> list[Event]:
        """Return the events of trials so far, as `load` finds them.

        Raises:
            JournalError: See `load`.
        """
        return self.load().trial_events

    def load(self, *, repair: bool = False) -> JournalContent:
        """Read the whole journal; a missing one is empty.

        An end that a crash cut short or filled with garbage is left out, with a warning.

        Args:
            repair: Cut such an end off the file, too, so that events can be appended.

        Raises:
            JournalError: A line is not an event, or cannot follow those before: the file was damaged.
        """
        events, length = self._parse()
        if repair and self.path.exists():
            self._own_file()
            os.truncate(self.path, length)
        return JournalContent(_drop_restarted(events), [event for event in events if event["event"] in SEARCH_EVENTS])

    def checkpoint_file(self, path: str) -> Path:
        """Return the file of a checkpoint by the path in its event.

        Raises:
            JournalError: The path leads out of the run's folder. A run that was sent by somebody else must not make
                this process read other files.
        """
        folder = self.path.parent.resolve()
        file = folder / path / run_files.CHECKPOINT
        try:
            file.exists()
            is_inside = file.resolve().is_relative_to(folder)
        except (OSError, ValueError):  # no file can have this name
            is_inside = False
        if not is_inside:
            raise JournalError(f"{self.path}: the checkpoint {shorten_repr(path)} is not in the run's folder")
        return file

    def _open_at_end(self) -> BinaryIO:
        """Open the file to append. One that was deleted meanwhile is not begun anew: it would lack earlier events."""
        create = 0 if self._is_begun else os.O_CREAT
        self._is_begun = True
        return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | create, 0o666), "ab")

    def _own_file(self) -> None:
        """Replace a journal that is a hard link by a copy: the file has another name, perhaps outside of the run."""
        if self.path.exists() and self.path.stat().st_nlink > 1:
            replace_bytes(self.path, self.path.read_bytes())

    def _parse(self) -> tuple[list[Event], int]:
        """Return all events, and the length in bytes of the lines that hold them."""
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
    """Reader of a journal that another process appends to. Each event is returned once, when its line is whole.

    A search that is resumed may cut off a last line that a crash left incomplete. Such a line was not returned.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self._reader = EventReader(path)

    def read(self) -> Iterator[Event]:
        """Yield the events since the last call; none if there is no journal yet.

        Raises:
            JournalError: A whole line is not an event.
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

    def reread(self) -> list[Event]:
        """Return the events of trials that `read` has yielded so far, without those that a restart discarded."""
        reader = EventReader(self.path)
        with self.path.open("rb") as file:
            return _drop_restarted([reader.read(line) for line in file.read(self.position).splitlines(keepends=True)])


def _searched_keys(path: Path) -> Collection[str]:
    """Return the keys of the space of the search with the journal `path`; none if its spec.yaml cannot be read."""
    try:
        space = read_mapping(path.with_name(run_files.SPEC)).get("space")
    except SpecError:
        return ()
    return space if isinstance(space, dict) else ()


def drop_running(events: Iterable[Event]) -> list[Event]:
    """Return the events without what trials that have not ended did: they restart with the same hyperparameters."""
    events = list(events)
    ended = {event["trial"] for event in events if event["event"] == "end"}
    return [event for event in events if event["event"] == "trial" or event["trial"] in ended]


def _drop_restarted(events: list[Event]) -> list[Event]:
    """Return the events of trials, without what trials did before a change of settings restarted them."""
    kept: list[Event] = []
    for event in events:
        if event["event"] not in SEARCH_EVENTS:
            kept.append(event)
        elif event.get("restart"):
            kept = drop_running(kept)
    return kept
