"""Rules that stop a whole search early: time budget, patience, repeated failures, a full disk, a lost folder."""

import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tune_cure.search import run_files
from tune_cure.search.budget import Budget
from tune_cure.search.journal import Event, TrialCounts
from tune_cure.search.patience import Patience, has_judged_leaders
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils.files import FolderWatch, LostFolderError

MAX_EQUAL_FAILURES = 3  # if the first trials of a search all fail for one reason, the others would, too
RESERVED_BYTES = 32 * 2**20  # free disk space that journal, study and tables need at the end
FULL_DISK_ERROR = re.compile("No space left on device|Disk quota exceeded")  # messages of the operating system


def is_one_failure(reasons: Sequence[str]) -> bool:
    """Return whether these are `MAX_EQUAL_FAILURES` failures for one reason.

    Args:
        reasons: Why trials failed. They may differ in addresses and sizes, so numbers are ignored.
    """
    return len(reasons) == MAX_EQUAL_FAILURES and len({re.sub(r"\d+", "", reason) for reason in reasons}) == 1


class SearchStopper:
    """Decision when a whole search stops. Running trials then stay unfinished, and `--resume` continues them.

    Args:
        spec: The search.
        folder: The run's folder; it and its disk are watched. The journal must be in it already.
        seconds: The time budget from now on; None means no limit.
        history: The events of trials so far.
        epoch_seconds: What an epoch of training is expected to take, for the budget of training.

    Attributes:
        outcome: Why the search stops: time, failing, disk, interrupted or ray; empty while it goes on.
        reason: The outcome in words.
        deadline: When the time budget is used up, in seconds since 1970; None if there is no limit.
        patience: The count of trials since one that improved something.
        budget: What the trials have spent of the training that they share.
        num_interrupts: How often Ctrl-C was pressed. From the second time on nothing is waited for.
    """

    def __init__(
        self,
        spec: SearchSpec,
        folder: Path,
        seconds: float | None,
        history: Iterable[Event],
        *,
        epoch_seconds: float = 0.0,
    ) -> None:
        self.spec, self.folder = spec, folder
        self.num_interrupts = 0
        self.deadline = None if seconds is None else time.time() + seconds
        self.outcome = self.reason = ""
        self.watch = FolderWatch(folder / run_files.JOURNAL)
        self.patience = Patience(spec)
        self.budget = Budget(spec, epoch_seconds=epoch_seconds)
        self._failures: list[str] | None = []  # reasons of the first trials; None once a trial ended otherwise
        for event in history:
            self.patience.take(event)
            self.budget.take(event)
            if event["event"] == "end" and event["status"] != "failed":
                self._failures = None

    def take(self, event: Event) -> None:
        """Take in a new event of a trial."""
        self.patience.take(event)
        self.budget.take(event)
        if event["event"] != "end" or self._failures is None:
            return
        if event["status"] != "failed":
            self._failures = None
            return
        self._failures.append(event["reason"])
        if is_one_failure(self._failures):
            self.end("failing", f"the first {MAX_EQUAL_FAILURES} trials all failed: {event['reason']}")

    @property
    def exhausted(self) -> bool:
        """Return True if no more trials are to be proposed: patience is used up, or the budget is spoken for."""
        return self.patience.is_used_up or self.budget.is_committed

    def end(self, outcome: str, reason: str) -> None:
        """Stop the search; of several calls the first one counts.

        Args:
            outcome: See the attribute.
            reason: The outcome in words.
        """
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def interrupt(self) -> None:
        """Stop the search because of Ctrl-C."""
        self.num_interrupts += 1
        self.end("interrupted", "")

    def stop_all(self) -> bool:
        """Return whether the search stops now; Tune's loop asks at each turn."""
        if self.deadline is not None and time.time() > self.deadline:
            self.end("time", "the time budget is used up")
        if fault := self.watch.find_fault():
            self.end("disk", fault)
            return True
        free = shutil.disk_usage(self.folder).free
        if free < RESERVED_BYTES:
            self.end("disk", f"the disk of {self.folder} is full: {free / 2**20:.0f} MiB are free")
        return bool(self.outcome)

    def is_over(self, counts: TrialCounts) -> bool:
        """Return whether no trial is left to run: all that have begun have ended, and no more are proposed."""
        has_begun_all = self.exhausted or counts.num_begun >= self.spec.search.trials
        return has_begun_all and counts.num_ended == counts.num_begun

    def is_cut_short(self, counts: TrialCounts, record: SearchRecord) -> bool:
        """Return whether something stops the search before its end.

        A time budget that is used up after the last trial and the second judgement of the leaders does not.
        """
        if self.outcome == "time" and self.is_over(counts):
            return not has_judged_leaders(SearchResult(self.folder, record=record))
        return bool(self.outcome)

    def conclude(self, counts: TrialCounts, record: SearchRecord) -> SearchResult:
        """Return the result of the search as it stands, from what its journal says, with how it ended and why.

        Raises:
            LostFolderError: The run's folder was deleted or moved away.
        """
        if self.watch.is_lost():
            raise LostFolderError(self.watch.find_fault())
        if self.is_cut_short(counts, record):
            outcome, reason = self.outcome, self.reason
        elif not self.is_over(counts):
            outcome, reason = "interrupted", ""
        elif counts.num_ended >= self.spec.search.trials or self.budget.is_spent:
            outcome, reason = "finished", ""
        else:
            outcome, reason = "patience", self.patience.words
        return SearchResult(self.folder, outcome, reason, record=record)
