"""Output of `confirm`: the plan, the progress of its jobs, and the results."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.confirmation.candidates import Candidate
from tune_cure.confirmation.plan import Job, Plan
from tune_cure.confirmation.verdicts import Confirmation, warn_of_few_seeds
from tune_cure.data.splits import Splits
from tune_cure.evaluation.names import ATTACK_LABELS, COMPARED_ATTACKS
from tune_cure.ray_backend.resources import measure_epoch_seconds, plan_resources, this_machine
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_radius,
    join_words,
)


def print_plan(
    spec: SearchSpec, candidates: list[Candidate], plan: Plan, splits: Splits, jobs: list[Job], console: Console
) -> None:
    """Print what is retrained and judged, what of it is done already, and how long the training takes here."""
    table = Table.grid(padding=(0, 2))
    for candidate in candidates:
        table.add_row(candidate.name, candidate.kind, f"{candidate.config.epochs} epochs", candidate.description)
    console.print(table)
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} {join_words(map(str, plan.seeds))}"
    radii = join_words(format_radius(epsilon, spec.evaluation.norm) for epsilon in plan.epsilons)
    console.print(
        f"each with {seeds}, on {plan.train_images:,} training images; judged on "
        f"{plan.examples:,} test images at {radii}, "
        f"{'by PGD-50-10 and AutoAttack' if plan.autoattack else 'by PGD-50-10'}"
    )
    left = [job for job in jobs if not job.is_done]
    if len(left) < len(jobs):
        console.print(f"{len(jobs) - len(left)} of {format_count(len(jobs), 'run')} are done already")
    devices = plan_resources(spec, [this_machine()])
    if left and not devices.gpus_per_trial:
        epoch = measure_epoch_seconds(spec, splits) * plan.train_images / len(splits.train)
        epochs = sum(job.candidate.config.epochs for job in left)
        seconds = epoch * epochs / devices.concurrent
        console.print(f"training takes about {format_duration(seconds)} here (measured); judging comes on top of it")


class JobLines:
    """Progress of the jobs: a line when one begins to train, is judged by an attack, fails or is done.

    Args:
        total: The number of jobs.
        say: Prints a line.
    """

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.say, self.total, self.done = say, total, 0

    def on_ready(self, devices: object) -> None:
        """Say the devices, once Ray is up."""
        self.say(str(devices))

    def on_status(self, job: Job, status: dict[str, Any]) -> None:
        """Say a job's new status."""
        name = f"{job.candidate.name}, seed {job.seed}"
        match status["stage"]:
            case "training" if status["epoch"] == 0:
                self.say(f"{name}: trains {status['epochs']} epochs")
            case "judging" if "accuracy" in status:
                at = format_radius(status["epsilon"], job.evaluation.norm)
                self.say(f"{name}: {status['attack']} {format_percent(status['accuracy'])} at {at}")
            case "failed":
                self.say(f"{name}: failed: {status['reason']}")
            case "done":
                self.done += 1
                self.say(f"[{self.done}/{self.total}] {name}: done")


def print_results(confirmation: Confirmation, spec: SearchSpec, console: Console) -> None:
    """Print the table of means, the verdicts and the warnings."""
    means, comparisons = confirmation.means(), confirmation.comparisons()
    if means.empty:
        console.print("no run came to an end", style="bold")
        return
    shown = [name for name in COMPARED_ATTACKS if means[name].notna().any()]
    for epsilon, group in means.groupby("epsilon", sort=False):
        console.print(
            f"\non the test set at {format_radius(float(str(epsilon)), spec.evaluation.norm)}\n", style="bold"
        )
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for title in ("", "seeds", *(word for name in shown for word in (ATTACK_LABELS[name], "±"))):
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for _, row in group.iterrows():
            table.add_row(row["contender"], str(row["seeds"]), *(cell for name in shown for cell in _cells(row, name)))
        console.print(table)
    console.print("±: standard deviation over the seeds", style="dim")
    console.print()
    for _, row in comparisons.iterrows():
        console.print(describe_verdict(row, spec))
    console.print(
        "better and worse hold at 5% for all pairs of a column together (Holm 1979); an interval is that of its pair "
        "alone",
        style="dim",
    )
    for warning in warn_of_few_seeds(comparisons):
        console.print(warning, style="bold")
    for epsilon, warning in confirmation.masking_warnings():
        console.print(f"\nwarning, at {format_radius(epsilon, spec.evaluation.norm)}: {warning}", style="bold")


def _cells(row: "pd.Series[Any]", name: str) -> tuple[str, str]:
    deviation = row[f"{name}_sd"]
    return format_percent(row[name], unit=""), "" if pd.isna(deviation) else format_percent(deviation, unit="")


def describe_verdict(row: "pd.Series[Any]", spec: SearchSpec) -> str:
    """Return a row of `Confirmation.comparisons` as a sentence."""
    at = "" if row["metric"] == "clean" else f" at {format_radius(row['epsilon'], spec.evaluation.norm)}"
    return (
        f"{row['first']} against {row['second']}, {ATTACK_LABELS[row['metric']]}{at}: {row['verdict']} "
        f"({format_points(row['difference'])} points, 95% interval {format_points(row['low'])} to "
        f"{format_points(row['high'])})"
    )
