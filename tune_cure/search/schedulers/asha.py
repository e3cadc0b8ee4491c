"""Asynchronous successive halving (ASHA): a trial that reaches a rung trains on if it is among the best there.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934, algorithm 2.
Deviation: a trial is compared once, when it reaches a rung, and then stops or trains on; none is paused and promoted
later. Ray Tune's AsyncHyperBandScheduler does the same, and a test proves that both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec


class Bracket:
    """The rungs of one bracket, and the score of every trial that has reached them.

    Args:
        spec: The search, whose grace period, reduction factor and epochs place the rungs.
        num_skipped: How many of the first rungs this bracket lacks.

    Attributes:
        rungs: The epoch of each rung, the last rung first, with the scores there by trial number.
    """

    def __init__(self, spec: SearchSpec, num_skipped: int = 0) -> None:
        first, factor = spec.asha.grace_period, spec.asha.reduction_factor
        num_rungs = int(np.log(spec.max_epochs / first) / np.log(factor) - num_skipped + 1)
        self.rungs: list[tuple[float, dict[int, float]]] = [
            (first * factor ** (rung + num_skipped), {}) for rung in reversed(range(num_rungs))
        ]
        self._percentile = (1 - 1 / factor) * 100

    def record(self, number: int, epoch: int, score: float) -> bool:
        """Enter a trial's score at the last rung that it has reached, and return whether the trial trains on.

        A trial is entered once at each rung; it trains on unless its score is below the percentile of those before.
        """
        scores = next((scores for milestone, scores in self.rungs if epoch >= milestone), {number: score})
        if number in scores:
            return True
        goes_on = not scores or not score < np.percentile(list(scores.values()), self._percentile)
        scores[number] = score
        return goes_on


class Asha:
    """ASHA with one or several brackets, to which trials are given at random.

    Args:
        spec: The search.
        brackets: The brackets.
        draw_bracket: Returns the index of the bracket of a trial, by the trial's number alone: the same after a resume.
    """

    def __init__(self, spec: SearchSpec, brackets: Sequence[Bracket], draw_bracket: Callable[[int], int]) -> None:
        self.brackets = brackets
        self.bracket_of: dict[int, int] = {}
        self._draw_bracket = draw_bracket
        self._max_epochs = spec.max_epochs
        self._sign = 1 if spec.search.mode == "max" else -1

    def add(self, number: int) -> None:
        """Give a trial its bracket."""
        self.bracket_of[number] = self._draw_bracket(number)

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Take in an epoch of a trial, and return whether the trial trains on."""
        if epoch >= self._max_epochs:
            return False
        return self._bracket(number).record(number, epoch, self._sign * objective)

    def complete(self, number: int, epoch: int, objective: float) -> None:
        """Take in the last epoch of an ended trial."""
        self.restore(number, epoch, objective)

    def restore(self, number: int, epoch: int, objective: float) -> None:
        """Take in an epoch of an earlier session."""
        self._bracket(number).record(number, epoch, self._sign * objective)

    def _bracket(self, number: int) -> Bracket:
        return self.brackets[self.bracket_of[number]]


def asha(spec: SearchSpec) -> Asha:
    """Return ASHA with `asha.brackets` brackets; each gets e times as many trials as the next, as in Ray Tune."""
    brackets = [Bracket(spec, num_skipped) for num_skipped in range(spec.asha.brackets)]
    num_rungs = np.array([len(bracket.rungs) for bracket in brackets])
    weights = np.e ** (num_rungs - num_rungs.max())
    shares = weights / weights.sum()

    def draw_bracket(number: int) -> int:
        if len(brackets) == 1:
            return 0
        # Ray Tune draws with numpy's legacy generator: searches of earlier versions keep their brackets.
        generator = np.random.RandomState((spec.search.seed, number))
        return int(generator.choice(len(brackets), p=shares))

    return Asha(spec, brackets, draw_bracket)
