"""Optuna samplers by name, each from a seed.

To add one: write a function of the seed, add a line to `SAMPLERS`. Optuna is imported when a sampler is made, so that
reading a YAML does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator over all parameters jointly; running trials count as bad ones."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def random(seed: int) -> BaseSampler:
    """Independent draws: the baseline."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": tpe, "random": random}
