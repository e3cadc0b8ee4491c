"""Scripted searches that trackers follow: trials of every end, and a search that is killed and resumed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_backend import KilledError, Script, run_scripted
from tune_cure.search.journal import Event, Journal
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers.tracking import Tracker

LAST_SENT = 12  # what came after so many events was not sent when the process was killed


def scripts(proposal: Proposal) -> Script:
    """Return a trial that diverges, one that fails, or one that comes to its end."""
    if proposal.number == 1:
        return Script([0.3, 0.35], ends={2: "diverged"})
    if proposal.number == 2:
        return Script([0.3], failures={2: ["out of luck"] * 3})
    return Script([min(0.95, 0.1 * proposal.number + 0.1 * epoch) for epoch in range(1, 5)])


def run_killed_and_resumed(
    spec: SearchSpec,
    folder: Path,
    make: Callable[[Sequence[Event]], Tracker],
    after_kill: Callable[[Any], object] = lambda tracker: None,
) -> Tracker:
    """Run a search whose process is killed in a trial's second epoch and that is resumed to its end.

    Args:
        spec: The search.
        folder: Its folder.
        make: Makes the tracker of a session, given the events before it.
        after_kill: What becomes of the first session's tracker.

    Returns:
        The tracker of the second session, which has all events and is not finished.
    """
    killed, sent = make([]), 0

    def send(event: Event) -> None:
        nonlocal sent
        sent += 1
        if sent <= LAST_SENT:
            killed.on_event(event)

    with pytest.raises(KilledError):
        run_scripted(
            spec,
            folder,
            scripts,
            on_event=send,
            kill_at=lambda event: event["event"] == "epoch" and (event["trial"], event["epoch"]) == (3, 2),
        )
    assert sent > LAST_SENT
    after_kill(killed)
    resumed = make(Journal(folder).read())
    run_scripted(spec, folder, scripts, resume=True, on_event=resumed.on_event)
    return resumed
