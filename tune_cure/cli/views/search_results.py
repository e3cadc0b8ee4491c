"""Closing words of a search in the terminal: its best trials, what it cost and what it wrote."""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.search import ranking, run_files, trial_table
from tune_cure.search.results import SearchResult
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_duration,
    format_hyperparameters,
    format_untrained_epochs,
    format_value,
)

TOP = 5  # trials in the closing table
UNBOUNDED = 10_000  # columns, to measure what a table would take


def print_results(result: SearchResult, page: Path, console: Console) -> None:
    """Prints what a search found, what it cost and what it wrote.

    Args:
        result: The search.
        page: Its report.
        console: Where to. Hyperparameters that its width has no room for follow the table, a line for each trial.
    """
    spec, directory, frame, summary = result.spec, result.directory, result.trials, result.summary
    console.print(f"\n{spec.name}: the best of {len(frame)} trials\n", style="bold")
    has_fresh = bool(frame["fresh_pgd_accuracy"].notna().any())
    leaders = result.leaders.head(TOP)
    baseline = frame[(frame["origin"] == "start_from") & frame["objective"].notna()].head(1)
    rows = pd.concat([leaders, baseline[~baseline["trial"].isin(leaders["trial"])]])
    table = _table(rows, list(spec.space), has_fresh)
    if console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
        console.print(table)
    else:
        console.print(_table(rows, [], has_fresh))
        for _, row in rows.iterrows():
            values = format_hyperparameters({key: row[key] for key in spec.space if not pd.isna(row[key])})
            console.print(f"trial {_label(row)}: {values}")
    if len(baseline):
        console.print("* a trial of start_from", style="dim")
    if len(spec.search.metrics) > 1:
        front = ", ".join(map(str, summary["pareto_front"]))
        console.print(
            f"ranked by {spec.search.metrics[0]}; Pareto front of {' and '.join(spec.search.metrics)}: {front}"
        )
    if spec.search.constraints:
        kept = f"{summary['trials_feasible']} of {len(frame)} trials keep {' and '.join(spec.search.constraints)}"
        console.print(kept, style=None if summary["trials_feasible"] else "bold")
    ended = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in summary["trials_by_status"].items())
    trained = f"{summary['epochs']} epochs trained"
    if spec.search.scheduler != "none":
        trained += f" of {summary['epochs_without_early_stopping']} without early stopping"
    console.print(f"\n{ended}; {trained}, in {format_duration(summary['wall_seconds'])}")
    if left := summary["epochs_not_trained"]:
        console.print(f"not trained for other reasons than early stopping: {format_untrained_epochs(left)}")
    console.print(
        f"{spec.evaluation} on {trial_table.judged_examples(spec)} validation images; the best of many trials "
        "looks better than it is, and no test image was used"
    )
    if has_fresh:
        console.print(
            f"fresh: the leaders judged again by {spec.rescoring} on "
            f"{frame['fresh_examples'].max():,.0f} validation images that the search had not looked at"
            + ("; it decides" if ranking.rescoring_decides(spec) else f"; {spec.search.metrics[0]} decides")
        )
    console.print(f"\nwrote in {directory}:")
    for path in (
        page.name,
        run_files.TRIALS_TABLE,
        run_files.EPOCHS_TABLE,
        run_files.BEST_CONFIG_TABLE,
        run_files.BEST_CONFIG_SPEC,
        run_files.BEST_MODEL,
    ):
        if (directory / path).exists():
            console.print(f"  {directory / path}")
    console.print(f"  {directory / run_files.FIGURES}: its figures as SVG and PNG")
    confirm = f"tune-cure confirm {shlex.quote(str(directory))}"
    console.print(f"next: open {page} in a browser; what may be claimed of the winner: {confirm}")


def _table(rows: pd.DataFrame, space: list[str], has_fresh: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("trial", "PGD", "±", "clean", "epoch", *["fresh PGD", "±"] * has_fresh, *space, "ended"):
        table.add_column(title, justify="left" if title == "ended" else "right", no_wrap=True)
    for _, row in rows.iterrows():
        table.add_row(*_cells(row, space, has_fresh))
    return table


def _label(row: "pd.Series[Any]") -> str:
    return f"{'*' if row['origin'] == 'start_from' else ''}{int(row['trial'])}"


def _cells(row: "pd.Series[Any]", space: list[str], has_fresh: bool) -> list[str]:
    accuracies = [f"{100 * row[c]:.1f}" for c in ("pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best")]
    values = [f"{row[key]:.3g}" if isinstance(row[key], float) else format_value(row[key]) for key in space]
    fresh = ["" if pd.isna(row[c]) else f"{100 * row[c]:.1f}" for c in ("fresh_pgd_accuracy", "fresh_pgd_accuracy_se")]
    return [_label(row), *accuracies, f"{int(row['best_epoch'])}", *fresh * has_fresh, *values, row["status"]]
