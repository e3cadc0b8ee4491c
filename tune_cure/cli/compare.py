"""The command `compare`: what it takes, and what it prints."""

import argparse
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tune_cure.confirmation import comparison
from tune_cure.confirmation.comparison import ComparisonError, Searches
from tune_cure.reports.comparison_text import ERRORS_NOTE, format_verdict, side_by_side, verdict_basis
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import replace_text

WORDS_WIDTH = 24  # of the column that says what is in a line
MIN_WIDTH = 22  # of a search's column: more searches than fit are shown one block below the other


def add_parser(commands: Any) -> None:
    """Adds the command to an argument parser's subcommands."""
    parser = commands.add_parser(
        "compare",
        help="show searches side by side, and which found the better winner",
        description="Shows searches side by side: what each was, what it took, what won. Says of every two whose "
        "winner is better, as far as the standard errors allow it, and what speaks against comparing them.",
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="FOLDER", help="a search's folder; two or more")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, a row per search")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page there, with plots")
    parser.add_argument("--verbose", action="store_true", help="show what libraries say")
    parser.set_defaults(run=compare, parser=parser)


def compare(options: argparse.Namespace, console: Console) -> int:
    """Runs the command and returns its exit code."""
    searches = comparison.name_searches([SearchResult(directory) for directory in options.directories])
    files = {flag: file for flag in ("csv", "html") if (file := getattr(options, flag)) is not None}
    for flag, file in files.items():
        try:
            _check_file(f"--{flag}", file, searches)
        except OSError as error:  # of a name that no file can have
            raise ComparisonError(f"--{flag} {file}: cannot be written: {error.strerror}") from error
    if len({file.resolve() for file in files.values()}) < len(files):
        raise ComparisonError(f"--csv and --html: {options.html} cannot be both")
    table = comparison.build_comparison_table(
        searches
    )  # all that can be wrong with a run is found here, before anything is written
    _print(searches, console)
    try:
        if options.csv:
            replace_text(options.csv, table.to_csv(index=False))
        if options.html:
            from tune_cure.reports import comparison_page

            comparison_page.write(searches, options.html)
    except OSError as error:
        raise ComparisonError(f"{error.filename}: cannot be written: {error.strerror}") from error
    for file in files.values():
        console.print(f"wrote {file}")
    return 0


def _check_file(flag: str, file: Path, searches: Searches) -> None:
    """Refuses a file that cannot be written, or that would take the place of a search's own."""
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


def _print(searches: Searches, console: Console) -> None:
    lines, names = side_by_side(searches), list(searches)
    at_a_time = max(1, (console.width - WORDS_WIDTH) // (MIN_WIDTH + 2))
    for start in range(0, len(names), at_a_time):
        block = slice(start, start + at_a_time)
        table = Table(box=None, pad_edge=False, padding=(0, 1), width=console.width)
        table.add_column("", width=WORDS_WIDTH, overflow="fold", style="dim")
        for name in names[block]:
            table.add_column(name, ratio=1, overflow="fold")
        for words, cells in lines.items():
            table.add_row(words, *cells[block])
        console.print(table)
        console.print()
    console.print(ERRORS_NOTE, style="dim", soft_wrap=False)
    console.print()
    verdicts = comparison.compare_winners(searches)
    for _, row in verdicts.iterrows():
        console.print(format_verdict(row), style="bold")
    if said := verdict_basis(verdicts):
        console.print(said, style="dim", soft_wrap=False)
    for warning in comparison.comparison_warnings(searches):
        console.print(f"warning: {warning}")
