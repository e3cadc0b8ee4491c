"""Lines of a journal with all that a reader asks of them; what a test does not give is made up."""

from typing import Any

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search.journal import Event, Journal

VALUES = {"lambda": 0.5, "h": 1.0, "lr_max": 0.02, "epsilon": 0.1}


def begin(journal: Journal, number: int, *, origin: str = "sampler", **values: Any) -> Event:
    return journal.append("trial", number, origin=origin, hyperparameters={**VALUES, **values})


def epoch(journal: Journal, number: int, **metrics: Any) -> Event:
    made_up = {"epoch": 1, "skipped_steps": 0, "objective": 0.0, "ended": "", "host": "here", "pid": 1}
    return journal.append("epoch", number, **{**dict.fromkeys(EPOCH_METRICS), **made_up, **metrics})


def end(journal: Journal, number: int, status: str = "completed", reason: str = "") -> Event:
    return journal.append("end", number, status=status, reason=reason)
