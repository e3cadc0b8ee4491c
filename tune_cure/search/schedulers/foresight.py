"""Estimates of how well early ranks predict final ranks, from trials of which some are seen to their end by chance.

A trial that a rung stops has no final value, so the trials with one are no fair sample: they are those that did well
early. A control group repairs that. Each trial is a member with the same chance, whatever its values are, and no rung
stops a member. So a member that a rung would have stopped stands for 1 / chance such trials, and all others stand for
themselves: the estimator of Horvitz and Thompson (1952). It needs no model of the learning curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = 1.96  # of a 95% interval
# Variance of atanh(tau), times trials − 4. Fieller, Hartley and Pearson (1957) have 0.437, for normal values.
# Deviation: recorded trials come in groups, and with 0.437 the interval had the truth in 86% of the replays of some
# curves. With 0.6 it is 90% or more for all of them (benchmarks/control_group.py).
VARIANCE = 0.6
MIN_EFFECTIVE = 4.5  # effective trials below which nothing is known of a correlation
PRIOR_DEVIATIONS = (5.0, 2.5)  # of intercept and slope of the logistic regression: weak (Gelman et al. 2008)
NEWTON_STEPS = 50


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its 95% interval."""

    value: float
    low: float
    high: float


class RankCorrelation:
    """Kendall's rank correlation of weighted pairs, kept current: a trial's cost grows with the number before it.

    Of two trials drawn at random, tau is the chance that the one ahead early is ahead in the end, minus the chance that
    it is behind; a tie counts as neither. Unlike Spearman's correlation it is unbiased in small samples. Its interval
    is of Fieller's form, for the effective number of trials (Kish 1965): (Σ weight)² / Σ weight².
    """

    def __init__(self) -> None:
        self._early: list[float] = []
        self._final: list[float] = []
        self._weights: list[float] = []
        self._agreement = self._pairs = 0.0  # sums over pairs, of weight · weight · sign and of weight · weight

    def add(self, early: float, final: float, weight: float) -> None:
        """Take in a trial by its early and its final value, of which more is better, and its weight."""
        weights = weight * np.array(self._weights)
        signs = np.sign(early - np.array(self._early)) * np.sign(final - np.array(self._final))
        self._agreement += float(weights @ signs)
        self._pairs += float(weights.sum())
        self._early.append(early)
        self._final.append(final)
        self._weights.append(weight)

    @property
    def num_trials(self) -> int:
        """The number of trials."""
        return len(self._weights)

    @property
    def effective_trials(self) -> float:
        """The number of equally weighted trials that would say as much."""
        weights = np.array(self._weights)
        return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0

    def estimate(self) -> Estimate | None:
        """Return the correlation with its 95% interval; None while there are too few trials for one."""
        number = self.effective_trials
        if number < MIN_EFFECTIVE:
            return None
        tau, edge = self._agreement / self._pairs, 1 - 1 / number
        center = math.atanh(max(-edge, min(edge, tau)))
        half_width = NORMAL_QUANTILE * math.sqrt(VARIANCE / (number - 4))
        low, high = math.tanh(center - half_width), math.tanh(center + half_width)
        # Trials that all agree leave no room to see how rare disagreement is: there the interval reaches to the end.
        return Estimate(tau, -1.0 if tau < -edge else low, 1.0 if tau > edge else high)


def chance_of_stopping_best(finals: Sequence[float], stopped: Sequence[bool], weights: Sequence[float]) -> Estimate:
    """Return the chance that the rungs stop the trial that would have ended best.

    A logistic regression of "would have been stopped" on the normal score of the final rank, taken at the best rank.
    The weak prior on its slope keeps it finite where trials are few.

    Args:
        finals: Final values, more is better, shape (n,).
        stopped: Whether a rung stopped the trial, or would have, shape (n,).
        weights: How many trials each stands for, shape (n,).
    """
    final, weight = np.array(finals), np.array(weights)
    total = weight.sum()
    below = (weight * (final[None, :] < final[:, None])).sum(axis=1)
    level = (weight * (final[None, :] == final[:, None])).sum(axis=1)
    scores = np.array([NormalDist().inv_cdf(rank) for rank in (below + level / 2) / total])
    design = np.stack([np.ones_like(scores), scores], axis=1)
    # Weights that sum to the effective number of trials, so that the interval is as wide as they deserve.
    coefficients, covariance = _logistic_regression(
        design, np.array(stopped, dtype=float), weight * total / (weight**2).sum()
    )
    best = np.array([1.0, NormalDist().inv_cdf(1 - 0.5 / total)])
    center, error = float(best @ coefficients), math.sqrt(float(best @ covariance @ best))
    ends = (center, center - NORMAL_QUANTILE * error, center + NORMAL_QUANTILE * error)
    return Estimate(*(float(_logistic(np.array(end))) for end in ends))


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(−x)); tanh does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def _logistic_regression(
    design: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the most probable coefficients, shape (2,), and their covariance, by Newton's method.

    Args:
        design: Shape (n, 2).
        outcomes: 0 or 1, shape (n,).
        weights: Shape (n,).
    """
    precision = np.diag([1 / deviation**2 for deviation in PRIOR_DEVIATIONS])
    coefficients: NDArray[np.float64] = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        expected = _logistic(design @ coefficients)
        gradient = design.T @ (weights * (outcomes - expected)) - precision @ coefficients
        curvature = (design * (weights * expected * (1 - expected))[:, None]).T @ design + precision
        step = np.linalg.solve(curvature, gradient).clip(-2, 2)  # a full step overshoots where outcomes are separated
        coefficients += step
        if np.abs(step).max() < 1e-9:
            break
    return coefficients, np.asarray(np.linalg.inv(curvature), dtype=float)
