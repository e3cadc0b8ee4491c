"""Views of a search that runs: redrawn in place in a terminal, or plain lines for logs and pipes."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_cure.search.journal import Event
from tune_cure.search.progress import SearchState
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_duration,
    format_hyperparameters,
    format_percent,
    format_value,
)


class PlainView:
    """View of a search as lines: one for each trial that ends, fails and goes on, or is judged again.

    Args:
        state: The search; each event updates it.
        write: Prints a line.
    """

    def __init__(self, state: SearchState, write: Callable[[str], None]) -> None:
        self.state, self.write = state, write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def on_event(self, event: Event) -> None:
        """Update the state, and write a line for an event that has one."""
        trial = self.state.update(event)
        if event["event"] == "retry":
            self.write(_describe_retry(event, self.state.spec))
        if event["event"] == "leader":
            self.write(_describe_rescoring(event, self.state.spec))
        if event["event"] != "end":
            return
        state, best = self.state, self.state.best
        line = f"[{state.ends.total()}/{state.spec.search.trials}] trial {trial.number} {STATUS_WORDS[trial.status]}"
        line += f" after epoch {trial.epochs}: PGD {_percent(trial.best, 'pgd_accuracy')}"
        line += f", clean {_percent(trial.best, 'clean_accuracy')}  ({format_hyperparameters(trial.hyperparameters)})"
        line += f" {trial.reason}" if trial.reason else ""
        if best:
            line += f"; best so far: trial {best.number}, PGD {_percent(best.best, 'pgd_accuracy')}"
        self.write(line)


class LiveView:
    """View of a search that is redrawn in the terminal: bars, running trials, the leader and the baseline.

    Args:
        state: The search; each event updates it.
        console: The terminal.
    """

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
        """Update the state, which the next redraw shows; print a failure or a second judgement above the picture."""
        trial = self.state.update(event)
        if event["event"] == "retry":
            self.live.console.print(_describe_retry(event, self.state.spec))
        elif event["event"] == "leader":
            self.live.console.print(_describe_rescoring(event, self.state.spec))
        elif trial.status == "failed":
            self.live.console.print(f"trial {trial.number} failed: {trial.reason}")

    def render(self) -> RenderableType:
        """Return the picture as the search is now."""
        return Group(self._render_bars(), Text(), self._render_running(), Text(), self._render_leaders())

    def _render_bars(self) -> RenderableType:
        state, spec = self.state, self.state.spec
        now = time.time()
        left = state.seconds_left(now)
        ends = ", ".join(
            f"{state.ends[status]} {words}" for status, words in STATUS_WORDS.items() if state.ends[status]
        )
        elapsed = f"{format_duration(now - state.started)} so far" + (
            f", about {format_duration(left)} left" if left else ""
        )
        bars = Table.grid(padding=(0, 1))
        bars.add_row(
            "trials", ProgressBar(spec.search.trials, state.ends.total(), width=30), f"{state.ends.total()} of "
            f"{spec.search.trials}", Text(ends, style="dim")
        )  # fmt: skip
        most = spec.search.trials * spec.max_epochs
        bar = ProgressBar(most, state.epochs, width=30)
        bars.add_row("epochs", bar, f"{state.epochs} of at most {most}", Text(elapsed, style="dim"))
        return bars

    def _render_running(self) -> RenderableType:
        spec = self.state.spec
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("trial", "epoch", "PGD", "best", "clean", *spec.space, "pid"):
            table.add_column(title, justify="right", no_wrap=True)
        for trial in self.state.running:
            values = [format_value(trial.hyperparameters.get(key)) for key in spec.space]
            accuracies = [
                _percent(trial.last, name) for name in ("pgd_accuracy", "pgd_accuracy_best", "clean_accuracy")
            ]
            pid = str(trial.last["pid"]) if trial.last else "–"  # by which its actor is found in Ray's dashboard
            table.add_row(str(trial.number), str(trial.epochs or "–"), *accuracies, *values, pid)
        return table if self.state.running else Text("waiting for the first trial", style="dim")

    def _render_leaders(self) -> RenderableType:
        best, baseline = self.state.best, self.state.baseline
        table = Table.grid(padding=(0, 2))
        for title, trial in (("best so far", best), ("start_from", baseline)):
            if trial and trial.last:
                table.add_row(
                    title,
                    f"trial {trial.number}",
                    f"PGD {_percent(trial.best, 'pgd_accuracy')}",
                    f"clean {_percent(trial.best, 'clean_accuracy')}",
                    Text(format_hyperparameters(trial.hyperparameters), style="dim"),
                )
        return table


def _percent(event: Event | None, name: str) -> str:
    """Return an accuracy of an epoch's event as a percentage; a dash without an event."""
    return format_percent(None if event is None else event[name])


def _describe_retry(event: Event, spec: SearchSpec) -> str:
    """Return the line of a failure after which the trial goes on."""
    attempt = f"{event['attempt']} of {spec.search.retries}"
    return f"trial {event['trial']} failed and goes on from its last checkpoint ({attempt}): {event['reason']}"


def _describe_rescoring(event: Event, spec: SearchSpec) -> str:
    """Return the line of a leader that was judged again, on images that the search had not looked at."""
    accuracy = format_percent(event["pgd_accuracy"], event["pgd_accuracy_se"])
    images = f"{event['examples']:,} fresh validation images"
    return f"trial {event['trial']} judged again: {accuracy} by {spec.rescoring} on {images}"
