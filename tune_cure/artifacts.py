"""All that a search leaves beside its journal, written at its end and whenever somebody asks for it again."""

from pathlib import Path

from tune_cure import paper, plots, report, tables
from tune_cure.results import SearchResult


def write(result: SearchResult) -> Path:
    """Writes tables, best configuration and model, report and figures into the run's folder.

    Returns:
        The report's path.
    """
    tables.write(result)
    tables.write_top(result)
    tables.write_best_model(result)
    drawn = plots.of(result)
    page = report.write(result, drawn)
    paper.write(result.directory, drawn)
    return page
