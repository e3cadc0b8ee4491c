"""The command `compare`: shows searches side by side."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.cli import options as command_line
from tune_cure.cli.views.console import alert
from tune_cure.confirmation.searches import comparison
from tune_cure.confirmation.searches.comparison import ComparisonError, Searches
from tune_cure.confirmation.searches.lead import leader_progress
from tune_cure.reports.comparison_text import ERRORS_NOTE, format_verdict, side_by_side, verdict_basis
from tune_cure.reports.figures.notebook import pictures_of_progress
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.environment import require
from tune_cure.utils.files import refuse_foreign_file, replace_text
from tune_cure.utils.formatting import draw_with, format_notebook, format_table, join_words

TITLES_WIDTH = 24  # columns of the terminal for the titles of the rows
MARKS = {"--csv": "search,folder,", "--html": "<title>Comparison of "}  # near the beginning of what the command has written
SEARCH_WIDTH = 22  # columns of the terminal for a search; searches that do not fit follow in a block below


@dataclass(frozen=True)
class Comparison:
    """Searches side by side.

    Attributes:
        table: A row per search: what it was, what it took, what won.
        verdicts: A row per pair of searches: the difference of their winners with its 95% interval, and the verdict;
            or the reason for none.
        warnings: What speaks against comparing them.
        progress: The best so far of each search by its name: a row at each change of the leader, with the columns
            epochs and device_hours (of all trials until then), trials (that had reported), objective and trial.
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    warnings: list[str]
    progress: dict[str, pd.DataFrame] = field(repr=False)

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: the verdicts, the best so far, the searches side by side."""
        verdicts = " ".join(format_verdict(row) for _, row in self.verdicts.iterrows())
        values = [name for name in map(str, self.table) if name.startswith("best_") and name != "best_epoch"]
        table = self.table[["search", "trials_ended", "epochs_trained", "objective", "objective_se", "gain", *values]]
        return format_notebook(self, verdicts, " ".join(self.warnings), [format_table(table)])


draw_with(Comparison, lambda found: pictures_of_progress(found.progress, join_words(found.table["metric"].unique())))


@dataclass(frozen=True)
class CompareOptions:
    """Command line of `compare`.

    Attributes:
        directories: Folders of searches; two or more.
        csv: File for the table; None writes none.
        html: File for the page; None writes none.
    """

    directories: tuple[Path, ...]
    csv: Path | None
    html: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Shows searches side by side: what each was, what it took, what won. Says for every two searches whose winner "
        "is better, as far as the standard errors allow it, and what speaks against comparing them."
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="FOLDER", help="a search's folder; two or more")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, a row per search")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page there, with plots")


def read_options(parsed: argparse.Namespace) -> CompareOptions:
    """Return a parsed command line as options."""
    return command_line.read(CompareOptions, parsed)


def run(options: CompareOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    directories, others = _leave_out_others(options.directories)
    searches = comparison.name_searches([SearchResult(directory) for directory in directories])
    if options.html:
        require("plotly", "--html")
    files = {flag: file for flag, file in (("csv", options.csv), ("html", options.html)) if file is not None}
    for flag, file in files.items():
        try:
            _check_file(f"--{flag}", file, searches)
        except OSError as error:  # of a name that is too long, for example
            raise ComparisonError(f"--{flag} {file}: cannot be written: {error.strerror}") from error
    if len({file.resolve() for file in files.values()}) < len(files):
        raise ComparisonError(f"--csv and --html: {options.html} cannot be both")
    table = comparison.build_comparison_table(searches)  # reads every run: an error is found before anything is written
    if others:
        alert(console, f"left out, since they hold no search: {join_words(map(str, others))}\n")
    _print(searches, console)
    try:
        if options.csv:
            replace_text(options.csv, format_csv(table))
        if options.html:
            from tune_cure.reports import comparison_page

            comparison_page.write(searches, options.html)
    except OSError as error:
        raise ComparisonError(f"{error.filename}: cannot be written: {error.strerror}") from error
    for file in files.values():
        console.print(f"wrote {file}")
    return 0


def _leave_out_others(directories: Sequence[Path]) -> tuple[Sequence[Path], list[Path]]:
    """Return the searches, and what else results/* names: leagues, training runs, judged networks.

    Nothing is left out where fewer than two searches would remain: the error then names what is no search.
    """
    others = [directory for directory in directories if directory.exists() and not run_files.holds_search(directory)]
    searches = [directory for directory in directories if directory not in others]
    return (searches, others) if len(searches) > 1 else (directories, [])


def _check_file(flag: str, file: Path, searches: Searches) -> None:
    """Refuse a file that cannot be written or is of another kind, or that lies in the folder of a search."""
    folder = file.resolve().parent
    if file.is_dir():
        raise ComparisonError(f"{flag} {file}: is a folder")
    if not folder.is_dir():
        raise ComparisonError(f"{flag} {file}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ComparisonError(f"{flag} {file}: cannot be written: no permission for {folder}")
    for result in searches.values():
        if folder.is_relative_to(result.directory.resolve()):
            raise ComparisonError(f"{flag} {file}: lies in the folder of a search; name another place")
    refuse_foreign_file(flag, file, MARKS[flag])


def _print(searches: Searches, console: Console) -> None:
    """Print the searches side by side, as many as fit beside each other, then the verdicts and the warnings."""
    rows, names = side_by_side(searches), list(searches)
    at_a_time = max(1, (console.width - TITLES_WIDTH) // (SEARCH_WIDTH + 2))
    for start in range(0, len(names), at_a_time):
        block = slice(start, start + at_a_time)
        table = Table(box=None, pad_edge=False, padding=(0, 1), width=console.width)
        table.add_column("", width=TITLES_WIDTH, overflow="fold", style="dim")
        for name in names[block]:
            table.add_column(name, ratio=1, overflow="fold")
        for title, cells in rows.items():
            table.add_row(title, *cells[block])
        console.print(table)
        console.print()
    console.print(ERRORS_NOTE, style="dim", soft_wrap=False)
    console.print()
    verdicts = comparison.compare_winners(searches)
    for _, row in verdicts.iterrows():
        console.print(format_verdict(row), style="bold")
    if note := verdict_basis(verdicts):
        console.print(note, style="dim", soft_wrap=False)
    for warning in comparison.comparison_warnings(searches):
        alert(console, f"warning: {warning}")


def compare(*searches: SearchResult | str | Path) -> Comparison:
    """Compare searches: whose winner is better, as far as the standard errors allow it.

    Args:
        searches: The searches, or their folders; two or more.

    Raises:
        TuneCureError: A folder holds no search.
    """
    named = comparison.name_searches([SearchResult(command_line.folder_of(search)) for search in searches])
    return Comparison(
        comparison.build_comparison_table(named),
        comparison.compare_winners(named),
        comparison.comparison_warnings(named),
        {name: leader_progress(result) for name, result in named.items()},
    )
