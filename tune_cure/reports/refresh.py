"""Regular rewriting of a running search's tables and report."""

import logging
import threading
import time
from pathlib import Path

from tune_cure.reports import artifacts
from tune_cure.search.results import SearchResult
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils.errors import TuneCureError

PAUSE = 30.0  # seconds between two rewritings at least
SHARE = 0.05  # of the time that rewriting may take at most: with 10,000 trials one rewriting takes long

_logger = logging.getLogger(__name__)


class ReportRefresher:
    """Context manager with a thread that rewrites the tables and the report in a search's folder while it is active.

    Args:
        directory: The search's folder.
        record: What its journal says; the search adds events to it.
    """

    def __init__(self, directory: Path, record: SearchRecord) -> None:
        self._directory, self._record = directory, record
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="tables", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over.set()
        if kind is not KeyboardInterrupt:  # a rewriting may take minutes; each file is replaced in one step
            self._thread.join()

    def _refresh(self) -> None:
        pause = PAUSE
        while not self._is_over.wait(pause):
            start = time.monotonic()
            try:
                artifacts.write_tables_and_report(SearchResult(self._directory, record=self._record))
            except (OSError, TuneCureError) as error:  # a full disk or a lost folder ends the search, which says so
                _logger.warning("the tables could not be written: %s", error)
            pause = max(PAUSE, (time.monotonic() - start) / SHARE)
