"""The median stopping rule (Golovin et al. 2017, "Google Vizier"), as in Ray Tune's MedianStoppingRule.

A trial ends at an epoch if the best that it has reached is worse than the median of the other trials' mean objectives
up to that epoch. With too few other trials it trains on; Ray Tune would pause it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec

MIN_RIVALS = 3  # other trials that must have reached the epoch before one is stopped there


class MedianRule:
    """The median stopping rule.

    Attributes:
        curves: The objective of each trial by its epochs; an epoch that a crash made run twice counts once.
        stopped: The trials that the rule has stopped. Their last epoch weighs twice in their mean, because Ray Tune
            tells its rule of it twice; searches of earlier versions decided so.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.curves: dict[int, dict[int, float]] = {}
        self.stopped: set[int] = set()
        self._grace_period = spec.asha.grace_period
        self._sign = 1 if spec.search.mode == "max" else -1

    def add(self, number: int) -> None:
        """Take in a new trial, which changes no decision until its first epoch."""

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Take in an epoch of a trial, and return whether the trial trains on."""
        self.restore(number, epoch, objective)
        if epoch < self._grace_period:
            return True
        rivals = [rival for rival, curve in self.curves.items() if rival != number and max(curve) >= epoch]
        means = [self._mean(rival, epoch) for rival in rivals]
        known_means = [mean for mean in means if mean is not None]
        if len(known_means) < MIN_RIVALS:
            return True
        best = max(self._sign * value for value in self.curves[number].values())
        return bool(best >= self._sign * np.median(known_means))

    def complete(self, number: int, epoch: int, objective: float) -> None:
        """Take in the last epoch of an ended trial, which was reported before if the rule has stopped the trial."""
        if epoch in self.curves.get(number, {}):
            self.stopped.add(number)
        self.restore(number, epoch, objective)

    def restore(self, number: int, epoch: int, objective: float) -> None:
        """Take in an epoch of an earlier session."""
        self.curves.setdefault(number, {}).setdefault(epoch, objective)

    def _mean(self, number: int, last: int) -> float | None:
        """Return the mean objective from the grace period to epoch `last`; None if there is no such epoch."""
        curve = self.curves[number]
        objectives = [value for epoch, value in curve.items() if self._grace_period <= epoch <= last]
        if number in self.stopped and max(curve) <= last:
            objectives.append(curve[max(curve)])
        return float(np.mean(objectives)) if objectives else None
