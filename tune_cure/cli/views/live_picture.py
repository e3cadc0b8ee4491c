"""Picture of a search that runs: bars, the running trials, the leader and the baseline, as wide as the terminal."""

import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tune_cure.search.journal import Event
from tune_cure.search.progress import SearchState, TrialState
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_percent,
    format_value,
    join_words,
)

ALWAYS = ("trial", "epoch", "PGD", "best", "clean")  # columns of a running trial that are shown at any width
COLUMN_WIDTH = 7  # that of each of these, as far as room for others is concerned: 100.0% is 6 wide
NUMBER_WIDTH = 9  # that of a number to four digits: 1.234e-05
PID_WIDTH = 8
GAP = 2  # columns of the terminal between two columns of a table
BAR_WIDTH = 30
LEADER_INDENT = 13  # room for the title of a leading trial
MIN_RUNNING = 3  # running trials that are shown even if the terminal is too low


class RedrawnPicture(ABC):
    """Renderable that is drawn anew at each look. No line is wider than the terminal, and no word is split.

    Attributes:
        height: Number of lines that were drawn last.
    """

    height = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # A console with soft_wrap lets lines be wider than the terminal, which a picture that is redrawn must not be.
        options = options.update(no_wrap=False, overflow="fold", width=console.width)
        lines = console.render_lines(self.draw(console.width, console.height), options, pad=False)
        self.height = len(lines)
        for line in lines:
            yield from line
            yield Segment.line()

    @abstractmethod
    def draw(self, width: int, height: int) -> RenderableType:
        """Return the picture for a terminal of so many columns and rows."""


class Picture(RedrawnPicture):
    """Renderable of a search as it is now."""

    def __init__(self, state: SearchState) -> None:
        self.state = state

    def draw(self, width: int, height: int) -> RenderableType:
        """Return the picture for a terminal of so many columns and rows."""
        top = [
            self._draw_bars(width),
            Text(self._describe_time(), style="dim"),
            Text(self._describe_ends(), style="dim"),
        ]
        bottom = [_draw_leader(title, trial, width) for title, trial in self._leaders()]
        room = height - 10 - 3 * len(bottom)
        top += self._draw_stopping(width, room - len(self.state.running))
        running = self._draw_running(width, max(room, MIN_RUNNING))
        return Group(*top, Text(), running, Text(), *bottom)

    def _draw_bars(self, width: int) -> RenderableType:
        state, spec = self.state, self.state.spec
        bar_width = max(8, min(BAR_WIDTH, width - 40))
        bars = Table.grid(padding=(0, 1))
        if (limit := state.budget.limit) is not None:
            words = f"{100 * state.budget.share:.0f}% of {state.budget.words}; {format_count(state.epochs, 'epoch')}"
            bars.add_row("budget", ProgressBar(limit, min(state.budget.spent, limit), width=bar_width), words)
            return bars
        planned = state.num_planned
        most = planned * spec.max_epochs
        for title, done, total, words in (
            ("trials", state.ends.total(), planned, f"{state.ends.total()} of {planned}"),
            ("epochs", state.epochs, most, f"{state.epochs} of at most {most}"),
        ):
            bars.add_row(title, ProgressBar(total, done, width=bar_width), words)
        return bars

    def _describe_time(self) -> str:
        now = time.time()
        left = self.state.seconds_left(now)
        elapsed = f"{format_duration(now - self.state.started)} so far"
        return elapsed + (f", about {format_duration(left)} left" if left else "")

    def _describe_ends(self) -> str:
        ends = self.state.ends
        return ", ".join(f"{ends[status]} {words}" for status, words in STATUS_WORDS.items() if ends[status])

    def _draw_stopping(self, width: int, room: int) -> list[RenderableType]:
        """Return what the control group says of early stopping: as many lines as the running trials leave room for."""
        shown: list[RenderableType] = []
        for line in self.state.describe_stopping():
            room -= len(textwrap.wrap(line, width))
            if room < 0:
                break
            shown.append(Text(line, style="dim"))
        return shown

    def _draw_running(self, width: int, room: int) -> RenderableType:
        """Return the table of the running trials: as many hyperparameters as fit, and as many trials as have room."""
        running, space = self.state.running, list(self.state.spec.space)
        if not running:
            return Text(self._describe_pause(), style="dim")
        shown, has_pid = fit_columns(self.state.spec, width)
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in (*ALWAYS, *shown, *["pid"] * has_pid):
            table.add_column(title, justify="right", no_wrap=True)
        for trial in running[:room]:
            table.add_row(*_cells(trial, shown, has_pid=has_pid))
        notes = []
        if len(running) > room:
            notes.append(f"and {len(running) - room} more trials")
        if hidden := space[len(shown) :]:
            notes.append(f"a wider terminal also shows {join_words(hidden)}")
        return Group(table, *[Text("; ".join(notes), style="dim")] * bool(notes))

    def _describe_pause(self) -> str:
        """Return why no trial runs."""
        state, spec = self.state, self.state.spec
        if not state.trials:
            return "waiting for the first trial"
        if not state.has_all:
            return "waiting for the next trial"
        last = "the leaders are judged again, then" if spec.rescore.top else "now"
        return f"all trials have ended; {last} tables and report are written"

    def _leaders(self) -> list[tuple[str, TrialState]]:
        """Return the leader and the baseline, as far as they have been judged, with their titles."""
        pairs = (("best so far", self.state.best), ("start_from", self.state.baseline))
        return [(title, trial) for title, trial in pairs if trial and trial.last]


