"""Everything that a search's folder holds beside the journal; written at the search's end and on request."""

from pathlib import Path

from tune_cure.reports import tables
from tune_cure.reports.made_files import MadeFiles, digest
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import is_installed


def write_tables_and_report(result: SearchResult) -> None:
    """Write the tables and the report of a search that goes on: what takes longest, figures and model, is left out."""
    tables.write_tables(result)
    if is_installed("plotly"):
        from tune_cure.reports import search_page  # imports plotly

        search_page.write(result)


def write_artifacts(result: SearchResult) -> Path | None:
    """Write the tables, the best configuration and model, the report and the figures into the search's folder.

    Returns:
        The report's path; None without plotly, which draws the report's plots.
    """
    source = digest_inputs(result.directory)  # before the rest: a search that runs may go on meanwhile
    tables.write_tables(result)
    tables.write_top_configurations(result)
    tables.write_best_model(result)
    page = _write_report_and_figures(result)
    made = MadeFiles(result.directory / run_files.MADE)
    made.add(result.directory / run_files.TOP_MARKDOWN, source)
    made.write()
    return page


def has_current_artifacts(directory: Path) -> bool:
    """Return whether `write_artifacts` has come to its end since journal and spec of the search last changed.

    The record of top_configurations.md says so, which is written last; nothing else writes that file.
    """
    made = MadeFiles(directory / run_files.MADE)
    is_reported = (directory / run_files.REPORT).exists() or not is_installed("plotly")
    return is_reported and made.is_current(directory / run_files.TOP_MARKDOWN, digest_inputs(directory))


def digest_inputs(directory: Path) -> str:
    """Return the digest of what all files in a search's folder are made from."""
    return digest(directory / run_files.JOURNAL, directory / run_files.SPEC)


def _write_report_and_figures(result: SearchResult) -> Path | None:
    if not is_installed("plotly"):
        return None
    from tune_cure.reports import search_page
    from tune_cure.reports.figures import catalog, importance

    plots = catalog.build_plots(result, importance.write_importance(result))
    page = search_page.write(result, plots)
    if is_installed("matplotlib"):
        from tune_cure.reports.figures import files

        files.write_figures(result.directory, plots)
    return page
