"""TensorBoard files of a search, in the folder `tensorboard` of its run: the curves of every trial.

Show them, also while the search runs, with `tensorboard --logdir results/NAME/tensorboard`.
"""

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.record_writer import register_writer_factory

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search import run_files
from tune_cure.search.journal import Event

FLUSH_SECONDS = 10
SCHEME = "tune-cure"  # begins the paths that SummaryWriter opens by `_EventFiles`

_logger = logging.getLogger(__name__)


class _EventFile:
    """File of TensorBoard records, which is given up at the first error.

    SummaryWriter writes in threads of its own, and when Python ends. An error there would be a traceback below the line
    in which the search says that, for example, its disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: io.FileIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            self._give_up(error)

    def write(self, content: bytes) -> None:
        """Append to the file."""
        self._try(lambda file: file.write(content))

    def flush(self) -> None:
        """Wait until the file would survive a power cut."""
        self._try(lambda file: os.fsync(file.fileno()))

    def close(self) -> None:
        """Close the file."""
        self._try(lambda file: file.close())

    def _try(self, step: Callable[[io.FileIO], object]) -> None:
        """Take a step with the file, unless it was given up."""
        if self._file is not None:
            try:
                step(self._file)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._file = None
        _logger.warning("%s: TensorBoard's curves end here: %s", self.path, error.strerror)


class _EventFiles:
    """Opener of event files, which SummaryWriter calls for a path with `SCHEME`."""

    def directory_check(self, path: str) -> None:
        """Do nothing: the folder is made with the file."""

    def open(self, path: str) -> _EventFile:
        """Return a new file."""
        return _EventFile(Path(path.removeprefix(f"{SCHEME}:")))


register_writer_factory(SCHEME, _EventFiles())


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
            self.writers[number] = SummaryWriter(f"{SCHEME}:{folder}", flush_secs=FLUSH_SECONDS)
        return self.writers[number]
