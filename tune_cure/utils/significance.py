"""Tests of whether one configuration is better than another: differences with intervals, Holm's adjustment."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # the distributions of scipy.stats take half a second to import

LEVEL = 0.95
LEAST_ROOM = 0.25
"""Room for accuracies to vary, as a share of that of others, with which a configuration's seeds speak for others'."""


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
    if outcomes.shape[1] == 1:  # it says nothing of other images
        return Difference(mean, -1.0, 1.0, 1.0)
    terms = _variance_terms(outcomes)
    variance = sum(term for term, _ in terms)
    if variance <= 0:
        return _unanimous_difference(mean, outcomes.shape[1], level)
    return _student_difference(mean, variance, terms, level)


@dataclass(frozen=True)
class SeedSpread:
    """How much the accuracies of several configurations vary over seeds.

    Attributes:
        variances: The variance of each configuration's accuracy over its seeds, by name; NaN with one seed.
        own_freedom: The degrees of freedom of each, the number of seeds less one.
        pooled: The mean variance of those that vary alike.
        freedom: Its degrees of freedom.
        unsteady: The names of those that vary far more than the others.
    """

    variances: dict[str, float]
    own_freedom: dict[str, int]
    pooled: float
    freedom: int
    unsteady: frozenset[str]

    def of(self, name: str) -> float:
        """Return the variance over seeds to reckon with for a configuration.

        An unsteady one has its own. For others it is the pooled one, but not less than their own: with few seeds a
        configuration's own variance is often too small by chance.
        """
        own = self.variances[name]
        if name in self.unsteady:
            return own
        return self.pooled if math.isnan(own) else max(self.pooled, own)


def measure_seed_spread(outcomes: Mapping[str, NDArray[Any]], *, level: float = LEVEL) -> SeedSpread:
    """Return how much the accuracies of configurations vary over seeds.

    The configuration of the largest variance is unsteady if F-tests find it larger than the pooled variance of the
    others, which may be too small by chance, and than what single images make by chance. Both are at 1 − `level` over
    the number of configurations (Bonferroni). Then the next one is tested.

    A configuration that is hardly ever right, or hardly ever wrong, is not pooled: its accuracy p does not vary because
    accuracies end there, and says nothing about the seeds of others. That is one whose p·(1 − p), the variance of a
    single outcome, is below `LEAST_ROOM` of the largest.

    Args:
        outcomes: Outcomes (S, E) of each configuration, by name. The numbers S of seeds may differ.
        level: Level of the test.
    """
    arrays = {name: np.asarray(found, dtype=float) for name, found in outcomes.items()}
    variances = {name: mean_and_deviation(found.mean(axis=1))[1] ** 2 for name, found in arrays.items()}
    free = {name: len(found) - 1 for name, found in arrays.items()}
    room = {name: found.mean() * (1 - found.mean()) for name, found in arrays.items() if free[name]}
    varying = sorted((name for name in room if room[name] > 0), key=lambda name: variances[name])
    steady = [name for name in varying if room[name] >= LEAST_ROOM * max(room.values())]

    def pool(names: Sequence[str]) -> tuple[float, int]:
        freedom = sum(free[name] for name in names)
        return sum(free[name] * variances[name] for name in names) / freedom if freedom else 0.0, freedom

    def varies_more(name: str, others: Sequence[str]) -> bool:
        (pooled, freedom), images = pool(others), arrays[name].shape[1]
        quantile = 1 - (1 - level) / len(outcomes)
        limits = (
            pooled * special.fdtri(free[name], freedom, quantile),
            _variance_by_chance(arrays[name]) * special.fdtri(free[name], free[name] * (images - 1), quantile),
        )
        return bool(variances[name] > max(limits))

    confined = [name for name in varying if name not in steady]
    pooled = steady
    while len(steady) > 1 and varies_more(steady[-1], steady[:-1]):
        steady = steady[:-1]
    unsteady = {*pooled[len(steady) :], *(name for name in confined if varies_more(name, steady))}
    return SeedSpread(variances, free, *pool(steady), frozenset(unsteady))


def simultaneous_differences(
    outcomes: Mapping[str, NDArray[Any]], pairs: Sequence[tuple[str, str]], *, level: float = LEVEL
) -> list[Difference]:
    """Return the differences of several pairs of configurations, with intervals that hold all together (Bonferroni).

    With one seed for each configuration this says nothing about how much seeds differ.

    Args:
        outcomes: Outcomes (S, E) of each configuration by name, on the same E images.
        pairs: Names of the configurations to compare.
        level: Confidence level of all intervals together.

    Returns:
        The `pooled_difference` of each pair. Its p-value is that of the pair alone; `holm` adjusts them.
    """
    spread = measure_seed_spread(outcomes, level=level)
    level_of_pair = 1 - (1 - level) / max(1, len(pairs))
    return [pooled_difference({name: outcomes[name] for name in pair}, spread, level=level_of_pair) for pair in pairs]


def pooled_difference(outcomes: Mapping[str, NDArray[Any]], spread: SeedSpread, *, level: float = LEVEL) -> Difference:
    """Return the difference of two configurations whose seeds vary as those of all that are compared do.

    `paired_difference` judges a pair by its own seeds. With two or three these often agree by chance: a single pair is
    then told apart a little too often, and among many pairs a false difference is all but certain. Here the variance
    over seeds is that of all configurations together, and not less than what single outcomes make by chance.

    Both configurations are judged on the same images: the part of the images comes from the differences image by image.
    Seeds of different configurations count as independent. The variance of a difference is the sum of the variances
    over seeds, each over its number of seeds, and of that over images, less the part that both contain. The degrees of
    freedom are Satterthwaite's (1946).

    Args:
        outcomes: Outcomes (S, E) of the first and of the second configuration, by name, on the same E images.
        spread: How much seeds vary. A configuration without a variance in it is one fixed network (S is 1), of which no
            seed says anything: the difference is that to this network.
        level: Confidence level of the interval.
    """
    arrays = {name: np.asarray(found, dtype=float) for name, found in outcomes.items()}
    first, second = (found.mean(axis=0) for found in arrays.values())
    by_image = first - second
    mean, num_images = float(by_image.mean()), len(by_image)
    by_chance = {name: _variance_by_chance(found) for name, found in arrays.items()}
    of_seeds = {
        name: max(spread.of(name), by_chance[name]) / len(arrays[name]) for name in arrays if name in spread.variances
    }
    shared = sum(by_chance[name] / len(found) for name, found in arrays.items())
    terms = [
        (sum(term for name, term in of_seeds.items() if name not in spread.unsteady), spread.freedom),
        *((term, spread.own_freedom[name]) for name, term in of_seeds.items() if name in spread.unsteady),
        (max(0.0, float(by_image.var(ddof=1)) / num_images - shared), num_images - 1),
    ]
    terms = [(term, free) for term, free in terms if term > 0]
    variance = sum(term for term, _ in terms)
    if variance == 0:
        return _unanimous_difference(mean, num_images, level)
    return _student_difference(mean, variance, terms, level)


def _student_difference(mean: float, variance: float, terms: Sequence[tuple[float, float]], level: float) -> Difference:
    """Return the difference whose error has Student's distribution; its interval ends at −1 and 1, as differences do.

    Args:
        mean: The difference, first minus second.
        variance: Its variance.
        terms: The terms that sum to the variance, each with its degrees of freedom.
        level: Confidence level of the interval.
    """
    freedom, error = variance**2 / sum(term**2 / free for term, free in terms), math.sqrt(variance)
    half_width = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    low, high = max(-1.0, mean - half_width), min(1.0, mean + half_width)
    return Difference(mean, low, high, float(2 * special.stdtr(freedom, -abs(mean) / error)))


def _unanimous_difference(mean: float, num_images: int, level: float) -> Difference:
    """Return the difference where no image and no seed disagrees with the others, so that no variance is estimated.

    The p-value is that of the sign test over images. The interval belongs to it: it is made of the exact binomial bound
    (Clopper and Pearson 1934) of the share of images that agree. Where both are never right, or both always, that is a
    bound of the share of images at which they may differ.

    Args:
        mean: The difference, first minus second.
        num_images: The number of images.
        level: Confidence level of the interval.
    """
    agreeing = ((1 - level) / 2) ** (1 / num_images)
    if mean == 0:
        return Difference(0.0, agreeing - 1, 1 - agreeing, 1.0)
    least = 2 * agreeing - 1
    low, high = sorted((least * mean, mean))
    return Difference(mean, low, high, 2.0 ** (1 - num_images))


def _variance_by_chance(outcomes: NDArray[Any]) -> float:
    """Return the variance that an accuracy has over seeds by the chance of single images, for outcomes (S, E).

    It is the mean square that neither seeds nor images explain, over the number of images; 0 with one seed.
    """
    num_seeds, num_images = outcomes.shape
    if num_seeds == 1:
        return 0.0
    by_seed, by_image = outcomes.mean(axis=1), outcomes.mean(axis=0)
    residual = outcomes - by_seed[:, None] - by_image[None, :] + outcomes.mean()
    return float((residual**2).sum() / ((num_seeds - 1) * (num_images - 1) * num_images))


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


def holm(p_values: Sequence[float], *, alone: int | None = None) -> list[float]:
    """Return the p-values of several tests, adjusted so that all of them hold together (Holm 1979).

    Args:
        p_values: The p-value of each test by itself.
        alone: The index of a test that stands by itself: it is not adjusted, and the others are without it. A false
            finding among all is then as likely as both levels together. None adjusts all.
    """
    adjusted, highest = list(p_values), 0.0
    family = sorted((index for index in range(len(p_values)) if index != alone), key=p_values.__getitem__)
    for rank, index in enumerate(family):
        highest = max(highest, min(1.0, (len(family) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, p_value: float, *, level: float = LEVEL) -> str:
    """Return `better`, `worse` or `cannot tell` for a difference and its (adjusted) p-value."""
    if p_value >= 1 - level:
        return "cannot tell"
    return "better" if difference > 0 else "worse"
