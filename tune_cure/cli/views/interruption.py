"""Ctrl-C in the commands that write tables at their end: one waits for the tables, a second one for nothing."""

import _thread
import threading
from collections.abc import Callable

EXIT_CODE = 130  # main makes it 143 after SIGTERM, and 129 after SIGHUP
STOPPING = "stopping: tables and report are still written; Ctrl-C again ends at once"
PATIENCE = 1.0  # seconds for the line above to be printed before the next one is


class Interruption:
    """Handler of Ctrl-C, to be set by `on_ctrl_c`.

    It raises KeyboardInterrupt, except for a first Ctrl-C after `finish`.

    Args:
        say: Prints a line.
        describe: Returns a line about what has been reached, or an empty text; it is printed after the first one.

    Attributes:
        is_asked: Whether the command was asked to stop.
        is_urgent: Whether it was asked again after that.
    """

    def __init__(self, say: Callable[[str], None], describe: Callable[[], str] = str) -> None:
        self.is_asked = self.is_urgent = False
        self._say, self._describe = say, describe
        self._is_finishing, self._is_said = False, threading.Event()
        self._is_said.set()

    def __call__(self) -> None:
        """Raise KeyboardInterrupt, or say that the command stops."""
        self.is_urgent = self.is_asked
        if self.is_urgent or not self._is_finishing:
            raise KeyboardInterrupt
        self.announce()

    def announce(self) -> None:
        """Say once that the command stops.

        Another thread prints it, because the handler of a signal may have interrupted the printing of a line. It is not
        started by `threading`, whose lock the interrupted function may hold.
        """
        if not self.is_asked:
            self.is_asked = True
            self._is_said.clear()
            _thread.start_new_thread(self._print, ())

    def _print(self) -> None:
        description = self._describe()
        self._say(f"{STOPPING}\n{description}" if description else STOPPING)  # at once: no other line comes between
        self._is_said.set()

    def finish(self) -> None:
        """Take note that only the tables are left to write."""
        self._is_finishing = True

    def settle(self) -> bool:
        """Return whether the command was asked to stop, once that has been said."""
        self._is_said.wait(PATIENCE)
        return self.is_asked
