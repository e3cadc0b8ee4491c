"""Searches of a few epochs that were never run, for tests of comparisons."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.support.journals import VALUES, epoch
from tests.support.spaces import tiny
from tune_cure.confirmation.searches import comparison
from tune_cure.confirmation.searches.comparison import Searches
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult

Line = tuple[int, int, float]  # trial, epoch, PGD accuracy
EPOCH_HOURS = 2.5 / 3600  # of tests.support.journals.epoch


def write_epochs(
    folder: Path,
    lines: Iterable[Line],
    *overrides: str,
    statuses: dict[int, str] | None = None,
    again: dict[int, float] | None = None,
    unfinished: Sequence[int] = (),
    **values: Any,
) -> SearchResult:
    """Write a search whose epochs come in the order of `lines`; `again` has the second judgements of its leaders."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(lines)
    trials = sorted({trial for trial, _, _ in lines})
    spec = tiny(folder, f"search.trials={max(len(trials), 1)}", *overrides)
    journal, best = Journal(folder), {}
    journal.path.touch()
    for trial in trials:
        origin = "sampler" if trial else "start_from"
        journal.append("trial", trial, time=0.0, origin=origin, hyperparameters={**VALUES, **values})
    for time, (trial, number, pgd) in enumerate(lines, 1):
        at = max(best.get(trial, (0.0, 0)), (pgd, number))
        best[trial] = at
        objective = at[0] if spec.search.metric == "pgd_accuracy_best" else pgd
        epoch(journal, trial, number, pgd, objective, time=float(time))
    for trial in trials:
        if trial not in unfinished:
            journal.append("end", trial, status=(statuses or {}).get(trial, "completed"), reason="")
    for trial, pgd in (again or {}).items():
        found = {"pgd_accuracy": pgd, "clean_accuracy": 0.9, "pgd_accuracy_se": math.sqrt(pgd * (1 - pgd) / 50)}
        journal.append("leader", trial, epoch=best[trial][1], examples=50, **found)
    return SearchResult(folder)


def one_trial(folder: Path, pgd: float, *overrides: str, **how: Any) -> SearchResult:
    """Write a search of one trial that trained for one epoch."""
    return write_epochs(folder, [(0, 1, pgd)], *overrides, **how)


def pair(first: SearchResult, second: SearchResult) -> Searches:
    """Return two searches by name, ready to be compared."""
    return comparison.name_searches([first, second])


CONFIRMED = """contender,norm,epsilon,examples,clean,pgd_50_10,autoattack
trial-0,linf,0.05,359,0.9,0.5,0.4
trial-0,linf,0.05,359,0.8,0.6,0.4
trial-0,linf,0.1,359,0.8,0.1,0.1
start_from,linf,0.05,359,0.1,0.1,0.1
"""


def pair_with_confirmation(tmp_path: Path, content: str) -> Searches:
    """Return two searches, the first with the text of a confirmation's table."""
    first = one_trial(tmp_path / "a", 0.4)
    file = first.directory / run_files.CONFIRMED
    file.parent.mkdir()
    file.write_text(content)
    return pair(first, one_trial(tmp_path / "b", 0.4))
