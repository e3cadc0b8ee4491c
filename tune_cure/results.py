"""Public names of a search's results: `from tune_cure.results import SearchResult`."""

from tune_cure.search.results import Best, ResultsError, SearchResult, best, epochs, read_spec, trials

__all__ = ["Best", "ResultsError", "SearchResult", "best", "epochs", "read_spec", "trials"]
