"""Optuna by itself: `ask`, `report`, `should_prune` and `tell` of a study with a pruner."""

from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from peers.clock import EPOCHS, Config, Space

FACTOR = 3


@dataclass
class OptunaAlone:
    """A study with one of Optuna's samplers and one of its pruners.

    Args:
        space: What is searched.
        sampler: Proposes.
        pruner: Stops trials.
    """

    space: Space
    sampler: optuna.samplers.BaseSampler
    pruner: optuna.pruners.BasePruner
    _running: dict[int, optuna.Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._study = optuna.create_study(direction="maximize", sampler=self.sampler, pruner=self.pruner)

    def next_trial(self) -> tuple[int, Config]:
        trial = self._study.ask()
        self._running[trial.number] = trial
        return trial.number, {
            key: trial.suggest_float(key, low, high, log=key in self.space.log)
            for key, (low, high) in self.space.bounds.items()
        }

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        trial = self._running[number]
        trial.report(accuracy, epoch)
        if epoch == EPOCHS:
            self._study.tell(trial, accuracy)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        del self._running[number]
        return False

    def winner(self) -> Config | None:
        """Return `study.best_params`: the best trial that was not pruned."""
        try:
            return dict(self._study.best_params)
        except ValueError:  # no trial is complete
            return None


def hyperband(first_rung: int) -> optuna.pruners.BasePruner:
    """Return Hyperband whose most aggressive bracket has its first rung there."""
    return optuna.pruners.HyperbandPruner(min_resource=first_rung, max_resource=EPOCHS, reduction_factor=FACTOR)


def successive_halving(first_rung: int) -> optuna.pruners.BasePruner:
    """Return asynchronous successive halving."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=FACTOR)
