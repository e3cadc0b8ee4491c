"""How often verdicts are wrong where configurations are equal, and how often they find a real difference, simulated.

Two rules judge the same simulated outcomes: each pair by its own seeds, and the variance of seeds pooled over all
configurations, as `confirm` and `league` do. P-values are adjusted after Holm in both; in a confirmation the first
leader against the first baseline, its ablation, stands by itself. Needs numpy and scipy alone.

    python benchmarks/verdicts.py --output benchmarks/results
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from tune_cure.utils import significance
from tune_cure.utils.significance import LEVEL

SLOPE = 0.4
"""By how much an accuracy of a half rises with the latent variable: the normal density at 0."""
HARDNESS, OWN_HARDNESS, LUCK = 0.8, 0.4, 0.45
"""Standard deviations of the latent variable over images, over those of one configuration, and over single outcomes."""
IMAGES = 300

Outcomes = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Setting:
    """Configurations that are compared.

    Attributes:
        deviations: The standard deviation of each one's accuracy over seeds, in points.
        seeds: The number of seeds.
        leaders: The first ones are each compared with each one that is no leader, and the first with the other leaders,
            as a confirmation does; 0 compares all with all, as a league does. The first that is no leader is the
            ablation of the first leader.
        collapsed: The number of further configurations that have collapsed.
        right: On which share of the images these are right. Chance moves them as it moves the first one.
        difference: By how much the first one is better, in points.
    """

    deviations: tuple[float, ...]
    seeds: int
    leaders: int = 0
    collapsed: int = 0
    right: float = 0.0
    difference: float = 0.0

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs whose truth is known: of those that are not collapsed."""
        names = [f"m{number}" for number in range(len(self.deviations))]
        if not self.leaders:
            return list(itertools.combinations(names, 2))
        leaders, others = names[: self.leaders], names[self.leaders :]
        return [*itertools.product(leaders, others), *((leaders[0], name) for name in leaders[1:])]


def draw(random: np.random.Generator, setting: Setting, images: int = IMAGES) -> Outcomes:
    """Return outcomes (seeds, images): some images are harder for all configurations, and some for one of them."""
    common, found = random.normal(0, HARDNESS, images), {}
    for number, deviation in enumerate(setting.deviations):
        shift = setting.difference / 100 / SLOPE if number == 0 else 0.0
        found[f"m{number}"] = _latent(random, common, deviation, setting.seeds) + shift > 0
    limit = math.hypot(HARDNESS, OWN_HARDNESS, LUCK) * float(special.ndtri(1 - setting.right))
    for number in range(setting.collapsed):
        latent = _latent(random, common, setting.deviations[0], setting.seeds)
        found[f"collapsed{number}"] = latent > limit
    return found


def _latent(
    random: np.random.Generator, common: NDArray[np.float64], deviation: float, seeds: int
) -> NDArray[np.float64]:
    """Return how easily a configuration classifies each image with each seed, (seeds, images); at 0 it just does."""
    own = random.normal(0, OWN_HARDNESS, len(common))
    luck = random.normal(0, deviation / 100 / SLOPE, (seeds, 1))
    return common + own + luck + random.normal(0, LUCK, (seeds, len(common)))


def by_own_seeds(outcomes: Outcomes, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return the p-value of each pair by its own seeds."""
    return [significance.paired_difference(outcomes[one], outcomes[two]).p_value for one, two in pairs]


def by_pooled_seeds(outcomes: Outcomes, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return the p-value of each pair by the variance of seeds over all configurations."""
    spread = significance.measure_seed_spread(outcomes)
    return [significance.pooled_difference({name: outcomes[name] for name in pair}, spread).p_value for pair in pairs]


RULES = {"own_seeds": by_own_seeds, "pooled_seeds": by_pooled_seeds}


def count_told(setting: Setting, repeats: int) -> dict[str, float]:
    """Return in which share of simulated comparisons each rule tells some pair apart.

    Args:
        setting: What is compared.
        repeats: The number of simulated comparisons.
    """
    random, told = np.random.default_rng(0), dict.fromkeys(RULES, 0)
    for _ in range(repeats):
        outcomes = draw(random, setting)
        for name, rule in RULES.items():
            adjusted = significance.holm(rule(outcomes, setting.pairs), alone=0 if setting.leaders else None)
            told[name] += min(adjusted) < 1 - LEVEL
    return {name: number / repeats for name, number in told.items()}


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield what is simulated, with its name."""
    for seeds, deviation in itertools.product((2, 3, 5), (0.0, 1.0, 2.0, 5.0)):
        yield "one pair", Setting((deviation,) * 2, seeds, leaders=1)
        yield "confirmation of 3 leaders and 4 baselines", Setting((deviation,) * 7, seeds, leaders=3)
    for methods, seeds, deviation in itertools.product((4, 8), (2, 3, 5), (2.0, 5.0)):
        yield f"league of {methods}", Setting((deviation,) * methods, seeds)
    for seeds in (2, 3, 5):
        varies = "varies tenfold"
        yield f"confirmation of 1 leader and 4 baselines, one of which {varies}", Setting((1, 1, 1, 1, 10), seeds, 1)
        yield "confirmation of 1 leader and 5 baselines, four of which are collapsed", Setting((5, 5), seeds, 1, 4)
        hardly = "four of which are right on 1% of the images"
        yield f"confirmation of 1 leader and 5 baselines, {hardly}", Setting((5, 5), seeds, 1, 4, right=0.01)
        yield f"league of 8, {hardly}", Setting((5,) * 4, seeds, collapsed=4, right=0.01)
        yield f"league of 8, one of which {varies}", Setting((10, *(1,) * 7), seeds)
        yield f"league of 8, two of which {varies.replace('varies', 'vary')}", Setting((10, 10, *(1,) * 6), seeds)
    for seeds, deviation in itertools.product((2, 3, 5), (1.0, 2.0, 5.0)):
        yield "one pair that differs", Setting((deviation,) * 2, seeds, leaders=1, difference=10)
        five = Setting((deviation,) * 5, seeds, leaders=1, difference=10)
        yield "leader that differs from 4 baselines", five


def main() -> None:
    """Simulate all settings, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, metavar="N", help="simulated comparisons (default: 1000)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where verdicts.csv goes")
    parsed = parser.parse_args()
    rows = []
    for name, setting in settings():
        rows.append({
            "compared": name, "pairs": len(setting.pairs), "seeds": setting.seeds,
            "deviation_points": " ".join(f"{deviation:g}" for deviation in dict.fromkeys(setting.deviations)),
            "difference_points": setting.difference, "images": IMAGES, "simulated": parsed.repeats,
            **count_told(setting, parsed.repeats),
        })  # fmt: skip
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(parsed.output / "verdicts.csv", index=False)


if __name__ == "__main__":
    main()
