"""Views of a league whose searches run: a row a method, redrawn in place in a terminal, or plain lines."""

import time
from collections.abc import Callable, Iterable
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_cure.cli.views.live_picture import RedrawnPicture, percent
from tune_cure.cli.views.live_view import PlainView, RedrawnView, RungWarnings, describe_event
from tune_cure.search.journal import Event
from tune_cure.search.progress import SearchState
from tune_cure.utils.formatting import format_duration

BAR_WIDTH = 20
NARROW = 90  # columns of a terminal below which there are no bars
HEADER = 6  # lines of the picture beside those of the methods


class LeagueState:
    """The searches of a league as their events describe them.

    Attributes:
        searches: The state of each method's search, in the league's order.
        started: When this session began, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.searches: dict[str, SearchState] = {}
        self.started = time.time()
        self._share_before = 0.0

    def begin(self, searches: dict[str, SearchState]) -> None:
        """Take the states of all searches at the beginning of this session."""
        self.searches, self.started = searches, time.time()
        self._share_before = self.share

    @property
    def share(self) -> float:
        """The mean share of their budgets that the methods have spent."""
        return fmean(min(state.budget.share, 1.0) for state in self.searches.values()) if self.searches else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Return an estimate of the time left, in seconds, by the pace of this session; None before the first epoch."""
        gained = self.share - self._share_before
        return (1 - self.share) * (now - self.started) / gained if gained > 0 else None

    def describe_best(self) -> str:
        """Return which method's search leads on its validation images; empty before the first trial is judged."""
        leaders = [(name, state.best) for name, state in self.searches.items() if state.best and state.best.best]
        if not leaders:
            return ""
        name, trial = max(leaders, key=lambda leader: leader[1].best["pgd_accuracy"] if leader[1].best else 0.0)
        return f"best so far: {name}, trial {trial.number}, PGD {percent(trial.best, 'pgd_accuracy')}"


class PlainLeagueView:
    """View of a league as lines: one for each trial that ends, fails and goes on, or is judged again, and each warning.

    Args:
        state: The league; each event updates it.
        write: Prints a line.
    """

    def __init__(self, state: LeagueState, write: Callable[[str], None]) -> None:
        self.state, self.write = state, write
        self._views: dict[str, PlainView] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, line: str) -> None:
        """Write a line that is of no event."""
        self.write(line)

    def on_event(self, method: str, event: Event) -> None:
        """Update the state of a method's search, and write a line for an event that has one."""
        if method not in self._views:
            self._views[method] = PlainView(self.state.searches[method], lambda line: self.write(f"{method}: {line}"))
        self._views[method].on_event(event)


class LeagueView(RedrawnView):
    """View of a league that is redrawn in the terminal: a row for each method.

    Args:
        state: The league; each event updates it.
        console: The terminal.
        lines: As of `RedrawnView`.
    """

    def __init__(self, state: LeagueState, console: Console, lines: Iterable[str] = ()) -> None:
        super().__init__(LeaguePicture(state), console, lines)
        self.state = state
        self._warnings: dict[str, RungWarnings] = {}

    def on_event(self, method: str, event: Event) -> None:
        """Update the state of a method's search; print failures, second judgements and warnings above the picture."""
        search = self.state.searches[method]
        trial = search.update(event)
        if line := describe_event(event, trial, search.spec):
            self.say(f"{method}: {line}")
        if method not in self._warnings:
            self._warnings[method] = RungWarnings(search)
        for warning in self._warnings[method].after(event):
            self.say(f"{method}: {warning}")


class LeaguePicture(RedrawnPicture):
    """Renderable of a league as it is now: time, and a row for each method."""

    def __init__(self, state: LeagueState) -> None:
        self.state = state

    def draw(self, width: int, height: int) -> RenderableType:
        """Return the picture for a terminal of so many columns and rows."""
        if not self.state.searches:
            return Text("measuring what an epoch of each method takes", style="dim")
        room = max(height - HEADER, 1)
        rows = list(self.state.searches.items())
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("method", no_wrap=True)
        for title in (*["budget"] * (width >= NARROW), "spent", "trials", "running", "best PGD", "clean", "trial"):
            table.add_column(title, justify="right", no_wrap=True)
        for name, state in rows[:room]:
            table.add_row(*_cells(name, state, has_bar=width >= NARROW))
        hidden = [Text(f"and {len(rows) - room} more methods", style="dim")] if len(rows) > room else []
        return Group(Text(self._describe_time(), style="dim"), Text(), table, *hidden)

    def _describe_time(self) -> str:
        state, now = self.state, time.time()
        left = state.seconds_left(now)
        text = f"{100 * state.share:.0f}% of all budgets, {format_duration(now - state.started)} so far"
        if all(search.has_all for search in state.searches.values()):
            return f"{text}; all searches are over: their leaders are judged again, then tables and reports are written"
        return text + (f", about {format_duration(left)} left" if left else "")


def _cells(name: str, state: SearchState, *, has_bar: bool) -> list[RenderableType]:
    best = state.best
    running = " ".join(str(trial.number) for trial in state.running)
    bar = [ProgressBar(1.0, min(state.budget.share, 1.0), width=BAR_WIDTH)] if has_bar else []
    accuracies = [percent(best.best if best else None, key) for key in ("pgd_accuracy", "clean_accuracy")]
    number = str(best.number) if best else "–"
    return [name, *bar, state.progress, str(state.ends.total()), running or "–", *accuracies, number]
