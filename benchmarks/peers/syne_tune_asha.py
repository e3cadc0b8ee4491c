"""Syne Tune's asynchronous successive halving with its searchers, called as its `Tuner` calls them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import loguniform, uniform
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision, TrialScheduler

from peers.clock import EPOCHS, Config, Space

METRIC, TIME, FACTOR = "accuracy", "epoch", 3
BASELINES = {"ASHA": ASHA, "BOHB": BOHB, "ASHACQR": ASHACQR}


@dataclass
class SyneTune:
    """A search by one of Syne Tune's schedulers.

    Args:
        scheduler: Proposes and stops.
    """

    scheduler: TrialScheduler
    _trials: list[Trial] = field(default_factory=list)
    _last: dict[int, float] = field(default_factory=dict)

    def next_trial(self) -> tuple[int, Config] | None:
        suggestion = self.scheduler.suggest()
        if suggestion is None:
            return None
        assert suggestion.spawn_new_trial_id
        trial = Trial(len(self._trials), suggestion.config.copy(), datetime.now())
        self._trials.append(trial)
        self.scheduler.on_trial_add(trial)
        return trial.trial_id, trial.config

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        trial, result = self._trials[number], {METRIC: accuracy, TIME: epoch}
        self._last[number] = accuracy
        if self.scheduler.on_trial_result(trial, result) == SchedulerDecision.CONTINUE:
            return True
        self.scheduler.on_trial_remove(trial)
        return False

    def winner(self) -> Config:
        """Return what `best_config` of an experiment does: the configuration of the best of all reported values."""
        return self._trials[max(self._last, key=self._last.__getitem__)].config


def make(name: str, space: Space, seed: int, first_rung: int) -> SyneTune:
    """Return a search by one of `BASELINES`."""
    config_space: dict[str, Any] = {
        key: (loguniform if key in space.log else uniform)(low, high) for key, (low, high) in space.bounds.items()
    }
    scheduler = BASELINES[name](
        config_space,
        metric=METRIC,
        time_attr=TIME,
        max_t=EPOCHS,
        do_minimize=False,
        random_seed=seed,
        grace_period=first_rung,
        reduction_factor=FACTOR,
    )
    return SyneTune(scheduler)
