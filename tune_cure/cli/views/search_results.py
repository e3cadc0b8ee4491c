"""Output of a search when it ends: its best trials, what it cost, and which files it wrote."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.cli.views.console import alert
from tune_cure.confirmation.candidates import list_sound_trials
from tune_cure.confirmation.searches.chance import ChanceFinding, find_chance
from tune_cure.search import ranking, run_files, trial_table
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.control_group import describe_warning
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_hyperparameters,
    format_percent,
    format_untrained_epochs,
    format_value,
    quote_path,
)

TOP = 5  # leaders in the closing table
UNBOUNDED = 10_000  # columns of a terminal in which every table fits


def print_results(result: SearchResult, page: Path | None, console: Console) -> None:
    """Print the best trials of a search, how its trials ended, what it cost, and which files it wrote.

    Args:
        result: The search.
        page: Its report; None if there is none.
        console: Where to print. If it is too narrow for the hyperparameters, they follow the table, a line a trial.
    """
    trials, finding = format_count(len(result.trials), "trial"), find_chance(result)
    if result.best is None:
        console.print(f"\n{result.spec.name}: no winner: of {trials}, none was judged", style="bold")
    else:
        console.print(f"\n{result.spec.name}: the best of {trials}\n", style="bold")
        _print_leaders(result, console)
    if finding:
        alert(console, f"\n{finding}", style="bold")
    _print_effort(result, console)
    _print_control_group(result, console)
    if result.best is not None:
        _print_judgement(result, console)
    _print_files(result.directory, page, console)
    view = f"open {page} in a browser; " if page else ""
    console.print(f"next: {view}{_describe_next_step(result, finding)}")


def _print_leaders(result: SearchResult, console: Console) -> None:
    """Print the leaders and the first trial of start_from, and how the order was decided."""
    spec, frame, summary = result.spec, result.trials, result.summary
    has_fresh = bool(frame["fresh_pgd_accuracy"].notna().any())
    leaders = result.leaders.head(TOP)
    baseline = frame[(frame["origin"] == "start_from") & frame["objective"].notna()].head(1)
    rows = pd.concat([leaders, baseline[~baseline["trial"].isin(leaders["trial"])]])
    accuracies = _accuracy_columns(spec, has_fresh=has_fresh)
    table = _table(rows, list(spec.space), accuracies)
    if console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
        console.print(table)
    else:
        console.print(_table(rows, [], accuracies))
        for _, row in rows.iterrows():
            values = format_hyperparameters({key: row[key] for key in spec.space if not pd.isna(row[key])})
            console.print(f"trial {_label(row)}: {values}")
    if len(baseline):
        console.print("* a trial of start_from", style="dim")
    metrics, constraints = spec.search.metrics, spec.search.constraints
    ranked = f"ranked by {metrics[0]}{', less is better' * (spec.search.mode == 'min')}"
    if len(metrics) > 1:
        front = ", ".join(map(str, summary["pareto_front"]))
        console.print(f"{ranked}; Pareto front of {' and '.join(metrics)}: {front}")
    elif ranking.ranks_by_another_metric(spec) or spec.search.mode == "min":
        console.print(ranked)
    if constraints:
        kept = f"{summary['trials_feasible']} of {len(frame)} trials keep {' and '.join(constraints)}"
        console.print(kept, style=None if summary["trials_feasible"] else "bold")


def _print_effort(result: SearchResult, console: Console) -> None:
    """Print how many trials ended how, and how many epochs and how long they trained."""
    summary = result.summary
    ended = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in summary["trials_by_status"].items())
    trained = f"{summary['epochs']} epochs trained"
    if result.spec.search.scheduler != "none":
        trained += f" of {summary['epochs_without_early_stopping']} without early stopping"
    console.print(f"\n{ended}; {trained}, in {format_duration(summary['wall_seconds'])}")
    if left := summary["epochs_not_trained"]:
        console.print(f"not trained for other reasons than early stopping: {format_untrained_epochs(left)}")


def _print_control_group(result: SearchResult, console: Console) -> None:
    """Print how well the rungs predicted the end, and what stopping may have cost; nothing without a control group."""
    if (group := result.control_group) is None:
        return
    for rung in group.rungs:
        console.print(str(rung))
        if warning := describe_warning(result.spec, rung):
            console.print(warning, style="bold")
    console.print(group.describe_winner())


def _print_judgement(result: SearchResult, console: Console) -> None:
    """Print by which attack and on which images the trials were judged."""
    spec, fresh_examples = result.spec, result.trials["fresh_examples"]
    console.print(
        f"{spec.evaluation} on {trial_table.judged_examples(spec)} validation images; the best of many trials "
        "looks better than it is, and no test image was used"
    )
    if fresh_examples.notna().any():
        decides = "it decides" if ranking.rescoring_decides(spec) else f"{spec.search.metrics[0]} decides"
        if result.is_chosen_by_posterior:
            decides = "the posterior mean decides, which has it and all trials that ran to their end in it"
        console.print(
            f"fresh: the leaders judged again by {spec.rescoring} on {fresh_examples.max():,.0f} validation images "
            f"that the search had not looked at; {decides}"
        )
        if result.autoattack:
            console.print(result.autoattack)


def _print_files(directory: Path, page: Path | None, console: Console) -> None:
    """Print the files that the search wrote."""
    console.print(f"\nwrote in {directory}:")
    for name in (*([page.name] if page else []), *run_files.TABLES_AND_MODEL):
        if (directory / name).exists():
            console.print(f"  {directory / name}")
    if (directory / run_files.FIGURES).exists():
        console.print(f"  {directory / run_files.FIGURES}: its figures as SVG and PNG")


def _describe_next_step(result: SearchResult, finding: ChanceFinding | None) -> str:
    """Return what to do next: confirm the winner if it is one, else change the space or see what failed."""
    if not list_sound_trials(result):  # `confirm` refuses
        table = result.directory / run_files.TRIALS_TABLE
        return f"no trial ended well, so there is nothing to confirm; {table} has the status and the reason of each"
    if finding:
        return "change the space, for one of the likely reasons above; a confirmation would compare guesses"
    return f"what may be claimed of the winner: tune-cure confirm {quote_path(result.directory)}"


def _accuracy_columns(spec: SearchSpec, *, has_fresh: bool) -> list[tuple[str, str]]:
    """Return the columns of accuracies in the closing table: titles, and names in `SearchResult.trials`."""
    objective = [("objective", "objective")] * ranking.ranks_by_another_metric(spec)
    fresh = [("fresh PGD", "fresh_pgd_accuracy"), ("±", "fresh_pgd_accuracy_se")] * has_fresh
    own = [("PGD", "pgd_accuracy_best"), ("±", "pgd_accuracy_best_se"), ("clean", "clean_accuracy_best")]
    return [*objective, *own, *fresh]


def _table(rows: pd.DataFrame, space: list[str], accuracies: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("trial", *(title for title, _ in accuracies), "epoch", *space, "ended"):
        table.add_column(title, justify="left" if title == "ended" else "right", no_wrap=True)
    for _, row in rows.iterrows():
        table.add_row(*_cells(row, space, [name for _, name in accuracies]))
    return table


def _label(row: "pd.Series[Any]") -> str:
    return f"{'*' if row['origin'] == 'start_from' else ''}{int(row['trial'])}"


def _cells(row: "pd.Series[Any]", space: list[str], accuracies: list[str]) -> list[str]:
    numbers = ["" if pd.isna(row[name]) else format_percent(row[name], unit="") for name in accuracies]
    values = [f"{row[key]:.3g}" if isinstance(row[key], float) else format_value(row[key]) for key in space]
    return [_label(row), *numbers, f"{int(row['best_epoch'])}", *values, row["status"]]
