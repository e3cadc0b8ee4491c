"""Where each trial stands once it has ended, as `results.ranked` orders them, and whether the search is over then."""

from typing import Any, NamedTuple

import pandas as pd

from tune_cure.journal import OBJECTIVE, Event
from tune_cure.objectives import reached
from tune_cure.results import UNSOUND, SearchResult
from tune_cure.spec import SearchSpec
from tune_cure.words import count


class Place(NamedTuple):
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


class Standing:
    """Follows the running trials of a search; what it does for an event does not grow with their number."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._last: dict[int, Event] = {}
        self._best: dict[int, Event] = {}

    def take(self, event: Event) -> Place | None:
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
        return _place(row, self.spec)


class Patience:
    """How many of a search's trials have ended since one that was better than all before.

    Attributes:
        spec: The search, whose `search.patience` counts as it is when asked.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._standing = Standing(spec)
        self._best: Place | None = None
        self._since_best = 0

    def take(self, event: Event) -> None:
        """Takes in a line of the journal that is of a trial."""
        place = self._standing.take(event)
        if event["event"] == "end":
            self.count(place)

    def count(self, place: Place | None) -> None:
        """Takes in that a trial ended, and where it stands; None if it was never judged."""
        self._since_best += 1
        if place and place.sound and (self._best is None or place[:3] > self._best[:3]):
            self._best, self._since_best = place, 0

    @property
    def is_used_up(self) -> bool:
        """Whether so many trials have improved nothing that no more are to be proposed."""
        patience = self.spec.search.patience
        return patience is not None and self._since_best >= patience

    @property
    def words(self) -> str:
        """What is to be said when it is used up."""
        return f"the last {count(self.spec.search.patience or 0, 'trial')} improved nothing"


def is_over(result: SearchResult) -> bool:
    """Whether nothing is left to run: all trials have ended, or those that were begun, and patience is used up."""
    if result.trials.empty or result.trials["status"].eq("unfinished").any():
        return False
    return len(result.trials) >= result.spec.search.trials or patience_of(result).is_used_up


def patience_of(result: SearchResult) -> Patience:
    """The patience of a search as its folder has it, counted in the order in which its trials ended."""
    spec, patience = result.spec, Patience(result.spec)
    columns = ["trial", "status", "feasible", "objective", *spec.search.metrics]
    rows = result.trials[list(dict.fromkeys(columns))].to_dict("records")
    by_number = {row["trial"]: row for row in rows}
    for event in result.events:
        if event["event"] == "end":
            patience.count(_place(by_number[event["trial"]], spec))
    return patience


def _place(row: dict[Any, Any], spec: SearchSpec) -> Place | None:
    """The place of an ended trial by its row of `results.SearchResult.trials`; None if it was never judged."""
    if pd.isna(row["objective"]):
        return None
    sign = 1 if spec.search.mode == "max" else -1
    return Place(
        sound=row["status"] not in UNSOUND,
        feasible=bool(row["feasible"]),
        objective=sign * row["objective"],
        others=tuple(sign * row[name] for name in spec.search.metrics[1:]),
        earliness=-row["trial"],
        metrics=tuple(row[name] for name in spec.search.metrics),
    )
