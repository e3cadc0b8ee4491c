"""Tune scheduler that asks the search's early-stopping rule; what it decides is in `search.schedulers`."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from tune_cure.ray_backend import ray_internals
from tune_cure.ray_backend.worker_errors import failure_reason
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff, is_memory_kill


class RuleScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune scheduler around an `EarlyStopper`: runs trials in the order of their proposals.

    It pauses no trial, except those that Ray's memory monitor has killed: these wait as long as a `MemoryBackoff` says.
    Tune's loop goes on meanwhile, for the other trials and for Ctrl-C.
    """

    def __init__(self, stopper: EarlyStopper, backoff: MemoryBackoff) -> None:
        super().__init__()
        self.stopper, self.backoff = stopper, backoff

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the rule of a trial that is new, or that has failed and is to go on from its last checkpoint."""
        self.stopper_of(trial).add(trial.config["trial"])
        if trial.num_failures and is_memory_kill(failure_reason(trial)):
            ray_internals.pause_pending(tune_controller, trial)
            self.backoff.on_kill(self.name_of(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the first trial that waits for a worker; else one that has waited long enough for memory."""
        trials = tune_controller.get_trials()
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        paused = [trial for trial in trials if trial.status == Trial.PAUSED]
        num_running = sum(trial.status == Trial.RUNNING for trial in trials) if paused else 0
        return next((trial for trial in paused if self.backoff.may_start(self.name_of(trial), num_running)), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return Tune's word for what the rule decides after an epoch."""
        goes_on = self.stopper_of(trial).report(trial.config["trial"], result["training_iteration"], result)
        return str(self.CONTINUE if goes_on else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Tell the rule of a trial's last epoch."""
        self.stopper_of(trial).complete(trial.config["trial"], result["training_iteration"], result)

    def stopper_of(self, trial: Trial) -> EarlyStopper:
        """Return the rule that decides about a trial."""
        return self.stopper

    def name_of(self, trial: Trial) -> int | str:
        """Return the number of a trial, as lines about memory give it."""
        return int(trial.config["trial"])
