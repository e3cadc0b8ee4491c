"""State of a search from the events of its journal: its trials, the leader, and an estimate of the time left."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tune_cure.search.budget import SPENT, Budget
from tune_cure.search.journal import Event
from tune_cure.search.ranking import RankKey, rank_epochs
from tune_cure.search.schedulers.control_group import RungForesight
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import format_count


@dataclass
class TrialState:
    """A trial as its events so far describe it.

    Attributes:
        number: The trial's number.
        origin: start_from or sampler.
        hyperparameters: By their YAML names.
        epochs: How many epochs it has trained.
        last: The event of its latest epoch with accuracies; None before the first.
        best: The event of its epoch of highest PGD accuracy; None before the first.
        status: How it ended; empty while it runs.
        reason: Why it ended so; often empty.
    """

    number: int
    origin: str
    hyperparameters: dict[str, Any]
    epochs: int = 0
    last: Event | None = None
    best: Event | None = None
    status: str = ""
    reason: str = ""


@dataclass
class SearchState:
    """A search as the events that it was updated with describe it.

    The cost of an update does not grow with the number of trials, unless the leader falls behind.

    Attributes:
        spec: The search.
        started: When this session of the search began, in seconds since the epoch.
        trials: The trials by number.
        ends: How many trials ended with each status.
        epochs: Epochs trained by all trials.
        epochs_of_ended: Epochs trained by the trials that have ended.
        epochs_saved: Epochs that early stopping has spared the trials that it ended; the end of a budget saves none.
        epochs_now: Epochs trained since `started`; a resumed search trained the others before.
        best: The trial that ranks first among those that have been judged and did not end unsoundly.
        paused: Why the search ended with more to do, in words; empty if it did not, or was resumed since.
        budget: What the trials have spent of the training that they share.
    """

    spec: SearchSpec
    started: float = field(default_factory=time.time)
    trials: dict[int, TrialState] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    epochs_of_ended: int = 0
    epochs_saved: int = 0
    epochs_now: int = 0
    best: TrialState | None = None
    paused: str = ""
    budget: Budget = field(init=False)
    _best_rank: RankKey | None = None
    _running: dict[int, TrialState] = field(default_factory=dict)
    _stopping: tuple[int, tuple[str, ...]] = (-1, ())  # what was said of it last, and how many trials had ended then
    _stopper: EarlyStopper | None = None  # replays the decisions, where a control group judges the rungs

    def __post_init__(self) -> None:
        self.budget = Budget(self.spec)
        if self.spec.asha.control and self.spec.rungs:
            self._stopper = EarlyStopper(self.spec)

    def update(self, event: Event) -> TrialState:
        """Take in an event of a trial, and return that trial."""
        number = event["trial"]
        self.budget.take(event)
        if self._stopper:
            self._stopper.take(event)
        if event["event"] == "trial":
            self.trials[number] = TrialState(number, event["origin"], event["hyperparameters"])
            self._running[number] = self.trials[number]
        trial = self.trials[number]
        if event["event"] == "epoch":
            self.epochs += event["epoch"] - trial.epochs
            trial.epochs = event["epoch"]
            self.epochs_now += event["time"] >= self.started
            if event["pgd_accuracy"] is not None:
                trial.last = event
                if trial.best is None or event["pgd_accuracy"] > trial.best["pgd_accuracy"]:
                    trial.best = event
                self._update_best(trial)
        elif event["event"] == "end":
            trial.status, trial.reason = event["status"], event["reason"]
            del self._running[number]
            self.ends[trial.status] += 1
            self.epochs_of_ended += trial.epochs
            if trial.status == "stopped" and trial.reason != SPENT:
                planned = trial.hyperparameters.get("epochs", self.spec.max_epochs)
                self.epochs_saved += max(planned - trial.epochs, 0)
            self._update_best(trial)
        return trial

    def restart(self, events: Iterable[Event]) -> None:
        """Forget all events but these: a change of settings has discarded what running trials did before it."""
        anew = SearchState(self.spec, self.started, paused=self.paused)
        for event in events:
            anew.update(event)
        vars(self).update(vars(anew))

    def _update_best(self, trial: TrialState) -> None:
        """Find the leader after a change of `trial`; all trials are compared only if the leader fell behind."""
        rank = self._rank(trial)
        if trial is self.best and (rank is None or (self._best_rank and rank < self._best_rank)):
            ranked = [(key, trial) for trial in self.trials.values() if (key := self._rank(trial))]
            self._best_rank, self.best = max(ranked, key=lambda pair: pair[0], default=(None, None))
        elif rank and (self._best_rank is None or rank > self._best_rank):
            self._best_rank, self.best = rank, trial

    def _rank(self, trial: TrialState) -> RankKey | None:
        """Return the sort key of a trial, running or ended; None if it was never judged or ended unsoundly."""
        if trial.last is None or trial.best is None:
            return None
        key = rank_epochs(trial.number, trial.status, trial.last, trial.best, self.spec)
        return key if key and key.sound else None

    @property
    def rungs(self) -> list[RungForesight]:
        """The rungs, judged by the trials so far; empty without a control group."""
        return self._stopper.group.rungs if self._stopper else []

    @property
    def known_of_stopping(self) -> tuple[str | bool, ...]:
        """Each rung's verdict, and whether a spared trial stands for the stopped ones; empty without a control group.

        When this changes, `describe_stopping` has more to say than other numbers.
        """
        if self._stopper is None:
            return ()
        return *(rung.verdict for rung in self.rungs), self._stopper.group.has_stand_ins

    def describe_stopping(self) -> tuple[str, ...]:
        """Return what the control group says so far, line by line; empty without one.

        The first line has what early stopping saved and the chance that it ended the winner. Each rung has one more.
        """
        if self._stopper is None:
            return ()
        ended = self.ends.total()
        if ended != self._stopping[0]:  # a picture asks several times a second, and all pairs of trials are compared
            saved = f"early stopping saved {format_count(self.epochs_saved, 'epoch')}"
            self._stopping = ended, (f"{saved}; {self._stopper.group.describe_winner()}", *map(str, self.rungs))
        return self._stopping[1]

    @property
    def running(self) -> list[TrialState]:
        """The trials that have begun and not ended."""
        return list(self._running.values())

    @property
    def baseline(self) -> TrialState | None:
        """The first trial of start_from."""
        return next((trial for trial in self.trials.values() if trial.origin == "start_from"), None)

    @property
    def progress(self) -> str:
        """How far the search is: ended trials of all, or the share of its budget that is spent."""
        if self.budget.limit is not None:
            return f"{100 * self.budget.share:.0f}%"
        return f"{self.ends.total()}/{self.num_planned}"

    @property
    def num_planned(self) -> int:
        """The number of trials in all: `search.trials`, or those that had begun before it was lowered below them."""
        return max(self.spec.search.trials, len(self.trials))

    @property
    def has_all(self) -> bool:
        """Return whether all trials have ended: as many as are planned, or as many as the budget allows."""
        return not self._running and (self.budget.is_spent or self.ends.total() >= self.num_planned)

    def seconds_left(self, now: float) -> float | None:
        """Return an estimate of the time left, in seconds; None before the first epoch.

        It takes the epochs per second of this session, and the epochs that trials needed so far; with a budget, what
        these epochs spent on average.
        """
        if not self.epochs_now:
            return None
        if self.budget.limit is not None:
            spent_now = self.budget.spent * self.epochs_now / self.epochs
            left = max(self.budget.limit - self.budget.spent, 0.0)
            return left * (now - self.started) / spent_now if spent_now else None
        expected = expected_epochs(self.spec) / self.spec.search.trials
        length = (self.epochs_of_ended + expected) / (self.ends.total() + 1)
        left = length * (self.num_planned - len(self.trials)) + sum(max(length - t.epochs, 1) for t in self.running)
        return float(left) * (now - self.started) / self.epochs_now


def expected_epochs(spec: SearchSpec) -> float:
    """Return the epochs of all trials together if at each rung exactly one in `reduction_factor` goes on.

    With a scheduler that has no rungs, these are all epochs that are possible. The control group trains all its epochs.
    """
    rungs, members = spec.rungs, spec.asha.control * spec.search.trials
    epochs = members * spec.max_epochs
    for bracket, share in enumerate(spec.bracket_shares):
        going_on, reached_epoch = share * (spec.search.trials - members), 0
        for rung in [*rungs[bracket:], spec.max_epochs]:
            epochs += going_on * (rung - reached_epoch)
            going_on, reached_epoch = going_on / spec.asha.reduction_factor, rung
    return epochs
