"""Whether one configuration is better than another: means, paired differences with intervals, Holm's adjustment."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


def mean_and_deviation(values: NDArray[Any]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1); the latter is NaN of a single value."""
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Difference:
    """An estimated difference, the bounds of its interval, and the p-value of there being none."""

    estimate: float
    low: float
    high: float
    p_value: float


def paired_difference(first: NDArray[Any], second: NDArray[Any], *, level: float = LEVEL) -> Difference:
    """The difference of two accuracies that were measured with the same seeds on the same images.

    Seeds and images are both samples: of other seeds and of other images the result is to hold, too. So the differences
    d = first − second of every single outcome are taken as a two-way layout of random effects without replication,
    seeds × images (Searle, Casella and McCulloch 1992, Variance Components, chapter 4): d = μ + seed + image + rest.
    With mean squares MS of S seeds, E images and the rest, the variance of the mean is (MS_S + MS_E − MS_R) / (S·E), a
    component that comes out negative counting as zero; its degrees of freedom are Satterthwaite's (1946).

    With one seed it is the paired t-test over images, and says nothing of how much seeds differ. With two, whose mean
    square is often below the rest's by chance, about one p-value of ten is below 5% where there is no difference.

    Args:
        first: Shape (S, E): whether image e was classified right with seed s.
        second: Likewise.
        level: Of the interval.

    Returns:
        The difference of the means, its interval and two-sided p-value.
    """
    outcomes = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean = float(outcomes.mean())
    parts = _parts(outcomes)  # of the variance of the mean: each with its degrees of freedom, and its sign
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Difference(mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def unpaired_difference(
    first: float, first_error: float, second: float, second_error: float, *, level: float = LEVEL
) -> Difference:
    """The difference of two accuracies from their standard errors alone, as if measured on images of their own."""
    difference, error = first - second, math.hypot(first_error, second_error)
    if error == 0:
        return Difference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    return Difference(
        difference, difference - reach, difference + reach, float(2 * stats.norm.sf(abs(difference) / error))
    )


def _parts(outcomes: NDArray[Any]) -> list[tuple[float, float]]:
    """The terms that sum to the variance of the mean, each with its degrees of freedom."""
    seeds, images = outcomes.shape
    by_seed, by_image, mean = outcomes.mean(axis=1), outcomes.mean(axis=0), outcomes.mean()
    if seeds == 1:
        return [(float(outcomes.var(ddof=1)) / images, images - 1)]
    rest = outcomes - by_seed[:, None] - by_image[None, :] + mean
    free = (seeds - 1) * (images - 1)
    of_seeds = float(images * ((by_seed - mean) ** 2).sum()) / (seeds - 1)
    of_images = float(seeds * ((by_image - mean) ** 2).sum()) / (images - 1)
    of_rest = float((rest**2).sum()) / free
    total = seeds * images
    if of_seeds >= of_rest and of_images >= of_rest:
        return [(of_seeds / total, seeds - 1), (of_images / total, images - 1), (-of_rest / total, free)]
    # A component that would be negative is none: its mean square measures the rest, as that of the rest does.
    if of_seeds >= of_rest:
        return [(of_seeds / total, seeds - 1)]
    if of_images >= of_rest:
        return [(of_images / total, images - 1)]
    return [(of_rest / total, free)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that all of them hold together (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, p_value: float, *, level: float = LEVEL) -> str:
    """What a difference and its (adjusted) p-value say: better, worse, or cannot tell."""
    if p_value >= 1 - level:
        return "cannot tell"
    return "better" if difference > 0 else "worse"
