"""Journals of searches that were never run, for tests of what is made from them."""

import math
from pathlib import Path
from typing import Any

from tests.support.spaces import tiny
from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load

SPACE = """
name: digits-search
data: {dataset: digits, validation: 360}
model: small_cnn
training: {epochs: 12, batch_size: 64, lr_schedule: cyclic}
space:
  lambda:   {loguniform: [0.003, 10]}
  h:        {uniform: [0.1, 2.0]}
  lr_max:   {loguniform: [0.02, 0.5]}
  momentum: {choice: [0.0, 0.9]}
start_from: [{lambda: 10, h: 1, lr_max: 0.1, momentum: 0.9}]
evaluation: {epsilon: 0.15, examples: 360}
search: {trials: 24}
asha: {grace_period: 1, reduction_factor: 3}
"""
UNUSUAL_ENDS = {5: "catastrophic_overfitting", 9: "diverged", 13: "failed"}
BEST = 17
REASON = "RuntimeError: <script>alert('no')</script> & more"
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


def write_clean_search(directory: Path) -> SearchSpec:
    """Three trials, ranked by clean accuracy: 90% of trial 0, which has the lowest PGD accuracy, 10%."""
    spec = tiny(directory, "search={trials: 3, metric: clean_accuracy}", "training.epochs=1", "rescore.top=0")
    journal = Journal(directory)
    for number, (pgd, clean) in enumerate([(0.1, 0.9), (0.5, 0.6), (0.4, 0.7)]):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, pgd, clean, ended="completed", pgd_accuracy_best=pgd, clean_accuracy=clean)
        journal.append("end", number, status="completed", reason="")
    return spec


def write_search(
    directory: Path, num_trials: int = 24, *, num_unfinished: int = 0, judged: bool = True, stops: bool = True
) -> SearchSpec:
    """A search's folder as a run leaves it, its numbers made up; the best trial of 24 is `BEST`.

    Without `stops` no trial is stopped early.
    """
    space = directory / "space.yaml"
    space.write_text(SPACE)
    spec = load(space)
    (directory / run_files.SPEC).write_text(spec.to_yaml())
    journal = Journal(directory)
    journal.path.touch()
    for number in range(num_trials):
        finished = number < num_trials - num_unfinished
        write_trial(journal, spec, number, finished=finished, judged=judged, stops=stops)
    return spec


def write_trial(
    journal: Journal, spec: SearchSpec, number: int, *, finished: bool, judged: bool, stops: bool = True
) -> None:
    """Writes all lines of one trial of `write_search`."""
    at = [(number * 0.618 + 0.37 * axis) % 1 for axis in range(3)]  # evenly spread over the space
    lambda_, momentum = 0.003 * (10 / 0.003) ** at[0], 0.9 if number % 3 else 0.0
    proposed = {"lambda": lambda_, "h": 0.1 + 1.9 * at[1], "lr_max": 0.02 * 25 ** at[2], "momentum": momentum}
    is_start = number < len(spec.start_from)
    values = spec.start_from[number] if is_start else proposed
    clock = 1_760_000_000.0 + 30 * number
    journal.append("trial", number, time=clock, origin="start_from" if is_start else "sampler", hyperparameters=values)
    ended = UNUSUAL_ENDS.get(number, "completed" if not stops or number in (0, 2, 7, BEST, 20) else "stopped")
    last = {"stopped": 1 if number % 3 else 3, "catastrophic_overfitting": 6, "diverged": 3, "failed": 2}.get(ended, 12)
    level = 0.45 + 0.01 * (number % 7) + 0.2 * (number == BEST) - 0.15 * (ended == "stopped")
    best = None
    for epoch in range(1, last + (0 if not finished and last > 1 else 1)):
        failed = not judged or (ended == "diverged" and epoch == last)
        collapsed = ended == "catastrophic_overfitting" and epoch == last
        pgd = 0.01 if collapsed else level * (1 - math.exp(-epoch / 3)) + 0.01 * math.sin(epoch + number)
        pgd = round(360 * pgd) / 360
        best = best if failed else max(best or 0.0, pgd)
        metrics: dict[str, Any] = dict.fromkeys(EPOCH_METRICS)
        metrics |= {
            "epoch": epoch,
            "train_seconds": 0.5,
            "attack_seconds": 0.1,
            "penalty_seconds": 0.2,
            "eval_seconds": 0.1,
            "skipped_steps": 0,
        }
        metrics |= {"catastrophic_overfitting": collapsed, "pgd_accuracy_best": best}
        if not failed:
            metrics |= {
                "pgd_accuracy": pgd,
                "clean_accuracy": min(pgd + 0.3 - 0.1 * at[0], 1),
                "fgsm_accuracy": pgd + 0.05,
                "curvature": 0.1 + at[1],
            }
        ended_now = ended if finished and epoch == last else ""
        clock += 10
        journal.append(
            "epoch", number, time=clock, **metrics, objective=best or 0.0, ended=ended_now, host="here", pid=1
        )
        journal.append("checkpoint", number, time=clock, epoch=epoch, path=f"trials/{number}/{epoch}")
    if finished:
        journal.append("end", number, time=clock, status=ended, reason=REASON if ended == "failed" else "")
