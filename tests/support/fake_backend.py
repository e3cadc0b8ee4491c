"""Searches without Ray, in milliseconds: scripted trials go through the search's own classes.

The proposer, the early-stopping rule, the stopper, the recorder and the journal are those of a real search, called in
the order in which Ray Tune's controller calls them. Only workers, the content of checkpoints and the clock are made up.
"""

import heapq
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.storages import BaseStorage

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search import run_files
from tune_cure.search.journal import OBJECTIVE, Event, Journal, TrialCounts, end_status
from tune_cure.search.proposals.proposer import Proposal, StudyProposer
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff, is_memory_kill
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import reached
from tune_cure.search.stopping import SearchStopper
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils.files import read_tensors

WORST = {"max": 0.0, "min": 1.0}


class WorkerError(Exception):
    """A worker raised an exception or died; the message is the reason that Ray gives."""


class KilledError(BaseException):
    """The process that runs the search was killed."""


class Worker(Protocol):
    """What runs a trial, one epoch after another."""

    def step(self) -> dict[str, Any]:
        """Return the result of one more epoch, as a trial reports it to Tune; raise WorkerError if it fails."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint into a folder."""

    def load(self, folder: Path) -> None:
        """Go on from the checkpoint in a folder."""


@dataclass(frozen=True)
class Script:
    """What a scripted trial does.

    Attributes:
        accuracies: PGD accuracy after each epoch; the last value stands for all later epochs.
        clean_accuracy: Clean accuracy after each epoch.
        ends: The status that the trial reports by itself after an epoch before its last: {2: "diverged"}.
        overfitted: Epochs after which the trial is overfitted catastrophically and goes on (`on_collapse: continue`).
        failures: Reasons for which an epoch fails, each time with the next reason, until none is left.
        seconds: How long an epoch takes, on the clock that decides which of several running trials reports next.
    """

    accuracies: Sequence[float]
    clean_accuracy: float = 0.9
    ends: Mapping[int, str] = field(default_factory=dict)
    overfitted: Collection[int] = ()
    failures: Mapping[int, Sequence[str]] = field(default_factory=dict)
    seconds: float = 1.0


class ScriptedWorker:
    """Worker that follows a script; `num_failed` counts the failures of each epoch over all attempts of the trial."""

    def __init__(self, spec: SearchSpec, proposal: Proposal, script: Script, num_failed: dict[int, int]) -> None:
        self.spec, self.script, self.num_failed = spec, script, num_failed
        self.num_epochs = spec.training_config(proposal.hyperparameters).epochs
        self.pid = 1000 + proposal.number
        self.epoch = 0

    def step(self) -> dict[str, Any]:
        epoch = self.epoch + 1
        reasons, num_failed = self.script.failures.get(epoch, ()), self.num_failed.get(epoch, 0)
        if num_failed < len(reasons):
            self.num_failed[epoch] = num_failed + 1
            raise WorkerError(reasons[num_failed])
        self.epoch = epoch
        ended = self.script.ends.get(epoch, "completed" if epoch >= self.num_epochs else "")
        curve = [self._accuracies(number) for number in range(1, epoch + 1)]
        judged = curve[:-1] if ended == "diverged" else curve  # a diverged network is not evaluated
        last = {} if ended == "diverged" else curve[-1]
        metrics = reached(last, max(judged, key=lambda accuracies: accuracies["pgd_accuracy"], default={}))
        objective = metrics[self.spec.search.metrics[0]]
        return {
            **dict.fromkeys(EPOCH_METRICS),
            **metrics,
            "epoch": epoch,
            "train_loss": None if ended == "diverged" else 1 / epoch,
            "skipped_steps": 0,
            "catastrophic_overfitting": ended == "catastrophic_overfitting" or epoch in self.script.overfitted,
            OBJECTIVE: WORST[self.spec.search.mode] if objective is None else objective,
            "ended": ended,
            "done": bool(ended),
            "training_iteration": epoch,
            "hostname": "here",
            "pid": self.pid,
        }

    def save(self, folder: Path) -> None:
        torch.save({"epoch": self.epoch}, folder / run_files.CHECKPOINT)

    def load(self, folder: Path) -> None:
        self.epoch = read_tensors(folder / run_files.CHECKPOINT, torch.device("cpu"))["epoch"]

    def _accuracies(self, epoch: int) -> dict[str, float]:
        accuracy = self.script.accuracies[min(epoch, len(self.script.accuracies)) - 1]
        return {"clean_accuracy": self.script.clean_accuracy, "fgsm_accuracy": accuracy, "pgd_accuracy": accuracy}


