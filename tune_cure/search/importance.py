"""How much each searched hyperparameter matters: functional ANOVA (Hutter et al. 2014, ICML, section 3)."""

from collections.abc import Hashable
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import create_trial

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution

MIN_TRIALS = 8  # fewer say nothing
MAX_TRIALS = 300  # it takes as long as their square


def fanova(trials: pd.DataFrame, values: "pd.Series[float]", spec: SearchSpec) -> dict[str, float]:
    """The share of the variance of `values` over the space that each hyperparameter explains by itself.

    A random forest is fitted to the trials, and its variance over the whole space taken apart. What the shares leave of
    1 is due to combinations.

    Args:
        trials: Rows of `results.SearchResult.trials`.
        values: What each reached, by the same index; trials without are left out.
        spec: The search.

    Returns:
        By hyperparameter, the most important first. Empty where there are too few trials, or all reached the same.
        Hyperparameters that make no difference in some of the trials are not rated, values of start_from outside of
        the space not used.
    """
    values = values.dropna()
    keys = [key for key in spec.space if trials.loc[values.index, key].notna().all()]
    inside = [trials.loc[values.index, key].map(spec.space[key].contains) for key in keys]
    if keys:
        values = values[pd.concat(inside, axis=1).all(axis=1)]
    values = values.iloc[:: max(1, -(-len(values) // MAX_TRIALS))]
    if len(values) < MIN_TRIALS or values.nunique() < 2 or not keys:
        return {}
    distributions = {key: _distribution(spec.space[key]) for key in keys}
    study = _study()
    rows = trials.loc[values.index, keys].astype(object).to_dict("records")
    study.add_trials(
        [
            create_trial(params=_places(row, spec), distributions=distributions, value=float(value))
            for row, value in zip(rows, values, strict=True)
        ]
    )
    shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _distribution(of: Distribution) -> BaseDistribution:
    """Optuna's evaluator takes numbers as they are, so they are given on the scale that they are searched on."""
    return CategoricalDistribution(of.values) if of.kind == "choice" else FloatDistribution(0.0, 1.0)


def _places(row: dict[Hashable, Any], spec: SearchSpec) -> dict[str, Any]:
    found = {str(key): value for key, value in row.items()}
    return {key: of if spec.space[key].kind == "choice" else spec.space[key].place(of) for key, of in found.items()}


def _study() -> optuna.Study:
    """A study in memory, which Optuna would announce."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
