"""Tune scheduler that asks the search's early-stopping rule; what it decides is in `search.schedulers`."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from tune_cure.search.schedulers.early_stopper import EarlyStopper


class RuleScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune scheduler around an `EarlyStopper`: runs trials in the order of their proposals and pauses none."""

    def __init__(self, stopper: EarlyStopper) -> None:
        super().__init__()
        self.stopper = stopper

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the rule of a new trial."""
        self.stopper.add(trial.config["trial"])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return Tune's word for what the rule decides after an epoch."""
        goes_on = self.stopper.report(trial.config["trial"], result["training_iteration"], result)
        return str(self.CONTINUE if goes_on else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Tell the rule of a trial's last epoch."""
        self.stopper.complete(trial.config["trial"], result["training_iteration"], result)
