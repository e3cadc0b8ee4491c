import pytest
import torch

from tune_cure import timing
from tune_cure.timing import Stopwatch


def test_a_part_is_what_happened_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    watch.start()  # at 0
    watch.split("a")  # at 1
    watch.split("b")  # at 3
    watch.start()  # at 10
    watch.splitter("a")("whatever a hook is given")  # at 14
    assert (watch.seconds("a"), watch.seconds("b"), watch.seconds("never")) == (5.0, 2.0, 0.0)
