"""Output of `confirm`: the plan, the progress of its jobs, and the results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.cli.views.console import alert
from tune_cure.confirmation.answers import answer, chance_warnings, divergence_warnings
from tune_cure.confirmation.cost import Cost, leave_out_done
from tune_cure.confirmation.plan import Job, Plan
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.search.results import SearchResult
from tune_cure.utils.formatting import (
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_radius,
    join_words,
    note_missing_seeds,
)


def print_plan(jobs: Sequence[Job], costs: Mapping[str, Cost], concurrent: int | None, console: Console) -> None:
    """Print what is retrained and judged, what of it is done already, and about how long the rest takes.

    Args:
        jobs: The jobs of the confirmation.
        costs: The cost of one run of each candidate, by its name; empty if it is not known.
        concurrent: The number of runs at a time; None if it is not known.
        console: Where to print.
    """
    plan, norm = jobs[0].plan, jobs[0].evaluation.norm
    table = Table.grid(padding=(0, 2))
    for candidate in {job.candidate.name: job.candidate for job in jobs}.values():
        cost = costs.get(candidate.name)
        takes = [f"{format_duration(cost.total)} a run"] if cost else []
        epochs = "as it is" if candidate.config is None else f"{candidate.config.epochs} epochs"
        table.add_row(candidate.name, candidate.kind, epochs, *takes, candidate.description)
    console.print(table)
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} {join_words(map(str, plan.seeds))}"
    radii = join_words(format_radius(epsilon, norm) for epsilon in plan.epsilons)
    if plan.held_out:
        console.print(
            f"{plan.held_out:,} images that the search has judged on are not trained on: they choose the best epoch, "
            "whose weights are judged beside the last ones"
        )
    console.print(
        f"each with {seeds}, on {plan.train_images:,} training images; judged on "
        f"{plan.examples:,} test images at {radii}, "
        f"{'by PGD-50-10 and AutoAttack' if plan.autoattack else 'by PGD-50-10'}"
    )
    left = [job for job in jobs if not job.is_done]
    if len(left) < len(jobs):
        console.print(f"{len(jobs) - len(left)} of {format_count(len(jobs), 'run')} are done already")
    if left and all(job.candidate.name in costs for job in left):
        advice = _shorten(plan) if any(job.candidate.kind == "leader" for job in jobs) else ""
        console.print(describe_time(left, costs, concurrent) + advice)


def explain_other_number(plan: Plan, searched: int | None) -> list[str]:
    """Return a line on a confirmation that trains on another number of images than the search did; else none.

    Args:
        plan: The settings of the confirmation.
        searched: The search's `data.train_examples`; None if it trained on all images.
    """
    if searched in (None, plan.train_images):
        return []
    return [
        f"the search trained on {searched:,} images, this trains on {plan.train_images:,}: hyperparameters may not "
        f"carry over; --train-images {searched} trains on as many as the search did"
    ]


def describe_time(left: Sequence[Job], costs: Mapping[str, Cost], concurrent: int | None) -> str:
    """Return how long the runs that are left take, from the cost of one run of each of their candidates.

    Args:
        left: The jobs that are not done.
        costs: The cost of one run of each of their candidates, by its name.
        concurrent: The number of runs at a time; None if it is not known.
    """
    cost = sum((leave_out_done(costs[job.candidate.name], job) for job in left), Cost(0, 0, 0))
    cost /= min(concurrent or 1, len(left))
    parts = {"training": cost.training, "PGD": cost.pgd, "AutoAttack": cost.autoattack}
    shares = join_words(f"{format_duration(seconds)} of {name}" for name, seconds in parts.items() if seconds)
    here = "of one device" if concurrent is None else "here"
    return f"about {format_duration(cost.total)} {here}, if it goes as fast as the search did: {shares}"


def _shorten(plan: Plan) -> str:
    """Return what makes a confirmation shorter, to be appended to its time; a league is confirmed as it was begun."""
    flags = "--seeds, --top 1, fewer --baselines, fewer --examples"
    return f". Less with fewer {flags}" + " or --no-autoattack" * plan.autoattack


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
        name = job.name
        match status["stage"]:
            case "waiting":
                self.say(f"{name}: waits until the GPU's memory is free")
            case "training" if status["epoch"] == 0:
                self.say(f"{name}: trains {status['epochs']} epochs")
            case "judging" if "accuracy" in status:
                at = format_radius(status["epsilon"], job.evaluation.norm)
                of = f"{name}, best weights" if status.get("weights") == "best" else name
                self.say(f"{of}: {status['attack']} {format_percent(status['accuracy'])} at {at}")
            case "failed":
                self.say(f"{name}: failed: {status['reason']}")
            case "done":
                self.done += 1
                self.say(f"[{self.done}/{self.total}] {name}: done")


def print_results(confirmation: Confirmation, result: SearchResult, console: Console) -> None:
    """Print whether the penalty helped, the table of means, the verdicts and the warnings."""
    means, comparisons, norm = confirmation.means(), confirmation.comparisons(), result.spec.evaluation.norm
    if means.empty:
        alert(console, "no run came to an end", style="bold")
        return
    for number, sentence in enumerate(answer(confirmation, result)):
        console.print(f"\n{sentence}" if number == 0 else sentence, style="bold" if number == 0 else None)
    labels = confirmation.attack_labels
    shown = [name for name in COMPARED_ATTACKS if means[name].notna().any()]
    for epsilon, group in means.groupby("epsilon", sort=False):
        console.print(f"\non the test set at {format_radius(float(str(epsilon)), norm)}\n", style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for title in ("", "seeds", *(word for name in shown for word in (labels[name], "±"))):
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for _, row in group.iterrows():
            table.add_row(row["contender"], str(row["seeds"]), *(cell for name in shown for cell in _cells(row, name)))
        console.print(table)
    console.print("±: standard deviation over the seeds", style="dim")
    if confirmation.autoattack:
        console.print(confirmation.autoattack, style="dim")
    _print_robust_overfitting(confirmation, console)
    console.print()
    for _, row in comparisons.iterrows():
        console.print(describe_verdict(row, norm, labels))
    console.print(describe_adjustment(confirmation), style="dim")
    warnings = [*confirmation.describe_seeds(comparisons)[1], *chance_warnings(confirmation)]
    for warning in warnings + divergence_warnings(confirmation):
        alert(console, warning, style="bold")
    for epsilon, warning in confirmation.masking_warnings():
        alert(console, f"\nwarning, at {format_radius(epsilon, norm)}: {warning}", style="bold")


def _print_robust_overfitting(confirmation: Confirmation, console: Console) -> None:
    """Print the accuracies of best and last weights beside each other, under the strongest attack at each radius."""
    rows = confirmation.robust_overfitting().drop_duplicates(["contender", "epsilon"])
    norm = confirmation.table["norm"].iloc[0]
    for (epsilon, metric), group in rows.groupby(["epsilon", "metric"], sort=False):
        label, at = confirmation.attack_labels[str(metric)], format_radius(float(str(epsilon)), norm)
        console.print(f"\nbest and last weights, {label} at {at}\n", style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for title in ("", "best", "last", "best − last", "95% interval", "best epochs"):
            table.add_column(title, justify="right" if title else "left", no_wrap=title != "best epochs")
        for _, row in group.iterrows():
            table.add_row(
                row["contender"],
                *(format_percent(row[weights], unit="") for weights in ("best", "last")),
                format_points(row["difference"]),
                f"{format_points(row['low'])} to {format_points(row['high'])}",
                f"{join_words(map(str, row['best_epochs']))} of {row['epochs']}",
            )
        console.print(table)
    if len(rows):
        held_out = f"{rows['held_out'].max():,} images that were not trained on"
        left_out = "; runs that diverged are left out" if confirmation.table["diverged"].any() else ""
        console.print(f"best − last is robust overfitting; {held_out} chose the best epochs{left_out}", style="dim")


def describe_adjustment(confirmation: Confirmation) -> str:
    """Return what the verdicts hold for, and what an interval is."""
    alone = f"{' against '.join(confirmation.question)} by itself, and for " if confirmation.question else ""
    others = "all other pairs" if alone else "all pairs"
    return (
        f"better and worse hold at 5% for {alone}{others} of a column together (Holm 1979); an interval is that of its "
        "pair alone; how much seeds differ is measured over all candidates together"
    )


def _cells(row: "pd.Series[Any]", name: str) -> tuple[str, str]:
    deviation = row[f"{name}_sd"]
    spread = "" if pd.isna(deviation) else format_percent(deviation, unit="")
    return format_percent(row[name], unit=""), spread + note_missing_seeds(row[f"{name}_seeds"], row["seeds"])


def describe_verdict(row: "pd.Series[Any]", norm: str, labels: Mapping[str, str]) -> str:
    """Return a row of `Confirmation.comparisons` as a sentence.

    Args:
        row: The row.
        norm: The norm of the attacks.
        labels: `Confirmation.attack_labels`.
    """
    at = "" if row["metric"] == "clean" else f" at {format_radius(row['epsilon'], norm)}"
    return (
        f"{row['first']} against {row['second']}, {labels[row['metric']]}{at}: {row['verdict']} "
        f"({format_points(row['difference'])} points, 95% interval {format_points(row['low'])} to "
        f"{format_points(row['high'])})"
    )
