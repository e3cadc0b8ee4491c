"""Where each trial stands once it has ended, as `results.ranked` orders them, and whether the search is over then."""

from typing import Any, NamedTuple

import pandas as pd

from tune_cure.search.journal import OBJECTIVE, Event
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import reached


class RankKey(NamedTuple):
    """Of a trial that has ended; of two the greater ranks before the other.

    Attributes:
        sound: Whether what it scored is what its configuration gives.
        feasible: Whether it keeps the constraints.
        objective: So turned that more is better.
        others: The metrics after the first, if there are several, turned likewise.
        earliness: Minus its number: of equals the first ranks before the others.
        metrics: What is optimised, as it is.
    """

    sound: bool
    feasible: bool
    objective: float
    others: tuple[float, ...]
    earliness: int
    metrics: tuple[float, ...]

    @property
    def trial(self) -> int:
        """Its number."""
        return -self.earliness


class RankTracker:
    """Follows the running trials of a search; what it does for an event does not grow with their number."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._last: dict[int, Event] = {}
        self._best: dict[int, Event] = {}

    def take(self, event: Event) -> RankKey | None:
        """Takes in a line of the journal; the place of the trial that it ends, None if that was never judged."""
        number = event["trial"]
        if event["event"] == "epoch" and event["pgd_accuracy"] is not None:
            self._last[number] = event
            if number not in self._best or event["pgd_accuracy"] > self._best[number]["pgd_accuracy"]:
                self._best[number] = event
        if event["event"] != "end" or number not in self._last:
            return None
        last, best = self._last.pop(number), self._best.pop(number)
        values = reached(last, best)
        feasible = all(constraint.violation(values) <= 0 for constraint in self.spec.search.parsed_constraints)
        row = {"trial": number, "status": event["status"], "feasible": feasible, "objective": last[OBJECTIVE], **values}
        return rank_key(row, self.spec)


def rank_key(row: dict[Any, Any], spec: SearchSpec) -> RankKey | None:
    """The place of an ended trial by its row of `results.SearchResult.trials`; None if it was never judged."""
    if pd.isna(row["objective"]):
        return None
    sign = 1 if spec.search.mode == "max" else -1
    return RankKey(
        sound=row["status"] not in UNSOUND_STATUSES,
        feasible=bool(row["feasible"]),
        objective=sign * row["objective"],
        others=tuple(sign * row[name] for name in spec.search.metrics[1:]),
        earliness=-row["trial"],
        metrics=tuple(row[name] for name in spec.search.metrics),
    )
