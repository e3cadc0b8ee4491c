"""Views of a search that runs: redrawn in place in a terminal, or plain lines for logs and pipes."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from tune_cure.cli.views.live_picture import Picture, RedrawnPicture, percent
from tune_cure.search.journal import Event
from tune_cure.search.progress import SearchState, TrialState
from tune_cure.search.schedulers.control_group import describe_warning
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import STATUS_WORDS, format_hyperparameters, format_percent, spell_out

ACCURACIES = {"PGD": "pgd_accuracy", "clean": "clean_accuracy"}
CLEAR = "\x1b[H\x1b[2J"  # moves the cursor to the top left, and erases the screen


class RungWarnings:
    """Warnings of rungs that turn out to be no better than chance, each given once."""

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self._given: set[str] = set()

    def after(self, event: Event) -> list[str]:
        """Return the new warnings after an event; only the end of a trial can bring one."""
        if event["event"] != "end":
            return []
        found = (describe_warning(self.state.spec, rung) for rung in self.state.rungs)
        new = [warning for warning in found if warning and warning not in self._given]
        self._given.update(new)
        return new


class PlainView:
    """View of a search as lines: one for each trial that ends, fails and goes on, or is judged again.

    With a control group, lines on early stopping follow the end of a trial that changes what is known of it.

    Args:
        state: The search; each event updates it.
        write: Prints a line.
    """

    def __init__(self, state: SearchState, write: Callable[[str], None]) -> None:
        self.state, self.write, self.warnings = state, write, RungWarnings(state)
        self._known = state.known_of_stopping

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def say(self, line: str) -> None:
        """Write a line that is of no event."""
        self.write(line)

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
        line = f"[{state.progress}] trial {trial.number} {STATUS_WORDS[trial.status]}"
        line += f" after epoch {trial.epochs}: PGD {percent(trial.best, 'pgd_accuracy')}"
        line += f", clean {percent(trial.best, 'clean_accuracy')}  ({format_hyperparameters(trial.hyperparameters)})"
        line += f" {trial.reason}" if trial.reason else ""
        if best:
            line += f"; best so far: trial {best.number}, PGD {percent(best.best, 'pgd_accuracy')}"
        self.write(line)
        if (known := state.known_of_stopping) != self._known:
            self._known = known
            for line in state.describe_stopping():
                self.write(line)
        for warning in self.warnings.after(event):
            self.write(warning)


class RedrawnView:
    """View that is redrawn in the terminal, below the lines that are printed while it is shown.

    Args:
        picture: What is redrawn.
        console: The terminal.
        lines: What the command has printed before, line by line; printed again when the terminal changes its size.
    """

    def __init__(self, picture: RedrawnPicture, console: Console, lines: Iterable[str] = ()) -> None:
        self.console, self.picture = console, picture
        self.lines = list(lines)
        self._size, self._is_resized = console.size, False
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        """Print a line above the picture."""
        self.lines.append(line)
        self.console.print(line, soft_wrap=False)

    def render(self) -> RenderableType:
        """Return the picture as the search is now."""
        if self.console.size != self._size:
            size, self._size = self._size, self.console.size
            if self.console.is_terminal:
                self._clear(min(self.picture.height, size.height))
        return self.picture

    def _clear(self, height: int) -> None:
        """Clear a terminal that has changed its size, and print the last lines again.

        A narrower terminal shows a line of the old picture in several rows, and how many redraws that has spoilt is not
        known, so that nothing less is safe. What was on the screen before the first change is scrolled out first, and
        so kept.

        Args:
            height: Lines of the old picture. The cursor is left so many lines further down, from where rich goes back.
        """
        width, rows = self.console.size
        lines = [part.plain for line in self.lines for part in Text(spell_out(line)).wrap(self.console, width)]
        scroll = "" if self._is_resized else "\n" * rows
        self._is_resized = True
        shown = lines[-max(rows - height - 1, 0) :] if rows > height + 1 else []
        below = "\n" * max(height - 1, 0)
        self.console.file.write(scroll + CLEAR + "".join(f"{line}\n" for line in shown) + below)


class LiveView(RedrawnView):
    """View of a search that is redrawn in the terminal: bars, running trials, the leader and the baseline.

    Args:
        state: The search; each event updates it.
        console: The terminal.
        lines: As of `RedrawnView`.
    """

    def __init__(self, state: SearchState, console: Console, lines: Iterable[str] = ()) -> None:
        super().__init__(Picture(state), console, lines)
        self.state, self.warnings = state, RungWarnings(state)

    def on_event(self, event: Event) -> None:
        """Update the state, which the next redraw shows; print failures, second judgements and warnings above it."""
        trial = self.state.update(event)
        if line := describe_event(event, trial, self.state.spec):
            self.say(line)
        for warning in self.warnings.after(event):
            self.say(warning)


def describe_event(event: Event, trial: TrialState, spec: SearchSpec) -> str:
    """Return the line of a failure or of a second judgement, to be printed above a picture; empty for other events."""
    if event["event"] == "retry":
        return _describe_retry(event, spec)
    if event["event"] == "leader":
        return _describe_rescoring(event, spec)
    return f"trial {trial.number} failed: {trial.reason}" if trial.status == "failed" else ""


def describe_best(state: SearchState) -> str:
    """Return which trial leads, with its accuracies; empty before the first one is judged."""
    if (trial := state.best) is None:
        return ""
    accuracies = [f"{title} {percent(trial.best, name)}" for title, name in ACCURACIES.items()]
    return f"best so far: trial {trial.number}, {', '.join(accuracies)}"


def _describe_retry(event: Event, spec: SearchSpec) -> str:
    """Return the line of a failure after which the trial goes on."""
    attempt = f"{event['attempt']} of {spec.search.retries}"
    return f"trial {event['trial']} failed and goes on from its last checkpoint ({attempt}): {event['reason']}"


def _describe_rescoring(event: Event, spec: SearchSpec) -> str:
    """Return the line of a leader that was judged again, on images that the search had not looked at."""
    accuracy = format_percent(event["pgd_accuracy"], event["pgd_accuracy_se"])
    images = f"{event['examples']:,} fresh validation images"
    return f"trial {event['trial']} judged again: {accuracy} by {spec.rescoring} on {images}"
