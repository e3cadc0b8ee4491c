"""How a search stands, from the events of its journal, and the views of it: live in a terminal, or plain lines."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_cure.ray_backend.resources import expected_epochs
from tune_cure.search.journal import OBJECTIVE, Event
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import reached
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_duration,
    format_hyperparameters,
    format_percent,
    format_value,
)

Score = tuple[bool, tuple[float, ...]]
UNRANKED: Score = (False, ())


@dataclass
class TrialState:
    """A trial as far as its events have been seen; `last` and `best` are epochs: the latest and that of most PGD."""

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
    """What is known of a search from the events that it has been `update`d with.

    It is kept up with each event at a cost that does not grow with the number of trials.
    """

    spec: SearchSpec
    started: float = field(default_factory=time.time)
    trials: dict[int, TrialState] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)  # how many trials ended with each status
    epochs: int = 0
    epochs_of_ended: int = 0
    epochs_now: int = 0  # since `started`: a resumed search did the others before
    best: TrialState | None = None  # of those that ran or ended soundly, the first by the order of `results.ranked`
    _best_score: Score = UNRANKED
    _running: dict[int, TrialState] = field(default_factory=dict)

    def update(self, event: Event) -> TrialState:
        """Takes in one line of the journal that is about a trial, and returns that trial."""
        number = event["trial"]
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
                self._compare(trial)
        elif event["event"] == "end":
            trial.status, trial.reason = event["status"], event["reason"]
            del self._running[number]
            self.ends[trial.status] += 1
            self.epochs_of_ended += trial.epochs
            self._compare(trial)
        return trial

    def _compare(self, trial: TrialState) -> None:
        """Finds the leader anew after a change of `trial`; all trials are gone through only if the leader fell."""
        score = self._score(trial)
        if trial is self.best and score < self._best_score:
            self.best = max(self.trials.values(), key=self._score)
        elif score > self._best_score or (self.best and score == self._best_score and trial.number < self.best.number):
            self.best = trial
        if self.best:
            self._best_score = self._score(self.best)
            self.best = None if self._best_score == UNRANKED else self.best

    def _score(self, trial: TrialState) -> Score:
        if trial.last is None or trial.status in UNSOUND_STATUSES:
            return UNRANKED
        values = reached(trial.last, trial.best or {})
        feasible = all(constraint.violation(values) <= 0 for constraint in self.spec.search.parsed_constraints)
        sign = 1 if self.spec.search.mode == "max" else -1
        others = (values[name] for name in self.spec.search.metrics[1:])
        return feasible, tuple(sign * of for of in (trial.last[OBJECTIVE], *others))

    @property
    def running(self) -> list[TrialState]:
        """The trials that were proposed and are not over."""
        return list(self._running.values())

    @property
    def baseline(self) -> TrialState | None:
        """The first trial of start_from."""
        return next((trial for trial in self.trials.values() if trial.origin == "start_from"), None)

    def seconds_left(self, now: float) -> float | None:
        """An estimate from the epochs per second so far and the epochs that trials needed; None before the first."""
        if not self.epochs_now:
            return None
        planned = self.spec.search.trials
        expected = expected_epochs(self.spec) / planned
        length = (self.epochs_of_ended + expected) / (self.ends.total() + 1)
        left = length * (planned - len(self.trials)) + sum(max(length - t.epochs, 1) for t in self.running)
        return float(left) * (now - self.started) / self.epochs_now


def percent(event: Event | None, name: str) -> str:
    """An accuracy of an epoch's event as a percentage; a dash where there is none."""
    return format_percent(None if event is None else event[name])


def retried(event: Event, spec: SearchSpec) -> str:
    """A trial's failure that it gets over, in a line."""
    attempt = f"{event['attempt']} of {spec.search.retries}"
    return f"trial {event['trial']} failed and goes on from its last checkpoint ({attempt}): {event['reason']}"


def judged_again(event: Event, spec: SearchSpec) -> str:
    """What a leader reached on images that the search had not looked at, in a line."""
    reached = format_percent(event["pgd_accuracy"], event["pgd_accuracy_se"])
    on = f"{event['examples']:,} fresh validation images"
    return f"trial {event['trial']} judged again: {reached} by {spec.rescoring} on {on}"


