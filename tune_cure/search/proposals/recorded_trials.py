"""The trials of an interrupted search, as its journal has them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tune_cure.search.journal import OBJECTIVE, Event, end_status
from tune_cure.search.space.objectives import reached
from tune_cure.search.storage.run_storage import RunStorage
from tune_cure.utils.files import FolderError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedTrial:
    """A trial of the journal.

    Attributes:
        number: Its number in the search.
        origin: start_from or sampler.
        hyperparameters: Its values of the searched hyperparameters.
        epochs: The event of each of its epochs; of an epoch that ran twice, the later.
        status: How it ended; empty while the journal has no end of it.
        checkpoints: The paths of its checkpoints, in the order in which they were written.
    """

    number: int
    origin: str
    hyperparameters: dict[str, Any]
    epochs: dict[int, Event]
    status: str
    checkpoints: list[str]

    @property
    def last_epoch(self) -> int:
        """The last epoch that it trained; 0 if none."""
        return max(self.epochs, default=0)

    @property
    def objectives(self) -> dict[int, float]:
        """Its objective after each epoch."""
        return {epoch: event[OBJECTIVE] for epoch, event in self.epochs.items()}

    @property
    def ended(self) -> str:
        """Return the status that its last epoch gives; empty if the trial can go on."""
        last = self.epochs.get(self.last_epoch)
        return end_status(str(last["ended"]), last) if last else ""

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the metrics after its last epoch, as its worker reported them."""
        last = self.epochs.get(self.last_epoch, {})
        judged = [event for event in self.epochs.values() if event["pgd_accuracy"] is not None]
        best = max(judged, key=lambda event: event["pgd_accuracy"], default={})
        return {**reached(last, best), OBJECTIVE: last.get(OBJECTIVE)}

    @classmethod
    def from_events(cls, events: list[Event]) -> RecordedTrial:
        """Return the trial that all these events of the journal are of; the first is its proposal."""
        proposal = events[0]
        return cls(
            number=proposal["trial"],
            origin=proposal["origin"],
            hyperparameters=proposal["hyperparameters"],
            epochs={event["epoch"]: event for event in events if event["event"] == "epoch"},
            status=next((event["status"] for event in events if event["event"] == "end"), ""),
            checkpoints=[event["path"] for event in events if event["event"] == "checkpoint"],
        )


def recorded_trials(history: Iterable[Event]) -> Iterator[RecordedTrial]:
    """Yield the trials of a journal, by number."""
    by_trial: dict[int, list[Event]] = {}
    for event in history:
        by_trial.setdefault(event["trial"], []).append(event)
    for _, events in sorted(by_trial.items()):
        yield RecordedTrial.from_events(events)


def find_checkpoint(trial: RecordedTrial, storage: RunStorage) -> str | None:
    """Return the path or URI of the newest checkpoint that can be read; None if the trial must begin anew."""
    for path in reversed(trial.checkpoints):
        try:
            checkpoint = storage.locate_checkpoint(path)
        except FolderError as error:
            _logger.warning("trial %d cannot go on from its last epoch: %s", trial.number, error)
        else:
            if checkpoint:  # an older one was deleted once there was a newer
                return checkpoint
    return None
