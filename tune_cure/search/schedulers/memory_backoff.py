"""Rule for trials that were killed because memory is short: they wait, and fewer trials run at a time."""

import logging
import time
from collections import Counter
from collections.abc import Callable

from tune_cure.utils.formatting import format_count, format_duration

MEMORY_KILL = "killed by Ray: the machine's memory was "  # how the reason of such a trial begins
FIRST_SECONDS = 30.0  # a trial waits so long when it is killed for the first time
GROWTH = 4.0  # and so many times longer after each further time
MAX_SECONDS = 600.0
WAVE_SECONDS = 10.0  # kills within this time have one cause: Ray kills several workers at once

_logger = logging.getLogger(__name__)


def is_memory_kill(reason: str) -> bool:
    """Return whether a trial failed because Ray's memory monitor killed it."""
    return reason.startswith(MEMORY_KILL)


class MemoryBackoff:
    """Decision when trials that were killed for want of memory go on, and how many trials run at a time.

    A first wave of kills may come from something else on the machine that soon is over: its trials only wait. Each kill
    of a later wave lowers the number of trials at a time by one, down to one, for the rest of the session.

    Args:
        concurrent: How many trials run at a time while memory suffices.
        clock: Returns the time in seconds.

    Attributes:
        limit: How many trials may run at a time now.
    """

    def __init__(self, concurrent: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.clock = concurrent, clock
        self._num_kills: Counter[int | str] = Counter()
        self._due: dict[int | str, float] = {}  # when each waiting trial may go on
        self._first_wave_end: float | None = None

    def on_kill(self, number: int | str) -> None:
        """Let a trial wait from now on, and say so in a line.

        Args:
            number: The trial's number; among several searches, in words that tell which one's.
        """
        now = self.clock()
        self._num_kills[number] += 1
        seconds = min(MAX_SECONDS, FIRST_SECONDS * GROWTH ** (self._num_kills[number] - 1))
        self._due[number] = now + seconds
        message = f"memory is short: trial {number} goes on in {format_duration(seconds)}"
        if self._first_wave_end is None:
            self._first_wave_end = now + WAVE_SECONDS
        elif now > self._first_wave_end and self.limit > 1:
            self.limit -= 1
            message += f"; from now on at most {format_count(self.limit, 'trial')} at a time"
        _logger.warning(message)

    def may_start(self, number: int | str, num_running: int) -> bool:
        """Return whether a waiting trial may go on while `num_running` trials run; from then on it does not wait."""
        if num_running >= self.limit or self.clock() < self._due.get(number, 0.0):
            return False
        self._due.pop(number, None)
        return True
