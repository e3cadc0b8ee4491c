"""Sampler that leaves out configurations that the search has proposed already."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler, RandomSampler

from tune_cure.search.proposals.optuna_space import from_optuna_value, to_optuna_distribution, to_optuna_value
from tune_cure.search.space.configurations import MAX_COUNTED, Identity, identify, list_configurations

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from tune_cure.search.space.config import SearchSpec

ORIGIN = "origin"  # user attribute of a trial in the study: start_from, sampler or warm_start
WARM_START_ORIGIN = "warm_start"  # trials of earlier searches
NUM_DRAWS = 3  # of the sampler for a trial; gp, which may find the same optimum each time, is fitted anew for each
NUM_RANDOM_DRAWS = 100
STREAM = 0x64697374696E63  # keeps the random draws apart from those of the sampler

Params = dict[str, Any]


class DistinctSampler(BaseSampler):
    """Sampler that proposes what another one does, but no configuration of the search a second time.

    All trials train with the same seed, so the same configuration would be the same run once more. In its place the
    other sampler draws again, then a random configuration is taken; in a small space, the first that is left. Once none
    is left, the other sampler's stands. Configurations of earlier searches (`search.warm_start`) may be proposed.

    Args:
        inner: The other sampler.
        spec: The search.
        drawn: How many trials were drawn with the search's seed before.

    Attributes:
        inner: The other sampler.
    """

    def __init__(self, inner: BaseSampler, spec: SearchSpec, drawn: int) -> None:
        self.inner = inner
        self._spec = spec
        self._space = {key: to_optuna_distribution(distribution) for key, distribution in spec.space.items()}
        seed = np.random.default_rng((spec.search.seed, drawn, STREAM)).integers(2**31)
        self._random = RandomSampler(seed=int(seed))
        self._proposed: set[Identity] = set()
        self._num_seen = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all hyperparameters: those that the other sampler draws one by one are drawn with the others."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value for each hyperparameter that is active."""
        self._update_proposed(study, trial)
        inner_space = self.inner.infer_relative_search_space(study, trial)
        for _ in range(NUM_DRAWS):
            params = self._draw(study, trial, self.inner, self.inner.sample_relative(study, trial, inner_space))
            if identify(self._spec, params) not in self._proposed:
                return params
        return self._find_other(study, trial) or params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return what the other sampler draws for a single hyperparameter."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell the other sampler of a new trial."""
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the other sampler how a trial ended."""
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Give both samplers new random states."""
        self.inner.reseed_rng()
        self._random.reseed_rng()

    def _update_proposed(self, study: Study, trial: FrozenTrial) -> None:
        """Take in the trials before `trial`, whose hyperparameters are all drawn."""
        for other in study.get_trials(deepcopy=False)[self._num_seen : trial.number]:
            if other.user_attrs.get(ORIGIN) != WARM_START_ORIGIN:
                self._proposed.add(identify(self._spec, other.params))
        self._num_seen = trial.number

    def _find_other(self, study: Study, trial: FrozenTrial) -> Params | None:
        """Return a configuration that was not proposed: a random one, else the first; None if none is left."""
        for _ in range(NUM_RANDOM_DRAWS):
            params = self._draw(study, trial, self._random, {})
            if identify(self._spec, params) not in self._proposed:
                return params
        for values in itertools.islice(list_configurations(self._spec), MAX_COUNTED):
            if identify(self._spec, values) not in self._proposed:
                return {key: to_optuna_value(self._spec.space[key], value) for key, value in values.items()}
        return None

    def _draw(self, study: Study, trial: FrozenTrial, sampler: BaseSampler, relative: Params) -> Params:
        """Return a configuration as Optuna draws one: what is not in `relative` is drawn by itself, key by key."""
        drawn = copy.copy(trial)
        drawn.params, drawn.distributions = {}, {}

        def draw(key: str) -> Any:
            distribution = self._space[key]
            if distribution.single():
                value = self._spec.space[key].values[0]
            elif key in relative:
                value = relative[key]
            else:
                value = sampler.sample_independent(study, drawn, key, distribution)
            drawn.params[key], drawn.distributions[key] = value, distribution
            return from_optuna_value(self._spec.space[key], value)

        self._spec.propose(draw)
        return drawn.params
