"""Optuna samplers by name.

A sampler is made from a seed and the number of trials that were drawn with this seed before an interruption, so that
it does not draw them again. To add a sampler: write such a function, add a line to `SAMPLERS`, and name in `unfit` the
spaces that it cannot search. Optuna is imported when a sampler is made, so that reading a YAML file does not wait for
it.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cure.utils.registry import Registry

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_logger = logging.getLogger(__name__)

POPULATION = 20  # of nsga2; Optuna's 50 would be drawn at random for most of a search of 64 trials


def tpe(seed: int, drawn: int) -> BaseSampler:
    """Tree-structured Parzen estimator over all parameters jointly; running trials count as bad ones."""
    from optuna.samplers import TPESampler

    # group: models the hyperparameters that only some trials have apart from the others
    return TPESampler(seed=seed + drawn, multivariate=True, group=True, constant_liar=True)


def auto(seed: int, drawn: int) -> BaseSampler:
    """Either `gp` or `tpe`, whichever was measured to suit such a search; its plan says which."""
    return tpe(seed, drawn)  # without a search; `auto_sampler` decides for one


def random(seed: int, drawn: int) -> BaseSampler:
    """Independent draws: the baseline."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed + drawn)


def gp(seed: int, drawn: int) -> BaseSampler:
    """Gaussian process; a stopped trial counts with its predicted final value, weighted by how certain that is."""
    try:
        from tune_cure.search.proposals.gp_sampler import StoppedTrialsGPSampler
    except ImportError as error:  # an Optuna without the private names that it needs
        from optuna.samplers import GPSampler

        _logger.warning("gp learns from trials that ran to their end alone, with this version of Optuna: %s", error)
        return GPSampler(seed=seed + drawn)
    return StoppedTrialsGPSampler(seed + drawn)


def nsga2(seed: int, drawn: int) -> BaseSampler:
    """Genetic algorithm for several objectives; it learns from trials that ran to their end alone."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed + drawn, population_size=POPULATION)


def cmaes(seed: int, drawn: int) -> BaseSampler:
    """Covariance matrix adaptation; a stopped trial counts with its last value, else generations would never fill."""
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed + drawn, consider_pruned_trials=True)


def qmc(seed: int, drawn: int) -> BaseSampler:
    """Scrambled Sobol sequence: spread evenly, learns nothing from results; a new sequence after an interruption."""
    from optuna.samplers import QMCSampler

    return QMCSampler(seed=seed + drawn, scramble=True)


SAMPLERS: Registry[Callable[[int, int], BaseSampler]] = Registry(
    "sampler",
    {
        "tpe": tpe,
        "random": random,
        "gp": gp,
        "nsga2": nsga2,
        "cmaes": cmaes,
        "qmc": qmc,
        "auto": auto,
    },
)


def make_sampler(name: str, seed: int, drawn: int) -> BaseSampler:
    """Return a sampler by its name or `package.module:name`; Optuna's warnings of experimental samplers are not shown.

    Args:
        name: A key of `SAMPLERS`, or `package.module:name`.
        seed: The search's seed.
        drawn: How many trials were drawn with this seed before.
    """
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS.resolve(name)(seed, drawn)


def unfit(
    name: str,
    *,
    choice: str | None = None,
    at_times: str | None = None,
    constrained: bool = False,
    objectives: int = 1,
    warm: bool = False,
) -> str:
    """Return why a sampler cannot search a space; an empty string if it can.

    Args:
        name: A key of `SAMPLERS`.
        choice: A hyperparameter that is drawn from a list of values; None if there is none.
        at_times: A hyperparameter that only some trials have; None if there is none.
        constrained: Whether there are constraints.
        objectives: The number of metrics.
        warm: Whether there are trials of an earlier search to learn from.
    """
    if warm and name not in ("tpe", "gp"):
        return f"{name} learns nothing from the trials of search.warm_start; use tpe or gp"
    if at_times is not None and name not in ("tpe", "random"):
        return (
            f"{name} needs every hyperparameter in every trial, but space.{at_times} makes a difference only with some "
            "values of the others; use tpe or random, or search these by themselves"
        )
    if name == "cmaes":
        if choice is not None:
            return f"cmaes searches numbers, but space.{choice} is a choice"
        if objectives > 1 or constrained:
            return f"cmaes takes one metric and no constraints, but found {objectives}{' and some' * constrained}"
        if importlib.util.find_spec("cmaes") is None:
            return "cmaes needs the package cmaes, which is not installed: pip install 'tune-cure[cmaes]'"
    return ""
