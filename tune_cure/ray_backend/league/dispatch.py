"""What Tune calls in a league: each call goes on to the searcher, the rule or the recorder of the trial's method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from tune_cure.league.budget import Turns
from tune_cure.ray_backend.journal_callback import JournalCallback
from tune_cure.ray_backend.league.trainable import checkpoint_folder
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.ray_backend.schedulers import RuleScheduler
from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff


class LeagueSearcher(Searcher):  # type: ignore[misc]
    """Tune searcher around those of the methods: the method whose turn it is proposes.

    Args:
        searchers: The searcher of each method.
        turns: Says whose turn it is.
        backoff: Says how many trials run at a time.
        checkpoints: The folder of each method's checkpoints of this session.
    """

    def __init__(
        self,
        searchers: Mapping[str, OptunaSearcher],
        turns: Turns,
        backoff: MemoryBackoff,
        checkpoints: Mapping[str, Path],
    ) -> None:
        mode = next(iter(searchers.values())).mode
        super().__init__(metric=OBJECTIVE, mode=mode)
        self.searchers, self.turns, self.backoff, self.checkpoints = searchers, turns, backoff, checkpoints
        self._methods: dict[str, str] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Return True: Tune leaves it to `suggest` how many trials there are at a time."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial, Tune's word for the end of all searches, or None for "later"."""
        if len(self._methods) >= self.backoff.limit:
            return None
        for method in self.turns.order():
            config = self.searchers[method].suggest(trial_id)
            if isinstance(config, dict):
                self._methods[trial_id] = method
                return {**config, "method": method, "checkpoints": str(self.checkpoints[method])}
        # A running trial may be stopped early, and leave some of its method's budget for another one.
        return None if self._methods else str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass the objective after an epoch on to the method's study."""
        self.searchers[self._methods[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the method's study how a trial ended."""
        self.searchers[self._methods.pop(trial_id)].on_trial_complete(trial_id, result, error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str) -> None:
        """Write nothing: the journals and the studies are on disk already, and Ray's snapshots are never read."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing, like `save_to_dir`."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: an interrupted league is rebuilt from its journals.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a league is resumed from its journals, not from Ray's snapshots")


class LeagueScheduler(RuleScheduler):
    """Tune scheduler that asks the early-stopping rule of the trial's method.

    Args:
        stoppers: The rule of each method.
        backoff: Says how long trials wait that were killed for want of memory.
    """

    def __init__(self, stoppers: Mapping[str, EarlyStopper], backoff: MemoryBackoff) -> None:
        super().__init__(next(iter(stoppers.values())), backoff)
        self.stoppers = stoppers

    def stopper_of(self, trial: Trial) -> EarlyStopper:
        """Return the rule of the trial's method."""
        return self.stoppers[trial.config["method"]]

    def name_of(self, trial: Trial) -> str:
        """Return the number of a trial and its method, as lines about memory give them."""
        return f"{trial.config['trial']} of {trial.config['method']}"


class MethodCallback(JournalCallback):
    """Tune callback of one method's trials, whose checkpoints lie in the method's folder."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Let Tune keep its last file alone; the checkpoint that it stands for is deleted here."""
        super().on_trial_start(iteration, trials, trial, **info)
        self.deletes_previous = True

    def find_checkpoint(self, trial: Trial, checkpoint: tune.Checkpoint) -> Path:
        """Return the folder of a checkpoint in the method's folder."""
        return checkpoint_folder(trial.config, trial.last_result["training_iteration"])


class LeagueCallback(tune.Callback):  # type: ignore[misc]
    """Tune callback that passes each call on to the callback of the trial's method.

    Args:
        callbacks: The callback of each method.
    """

    def __init__(self, callbacks: Mapping[str, MethodCallback]) -> None:
        self.callbacks = callbacks

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass on that a trial has its worker."""
        self._callback(trial).on_trial_start(iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on an epoch."""
        self._callback(trial).on_trial_result(iteration, trials, trial, result, **info)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Pass on a checkpoint."""
        self._callback(trial).on_checkpoint(iteration, trials, trial, checkpoint, **info)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass on the end of a trial."""
        self._callback(trial).on_trial_complete(iteration, trials, trial, **info)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass on that a trial goes back to its last checkpoint."""
        self._callback(trial).on_trial_recover(iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass on the end of a trial that failed once too often."""
        self._callback(trial).on_trial_error(iteration, trials, trial, **info)

    def _callback(self, trial: Trial) -> MethodCallback:
        return self.callbacks[trial.config["method"]]
