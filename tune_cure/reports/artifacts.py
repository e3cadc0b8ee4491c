"""Everything that a search's folder holds beside the journal; written at the search's end and on request."""

from pathlib import Path

from tune_cure.reports import search_page, tables
from tune_cure.reports.figures import catalog, files
from tune_cure.search.results import SearchResult


def write_artifacts(result: SearchResult) -> Path:
    """Write the tables, the best configuration and model, the report and the figures into the search's folder.

    Returns:
        The report's path.
    """
    tables.write_tables(result)
    tables.write_top_configurations(result)
    tables.write_best_model(result)
    plots = catalog.build_plots(result)
    page = search_page.write(result, plots)
    files.write_figures(result.directory, plots)
    return page
