"""How long the parts of a training step take, without making the host wait for the device, and how much memory."""

import resource
import sys
import time

import torch


class Stopwatch:
    """Splits time into named parts: each `split` ends the part that began at the last one, or at `start`.

    On the CPU by the clock. On a CUDA device by events in its stream, which are read when `seconds` is asked for, so
    that no step waits.
    """

    def __init__(self, device: torch.device) -> None:
        # This thread's: a backward pass on CUDA runs in another one, whose current device and stream may be others.
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._parts: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}
        self._seconds: dict[str, float] = {}
        self._last: torch.cuda.Event | float = 0.0

    def start(self) -> None:
        """Begins a part."""
        self._last = self._now()

    def split(self, part: str) -> None:
        """What happened since the last call belongs to `part`; the next part begins."""
        now = self._now()
        if isinstance(now, float):
            assert isinstance(self._last, float)
            self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        else:
            assert isinstance(self._last, torch.cuda.Event)
            self._parts.setdefault(part, []).append((self._last, now))
        self._last = now

    def seconds(self, part: str) -> float:
        """The time of all that belonged to `part`; waits for the device."""
        events = self._parts.get(part, [])
        if events:
            events[-1][1].synchronize()
        milliseconds: float = sum(begin.elapsed_time(end) for begin, end in events)
        return self._seconds.get(part, 0.0) + milliseconds / 1000

    def _now(self) -> torch.cuda.Event | float:
        if self._stream is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event


def peak_memory_mb(device: torch.device) -> float:
    """CUDA: the most that tensors took in this epoch; CPU: the most that this process ever held in memory. In MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
