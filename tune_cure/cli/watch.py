"""A search that another process runs, seen from its folder alone; nothing there is written."""

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tune_cure.cli.live_view import LiveView, PlainView, SearchState
from tune_cure.search import results, run_files
from tune_cure.search.journal import SEARCH_EVENTS, JournalFollower
from tune_cure.search.patience import Patience
from tune_cure.utils import environment, locking

SECONDS = 0.5  # between two looks at the folder


def is_begun(directory: Path) -> bool:
    """Whether there is a search in `directory` already."""
    return (directory / run_files.SPEC).is_file() and (directory / run_files.JOURNAL).is_file()


def is_dead(directory: Path) -> bool:
    """Whether no process runs the search in `directory` any more.

    That is known only on the machine that ran it last; False elsewhere.
    """
    return environment.last_host(directory) == platform.node() and locking.is_unlocked(directory)


def follow(
    directory: Path,
    view: Callable[[SearchState], AbstractContextManager[LiveView | PlainView]],
    pause: Callable[[float], None] = time.sleep,
) -> SearchState:
    """Shows the search in `directory` until all its trials have ended, or nobody runs it any more.

    All its trials are those that were begun, where its patience is used up.

    Args:
        directory: The run's folder.
        view: What to show it with.
        pause: Waits so many seconds.

    Returns:
        The search as it then is.
    """
    tail = JournalFollower(directory / run_files.JOURNAL)
    state = SearchState(results.read_spec(directory))
    patience = Patience(state.spec)
    written = 0.0
    with view(state) as shown:
        while True:
            # A search that is begun or resumed writes its spec anew, perhaps with more trials: then its clock starts.
            changed = (directory / run_files.SPEC).stat().st_mtime
            if changed != written:
                state.spec, state.started, written = results.read_spec(directory), changed, changed
                state.epochs_now, patience.spec = 0, state.spec
            dead = is_dead(directory)  # before its last lines are read
            for event in tail.read():
                if event["event"] not in SEARCH_EVENTS:
                    shown.on_event(event)
                    patience.take(event)
            is_spent = patience.is_used_up and not state.running
            if dead or is_spent or state.ends.total() >= state.spec.search.trials:
                return state
            pause(SECONDS)
