"""Tune callback that tells the search's recorder what happens to trials; `search.recorder` writes the journal."""

import logging
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tune_cure.ray_backend import ray_internals
from tune_cure.ray_backend.guard import RayWatch
from tune_cure.ray_backend.trainable import WAITED
from tune_cure.ray_backend.worker_errors import failure_reason
from tune_cure.search import run_files
from tune_cure.search.recorder import TrialRecorder
from tune_cure.utils.files import sync_to_disk

_logger = logging.getLogger(__name__)


class JournalCallback(tune.Callback):  # type: ignore[misc]
    """Tune callback around a `TrialRecorder`.

    Args:
        recorder: Writes the journal.
        folder: The run's folder, on this machine or in an object store, as checkpoints' paths begin.
        ray_watch: Says whether a trial failed because Ray cannot go on. Such a failure is not recorded.
        may_tune_delete: Let Tune delete a trial's checkpoint once there is a newer one. In an object store the recorder
            deletes it, because the store's copy of the journal may still need it.
    """

    def __init__(
        self, recorder: TrialRecorder, folder: Path, ray_watch: RayWatch, *, may_tune_delete: bool = True
    ) -> None:
        self.recorder, self.folder, self.ray_watch = recorder, folder, ray_watch
        self.may_tune_delete = may_tune_delete
        self.deletes_previous = False  # checkpoints, in place of Tune

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Let Tune keep the last checkpoint of a trial alone if it may, from when the trial has its worker."""
        # Told so any earlier, Tune would write the state of all trials to disk after each checkpoint of any of them.
        self.deletes_previous = not (self.may_tune_delete and ray_internals.keep_last_checkpoint_only(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch; warn if the trial had to wait for the memory of its GPU."""
        if waited := result.get(WAITED):
            _logger.warning("trial %d %s", trial.config["trial"], waited)
        self.recorder.on_epoch(trial.config["trial"], result)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Record a checkpoint once it outlasts a power cut; the one before is deleted only afterwards."""
        path = self.find_checkpoint(trial, checkpoint)
        if (path / run_files.CHECKPOINT).exists():  # it is not, in an object store
            sync_to_disk(path / run_files.CHECKPOINT)
        inside = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        self.recorder.on_checkpoint(
            trial.config["trial"],
            trial.last_result["training_iteration"],
            str(inside),
            delete_previous=self.deletes_previous,
        )

    def find_checkpoint(self, trial: Trial, checkpoint: tune.Checkpoint) -> Path:
        """Return the folder of a checkpoint that a trial has just written."""
        return Path(checkpoint.path)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the end of a trial, whose last checkpoint is written and of which the study knows."""
        self.recorder.on_end(trial.config["trial"], trial.last_result)
        ray_internals.forget_metric_averages(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record that a trial's worker raised an exception or died; Tune sets the trial back to its last checkpoint."""
        self._end_without_ray()
        self.recorder.on_retry(trial.config["trial"], trial.num_failures, failure_reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the end of a trial that failed once too often."""
        self._end_without_ray()
        self.recorder.on_failure(trial.config["trial"], failure_reason(trial))
        ray_internals.forget_metric_averages(trial)

    def _end_without_ray(self) -> None:
        """End the search if Ray cannot go on: each failure of a trial would be a consequence, and none is recorded."""
        if fault := self.ray_watch.find_fault():
            self.recorder.stopper.end("ray", fault)
