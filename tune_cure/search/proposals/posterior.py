"""Choice of the winner among the finalists by posterior mean, instead of by the luckiest measurement.

A Gaussian process over the hyperparameters learns from all trials that ran to their end, so each finalist is judged by
its neighbors, too. The second judgement of the finalists enters as one more measurement of each.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tune_cure.utils.environment import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tune_cure.search.space.config import SearchSpec

MIN_TRIALS = 8  # that ran to their end; fewer say nothing of the noise
MAX_TRIALS = 300  # the time grows with the cube of their number


def posterior_means(complete: pd.DataFrame, finalists: pd.DataFrame, spec: SearchSpec) -> pd.Series[float]:
    """Return the posterior mean of each finalist.

    The second judgement is by another attack on other images, so only its differences between finalists count. Its
    variance is that of the first, with the binomial part of its own number of images in place of the first one's.

    Args:
        complete: Rows of `SearchResult.trials` that ran to their end, best first; at least `MIN_TRIALS`. The first
            `MAX_TRIALS` are used.
        finalists: The rows that were judged again, among these.
        spec: The search; more of its metric is better.
    """
    complete = complete.head(MAX_TRIALS)
    points, values = _encode(complete, spec), complete["objective"].to_numpy(dtype=float)
    center, scale = values.mean(), max(values.std(), 1e-6)
    kernel, noise = _fit(points, (values - center) / scale)
    places = complete.index.get_indexer(finalists.index)
    fresh = finalists["fresh_pgd_accuracy"].to_numpy(dtype=float)
    binomial = fresh * (1 - fresh)
    first_binomial = finalists["pgd_accuracy_best_se"].to_numpy(dtype=float) ** 2
    training = np.maximum(noise * scale**2 - first_binomial, 0.0)
    variance = training + binomial / finalists["fresh_examples"].to_numpy(dtype=float)

    def predict(data: NDArray[np.float64], at: NDArray[np.int64], noises: NDArray[np.float64]) -> NDArray[np.float64]:
        known = points[at]
        weights = np.linalg.solve(kernel(known) + np.diag(noises), (data - center) / scale)
        return np.asarray(center + scale * (kernel(points[places], known) @ weights))

    everyone: NDArray[np.int64] = np.arange(len(points))
    noises = np.full(len(points), noise)
    level = (fresh - predict(values, everyone, noises)).mean()
    means = predict(
        np.concatenate([values, fresh - level]),
        np.concatenate([everyone, places]),
        np.concatenate([noises, variance / scale**2]),
    )
    return pd.Series(means, index=finalists.index)


def _fit(points: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[Any, float]:
    """Return the covariance of the mean and the variance of a measurement, both fitted to standardized values.

    Args:
        points: Shape (n, d).
        values: Mean 0 and deviation 1, shape (n,).
    """
    require("sklearn", "rescore.choose: posterior")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = [0.5] * points.shape[1]
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(lengths, (0.1, 10.0), nu=2.5) + WhiteKernel(0.3, (1e-3, 3.0))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a length at its bound: that key does not matter
        process.fit(points, values)
    return process.kernel_.k1, float(process.kernel_.k2.noise_level)


def _encode(trials: pd.DataFrame, spec: SearchSpec) -> NDArray[np.float64]:
    """Return trials as points, shape (n, d).

    A number is its position on the scale that is searched. A choice is 0 or 1 for each of its values. A hyperparameter
    that is inactive in some trials stands in the middle there, and has a column that says so.
    """
    columns = []
    for key, distribution in spec.space.items():
        inactive = trials[key].isna()
        if distribution.kind == "choice":
            columns += [trials[key].eq(value) for value in distribution.values]
        else:
            columns.append(trials[key].map(distribution.position, na_action="ignore").fillna(0.5))
        columns += [inactive] * bool(inactive.any())
    return np.stack([column.to_numpy(dtype=float) for column in columns], axis=1)
