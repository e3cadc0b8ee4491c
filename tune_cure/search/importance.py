"""Importance of each searched hyperparameter by functional ANOVA (Hutter et al. 2014, ICML, section 3).

Optuna and scikit-learn are imported when there are enough trials for it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import pandas as pd

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 8  # a forest that is fitted to fewer says nothing
MAX_TRIALS = 300  # the time grows with the square of their number


def fanova(trials: pd.DataFrame, values: pd.Series[float], spec: SearchSpec) -> dict[str, float]:
    """Return the share of the variance of `values` over the space that each hyperparameter explains by itself.

    A random forest is fitted to the trials, and its variance over the whole space is decomposed. If the shares do not
    sum to 1, combinations of hyperparameters explain the rest. Hyperparameters that are inactive in some of the trials
    are not rated. Trials of start_from with values outside of the space are left out.

    Args:
        trials: Rows of `SearchResult.trials`.
        values: An accuracy of each trial, with the same index; trials whose value is missing are left out.
        spec: The search.

    Returns:
        The shares by hyperparameter, the most important first. Empty if there are fewer than `MIN_TRIALS` trials, or
        if configurations do not differ in their values.
    """
    values = values.dropna()
    keys = [key for key in spec.space if trials.loc[values.index, key].notna().all()]
    inside = [trials.loc[values.index, key].map(spec.space[key].contains) for key in keys]
    if keys:
        values = values[pd.concat(inside, axis=1).all(axis=1)]
    values = values.iloc[:: max(1, -(-len(values) // MAX_TRIALS))]
    if len(values) < MIN_TRIALS or not keys:
        return {}
    of_configurations = values.groupby([trials.loc[values.index, key].astype(str) for key in keys]).mean()
    if of_configurations.nunique() < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.trial import create_trial

    distributions = {key: _distribution(spec.space[key]) for key in keys}
    study = _create_study()
    rows = trials.loc[values.index, keys].astype(object).to_dict("records")
    study.add_trials(
        [
            create_trial(params=_positions(row, spec), distributions=distributions, value=float(value))
            for row, value in zip(rows, values, strict=True)
        ]
    )
    shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _distribution(distribution: Distribution) -> BaseDistribution:
    """Return the distribution in the evaluator's study: numbers by their position on the scale that is searched.

    Optuna's evaluator does not transform numbers itself, so that a log-uniform one would be judged on a linear scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if distribution.kind == "choice":
        return CategoricalDistribution(distribution.values)
    return FloatDistribution(0.0, 1.0)


def _positions(row: dict[Hashable, Any], spec: SearchSpec) -> dict[str, Any]:
    """Return a trial's hyperparameters as the evaluator's study has them."""
    distributions = {str(key): spec.space[str(key)] for key in row}
    return {
        key: value if distributions[key].kind == "choice" else distributions[key].position(value)
        for key, value in ((str(key), value) for key, value in row.items())
    }


def _create_study() -> optuna.Study:
    """Create a study in memory, without the line that Optuna logs about it."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
