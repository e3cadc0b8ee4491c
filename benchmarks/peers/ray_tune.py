"""Ray Tune's searchers and schedulers, called as its controller calls them; no Ray process is started."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import ConfigSpace
import numpy as np
from optuna.distributions import FloatDistribution
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandForBOHB, TrialScheduler
from ray.tune.search.bohb import TuneBOHB
from ray.tune.search.optuna import OptunaSearch

from peers.clock import EPOCHS, Config, Space

METRIC, FACTOR = "accuracy", 3
PENDING, RUNNING, PAUSED, TERMINATED = "PENDING", "RUNNING", "PAUSED", "TERMINATED"


@dataclass(eq=False)
class RayTrial:
    """What the schedulers read of one of Tune's trials."""

    trial_id: str
    config: Config
    status: str = PENDING
    last_result: dict[str, Any] = field(default_factory=dict)
    is_saving: bool = False


class Controller:
    """Tune's controller, as far as the schedulers call it, with its order of calls.

    Args:
        searcher: Proposes.
        scheduler: Stops and pauses trials.

    Attributes:
        search_alg: Has the searcher, where HyperBandForBOHB looks for it.
    """

    def __init__(self, searcher: Any, scheduler: TrialScheduler) -> None:
        self.search_alg = SimpleNamespace(searcher=searcher)
        self._searcher, self._scheduler = searcher, scheduler
        self._trials: list[RayTrial] = []

    def get_trials(self) -> list[RayTrial]:
        """Return all trials."""
        return self._trials

    def stop_trial(self, trial: RayTrial) -> None:
        """End a trial and tell scheduler and searcher of it."""
        if trial.status in (PENDING, PAUSED):
            self._scheduler.on_trial_remove(self, trial)
            self._searcher.on_trial_complete(trial.trial_id)
        elif trial.status == RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
            self._searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        trial.status = TERMINATED

    def next_trial(self) -> tuple[int, Config] | None:
        """Return a trial that the scheduler wants to run, else a new one."""
        trial = self._choose()
        if trial is None:
            self._add()
            trial = self._choose()
        if trial is None:
            return None
        trial.status = RUNNING
        return int(trial.trial_id), trial.config

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Take in a result as Tune does: the searcher hears of it unless the trial is stopped."""
        trial = self._trials[number]
        result = {"training_iteration": epoch, METRIC: accuracy, "trial_id": trial.trial_id}
        decision = self._scheduler.on_trial_result(self, trial, result)
        if decision != TrialScheduler.STOP:
            self._searcher.on_trial_result(trial.trial_id, result)
        trial.last_result = result
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = PAUSED
        return bool(decision == TrialScheduler.CONTINUE)

    def winner(self) -> Config:
        """Return what `ResultGrid.get_best_result` does: the trial with the best last result."""
        return max((trial for trial in self._trials if trial.last_result), key=lambda t: t.last_result[METRIC]).config

    def _choose(self) -> RayTrial | None:
        if isinstance(self._scheduler, HyperBandForBOHB):
            return self._scheduler.choose_trial_to_run(self)
        return next((trial for trial in self._trials if trial.status == PENDING), None)  # as FIFOScheduler does

    def _add(self) -> None:
        number = len(self._trials)
        config = self._searcher.suggest(str(number))
        if config is not None:
            self._trials.append(RayTrial(str(number), dict(config)))
            self._scheduler.on_trial_add(self, self._trials[-1])


def optuna_asha(space: Space, seed: int, first_rung: int) -> Controller:
    """Return OptunaSearch with ASHA."""
    distributions = {
        key: FloatDistribution(low, high, log=key in space.log) for key, (low, high) in space.bounds.items()
    }
    searcher = OptunaSearch(distributions, metric=METRIC, mode="max", seed=seed)
    scheduler = AsyncHyperBandScheduler(
        metric=METRIC, mode="max", max_t=EPOCHS, grace_period=first_rung, reduction_factor=FACTOR
    )
    return Controller(searcher, scheduler)


def bohb(space: Space, seed: int) -> Controller:
    """Return BOHB, whose Hyperband has its first rung at one epoch: no argument sets it."""
    np.random.seed(seed)  # noqa: NPY002 -- hpbandster draws from it
    floats = {
        key: ConfigSpace.Float(key, (low, high), log=key in space.log) for key, (low, high) in space.bounds.items()
    }
    searcher = TuneBOHB(ConfigSpace.ConfigurationSpace(floats), metric=METRIC, mode="max", seed=seed)
    scheduler = HyperBandForBOHB(metric=METRIC, mode="max", max_t=EPOCHS, reduction_factor=FACTOR)
    return Controller(searcher, scheduler)
