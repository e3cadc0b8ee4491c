"""Where each trial stands once it has ended, from the journal's events as they come: the order of `results.ranked`."""

from typing import NamedTuple

from tune_cure.journal import OBJECTIVE, Event
from tune_cure.objectives import reached
from tune_cure.results import UNSOUND
from tune_cure.spec import SearchSpec


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
        sign = 1 if self.spec.search.mode == "max" else -1
        return Place(
            sound=event["status"] not in UNSOUND,
            feasible=all(constraint.violation(values) <= 0 for constraint in self.spec.search.parsed_constraints),
            objective=sign * last[OBJECTIVE],
            others=tuple(sign * values[name] for name in self.spec.search.metrics[1:]),
            earliness=-number,
            metrics=tuple(values[name] for name in self.spec.search.metrics),
        )
