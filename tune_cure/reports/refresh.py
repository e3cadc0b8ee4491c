"""The tables and the page of a search that runs, written anew every now and then."""

import logging
import threading
import time
from pathlib import Path

from tune_cure.reports import search_page, tables
from tune_cure.search.journal import JournalError
from tune_cure.search.results import SearchResult

PAUSE = 30.0  # seconds between two writings, at least
SHARE = 0.05  # of the time may go into them: with 10,000 trials one takes long

_logger = logging.getLogger(__name__)


class ReportRefresher:
    """While it is entered, a thread of its own keeps the tables and the page in a search's folder fresh."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="tables", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _refresh(self) -> None:
        pause = PAUSE
        while not self._over.wait(pause):
            began = time.monotonic()
            try:
                result = SearchResult(self._directory)
                tables.write_tables(result)
                search_page.write(result)
            except (OSError, JournalError) as error:  # of a full disk the search itself will say more
                _logger.warning("the tables could not be written: %s", error)
            pause = max(PAUSE, (time.monotonic() - began) / SHARE)
