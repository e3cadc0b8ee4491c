"""Searched hyperparameters as Optuna distributions."""

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from tune_cure.search.space.distributions import Distribution


def to_optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """Return the Optuna distribution of a searched hyperparameter."""
    match distribution.kind:
        case "choice":
            return CategoricalDistribution(distribution.values)
        case "int":
            low, high = distribution.values
            return IntDistribution(low, high, step=int(distribution.step or 1))
        case kind:
            low, high = distribution.values
            return FloatDistribution(low, high, log=kind == "loguniform", step=distribution.step)


def suggest(trial: Trial, key: str, distribution: Distribution) -> Any:
    """Return the value of a searched hyperparameter for a trial of the study."""
    match to_optuna_distribution(distribution):
        case CategoricalDistribution() as categorical:
            return trial.suggest_categorical(key, categorical.choices)
        case IntDistribution() as integer:
            return trial.suggest_int(key, integer.low, integer.high, step=integer.step)
        case FloatDistribution() as real:
            return trial.suggest_float(key, real.low, real.high, log=real.log, step=real.step)
    raise AssertionError(distribution)
