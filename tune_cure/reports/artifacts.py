"""Everything that a search's folder holds beside the journal; written at the search's end and on request."""

from pathlib import Path

from tune_cure.reports import tables
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
    tables.write_tables(result)
    tables.write_top_configurations(result)
    tables.write_best_model(result)
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