def percent(event: Event | None, name: str) -> str:
    """Return an accuracy of an epoch's event as a percentage; a dash without an event."""
    return format_percent(None if event is None else event[name])


def fit_columns(spec: SearchSpec, width: int) -> tuple[Sequence[str], bool]:
    """Return which columns of a running trial fit into a terminal, whatever values its hyperparameters take.

    Args:
        spec: The search.
        width: Columns of the terminal.

    Returns:
        The hyperparameters, the first ones of the space; and whether there is room for the process's number, too.
    """
    left = width - len(ALWAYS) * COLUMN_WIDTH
    shown: list[str] = []
    for key, distribution in spec.space.items():
        is_choice = distribution.kind == "choice"
        widest = max(len(format_value(value)) for value in distribution.values) if is_choice else NUMBER_WIDTH
        left -= GAP + max(len(key), widest)
        if left < 0:
            return shown, False
        shown.append(key)
    return shown, left >= GAP + PID_WIDTH


def _draw_leader(title: str, trial: TrialState, width: int) -> RenderableType:
    """Return a leading trial with all its hyperparameters, in as many lines as they need."""
    lines = [
        f"{title:<{LEADER_INDENT}}trial {trial.number}  PGD {percent(trial.best, 'pgd_accuracy')}  "
        f"clean {percent(trial.best, 'clean_accuracy')}"
    ]
    first = len(lines[0])
    for key, value in trial.hyperparameters.items():
        pair = f"  {key} {format_value(value)}"
        if len(lines[-1]) + len(pair) <= width:
            lines[-1] += pair
        else:
            lines.append(" " * (LEADER_INDENT - 2) + pair)
    text = Text("\n".join(lines))
    text.stylize("dim", first)
    return text


def _cells(trial: TrialState, shown: Sequence[str], *, has_pid: bool) -> list[str]:
    accuracies = [percent(trial.last, name) for name in ("pgd_accuracy", "pgd_accuracy_best", "clean_accuracy")]
    values = [format_value(trial.hyperparameters.get(key)) for key in shown]
    pid = str(trial.last["pid"]) if trial.last else "–"  # by which its actor is found in Ray's dashboard
    return [str(trial.number), str(trial.epochs or "–"), *accuracies, *values, *[pid] * has_pid]
