"""Trackers of a search by name, each in a thread of its own: a tracker that is slow or fails stops no trial."""

import contextlib
import importlib
import json
import logging
import queue
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.environment import require
from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.files import replace_text

TRACKERS = {"mlflow": "MLflow", "wandb": "Weights & Biases", "trackio": "trackio"}
"""Each tracker with its name as people write it; the package is called as the tracker."""
CLASSES = {
    "mlflow": "mlflow_tracker:MlflowTracker",
    "wandb": "wandb_tracker:WandbTracker",
    "trackio": "trackio_tracker:TrackioTracker",
}
"""The class of each tracker, in a module of this folder; imported when it is asked for."""
ARTIFACTS = (run_files.SPEC, run_files.REPORT, *run_files.TABLES_AND_MODEL)
"""The files of a search that trackers keep, as far as they are there."""
CLOSE_SECONDS = 60.0  # for what is left to be sent when a search ends

_SEARCH_ID = re.compile(r"[0-9a-f]{8}")
_logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What sends events to one tracker."""

    def on_event(self, event: Event) -> None:
        """Send an event of a trial."""

    def finish(self) -> None:
        """Send the files of the search, and how it ended."""


def numbers_of(event: Event) -> dict[str, float]:
    """Return the numbers of an event by their names, those of an epoch for example."""
    return {
        name: float(value)
        for name, value in event.items()
        if isinstance(value, int | float) and name not in ("trial", "time", "pid")
    }


def fresh_numbers_of(event: Event) -> dict[str, float]:
    """Return what the second judgement of a leader measured, by the names of trials.csv."""
    return {f"fresh_{name}": event[name] for name in ("clean_accuracy", "pgd_accuracy", "pgd_accuracy_se")}


def read_memory(file: Path) -> dict[str, Any]:
    """Return what `write_memory` wrote there; a new `id` alone if there is nothing, or it is of another folder.

    A folder that was copied has runs of its own from then on. `id` names the runs of a search among those of others in
    the same store.
    """
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if content.get("folder") == str(file.parent.absolute()) and _SEARCH_ID.fullmatch(str(content.get("id"))):
        memory: dict[str, Any] = content
        return memory
    return {"id": secrets.token_hex(4)}


def write_memory(file: Path, **memory: Any) -> None:
    """Write what a tracker must know of a search when it is resumed into a file of the search's folder."""
    replace_text(file, json.dumps({"folder": str(file.parent.absolute()), **memory}) + "\n")


class TrackerThread:
    """Thread that makes a tracker and sends it events, until it fails.

    Args:
        name: The tracker's name as people write it.
        make: Makes the tracker, which may take seconds.
    """

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self._name, self._make = name, make
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Have an event of a trial sent."""
        self._events.put(event)

    def close(self) -> None:
        """Have the files of the search sent, and wait until all is sent, but not for long."""
        self._events.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            _logger.warning(
                "%s did not take everything within %g s; --resume sends the rest", self._name, CLOSE_SECONDS
            )

    def _run(self) -> None:
        try:
            tracker = self._make()
            while (event := self._events.get()) is not None:
                tracker.on_event(event)
            tracker.finish()
        except Exception as error:  # of any kind: the search goes on
            _logger.warning("%s: tracking ends here: %s", self._name, first_line(error))


@contextlib.contextmanager
def track(
    names: Sequence[str], spec: SearchSpec, directory: Path, history: Sequence[Event]
) -> Iterator[Callable[[Event], None]]:
    """Yield what takes the events of trials from now on, and sends them to trackers.

    What the journal says already is sent first, as far as the tracker lacks it.

    Args:
        names: Keys of `TRACKERS`.
        spec: The search.
        directory: Its folder.
        history: The events of trials so far.

    Raises:
        TuneCureError: There is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise TuneCureError(f"track: {name!r} is not one of {', '.join(TRACKERS)}")
        require(name, f"--track {name}")
    threads = [
        TrackerThread(TRACKERS[name], partial(make, name, spec, directory, history)) for name in dict.fromkeys(names)
    ]

    def on_event(event: Event) -> None:
        for thread in threads:
            thread.on_event(event)

    yield on_event
    for thread in threads:  # not after an error or a second Ctrl-C: then nothing is waited for
        thread.close()


def make(name: str, spec: SearchSpec, directory: Path, history: Sequence[Event]) -> Tracker:
    """Return the tracker of this name, a key of `TRACKERS`; the arguments are those of `track`."""
    module, _, attribute = CLASSES[name].partition(":")
    made = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    tracker: Tracker = made(spec, directory, history)
    return tracker
