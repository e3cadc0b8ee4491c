"""What happens to the trials of a search, written into its journal as Ray Tune tells of it."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyarrow import fs
from ray import tune
from ray.tune.experiment import Trial

from tune_cure.search import run_files
from tune_cure.search.checkpoint_retention import CheckpointRetention
from tune_cure.search.journal import OBJECTIVE, RUNG, Event, Journal, end_reason
from tune_cure.search.stopping import FULL_DISK_ERROR, SearchStopper
from tune_cure.training.trainer import EPOCH_METRICS
from tune_cure.utils.files import sync_to_disk

_logger = logging.getLogger(__name__)


class JournalCallback(tune.Callback):  # type: ignore[misc]
    """Writes what happens to the trials into the journal, in the order that makes each line true when it is written.

    Checkpoints that are of no use once a trial has ended are deleted then.

    Args:
        journal: Where to.
        endings: Told of each line.
        store: The run's folder with the checkpoints.
        keeper: Knows which are of use.
    """

    def __init__(
        self, journal: Journal, endings: SearchStopper, store: fs.SubTreeFileSystem, keeper: CheckpointRetention
    ) -> None:
        self.journal, self.endings, self.store, self.keeper = journal, endings, store, keeper

    def discard_useless(self, events: Iterable[Event]) -> None:
        """Deletes what these lines of the journal make useless."""
        for path in [path for event in events for path in self.keeper.take(event)]:
            self.journal.checkpoint_file(path)  # somebody who sent a run must not have files of others deleted
            try:
                self.store.delete_file(f"{path}/{run_files.CHECKPOINT}")
            except FileNotFoundError:
                pass  # an interrupted session has done so
            except OSError as error:
                _logger.warning("%s: cannot be deleted: %s", path, error)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has its worker: from now on it keeps its last checkpoint alone."""
        # Told so any earlier, Tune would write the state of all trials down after each checkpoint of any.
        trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep = 1

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is over."""
        metrics = {name: result.get(name) for name in (*EPOCH_METRICS, OBJECTIVE, RUNG)}
        worker = {"host": result["hostname"], "pid": result["pid"]}
        self._write("epoch", trial, **metrics, ended=_status(result) if result["done"] else "", **worker)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """A checkpoint lies on disk, and will outlast a power cut; only then does Ray delete the one before."""
        path = Path(checkpoint.path)
        if (path / run_files.CHECKPOINT).exists():  # it is not, in an object store
            sync_to_disk(path / run_files.CHECKPOINT)
        inside = path.relative_to(self.store.base_path) if path.is_relative_to(self.store.base_path) else path
        self._write("checkpoint", trial, epoch=trial.last_result["training_iteration"], path=str(inside))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial is over, its last checkpoint written, the study told."""
        status = _status(trial.last_result)
        self._write("end", trial, status=status, reason=end_reason(status, trial.last_result["training_iteration"]))
        _forget_averages(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's process raised an exception or died, and Ray will set the trial back to its last checkpoint."""
        if not self._is_of_full_disk(trial):
            self._write("retry", trial, attempt=trial.num_failures, reason=_reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Likewise, once too often."""
        if not self._is_of_full_disk(trial):
            self._write("end", trial, status="failed", reason=_reason(trial))
        _forget_averages(trial)

    def _is_of_full_disk(self, trial: Trial) -> bool:
        """Whether a trial failed for want of disk space, as all would: it is to go on once there is some."""
        is_full = bool(FULL_DISK_ERROR.search(_reason(trial)))
        if is_full:
            self.endings.end("disk", "a trial found the disk full")
        return is_full

    def _write(self, event: str, trial: Trial, **details: Any) -> None:
        if self.endings.outcome == "disk":
            return  # what is written ends where it first could not be
        try:
            line = self.journal.append(event, trial.config["trial"], **details)
        except OSError as error:  # of which Ray would only log some
            self.endings.end("disk", f"{self.journal.path}: cannot be written: {error.strerror}")
        else:
            self.endings.take(line)
            self.discard_useless([line])


def _forget_averages(trial: Trial) -> None:
    """Drops what Tune keeps of each metric of a trial that is over, which nobody reads: 50 KB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def _status(result: dict[str, Any]) -> str:
    """What the trial says of its end; if nothing, the scheduler stopped it."""
    return result["ended"] or "stopped"


def _reason(trial: Trial) -> str:
    """The last line of the error that Ray wrote down for the trial: the exception itself, below the stacks."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and "worker process has died" not in lines[-1]:
        return lines[-1]
    pid = re.search(r"^\s*pid: (\d+)$", text, re.MULTILINE)
    log = f"; worker-*-{pid[1]}.err in Ray's logs may say which" if pid else ""
    return f"the worker process died: it was killed, ran out of memory or crashed{log}"