def scripted(spec: SearchSpec, scripts: Callable[[Proposal], Script]) -> Callable[[Proposal], Worker]:
    """Return what begins a scripted worker for each trial; `scripts` says what the trial does."""
    num_failed: dict[int, dict[int, int]] = {}
    return lambda proposal: ScriptedWorker(
        spec, proposal, scripts(proposal), num_failed.setdefault(proposal.number, {})
    )


@dataclass
class RunningTrial:
    """A trial under way."""

    proposal: Proposal
    worker: Worker
    seconds: float
    checkpoint: Path | None
    num_checkpoints: int = 0
    num_failures: int = 0

    @property
    def number(self) -> int:
        return self.proposal.number


class FakeBackend:
    """A session of a search, new or resumed.

    Args:
        spec: The search.
        folder: The run's folder, with its spec.yaml.
        begin: Returns the worker of a trial, at its first epoch.
        seconds: How long an epoch of a trial takes; 1 if None.
        resume: Continue the search in the folder.
        budget: The time budget in seconds; None means none.
        storage: Where the study is kept; in memory if None.
        on_event: Told of each event.
        on_step: Told, whenever a trial runs an epoch, of the clock, its number, and the numbers of all that run.
        interrupt_at: Whether Ctrl-C is pressed at an event; trials under way stay unfinished.
        kill_at: Whether the process is killed right after an event is written: `run` raises KilledError.
    """

    def __init__(
        self,
        spec: SearchSpec,
        folder: Path,
        begin: Callable[[Proposal], Worker],
        *,
        seconds: Callable[[Proposal], float] = lambda proposal: 1.0,
        resume: bool = False,
        budget: float | None = None,
        storage: BaseStorage | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        on_step: Callable[[float, int, list[int]], None] = lambda now, number, running: None,
        interrupt_at: Callable[[Event], bool] = lambda event: False,
        kill_at: Callable[[Event], bool] = lambda event: False,
    ) -> None:
        self.spec, self.folder, self.begin, self.seconds = spec, folder, begin, seconds
        self.is_interrupted, self.on_step = False, on_step
        self.record = record = SearchRecord(Journal(folder).load(repair=True)) if resume else SearchRecord()
        history = record.history
        self.counts = TrialCounts(history)

        def tell(event: Event) -> None:
            record.take(event)
            self.counts.take(event)
            on_event(event)
            self.is_interrupted |= interrupt_at(event)
            if kill_at(event):
                raise KilledError

        journal = Journal(folder, tell)
        journal.path.touch()
        self.stopper = SearchStopper(spec, folder, budget, history)
        storage = storage or optuna.storages.InMemoryStorage()
        self.proposer = StudyProposer(spec, journal, history, self.stopper, storage=storage)
        self.early_stopper = EarlyStopper(spec, history, self.stopper.budget)
        assert isinstance(spec.resources.concurrent, int)
        self.now = 0.0
        self.backoff = MemoryBackoff(spec.resources.concurrent, clock=lambda: self.now)
        self.waiting: list[RunningTrial] = []  # for memory
        self.recorder = TrialRecorder(spec, journal, self.stopper, lambda path: (folder / path).unlink())
        self.recorder.delete_useless(history)
        sessions = len(list(folder.glob(f"{run_files.TRIALS}*")))
        self.trials_folder = folder / (run_files.TRIALS + f"-{sessions + 1}" * bool(sessions))
        self.trials_folder.mkdir()

    @property
    def study(self) -> optuna.Study:
        return self.proposer.study

    def run(self) -> SearchResult:
        """Run the search until it is over, interrupted or stopped."""
        running: list[tuple[float, int, RunningTrial]] = []  # when each reports its next epoch, the first at the head

        def push(trial: RunningTrial) -> None:
            heapq.heappush(running, (self.now + trial.seconds, trial.number, trial))

        while not self.is_interrupted and not self.stopper.stop_all():
            while len(running) + len(self.waiting) < self.backoff.limit:
                proposal = self.proposer.propose()
                if proposal is None:
                    break
                push(self._start(proposal))
            for trial in list(self.waiting):
                if self.backoff.may_start(trial.number, len(running)):
                    self.waiting.remove(trial)
                    push(trial)
            if not running and not self.waiting:
                break
            if not running:
                self.now += 1.0
                continue
            self.now, _, trial = heapq.heappop(running)
            self.on_step(self.now, trial.number, [trial.number, *(number for _, number, _ in running)])
            if self._step(trial) and trial not in self.waiting:
                push(trial)
        return self.stopper.conclude(self.counts, self.record)

    def _start(self, proposal: Proposal) -> RunningTrial:
        self.early_stopper.add(proposal.number)
        checkpoint = Path(proposal.checkpoint) if proposal.checkpoint else None
        worker = self.begin(proposal)
        if checkpoint:
            worker.load(checkpoint)
        return RunningTrial(proposal, worker, self.seconds(proposal), checkpoint)

    def _step(self, trial: RunningTrial) -> bool:
        """Let a trial run an epoch, and return whether it is still running."""
        try:
            result = trial.worker.step()
        except WorkerError as error:
            return self._fail(trial, str(error))
        number, epoch = trial.number, result["training_iteration"]
        if not result["done"]:
            result["done"] = not self.early_stopper.report(number, epoch, result)
        if not result["done"]:
            self.proposer.report(number, epoch, result[OBJECTIVE])
        self.recorder.on_epoch(number, result)
        try:
            self._save(trial, epoch)
        except OSError as error:
            return self._fail(trial, f"{type(error).__name__}: {error}")
        if not result["done"]:
            return True
        self.early_stopper.complete(number, epoch, result)
        self.proposer.tell(number, end_status(result["ended"] or "stopped", result), epoch, result)
        self.recorder.on_end(number, result)
        return False

    def _save(self, trial: RunningTrial, epoch: int) -> None:
        """Write a checkpoint, record it, and delete the one before, as Tune does."""
        folder = self.trials_folder / f"trial_{trial.number:05d}" / f"checkpoint_{trial.num_checkpoints:06d}"
        folder.mkdir(parents=True)
        trial.worker.save(folder)
        trial.num_checkpoints += 1
        self.recorder.on_checkpoint(trial.number, epoch, str(folder.relative_to(self.folder)))
        if trial.checkpoint and trial.checkpoint.is_relative_to(self.trials_folder):
            shutil.rmtree(trial.checkpoint, ignore_errors=True)
        trial.checkpoint = folder

    def _fail(self, trial: RunningTrial, reason: str) -> bool:
        """Set a failed trial back to its last checkpoint, and return whether it has retries left."""
        trial.num_failures += 1
        if trial.num_failures > self.spec.search.retries:
            self.proposer.tell(trial.number, "failed")
            self.recorder.on_failure(trial.number, reason)
            return False
        self.recorder.on_retry(trial.number, trial.num_failures, reason)
        trial.worker = self.begin(trial.proposal)
        if trial.checkpoint:
            trial.worker.load(trial.checkpoint)
        if is_memory_kill(reason):
            self.backoff.on_kill(trial.number)
            self.waiting.append(trial)
        return True


def run_scripted(
    spec: SearchSpec, folder: Path, scripts: Callable[[Proposal], Script], **options: Any
) -> tuple[SearchResult, optuna.Study]:
    """Run a search of scripted trials; return its result and its study. `options` are those of `FakeBackend`."""
    backend = FakeBackend(
        spec, folder, scripted(spec, scripts), seconds=lambda proposal: scripts(proposal).seconds, **options
    )
    return backend.run(), backend.study
