"""The command `report`: writes the tables and the report of a run again, from its journal."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.options import UsageError
from tune_cure.league.folder import League, is_league
from tune_cure.reports import artifacts
from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import describe_missing, require
from tune_cure.utils.formatting import quote_path


@dataclass(frozen=True)
class ReportOptions:
    """Command line of `report`.

    Attributes:
        directory: The run's folder; None is the newest run.
    """

    directory: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Makes the tables, figures and page of a search or a league again from the files in its folder, also after a "
        "crash."
    )
    command_line.add_folder(parser)


def read_options(parsed: argparse.Namespace) -> ReportOptions:
    """Return a parsed command line as options."""
    return command_line.read(ReportOptions, parsed)


def run(options: ReportOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    directory = command_line.find_folder(options.directory, console.print)
    if is_league(directory):
        return _report_league(League.read(directory), console)
    page = report(directory)
    if missing := describe_missing(["matplotlib", "sklearn"]):
        console.print(missing)
    console.print(f"wrote {page}, and tables and figures beside it")
    return 0


def _report_league(league: League, console: Console) -> int:
    """Write the tables of a league and league.html again, from the searches and from the outcomes on test images."""
    # here, because these import torch, which other reports do not need
    from tune_cure.cli.views.league_results import print_standings
    from tune_cure.reports.league import files

    require("plotly", "the page of the league")
    try:
        standings = files.write(league)
    except OSError as error:
        raise UsageError(f"{league.folder}: cannot be written: {error.strerror}") from error
    if standings is None:
        raise UsageError(
            f"{league.folder}: no run of the league has been judged yet: tune-cure league --resume "
            f"{quote_path(league.folder)} goes on"
        )
    print_standings(standings, league.config, console)
    console.print(f"\nwrote {league.folder / files.PAGE}, and tables beside it")
    return 0


def report(search: SearchResult | str | Path) -> Path:
    """Write the tables, the page, the figures and the best model of a search again, from its journal.

    Args:
        search: The search, or its folder.

    Returns:
        The path of report.html.

    Raises:
        TuneCureError: The folder holds no search, or cannot be written, or plotly is not installed.
    """
    directory = command_line.folder_of(search)
    require("plotly", "the report")
    try:
        page = artifacts.write_artifacts(SearchResult(directory))
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written: {error.strerror}") from error
    assert page is not None  # plotly is there
    return page
