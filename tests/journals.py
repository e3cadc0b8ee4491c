"""Journals of searches that were never run, for tests of what is made from them."""

from pathlib import Path

from tests.spaces import tiny
from tune_cure.journal import Journal
from tune_cure.training import EPOCH_METRICS

VALUES = {"lambda": 0.5, "h": 1.0, "lr_max": 0.02, "epsilon": 0.1}


def epoch(journal: Journal, trial: int, number: int, pgd: float | None, best: float, **more: object) -> None:
    """Writes an epoch's line; the clean accuracy is half of the way from the PGD accuracy to 1."""
    metrics = dict.fromkeys(EPOCH_METRICS) | {"epoch": number, "train_seconds": 2.0, "eval_seconds": 0.5}
    metrics |= {"skipped_steps": 1, "pgd_accuracy_best": best, "catastrophic_overfitting": False}
    if pgd is not None:
        metrics |= {"pgd_accuracy": pgd, "clean_accuracy": (1 + pgd) / 2, "fgsm_accuracy": pgd, "curvature": 0.1}
    journal.append("epoch", trial, **{"ended": "", **metrics, **more}, objective=best, host="a", pid=1)


def write_run(directory: Path) -> None:
    """Trial 0 (start_from) completed at 0.3; 1 peaked at 0.5, then stopped; 2 overfitted at 0.8; 3 diverged; 4 runs."""
    tiny(directory)
    journal = Journal(directory)
    for number in range(5):
        origin = "sampler" if number else "start_from"
        journal.append("trial", number, origin=origin, hyperparameters={**VALUES, "lambda": 0.5 + number / 10})
    epoch(journal, 0, 1, 0.3, 0.3)
    epoch(journal, 1, 1, 0.5, 0.5)
    epoch(journal, 1, 2, 0.4, 0.5)
    epoch(journal, 1, 2, 0.4, 0.5)  # a crash made it run twice
    epoch(journal, 2, 1, 0.8, 0.8)
    epoch(journal, 2, 2, 0.0, 0.8, catastrophic_overfitting=True)
    epoch(journal, 3, 1, None, 0.0)
    for number, status in enumerate(("completed", "stopped", "catastrophic_overfitting", "diverged")):
        journal.append("end", number, status=status, reason="")
