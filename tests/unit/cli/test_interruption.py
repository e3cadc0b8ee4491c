import signal

import pytest

from tune_cure.cli.views.interruption import STOPPING, Interruption
from tune_cure.utils.signals import on_ctrl_c


def test_while_tables_are_written_a_first_ctrl_c_waits_and_says_so_and_a_second_one_does_not() -> None:
    said: list[str] = []
    interruption = Interruption(said.append)
    with on_ctrl_c(interruption):
        interruption.finish()
        signal.raise_signal(signal.SIGINT)
        assert interruption.settle()
        assert said == [STOPPING]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert interruption.is_urgent


def test_after_one_that_has_ended_the_trials_the_next_ctrl_c_does_not_wait_for_the_tables() -> None:
    said: list[str] = []
    interruption = Interruption(said.append)
    interruption.announce()
    interruption.finish()
    with on_ctrl_c(interruption), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    interruption.settle()
    assert said == [STOPPING]


def test_before_there_is_anything_to_write_ctrl_c_ends_the_command() -> None:
    interruption = Interruption(print)
    with on_ctrl_c(interruption), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not interruption.settle()
