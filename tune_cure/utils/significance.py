"""Tests of whether one configuration is better than another: differences with intervals, Holm's adjustment."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # the distributions of scipy.stats take half a second to import

LEVEL = 0.95


def mean_and_deviation(values: NDArray[Any]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n − 1) of `values`, shape (n,). One value has the deviation NaN."""
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Difference:
    """Estimated difference of two accuracies.

    Attributes:
        estimate: The difference, first minus second, as a fraction.
        low: Lower bound of its interval.
        high: Upper bound of its interval.
        p_value: Two-sided p-value of the hypothesis that there is no difference.
    """

    estimate: float
    low: float
    high: float
    p_value: float


def paired_difference(first: NDArray[Any], second: NDArray[Any], *, level: float = LEVEL) -> Difference:
    """Return the difference of two accuracies that were measured with the same seeds on the same images.

    Seeds and images are both random effects; the interval generalizes over both. The differences d = first − second
    of single outcomes are a two-way layout without replication (Searle, Casella and McCulloch 1992, Variance
    Components, chapter 4): d = μ + seed + image + residual. With the mean squares MS of S seeds, E images and the
    residual, the variance of the mean is (MS_S + MS_E − MS_R) / (S·E). A component that comes out negative counts as
    zero. The degrees of freedom are Satterthwaite's (1946).

    With one seed this is the paired t-test over images, and says nothing about how much seeds differ. With two seeds
    the test is too optimistic: the mean square of seeds is often below the residual's by chance, so that about one
    p-value in ten is below 5% although there is no difference.

    Args:
        first: Outcomes of the first configuration, shape (S, E): whether image e was classified correctly with seed s.
        second: Outcomes of the second configuration, shape (S, E).
        level: Confidence level of the interval.
    """
    outcomes = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean = float(outcomes.mean())
    terms = _variance_terms(outcomes)
    variance = sum(term for term, _ in terms)
    if variance <= 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    freedom = variance**2 / sum(term**2 / free for term, free in terms)
    error = math.sqrt(variance)
    half_width = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    return Difference(mean, mean - half_width, mean + half_width, float(2 * special.stdtr(freedom, -abs(mean) / error)))


def unpaired_difference(
    first: float, first_error: float, second: float, second_error: float, *, level: float = LEVEL
) -> Difference:
    """Return the difference of two accuracies that were measured on separate images, from their standard errors.

    Args:
        first: The first accuracy, a fraction.
        first_error: Its standard error.
        second: The second accuracy, a fraction.
        second_error: Its standard error.
        level: Confidence level of the interval.
    """
    difference, error = first - second, math.hypot(first_error, second_error)
    if error == 0:
        return Difference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    half_width = float(special.ndtri((1 + level) / 2)) * error
    p_value = float(2 * special.ndtr(-abs(difference) / error))
    return Difference(difference, difference - half_width, difference + half_width, p_value)


def _variance_terms(outcomes: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the terms that sum to the variance of the mean, each with its degrees of freedom.

    Args:
        outcomes: Differences of single outcomes, shape (S, E).
    """
    num_seeds, num_images = outcomes.shape
    by_seed, by_image, mean = outcomes.mean(axis=1), outcomes.mean(axis=0), outcomes.mean()
    if num_seeds == 1:
        return [(float(outcomes.var(ddof=1)) / num_images, num_images - 1)]
    residual = outcomes - by_seed[:, None] - by_image[None, :] + mean
    free = (num_seeds - 1) * (num_images - 1)
    ms_seeds = float(num_images * ((by_seed - mean) ** 2).sum()) / (num_seeds - 1)
    ms_images = float(num_seeds * ((by_image - mean) ** 2).sum()) / (num_images - 1)
    ms_residual = float((residual**2).sum()) / free
    total = num_seeds * num_images
    if ms_seeds >= ms_residual and ms_images >= ms_residual:
        return [
            (ms_seeds / total, num_seeds - 1), (ms_images / total, num_images - 1), (-ms_residual / total, free)
        ]  # fmt: skip
    # A component below the residual would be negative and counts as zero, so its mean square measures the residual.
    if ms_seeds >= ms_residual:
        return [(ms_seeds / total, num_seeds - 1)]
    if ms_images >= ms_residual:
        return [(ms_images / total, num_images - 1)]
    return [(ms_residual / total, free)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, adjusted so that all of them hold together (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, p_value: float, *, level: float = LEVEL) -> str:
    """Return `better`, `worse` or `cannot tell` for a difference and its (adjusted) p-value."""
    if p_value >= 1 - level:
        return "cannot tell"
    return "better" if difference > 0 else "worse"
