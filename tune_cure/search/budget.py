"""Budget of a search: the seconds or epochs of training that its trials share, and what they have spent of it.

Seconds are those that trials measure while they train. Evaluation is not counted, so that a search is not charged for
how it is judged. An epoch that ran twice, after a crash, counts once, as in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING

from tune_cure.search.journal import Event
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import format_count, format_duration

if TYPE_CHECKING:
    from tune_cure.search.results import SearchResult

PRECISE = 60.0  # seconds; shorter budgets are given to three digits
SPENT = "the search's budget is spent"  # why a running trial was stopped


class Budget:
    """Account of what a search has spent of its budget, kept current event by event.

    The last epoch is begun only if more than half of it fits, so that a search spends its budget up to half an epoch.
    Without a budget (`search.budget_seconds` and `search.budget_epochs` are both absent) there is no end to it.

    Args:
        spec: The search.
        history: The events of trials so far.
        epoch_seconds: What an epoch of training is expected to take, for as long as none has been measured.

    Attributes:
        spec: The search; its budget is read at each question.
        spent: What the epochs of all trials have taken, in the unit of the budget.
    """

    def __init__(self, spec: SearchSpec, history: Iterable[Event] = (), epoch_seconds: float = 0.0) -> None:
        self.spec, self.spent = spec, 0.0
        self._epoch_seconds, self._max_epochs = epoch_seconds, spec.max_epochs
        self._num_epochs = 0
        self._planned: dict[int, int] = {}  # epochs of each running trial
        self._costs: dict[int, dict[int, float]] = {}  # of the epochs of each running trial
        self._stopped: set[int] = set()
        for event in history:
            self.take(event)

    @property
    def limit(self) -> float | None:
        """How much the trials may spend together; None without a budget."""
        search = self.spec.search
        return search.budget_seconds if search.budget_epochs is None else float(search.budget_epochs)

    @property
    def share(self) -> float:
        """The share of the budget that is spent; 0 without a budget."""
        return self.spent / self.limit if self.limit else 0.0

    @property
    def committed_share(self) -> float:
        """The share that is spent if all running trials train to their last epoch; 0 without a budget."""
        return self._committed / self.limit if self.limit else 0.0

    @property
    def is_committed(self) -> bool:
        """Return whether nothing is left for another trial if the running ones train to their last epoch."""
        return self._is_beyond(self._committed + self._mean_cost / 2)

    @property
    def is_spent(self) -> bool:
        """Return whether no further epoch fits."""
        return self._is_beyond(self.spent + self._mean_cost / 2)

    @property
    def words(self) -> str:
        """The budget in words; empty without one."""
        return describe_budget(self.spec)

    def take(self, event: Event) -> None:
        """Take in an event of a trial; without a budget nothing is counted."""
        if self.limit is None:
            return
        number, kind = event["trial"], event["event"]
        if kind == "trial":
            self._planned[number] = int(event["hyperparameters"].get("epochs", self._max_epochs))
            self._costs[number] = {}
        elif kind == "epoch":
            costs = self._costs.setdefault(number, {})
            before, now = costs.get(event["epoch"]), self._cost(event["train_seconds"])
            costs[event["epoch"]] = now
            self.spent += now - (before or 0.0)
            self._num_epochs += before is None
        elif kind == "end":
            self._planned.pop(number, None)
            self._costs.pop(number, None)

    def goes_on(self, number: int, epoch: int, train_seconds: float | None) -> bool:
        """Return whether a trial may train one more epoch; the epoch that has ended is not taken in yet.

        The epochs that other trials are in are counted as if they had ended.

        Args:
            number: The trial's number.
            epoch: The epoch that has ended.
            train_seconds: How long it has trained.
        """
        now = self._cost(train_seconds)
        costs = self._costs.get(number, {}) | {epoch: now}
        spent = self.spent + now - self._costs.get(number, {}).get(epoch, 0.0)
        under_way = sum(self._cost_of(other) for other in self._planned if other != number and self._left(other))
        if self._is_beyond(spent + under_way + fmean(costs.values()) / 2):
            self._stopped.add(number)
            return False
        return True

    def reason_of(self, number: int) -> str:
        """Return why a trial was stopped, if that was for the budget; else an empty text."""
        return SPENT if number in self._stopped else ""

    def _is_beyond(self, amount: float) -> bool:
        return self.limit is not None and amount > self.limit

    def _cost(self, train_seconds: float | None) -> float:
        """Return what an epoch costs, in the unit of the budget."""
        return 1.0 if self.spec.search.budget_epochs is not None else train_seconds or 0.0

    @property
    def _mean_cost(self) -> float:
        """The cost of an epoch of a trial that has not begun."""
        return self.spent / self._num_epochs if self._num_epochs else self._cost(self._epoch_seconds)

    def _cost_of(self, number: int) -> float:
        """Return the cost of a further epoch of a running trial."""
        costs = self._costs[number]
        return fmean(costs.values()) if costs else self._mean_cost

    def _left(self, number: int) -> int:
        """Return how many epochs a running trial has left."""
        return max(self._planned[number] - max(self._costs[number], default=0), 0)

    @property
    def _committed(self) -> float:
        return self.spent + sum(self._left(number) * self._cost_of(number) for number in self._planned)


def describe_budget(spec: SearchSpec) -> str:
    """Return the budget of a search in words; empty without one."""
    if spec.search.budget_epochs is not None:
        return f"{format_count(spec.search.budget_epochs, 'epoch')} of training"
    seconds = spec.search.budget_seconds
    if seconds is None:
        return ""
    return f"{f'{seconds:.3g} s' if seconds < PRECISE else format_duration(seconds)} of training"


def replay_budget(result: SearchResult) -> Budget:
    """Return the budget of a recorded search as it stands at the end of its tables."""
    budget = Budget(result.spec)
    table = result.epochs
    for trial, epoch, seconds in zip(table["trial"], table["epoch"], table["train_seconds"], strict=True):
        budget.take({"event": "epoch", "trial": trial, "epoch": epoch, "train_seconds": seconds})
    return budget
