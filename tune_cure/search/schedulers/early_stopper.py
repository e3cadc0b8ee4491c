"""Early stopping of single trials: the rule of a search, rebuilt from its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tune_cure.search.budget import Budget
from tune_cure.search.journal import OBJECTIVE, RUNG, Event
from tune_cure.search.schedulers.control_group import ControlGroup, is_spared
from tune_cure.search.schedulers.registry import SCHEDULERS
from tune_cure.search.space.config import SearchSpec


class EarlyStopper:
    """Decides after each epoch of a trial whether the trial trains on.

    The trials of start_from are stopped by the end of the budget alone: the winner is compared with them, so they need
    their full schedule. They count among the trials that others are compared with. The trials of the control group
    (`asha.control`) are stopped by nothing else either. One that a rung would have stopped counts no more at later
    rungs, so that the others are treated as if there were no such group. At a rung trials are compared by their
    accuracy under the attack of `asha` (`SearchSpec.rung_judgement`), where there is one. A trial that was not judged
    by it, because it overfitted or diverged there, is not compared.

    Args:
        spec: The search, whose `search.scheduler` names the rule.
        history: The events of the journal so far. A rule that had forgotten them would compare the late epochs of a
            resumed trial with the first epochs of younger ones.
        budget: The search's budget, whose end stops every trial; None stops none for it.

    Attributes:
        group: What the rungs decided and how trials ended, from which the rungs are judged.
    """

    def __init__(self, spec: SearchSpec, history: Iterable[Event] = (), budget: Budget | None = None) -> None:
        self.budget = budget
        self.rule = SCHEDULERS[spec.search.scheduler](spec)
        self.group = ControlGroup(spec)
        self._spec = spec
        self._has_rungs = spec.search.scheduler in ("asha", "hyperband")
        self._compared_by = OBJECTIVE if spec.rung_judgement is None else RUNG
        for event in history:
            self.take(event)

    def add(self, number: int) -> None:
        """Take in a new trial, or one that goes on after an interruption."""
        self.rule.add(number)

    def report(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Take in the metrics of an epoch, and return whether the trial trains on."""
        goes_on = self._goes_on(number, epoch, self._compared(metrics))
        return goes_on and (self.budget is None or self.budget.goes_on(number, epoch, metrics.get("train_seconds")))

    def complete(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Take in the metrics of the last epoch of an ended trial, which was reported before if it was stopped here."""
        compared = self._compared(metrics)
        if compared is not None and not self.group.is_out(number):
            self.rule.complete(number, epoch, compared)
        self._end(number, epoch, metrics)

    def take(self, event: Event) -> None:
        """Take in an event of the journal, as if it had been reported."""
        if event["event"] == "trial":
            self.add(event["trial"])
        elif event["event"] == "epoch":
            self._restore(event)

    def _goes_on(self, number: int, epoch: int, compared: float | None) -> bool:
        """Enter what a trial has reached, and return whether it trains on by the rule."""
        if compared is None:
            return True
        self.group.reach(number, epoch, compared)
        if self.group.is_out(number) or self.rule.report(number, epoch, compared):
            return True
        if self._has_rungs:
            return self.group.stop(number, epoch)
        return is_spared(self._spec, number)

    def _restore(self, event: Event) -> None:
        """Take in an epoch of the journal. A rule without rungs is not asked what it decided: that takes its time."""
        number, epoch, ended = event["trial"], event["epoch"], event["ended"]
        compared = self._compared(event)
        if self._has_rungs and ended in ("", "stopped"):
            self._goes_on(number, epoch, compared)
        elif compared is not None and not self.group.is_out(number):
            self.rule.restore(number, epoch, compared)
        if ended == "stopped" and compared is not None:
            self.rule.complete(number, epoch, compared)
        elif ended and ended != "stopped":
            self._end(number, epoch, event)

    def _end(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        if (compared := self._compared(metrics)) is not None:
            self.group.reach(number, epoch, compared)
        self.group.end(number, epoch, float(metrics[OBJECTIVE]), metrics.get("ended") or "")

    def _compared(self, metrics: Mapping[str, Any]) -> float | None:
        """Return what trials are compared by; None where the stronger attack of the rungs has not judged the trial."""
        value = metrics.get(self._compared_by)
        return None if value is None else float(value)
