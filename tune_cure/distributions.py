"""Searched hyperparameters as Optuna knows them."""

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_cure.spec import Distribution


def distribution(of: Distribution) -> BaseDistribution:
    """The Optuna distribution of a searched hyperparameter."""
    match of.kind:
        case "choice":
            return CategoricalDistribution(of.values)
        case "int":
            low, high = of.values
            return IntDistribution(low, high, step=int(of.step or 1))
        case kind:
            low, high = of.values
            return FloatDistribution(low, high, log=kind == "loguniform", step=of.step)
