"""Lines of a journal with all that a reader asks of them; what a test does not give is made up."""

from typing import Any

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search.journal import Event, Journal
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import rescoring_attack

VALUES = {"lambda": 0.5, "h": 1.0, "lr_max": 0.02, "epsilon": 0.1}


def begin(journal: Journal, number: int, *, origin: str = "sampler", **values: Any) -> Event:
    return journal.append("trial", number, origin=origin, hyperparameters={**VALUES, **values})


def epoch(journal: Journal, number: int, **metrics: Any) -> Event:
    made_up = {"epoch": 1, "skipped_steps": 0, "objective": 0.0, "ended": "", "host": "here", "pid": 1}
    return journal.append("epoch", number, **{**dict.fromkeys(EPOCH_METRICS), **made_up, **metrics})


def end(journal: Journal, number: int, status: str = "completed", reason: str = "") -> Event:
    return journal.append("end", number, status=status, reason=reason)


def write_ended_trial(journal: Journal, number: int = 0) -> None:
    """Write a trial of one epoch that ran to its end."""
    accuracies = {"clean_accuracy": 0.9, "pgd_accuracy": 0.5, "pgd_accuracy_best": 0.5, "objective": 0.5}
    begin(journal, number)
    epoch(journal, number, ended="completed", **accuracies)
    end(journal, number)


def judge_leader(journal: Journal, spec: SearchSpec, number: int = 0) -> Event:
    """Write the second judgement of a trial's first epoch."""
    accuracies = {"clean_accuracy": 0.9, "clean_accuracy_se": 0.0, "pgd_accuracy": 0.4, "pgd_accuracy_se": 0.0}
    return journal.append("leader", number, epoch=1, examples=40, attack=rescoring_attack(spec), **accuracies)
