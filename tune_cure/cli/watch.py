"""The command `watch`: shows a search that another process runs, from its folder alone, and writes nothing there."""

import argparse
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.options import EXIT_MORE_TO_DO, UsageError
from tune_cure.cli.search import SearchOptions, ended_early
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.live_view import LiveView, PlainView
from tune_cure.league.folder import League, is_league
from tune_cure.search import patience, results, run_files
from tune_cure.search.journal import SEARCH_EVENTS, Event, JournalFollower
from tune_cure.search.patience import Patience
from tune_cure.search.progress import SearchState
from tune_cure.utils import environment, locking
from tune_cure.utils.formatting import format_count, join_words, quote_path
from tune_cure.utils.registry import did_you_mean

SECONDS = 0.5  # between two looks at the folder
RESUME_LOOKS = 20  # at a search that is not running when the watching begins: it may be about to be resumed


@dataclass(frozen=True)
class WatchOptions:
    """Command line of `watch`.

    Attributes:
        directory: The run's folder; it may not exist yet. None is the newest run.
    """

    directory: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Shows a search that runs in another terminal, from its folder alone. Ctrl-C ends the view, not the search."
    )
    command_line.add_folder(parser)


def read_options(parsed: argparse.Namespace) -> WatchOptions:
    """Return a parsed command line as options."""
    return command_line.read(WatchOptions, parsed)


def run(options: WatchOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    directory = command_line.find_folder(options.directory, console.print)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: is no folder")
    try:
        _refuse_league(directory)
        if not is_begun(directory):
            console.print(f"{_describe_waiting(directory)}; Ctrl-C ends this")
        while not is_begun(directory):
            time.sleep(SECONDS)
            _refuse_league(directory)
        state = follow(
            directory,
            lambda state: LiveView(state, console) if console.is_terminal else PlainView(state, console.print),
        )
    except KeyboardInterrupt:  # ends the watching, not the search
        return 0
    return _conclude(directory, state, console)


def _conclude(directory: Path, state: SearchState, console: Console) -> int:
    """Print how the search ended and how to continue it, and return the exit code."""
    for line in state.describe_stopping():
        console.print(line)
    ended, planned = state.ends.total(), state.num_planned
    result = results.SearchResult(directory)
    is_over = patience.is_search_over(result)
    if is_over and patience.has_judged_leaders(result):
        page = directory / run_files.REPORT
        report_command = f"{command_line.program()} report {quote_path(directory)}"
        report = f"the report: {page}" if page.exists() else f"{report_command} writes the report"
        if ended >= planned:
            console.print(f"all {ended} trials have ended; {report}")
        elif state.budget.is_spent:
            console.print(f"{format_count(ended, 'trial')} have spent {state.budget.words}; {report}")
        else:
            early = ended_early(patience.replay_patience(result).words)
            console.print(f"{ended} of {planned} trials have ended; {report}\n{early}")
        return 0
    command = SearchOptions(space="").resume_command(directory, str(directory))
    is_known = not is_over or is_dead(directory)  # elsewhere, `watch` cannot see whether the search runs
    stopped = "the search is not running any more" if is_known else "no process of this machine runs the search"
    left = ", but not all leaders are judged again" if is_over else ""
    alert(
        console,
        f"{state.paused or stopped}; {ended} of {planned} trials have ended{left}. Continue it with:\n  {command}",
    )
    return EXIT_MORE_TO_DO if state.paused else 1


def _describe_waiting(directory: Path) -> str:
    """Return for what search in `directory` is waited, and which other one may be meant.

    Raises:
        ResultsError: The folder holds no search itself, but other searches.
    """
    if not directory.exists():
        others = [run.name for run in run_files.find_runs(directory.parent)]
        hint = did_you_mean(directory.name, others)
        return f"waiting for a search in {directory}, which is not there yet{results.beside(directory)}{hint}"
    if run_files.find_runs(directory):
        results.read_spec(directory)
    return f"waiting for a search in {directory}"


def _refuse_league(directory: Path) -> None:
    """Refuse the folder of a league: searches run in the folders of its methods only.

    Raises:
        UsageError: It holds a league.
    """
    if is_league(directory):
        league = League.read(directory)
        searches = join_words((str(league.run_folder(name)) for name in league.methods), "or")
        raise UsageError(f"{directory}: holds a league; watch one of its searches: {searches}")


def is_begun(directory: Path) -> bool:
    """Return whether a search has begun in `directory`."""
    return (directory / run_files.SPEC).is_file() and (directory / run_files.JOURNAL).is_file()


def is_dead(directory: Path) -> bool:
    """Return whether no process runs the search in `directory` any more.

    This is known on the machine that ran the search last; on any other machine the answer is False.
    """
    return environment.read(directory).last_host == platform.node() and locking.is_unlocked(directory)


def _restart(state: SearchState, events: list[Event]) -> Patience:
    """Rebuild `state`, and return a new patience, from these events alone."""
    state.restart(events)
    patience = Patience(state.spec)
    for event in events:
        patience.take(event)
    return patience


def follow(
    directory: Path,
    view: Callable[[SearchState], AbstractContextManager[LiveView | PlainView]],
    pause: Callable[[float], None] = time.sleep,
) -> SearchState:
    """Show the search in `directory` until all its trials have ended or no process runs it any more.

    Once the search's patience is used up, no new trial begins: then the trials that have begun are all there are. A
    search that is not running at first is given some seconds to be resumed, and one whose trials have ended while a
    process still runs it is waited for: it judges its leaders, or is resumed with more trials.

    Args:
        directory: The run's folder.
        view: Makes the view that shows the search.
        pause: Waits for a number of seconds.

    Returns:
        The state of the search at the end.
    """
    tail = JournalFollower(directory / run_files.JOURNAL)
    state = SearchState(results.read_spec(directory))
    written, looks_left = 0.0, RESUME_LOOKS
    with view(state) as shown:
        while True:
            # A search writes its spec anew when it begins or resumes, perhaps with more trials or other rungs: its
            # clock starts then, and all events so far are read by these settings.
            changed = (directory / run_files.SPEC).stat().st_mtime
            if changed != written:
                state.spec, state.started, written = results.read_spec(directory), changed, changed
                patience = _restart(state, tail.reread())
            dead = is_dead(directory)  # asked first, so that the last lines are read after the process has ended
            for event in tail.read():
                if event["event"] in SEARCH_EVENTS:
                    state.paused = event["reason"] if event["event"] == "pause" else ""
                    if event.get("restart"):
                        patience = _restart(state, tail.reread())
                else:
                    shown.on_event(event)
                    patience.take(event)
            is_spent = patience.is_used_up and not state.running
            if is_spent or state.has_all:
                if not locking.is_locked(directory):
                    return state
            elif not dead:
                looks_left = 0
            elif not looks_left:
                return state
            else:
                if looks_left == RESUME_LOOKS:
                    shown.say(f"the search is not running; waiting {RESUME_LOOKS * SECONDS:g} s for it to be resumed")
                looks_left -= 1
            pause(SECONDS)
