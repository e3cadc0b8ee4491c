"""The median stopping rule (Golovin et al. 2017, "Google Vizier"), as in Ray Tune's MedianStoppingRule.

A trial ends at an epoch if the best that it has reached is worse than the median of the other trials' mean objectives
up to that epoch. Deviation from Ray Tune: with too few other trials the trial trains on, and is never paused.
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
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.curves: dict[int, dict[int, float]] = {}
        self._grace_period = spec.asha.grace_period
        self._sign = 1 if spec.search.mode == "max" else -1

    def add(self, number: int) -> None:
        """Take in a new trial, which changes no decision until its first epoch."""

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Take in an epoch of a trial, and return whether the trial trains on."""
        self.complete(number, epoch, objective)
        if epoch < self._grace_period:
            return True
        rivals = [curve for other, curve in self.curves.items() if other != number and max(curve) >= epoch]
        means = [self._mean(curve, epoch) for curve in rivals]
        known_means = [mean for mean in means if mean is not None]
        if len(known_means) < MIN_RIVALS:
            return True
        best = max(self._sign * value for value in self.curves[number].values())
        return bool(best >= self._sign * np.median(known_means))

    def complete(self, number: int, epoch: int, objective: float) -> None:
        """Take in the last epoch of a trial that ended by itself."""
        self.curves.setdefault(number, {}).setdefault(epoch, objective)

    def _mean(self, curve: dict[int, float], last: int) -> float | None:
        """Return the mean objective from the grace period to epoch `last`; None if there is no such epoch."""
        objectives = [value for epoch, value in curve.items() if self._grace_period <= epoch <= last]
        return float(np.mean(objectives)) if objectives else None
