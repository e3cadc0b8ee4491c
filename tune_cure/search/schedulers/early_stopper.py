"""Early stopping of single trials: the rule of a search, rebuilt from its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tune_cure.search.budget import Budget
from tune_cure.search.journal import OBJECTIVE, RUNG, Event
from tune_cure.search.schedulers.registry import SCHEDULERS
from tune_cure.search.space.config import SearchSpec


class EarlyStopper:
    """Decides after each epoch of a trial whether the trial trains on.

    The trials of start_from are stopped by the end of the budget alone: the winner is compared with them, so they need
    their full schedule. They count among the trials that others are compared with. At a rung trials are compared by
    their accuracy under the stronger attack of `asha.steps`, where there is one.

    Args:
        spec: The search, whose `search.scheduler` names the rule.
        history: The events of the journal so far. A rule that had forgotten them would compare the late epochs of a
            resumed trial with the first epochs of younger ones.
        budget: The search's budget, whose end stops every trial; None stops none for it.
    """

    def __init__(self, spec: SearchSpec, history: Iterable[Event] = (), budget: Budget | None = None) -> None:
        self.budget = budget
        self.rule = SCHEDULERS[spec.search.scheduler](spec)
        self._num_starts = len(spec.start_from)
        self._has_rungs = spec.search.scheduler in ("asha", "hyperband")
        for event in history:
            if event["event"] == "trial":
                self.add(event["trial"])
            elif event["event"] == "epoch":
                self._restore(event)

    def add(self, number: int) -> None:
        """Take in a new trial, or one that goes on after an interruption."""
        self.rule.add(number)

    def report(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Take in the metrics of an epoch, and return whether the trial trains on."""
        goes_on = self.rule.report(number, epoch, self._compared(metrics)) or number < self._num_starts
        return goes_on and (self.budget is None or self.budget.goes_on(number, epoch, metrics.get("train_seconds")))

    def complete(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Take in the metrics of the last epoch of an ended trial, which was reported before if it was stopped here."""
        self.rule.complete(number, epoch, self._compared(metrics))

    def _restore(self, event: Event) -> None:
        """Take in an epoch of an earlier session."""
        number, epoch, compared = event["trial"], event["epoch"], self._compared(event)
        self.rule.restore(number, epoch, compared)
        if event["ended"] == "stopped":
            self.rule.complete(number, epoch, compared)

    def _compared(self, metrics: Mapping[str, Any]) -> float:
        """Return what trials are compared by: at a rung, the accuracy under the stronger attack if there is one."""
        rung = metrics.get(RUNG) if self._has_rungs else None
        return float(metrics[OBJECTIVE] if rung is None else rung)
