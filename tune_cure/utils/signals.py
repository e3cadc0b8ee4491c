"""Signals that stop a long-running command."""

import signal


def treat_sigterm_as_ctrl_c() -> None:
    """Make SIGTERM, which a batch system sends, act like Ctrl-C.

    A shell that starts a command in the background (`command &`) makes it ignore Ctrl-C; that is undone first.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