class PlainView:
    """One line per trial that starts from a known configuration, ends, or takes the lead: for logs and pipes."""

    def __init__(self, state: SearchState, write: Callable[[str], None]) -> None:
        self.state, self.write = state, write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def on_event(self, event: Event) -> None:
        """Writes a line if the event ends a trial."""
        trial = self.state.update(event)
        if event["event"] == "retry":
            self.write(retried(event, self.state.spec))
        if event["event"] == "leader":
            self.write(judged_again(event, self.state.spec))
        if event["event"] != "end":
            return
        state, best = self.state, self.state.best
        line = f"[{state.ends.total()}/{state.spec.search.trials}] trial {trial.number} {STATUS_WORDS[trial.status]}"
        line += f" after epoch {trial.epochs}: PGD {percent(trial.best, 'pgd_accuracy')}"
        line += f", clean {percent(trial.best, 'clean_accuracy')}  ({format_hyperparameters(trial.hyperparameters)})"
        line += f" {trial.reason}" if trial.reason else ""
        if best:
            line += f"; best so far: trial {best.number}, PGD {percent(best.best, 'pgd_accuracy')}"
        self.write(line)


class LiveView:
    """The search as one picture that redraws itself in the terminal."""

    def __init__(self, state: SearchState, console: Console) -> None:
        self.state = state
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def on_event(self, event: Event) -> None:
        """Takes an event in; the next redraw shows it. A failure stays, above the picture."""
        trial = self.state.update(event)
        if event["event"] == "retry":
            self.live.console.print(retried(event, self.state.spec))
        elif event["event"] == "leader":
            self.live.console.print(judged_again(event, self.state.spec))
        elif trial.status == "failed":
            self.live.console.print(f"trial {trial.number} failed: {trial.reason}")

    def render(self) -> RenderableType:
        """The picture of this moment."""
        return Group(self._bars(), Text(), self._running(), Text(), self._standing())

    def _bars(self) -> RenderableType:
        state, spec = self.state, self.state.spec
        now = time.time()
        left = state.seconds_left(now)
        said = ", ".join(
            f"{state.ends[status]} {words}" for status, words in STATUS_WORDS.items() if state.ends[status]
        )
        spent = f"{format_duration(now - state.started)} so far" + (
            f", about {format_duration(left)} left" if left else ""
        )
        bars = Table.grid(padding=(0, 1))
        bars.add_row(
            "trials", ProgressBar(spec.search.trials, state.ends.total(), width=30), f"{state.ends.total()} of "
            f"{spec.search.trials}", Text(said, style="dim")
        )  # fmt: skip
        most = spec.search.trials * spec.max_epochs
        bar = ProgressBar(most, state.epochs, width=30)
        bars.add_row("epochs", bar, f"{state.epochs} of at most {most}", Text(spent, style="dim"))
        return bars

    def _running(self) -> RenderableType:
        spec = self.state.spec
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("trial", "epoch", "PGD", "best", "clean", *spec.space, "pid"):
            table.add_column(title, justify="right", no_wrap=True)
        for trial in self.state.running:
            values = [format_value(trial.hyperparameters.get(key)) for key in spec.space]
            accuracies = [percent(trial.last, name) for name in ("pgd_accuracy", "pgd_accuracy_best", "clean_accuracy")]
            pid = str(trial.last["pid"]) if trial.last else "–"  # finds its actor in Ray's dashboard
            table.add_row(str(trial.number), str(trial.epochs or "–"), *accuracies, *values, pid)
        return table if self.state.running else Text("waiting for the first trial", style="dim")

    def _standing(self) -> RenderableType:
        best, baseline = self.state.best, self.state.baseline
        table = Table.grid(padding=(0, 2))
        for title, trial in (("best so far", best), ("start_from", baseline)):
            if trial and trial.last:
                table.add_row(
                    title,
                    f"trial {trial.number}",
                    f"PGD {percent(trial.best, 'pgd_accuracy')}",
                    f"clean {percent(trial.best, 'clean_accuracy')}",
                    Text(format_hyperparameters(trial.hyperparameters), style="dim"),
                )
        return table
