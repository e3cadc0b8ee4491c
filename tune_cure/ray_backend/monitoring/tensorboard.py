"""TensorBoard files of a search, in the folder `tensorboard` of its run: the curves of every trial.

Show them, also while the search runs, with `tensorboard --logdir results/NAME/tensorboard`.
"""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.training.trainer import EPOCH_METRICS

FLUSH_SECONDS = 10


class TensorBoard:
    """Writer of the TensorBoard files of the search in `directory`, from the events of its journal."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / run_files.TENSORBOARD
        self.writers: dict[int, SummaryWriter] = {}
        self.best: dict[int, float] = {}
        self.hyperparameters: dict[int, dict[str, Any]] = {}

    def on_event(self, event: Event) -> None:
        """Add what the event says to the files of its trial."""
        number = event["trial"]
        match event["event"]:
            case "trial":
                self.hyperparameters[number] = event["hyperparameters"]
            case "epoch":
                writer = self._writer(number)
                for name in EPOCH_METRICS[1:]:
                    if event[name] is not None:
                        writer.add_scalar(name, float(event[name]), event["epoch"], walltime=event["time"])
                if event["pgd_accuracy_best"] is not None:
                    self.best[number] = event["pgd_accuracy_best"]
            case "end" if number in self.writers:
                if (
                    number in self.hyperparameters and number in self.best
                ):  # not so for trials that began before an interruption
                    reached = {"hparam/pgd_accuracy_best": self.best[number]}
                    self.writers[number].add_hparams(self.hyperparameters[number], reached, "hyperparameters")
                self.writers.pop(number).close()

    def close(self) -> None:
        """Close the files of the trials that have not ended."""
        while self.writers:
            self.writers.popitem()[1].close()

    def _writer(self, number: int) -> SummaryWriter:
        if number not in self.writers:
            folder = self.folder / f"trial_{number:05d}"
            self.writers[number] = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
        return self.writers[number]
