"""Output of `train`: the plan, a line for each epoch, and the accuracies on the test set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tune_cure.cli.views.console import alert
from tune_cure.evaluation.names import ACCURACY_LABELS
from tune_cure.training.config import HYPERPARAMETERS, TrainingConfig, config_class
from tune_cure.training.run import Run, RunSpec
from tune_cure.utils.formatting import format_duration, format_hyperparameters, format_percent, format_radius

STATISTICS_LAG = 0.2
"""Largest sound lag of clean validation accuracy behind adversarial training accuracy, which is harder to reach."""

MAX_RADIUS_GAP = 0.5
"""Largest difference between the radii of training and evaluation that is not pointed out, as a share of the latter."""


def say_plan(run: Run, say: Callable[[str], None]) -> None:
    """Say what is trained on what, how it is judged, and which hyperparameters are not at their defaults."""
    spec, splits = run.spec, run.trainer.splits
    device = run.trainer.device
    attack = spec.training.attack
    against = "" if attack == "none" else f" by {attack} at {format_radius(spec.training.epsilon, spec.training.norm)}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    say(
        f"{spec.model.name} on {spec.data.dataset}: {len(splits.train):,} images to train on{against}, judged by "
        f"{spec.evaluation} on {len(run.trainer.judged_on):,} validation images; {where}; results in {run.directory}"
    )
    if warning := describe_other_ball(spec):
        say(warning)
    fields = config_class().model_fields
    changed = {
        name: getattr(spec.training, field)
        for name, field in HYPERPARAMETERS.items()
        if getattr(spec.training, field) != fields[field].default
    }
    say(f"hyperparameters that are not at their defaults: {format_hyperparameters(changed) or 'none'}")


def describe_other_ball(spec: RunSpec) -> str:
    """Return a warning where a run trains in another ball than it is judged in; empty where both are alike."""
    training, judged = spec.training, spec.evaluation
    if training.attack == "none":
        return ""
    if training.norm != judged.norm:
        return f"trains in {training.norm}, but is judged in {judged.norm}: set evaluation.norm?"
    if is_alike(training.epsilon, judged.epsilon):
        return ""
    radii = [format_radius(epsilon, training.norm) for epsilon in (training.epsilon, judged.epsilon)]
    return f"trains at {radii[0]}, but is judged at {radii[1]}: --set evaluation.epsilon={training.epsilon:.4g}?"


def is_alike(trained: float, judged: float) -> bool:
    """Return whether a radius of training is near enough to that of the evaluation not to be pointed out."""
    return abs(trained - judged) <= MAX_RADIUS_GAP * judged


def train_epochs(run: Run, say: Callable[[str], None], console: Console | None = None) -> None:
    """Train the epochs that are left; say a line for each, and what it warns of.

    Args:
        run: The run.
        say: Prints a line.
        console: Where a bar shows the progress of an epoch, and warnings are printed; None shows no bar.
    """
    total, is_advised = run.spec.training.epochs, False
    warn = partial(alert, console) if console else say
    while not run.finished:
        with _progress_bar(run, console) as on_step:
            row = run.train_epoch(on_step)
        say(_epoch_line(row, total, is_best=run.trainer.best_epoch == run.trainer.epoch))
        if row["diverged"]:
            warn("diverged: the loss became NaN or infinite; a lower lr_max or lambda may help")
        elif row["catastrophic_overfitting"]:
            warn("catastrophic overfitting: the network withstands single steps, but not many small ones")
        elif not is_advised and _lags(row, run.spec.training):
            is_advised = True
            warn(
                f"adversarial training images are classified better ({row['train_adversarial_accuracy']:.0%}) than "
                f"clean validation images ({row['clean_accuracy']:.0%}): batch norm's running statistics may lag "
                "behind; --penalty-statistics batch, or a lower lambda or lr_max, may help"
            )


def say_test(frame: pd.DataFrame, run: Run, say: Callable[[str], None]) -> None:
    """Say the accuracies of `Run.evaluate_on_test`."""
    say(f"on all {frame['examples'].iloc[0]:,} test images, by {run.spec.evaluation}:")
    for _, row in frame.iterrows():
        say(
            f"  {row['weights']} (epoch {row['epoch']}): "
            f"clean {format_percent(row['clean_accuracy'], row['clean_accuracy_se'])}, "
            f"PGD {format_percent(row['pgd_accuracy'], row['pgd_accuracy_se'])}"
        )


def _lags(row: dict[str, Any], config: TrainingConfig) -> bool:
    """Return whether the network is far worse when evaluated than when trained, and the penalty may be the cause.

    docs/correctness.md explains how the penalty makes batch norm's running statistics lag.
    """
    uses_running = config.lambda_ > 0 and config.regularizer != "none" and config.penalty_statistics == "running"
    return uses_running and bool(row["clean_accuracy"] < row["train_adversarial_accuracy"] - STATISTICS_LAG)


@contextmanager
def _progress_bar(run: Run, console: Console | None) -> Iterator[Callable[[int], None] | None]:
    """Show a bar that the steps of an epoch fill, and yield what to call after each step; None without a terminal."""
    if console is None or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        name = f"epoch {run.trainer.epoch + 1}/{run.spec.training.epochs}"
        task = progress.add_task(name, total=run.trainer.steps_per_epoch)

        def on_step(done: int) -> None:
            progress.update(task, completed=done)
            if done == run.trainer.steps_per_epoch:
                progress.update(task, description=f"{name}, judging")

        yield on_step


def _epoch_line(row: dict[str, Any], epochs: int, *, is_best: bool) -> str:
    """Return the line of an epoch."""
    start = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    if row["diverged"]:
        return f"{start}  loss not finite"
    accuracies = "  ".join(
        f"{label} {format_percent(row[name], row[f'{name}_se'])}" for name, label in ACCURACY_LABELS.items()
    )
    seconds = row["train_seconds"] + row["eval_seconds"]
    line = f"{start}  loss {row['train_loss']:.4f}  {accuracies}  {format_duration(seconds)}"
    return line + "  best so far" * is_best
