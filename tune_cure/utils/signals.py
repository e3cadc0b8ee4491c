"""Signals that ask a command to stop: Ctrl-C, SIGTERM of a batch system, SIGHUP of a terminal that was closed.

And pipes whose reader has gone, as in `tune-cure compare A B | head`: what is printed then goes nowhere.
"""

import atexit
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTPUTS = (1, 2)  # the descriptors of what is printed


class WorkLeftBehindError(KeyboardInterrupt):
    """Ctrl-C was pressed twice, and a thread that cannot be ended goes on until this process ends."""


class StopSignals:
    """Context manager inside which SIGTERM and SIGHUP do what Ctrl-C does.

    A shell that starts a command in the background (`command &`) makes it ignore Ctrl-C; that is undone. SIGHUP stays
    ignored where it is (`nohup command`). Only the main thread can do this; in another one nothing is changed.

    Attributes:
        number: The first SIGTERM or SIGHUP that came; SIGINT if none did.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    @property
    def exit_code(self) -> int:
        """The exit code of a command that the signal ended, as shells have it: 130, 143 or 129."""
        return 128 + self.number

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._before = _handlers()
        self._terminals = [descriptor for descriptor in OUTPUTS if os.isatty(descriptor)]  # not asked once it is gone
        if self._before[signal.SIGINT] is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, self._act_like_ctrl_c)
        if self._before[signal.SIGHUP] is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._act_like_ctrl_c)
        return self

    def __exit__(self, *_: object) -> None:
        _set_handlers(self._before)

    def _act_like_ctrl_c(self, number: int, frame: object) -> None:
        is_first = self.number == signal.SIGINT
        if is_first:
            self.number = signal.Signals(number)
        if number == signal.SIGHUP:
            self._leave_terminal()
        if is_first or number != signal.SIGHUP:  # the system and the shell both send it; systemd does, after SIGTERM
            signal.raise_signal(signal.SIGINT)

    def _leave_terminal(self) -> None:
        """Let what is printed from now on go nowhere: printing to a terminal that is gone raises an OSError."""
        _silence(self._terminals)


def leave_closed_pipes() -> bool:
    """Print what is held back. What cannot be printed, as into a pipe whose reader has gone, goes nowhere.

    Python would print a traceback about it when it ends.

    Returns:
        Whether something cannot be printed.
    """
    closed = {descriptor for descriptor in OUTPUTS if _has_no_reader(descriptor)}
    for descriptor, stream in zip(OUTPUTS, (sys.stdout, sys.stderr), strict=True):
        try:
            if stream and not stream.closed:  # None where the shell has closed it: >&-
                stream.flush()
        except OSError:
            closed.add(descriptor)
    _silence(closed)
    return bool(closed)


def _has_no_reader(descriptor: int) -> bool:
    """Return whether a descriptor is a pipe or a terminal that nobody reads any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _silence(descriptors: Iterable[int]) -> None:
    """Let what is printed on these descriptors go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def on_ctrl_c(handle: Callable[[], None]) -> Iterator[None]:
    """Call `handle` at each Ctrl-C inside the context, where Python would raise KeyboardInterrupt.

    Only the main thread can do this; in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: handle())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Put the handlers of the stop signals back at the end of the context: Ray sets some when it starts and ends.

    Only the main thread can do this, and only there does Ray set any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers, is_terminated = _handlers(), False
    try:
        yield
    except SystemExit:  # raised by Ray's own handler of SIGTERM
        is_terminated = True
        raise
    finally:
        _set_handlers(handlers)
        if is_terminated:
            signal.raise_signal(signal.SIGTERM)


def ignore_ctrl_c() -> None:
    """Ignore further signals to stop, because the command is at its last lines, and again while Python ends."""
    _ignore()
    atexit.unregister(_ignore)
    atexit.register(_ignore)  # runs before what other packages have registered


def _ignore() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handlers() -> dict[int, Any]:
    """Return the handlers of the stop signals. None stands for one that is not Python's, which Python cannot set."""
    return {number: signal.getsignal(number) for number in STOP_SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)
