"""Optuna's Gaussian process sampler, which learns from trials that were stopped early, too.

A stopped trial has no final value. It is predicted from the trials that ran to their end: their gain from the epoch of
the stop to the end is a Gaussian process over the hyperparameters and the value at that epoch. A rung stops trials by
this value alone. So the gains of those that it let pass are a fair sample among trials of the same value, and the
process says itself how little it knows of lower values. Each predicted value enters the process of the final values
with its variance as additional noise.

Kernel, prior, acquisition function and its optimization are Optuna's. Everything that is used of Optuna beyond its
documented interface is in this file; where Optuna lacks it, `samplers.gp` falls back to Optuna's own sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from optuna._gp.acqf import LogEI, qLogEI
from optuna._gp.gp import GPRegressor
from optuna._gp.prior import DEFAULT_MINIMUM_NOISE_VAR, default_log_prior
from optuna._gp.search_space import SearchSpace
from optuna.samplers import GPSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tune_cure.search.proposals.outcome import REACHED, STATUS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

STOPPED = "stopped"
MIN_TRIALS = 10  # with a value, before which proposals are random: as Optuna's sampler has it
MIN_COMPLETE = 4  # of these that ran to their end; of fewer, nothing is learnt about gains
NOISE_SHARE = 0.1  # of the final values' variance: what one of them counts as its own noise, where values are weighed
LEAST_DEVIATION = 1e-3  # of values that are all alike, a tenth of a point
QMC_SEEDS = 1 << 30
GRADIENT_TOLERANCE = 1e-2  # of the fit, as Optuna has it


@dataclass(frozen=True)
class FinalValues:
    """Final values of trials, of which more is better.

    Attributes:
        points: Hyperparameters, scaled to the unit cube; a choice is its index. Shape (n, d).
        means: Shape (n,).
        variances: Of predicted values; 0 for those that were reached. Shape (n,).
    """

    points: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]


class LearningProcess(GPRegressor):
    """Optuna's Gaussian process, with an own variance of each observation beside the noise that all share.

    Args:
        points: Shape (n, d).
        values: Mean 0 and deviation 1, shape (n,).
        is_categorical: Which coordinates are choices, shape (d,).
        variances: Shape (n,).
        start: A process of as many coordinates, whose parameters the fit starts from; None for ones.
    """

    def __init__(
        self,
        points: NDArray[np.float64],
        values: NDArray[np.float64],
        is_categorical: NDArray[np.bool_],
        variances: NDArray[np.float64],
        start: LearningProcess | None = None,
    ) -> None:
        ones = torch.ones(points.shape[1] + 2, dtype=torch.float64)
        super().__init__(
            is_categorical=torch.from_numpy(is_categorical),
            X_train=torch.from_numpy(points),
            y_train=torch.from_numpy(values),
            inverse_squared_lengthscales=ones[:-2] if start is None else start.inverse_squared_lengthscales,
            kernel_scale=ones[-2] if start is None else start.kernel_scale,
            noise_var=ones[-1] if start is None else start.noise_var,
        )
        self._variances = torch.from_numpy(variances)

    def kernel(self, X1: torch.Tensor | None = None, X2: torch.Tensor | None = None) -> torch.Tensor:  # noqa: N803
        """Return the covariance between points; of the observations with each other, with their variances."""
        covariance = super().kernel(X1, X2)
        return covariance + torch.diag(self._variances) if X1 is None else covariance


def fit_process(
    points: NDArray[np.float64],
    values: NDArray[np.float64],
    is_categorical: NDArray[np.bool_],
    variances: NDArray[np.float64],
    last: LearningProcess | None,
) -> LearningProcess:
    """Return the process whose parameters are fitted to its observations, from those of `last` or from ones.

    Where no fit converges, all parameters are one, as in Optuna's sampler.
    """
    has_same_size = last is not None and len(last.length_scales) == points.shape[1]
    for start in (last, None) if has_same_size else (None,):
        process = LearningProcess(points, values, is_categorical, variances, start)
        try:
            process._fit_kernel_params(default_log_prior, DEFAULT_MINIMUM_NOISE_VAR, False, GRADIENT_TOLERANCE)
        except RuntimeError:  # no convergence, or no positive definite matrix
            continue
        return process
    process = LearningProcess(points, values, is_categorical, variances)
    process._cache_matrix()
    return process


class StoppedTrialsGPSampler(GPSampler):
    """Gaussian process sampler that learns from stopped trials by their predicted final values.

    With several objectives, with constraints, or while no trial is stopped, it is Optuna's own sampler.

    Args:
        seed: Of the proposals.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._ended_space = IntersectionSearchSpace(include_pruned=True)
        self._final_process: LearningProcess | None = None
        self._gain_processes: dict[int, LearningProcess] = {}  # by the epoch of the stop

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the hyperparameters that all ended trials have, stopped ones included."""
        space = self._ended_space.calculate(study)
        return {key: distribution for key, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a trial's hyperparameters; empty while they are to be drawn at random."""
        trials = study.get_trials(deepcopy=False)
        complete = [one for one in trials if one.state == TrialState.COMPLETE]
        pruned = [one for one in trials if one.state == TrialState.PRUNED and one.intermediate_values]
        is_plain = len(study.directions) == 1 and not any(one.constraints for one in complete)
        if not search_space or not pruned or not is_plain:
            return super().sample_relative(study, trial, search_space)
        if len(complete) < MIN_COMPLETE:
            return {}
        sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
        space = SearchSpace(search_space)
        with torch.device("cpu"):
            finals = self._predict_all(space, complete, pruned, sign)
            if len(finals.means) < MIN_TRIALS:
                return {}
            running = [
                one for one in trials if one.state == TrialState.RUNNING and search_space.keys() <= one.params.keys()
            ]
            return self._propose(space, finals, num_complete=len(complete), running=running)

    def _propose(
        self, space: SearchSpace, finals: FinalValues, *, num_complete: int, running: Sequence[FrozenTrial]
    ) -> dict[str, Any]:
        """Return where most improvement over the complete trials is expected.

        Args:
            space: The searched hyperparameters.
            finals: The final values, those of complete trials first.
            num_complete: How many of these there are.
            running: The running trials.
        """
        # Uncertain values count less in the mean and in the deviation by which all are standardized.
        spread = max(float(finals.means[:num_complete].std()), LEAST_DEVIATION)
        weights = 1 / (NOISE_SHARE * spread**2 + finals.variances)
        center = np.average(finals.means, weights=weights)
        scale = max(float(np.sqrt(np.average((finals.means - center) ** 2, weights=weights))), LEAST_DEVIATION)
        values = (finals.means - center) / scale
        process = fit_process(
            finals.points, values, space.is_categorical, finals.variances / scale**2, self._final_process
        )
        self._final_process = process
        best = int(np.argmax(values[:num_complete]))
        acquisition: LogEI | qLogEI
        if running:
            acquisition = qLogEI(
                gpr=process,
                search_space=space,
                threshold=float(values[best]),
                n_qmc_samples=self._n_qmc_samples_qei,
                qmc_seed=self._rng.rng.randint(QMC_SEEDS),
                normalized_params_of_running_trials=space.get_normalized_params(list(running)),
            )
        else:
            acquisition = LogEI(gpr=process, search_space=space, threshold=float(values[best]))
        return space.get_unnormalized_param(self._optimize_acqf(acquisition, finals.points[[best]]))

    def _predict_all(
        self, space: SearchSpace, complete: list[FrozenTrial], pruned: list[FrozenTrial], sign: float
    ) -> FinalValues:
        """Return the final values of the complete trials, and after them those of the pruned ones.

        A trial that diverged or overfitted ranks behind all complete trials. So its final value is what it had reached,
        and at most the worst of theirs; the worst possible value, which the study has of it, would be an outlier. A
        trial that was stopped after an epoch of which too few gains are known is left out.
        """
        points = space.get_normalized_params(complete)
        values = sign * np.array([one.value for one in complete])
        parts = [FinalValues(points, values, np.zeros(len(values)))]
        stopped: dict[int, list[FrozenTrial]] = {}
        for one in pruned:
            if one.user_attrs.get(STATUS, STOPPED) == STOPPED:
                stopped.setdefault(max(one.intermediate_values), []).append(one)
            else:
                last = one.intermediate_values[max(one.intermediate_values)]
                reached = sign * float(one.user_attrs.get(REACHED, last))
                point = space.get_normalized_params([one])
                parts.append(FinalValues(point, np.array([min(reached, values.min())]), np.zeros(1)))
        for epoch, group in stopped.items():
            known = [one for one in complete if epoch in one.intermediate_values]
            if len(known) >= MIN_COMPLETE:
                parts.append(self._predict(space, epoch, known, group, sign))
        return FinalValues(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.variances for part in parts]),
        )

    def _predict(
        self, space: SearchSpace, epoch: int, complete: list[FrozenTrial], stopped: list[FrozenTrial], sign: float
    ) -> FinalValues:
        """Return the final values that trials would have reached that were stopped after `epoch`.

        Args:
            space: The searched hyperparameters.
            epoch: Their last epoch.
            complete: Trials that ran to their end, with a value at that epoch.
            stopped: The stopped ones.
            sign: −1 where less is better.
        """
        trials = [*complete, *stopped]
        reached = sign * np.array([one.intermediate_values[epoch] for one in trials])
        gains = sign * np.array([one.value for one in complete]) - reached[: len(complete)]
        center, scale = gains.mean(), max(float(gains.std()), LEAST_DEVIATION)
        points = space.get_normalized_params(trials)
        spread = max(float(np.ptp(reached)), LEAST_DEVIATION)
        inputs = np.column_stack([points, (reached - reached.min()) / spread])
        process = fit_process(
            inputs[: len(complete)],
            (gains - center) / scale,
            np.append(space.is_categorical, False),
            np.zeros(len(complete)),
            self._gain_processes.get(epoch),
        )
        self._gain_processes[epoch] = process
        means, variances = process.posterior(torch.from_numpy(inputs[len(complete) :]))
        return FinalValues(
            points[len(complete) :],
            reached[len(complete) :] + center + scale * means.numpy(),
            scale**2 * (variances.numpy() + float(process.noise_var)),
        )
