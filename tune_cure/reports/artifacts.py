"""All that a search leaves beside its journal, written at its end and whenever somebody asks for it again."""

from pathlib import Path

from tune_cure.reports import search_page, tables
from tune_cure.reports.figures import catalog, static
from tune_cure.search.results import SearchResult


def write_artifacts(result: SearchResult) -> Path:
    """Writes tables, best configuration and model, report and figures into the run's folder.

    Returns:
        The report's path.
    """
    tables.write_tables(result)
    tables.write_top_configurations(result)
    tables.write_best_model(result)
    drawn = catalog.build_plots(result)
    page = search_page.write(result, drawn)
    static.write_figures(result.directory, drawn)
    return page
