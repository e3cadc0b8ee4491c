import os
import pty
import signal
import sys
from collections.abc import Iterator

import pytest

from tune_cure.utils import signals
from tune_cure.utils.signals import STOP_SIGNALS, StopSignals, keep_handlers, leave_closed_pipes, on_ctrl_c


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_to_stop_acts_like_ctrl_c_and_has_the_exit_code_of_a_shell(
    number: signal.Signals, code: int
) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert signals.exit_code == code
    assert signal.getsignal(number) is before


def test_ctrl_c_is_heard_where_a_shell_has_it_ignored_and_a_hang_up_is_not_under_nohup() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_hang_up_after_another_signal_is_no_second_request(first: signal.Signals) -> None:
    count = 0

    def handle() -> None:
        nonlocal count
        count += 1

    with StopSignals() as signals, on_ctrl_c(handle):
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
        assert (count, signals.exit_code) == (1, 128 + first)
        signal.raise_signal(signal.SIGTERM)
        assert count == 2


@pytest.mark.skipif(sys.platform != "linux", reason="terminals of other systems differ")
def test_what_is_printed_after_a_hang_up_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    monkeypatch.setattr("tune_cure.utils.signals.OUTPUTS", (terminal,))
    with StopSignals():
        os.close(controller)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(terminal, b"x")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        assert os.write(terminal, b"x") == 1
    os.close(terminal)


def test_handlers_that_a_library_has_set_are_put_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with keep_handlers():
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_sigterm_that_rays_handler_has_taken_while_ray_starts_is_passed_on() -> None:
    def start() -> None:
        with keep_handlers():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)

    with StopSignals() as signals:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert signals.exit_code == 143


def test_what_is_printed_into_a_pipe_without_a_reader_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(signals, "OUTPUTS", (writer, 2))
    try:
        assert not leave_closed_pipes()
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"a line")
        assert leave_closed_pipes()
        os.write(writer, b"a line")
    finally:
        os.close(writer)
