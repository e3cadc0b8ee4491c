import logging

import pytest

from tune_cure.search.schedulers.memory_backoff import (
    FIRST_SECONDS,
    GROWTH,
    MAX_SECONDS,
    WAVE_SECONDS,
    MemoryBackoff,
    is_memory_kill,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def seconds_until_start(backoff: MemoryBackoff, clock: Clock, number: int) -> float:
    begun = clock.now
    while not backoff.may_start(number, 0):
        clock.now += 1.0
    return clock.now - begun


def test_a_trial_waits_longer_each_time_but_never_for_ever(clock: Clock) -> None:
    backoff = MemoryBackoff(1, clock)
    waits = []
    for _ in range(5):
        backoff.on_kill(7)
        waits.append(seconds_until_start(backoff, clock, 7))
    assert waits[:3] == [FIRST_SECONDS, FIRST_SECONDS * GROWTH, FIRST_SECONDS * GROWTH**2]
    assert waits[3:] == [MAX_SECONDS] * 2


def test_another_trials_first_wait_is_short(clock: Clock) -> None:
    backoff = MemoryBackoff(2, clock)
    for _ in range(3):
        backoff.on_kill(0)
    backoff.on_kill(1)
    assert seconds_until_start(backoff, clock, 1) == FIRST_SECONDS


def test_a_trial_that_was_not_killed_does_not_wait(clock: Clock) -> None:
    assert MemoryBackoff(2, clock).may_start(0, 1)


def test_trials_that_are_killed_together_once_do_not_lower_the_number_at_a_time(clock: Clock) -> None:
    backoff = MemoryBackoff(4, clock)
    for number in range(3):
        backoff.on_kill(number)
        clock.now += WAVE_SECONDS / 3
    assert backoff.limit == 4


def test_kills_that_go_on_lower_the_number_at_a_time_one_by_one_down_to_one(clock: Clock) -> None:
    backoff = MemoryBackoff(3, clock)
    limits = []
    for number in range(5):
        backoff.on_kill(number)
        limits.append(backoff.limit)
        clock.now += WAVE_SECONDS + 1
    assert limits == [3, 2, 1, 1, 1]


def test_a_trial_that_has_waited_long_enough_waits_for_room_too(clock: Clock) -> None:
    backoff = MemoryBackoff(2, clock)
    backoff.on_kill(0)
    clock.now = WAVE_SECONDS + 1
    backoff.on_kill(1)
    clock.now = MAX_SECONDS
    assert backoff.limit == 1
    assert not backoff.may_start(0, 1)
    assert backoff.may_start(0, 0)


def test_each_wait_and_each_lower_number_is_said_in_one_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    backoff = MemoryBackoff(2, clock)
    with caplog.at_level(logging.WARNING):
        backoff.on_kill(5)
        clock.now = 60.0
        backoff.on_kill(5)
        backoff.on_kill(5)
    assert [record.getMessage() for record in caplog.records] == [
        "memory is short: trial 5 goes on in 30 s",
        "memory is short: trial 5 goes on in 2 min 0 s; from now on at most 1 trial at a time",
        "memory is short: trial 5 goes on in 8 min 0 s",
    ]


def test_a_memory_kill_is_known_by_its_reason() -> None:
    assert is_memory_kill("killed by Ray: the machine's memory was 96% full")
    assert not is_memory_kill("the worker process died: it was killed, ran out of memory or crashed")
