"""Words on the seeds of a comparison: what its intervals include, and where more seeds are needed."""

import math
from collections.abc import Iterable

from tune_cure.utils.significance import SeedSpread

FEW_SEEDS_WARNINGS = {
    1: "With one seed, the intervals do not include how much seeds differ.",
    2: "With two seeds, a candidate that varies far more from seed to seed than the others can pass for a steady one: "
    "where there is one, about one in eight such confirmations has a false verdict; use three or more.",
}
"""Warnings about verdicts from few seeds, by the number of seeds; docs/confirming.md has the measurement."""
WITH_SEEDS = "includes the chance of the seeds and that of the images"
WITHOUT_SEEDS = "is for the images alone"


def describe_interval(spread: SeedSpread) -> str:
    """Return what the interval of a difference includes whose seeds vary as those of all candidates do."""
    return WITH_SEEDS if spread.freedom else WITHOUT_SEEDS


def describe_own_intervals(seeds: Iterable[int]) -> str:
    """Return what intervals include that go by the candidate's own seeds, for these numbers of seeds."""
    numbers = set(seeds)
    if numbers == {1}:
        return WITHOUT_SEEDS
    return WITH_SEEDS + (f"; that of a candidate with one run {WITHOUT_SEEDS}" if 1 in numbers else "")


def warn_of_few_seeds(seeds: Iterable[int], spread: SeedSpread, noun: str = "candidates") -> list[str]:
    """Return a sentence for each small number of seeds that a verdict goes by, and for each unsteady candidate.

    A comparison with one seed goes by the seeds of the other candidates, where these have more.

    Args:
        seeds: The numbers of seeds of the comparisons.
        spread: How much seeds vary.
        noun: What is compared.
    """
    numbers = set(seeds) - ({1} if spread.freedom else set())
    warnings = [text for number, text in FEW_SEEDS_WARNINGS.items() if number in numbers]
    return warnings + _explain_unsteady(spread, noun)


def _explain_unsteady(spread: SeedSpread, noun: str) -> list[str]:
    """Return a sentence for each of the `noun` whose seeds differ far more than those of the others."""
    return [
        f"The seeds of {name} differ far more than those of the other {noun} (standard deviation "
        f"{100 * math.sqrt(variance):.1f} points, theirs {100 * math.sqrt(spread.pooled):.1f}): more seeds are needed "
        "to place it."
        for name, variance in spread.variances.items()
        if name in spread.unsteady
    ]
