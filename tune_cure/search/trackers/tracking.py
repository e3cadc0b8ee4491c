"""Trackers of a search by name, each in a thread of its own: a tracker that is slow or fails stops no trial."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tune_cure.search.journal import Event
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.environment import require
from tune_cure.utils.errors import TuneCureError, first_line

TRACKERS = {"mlflow": "MLflow"}
"""Each tracker with its name as people write it; the package is called as the tracker."""
CLOSE_SECONDS = 60.0  # for what is left to be sent when a search ends

_logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What sends events to one tracker."""

    def on_event(self, event: Event) -> None:
        """Send an event of a trial."""

    def finish(self) -> None:
        """Send the files of the search, and how it ended."""


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
    threads = [TrackerThread(TRACKERS[name], lambda: _make_mlflow(spec, directory, history)) for name in names]

    def on_event(event: Event) -> None:
        for thread in threads:
            thread.on_event(event)

    yield on_event
    for thread in threads:  # not after an error or a second Ctrl-C: then nothing is waited for
        thread.close()


def _make_mlflow(spec: SearchSpec, directory: Path, history: Sequence[Event]) -> Tracker:
    from tune_cure.search.trackers.mlflow_tracker import MlflowTracker

    return MlflowTracker(spec, directory, history)
