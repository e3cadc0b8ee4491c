"""How a long-running command is stopped."""

import signal


def treat_sigterm_as_ctrl_c() -> None:
    """From here on SIGTERM, a batch system's stop, is a Ctrl-C, also where the shell had that ignored (`command &`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
