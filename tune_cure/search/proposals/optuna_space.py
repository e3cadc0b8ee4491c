"""Searched hyperparameters as Optuna distributions."""

import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from tune_cure.search.space.distributions import Distribution

DIGITS = 15  # of a decimal number that a float keeps
MAX_STEPS = 10**6  # a finer grid is proposed from as if it were continuous


def to_optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """Return the Optuna distribution of a searched hyperparameter."""
    match distribution.kind:
        case "choice":
            return CategoricalDistribution(distribution.values)
        case "int":
            low, high = distribution.values
            return IntDistribution(low, high, step=int(distribution.step or 1))
        case "uniform" if distribution.step is not None and distribution.num_steps <= MAX_STEPS:
            return _decimal_grid(distribution, distribution.step)
        case kind:
            low, high = distribution.values
            return FloatDistribution(low, high, log=kind == "loguniform")


def to_optuna_value(distribution: Distribution, value: Any) -> Any:
    """Return a hyperparameter's value as the study has it: on a grid the last digits may differ."""
    grid = to_optuna_distribution(distribution)
    if not isinstance(grid, FloatDistribution) or grid.step is None:
        return value
    return min(grid.low + distribution.count_steps(value) * grid.step, grid.high)


def from_optuna_value(distribution: Distribution, value: Any) -> Any:
    """Return the hyperparameter's value that the study has as `value`."""
    if distribution.kind != "uniform" or distribution.step is None:
        return value
    return distribution.grid_value(distribution.count_steps(value))


def suggest(trial: Trial, key: str, distribution: Distribution) -> Any:
    """Return the value of a searched hyperparameter for a trial of the study."""
    match to_optuna_distribution(distribution):
        case CategoricalDistribution() as categorical:
            return trial.suggest_categorical(key, categorical.choices)
        case IntDistribution() as integer:
            return trial.suggest_int(key, integer.low, integer.high, step=integer.step)
        case FloatDistribution() as real:
            value = trial.suggest_float(key, real.low, real.high, log=real.log, step=real.step)
            return from_optuna_value(distribution, value)
    raise AssertionError(distribution)


def _decimal_grid(distribution: Distribution, step: float) -> FloatDistribution:
    """Return a grid whose numbers are decimals of `DIGITS` digits.

    Optuna computes in the decimals that floats are printed as. On a grid such as 4/255, 5/255, …, rounding could make
    the range smaller than its steps together, and the highest value would be lost.
    """
    low, high = distribution.values
    places = DIGITS - 1 - math.floor(math.log10(max(abs(low), abs(high))))
    low, step = round(low, places), round(step, places)
    return FloatDistribution(low, round(low + distribution.num_steps * step, places), step=step)
