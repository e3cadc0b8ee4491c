import pytest
import torch

from tune_cure.training import timing
from tune_cure.training.timing import Stopwatch


def test_a_part_is_what_happened_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    watch.start()  # at 0
    watch.split("a")  # at 1
    watch.split("b")  # at 3
    watch.start()  # at 10
    watch.split("a")  # at 14
    assert (watch.seconds("a"), watch.seconds("b"), watch.seconds("never")) == (5.0, 2.0, 0.0)


def test_on_cuda_the_device_of_the_watch_is_asked_for_its_stream_whatever_thread_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backward pass runs in a thread of its own, whose current device need not be this thread's."""
    recorded = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            recorded.append(stream)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch(torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "another")
    watch.start()
    watch.split("a")
    assert recorded == ["the stream of cuda:1"] * 2
