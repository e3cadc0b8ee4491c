"""When a search ends before its last trial has: its time is up, nothing improves, or all of it goes wrong."""

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from tune_cure.search.journal import Event, TrialCounts
from tune_cure.search.patience import Patience
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec

MAX_EQUAL_FAILURES = 3  # first trials that fail alike: so would the others
RESERVED_BYTES = 32 * 2**20  # bytes of the disk that are left for journal, study and tables
FULL_DISK_ERROR = re.compile("No space left on device|Disk quota exceeded")  # as errors of the operating system have it


class SearchStopper:
    """Tells Ray Tune when to stop everything; the trials under way then stay unfinished, for `--resume`.

    Args:
        spec: The search.
        folder: Of the run, on the disk that is watched.
        seconds: How long it may take from now; without limit if None.
        history: The journal so far.

    Attributes:
        outcome: Why everything stops: time, failing, disk or interrupted; empty as long as it does not.
        reason: The same in words.
        patience: How many trials have ended since one that improved something.
    """

    def __init__(self, spec: SearchSpec, folder: Path, seconds: float | None, history: Iterable[Event]) -> None:
        self.spec, self.folder = spec, folder
        self.deadline = None if seconds is None else time.time() + seconds  # which other machines know, too
        self.outcome = self.reason = ""
        self.patience = Patience(spec)
        self._failures: list[str] | None = []  # why the first trials failed; None once another has ended otherwise
        for event in history:
            self.patience.take(event)
            if event["event"] == "end" and event["status"] != "failed":
                self._failures = None

    def take(self, event: Event) -> None:
        """Takes in a new line of the journal."""
        self.patience.take(event)
        if event["event"] != "end" or self._failures is None:
            return
        if event["status"] != "failed":
            self._failures = None
            return
        self._failures.append(event["reason"])
        alike = {re.sub(r"\d+", "", reason) for reason in self._failures}  # but for addresses and sizes
        if len(self._failures) == MAX_EQUAL_FAILURES and len(alike) == 1:
            self.end("failing", f"the first {MAX_EQUAL_FAILURES} trials all failed: {event['reason']}")

    @property
    def exhausted(self) -> bool:
        """Whether so many trials have improved nothing that no more are to be proposed."""
        return self.patience.is_used_up

    def end(self, outcome: str, reason: str) -> None:
        """Stops everything; the first reason stands."""
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def stop_all(self) -> bool:
        """Whether everything stops now. Asked at each turn of Tune's loop."""
        if self.deadline is not None and time.time() > self.deadline:
            self.end("time", "the time budget is used up")
        free = shutil.disk_usage(self.folder).free
        if free < RESERVED_BYTES:
            self.end("disk", f"the disk of {self.folder} is full: {free / 2**20:.0f} MiB are free")
        return bool(self.outcome)

    def is_over(self, counts: TrialCounts) -> bool:
        """Return whether no trial is left to run: all have ended, or all that have begun and patience is used up."""
        has_all = counts.num_ended >= self.spec.search.trials
        return has_all or (self.exhausted and counts.num_ended == counts.num_begun)

    def conclude(self, counts: TrialCounts) -> SearchResult:
        """Return the result of the search as it stands, with how it ended and why."""
        if self.outcome:
            return SearchResult(self.folder, self.outcome, self.reason)
        if not self.is_over(counts):
            return SearchResult(self.folder, "interrupted")
        if counts.num_ended >= self.spec.search.trials:
            return SearchResult(self.folder, "finished")
        return SearchResult(self.folder, "patience", self.patience.words)
