"""Time of the parts of a training step, measured without making the host wait for the device, and peak memory."""

import resource
import sys
import time
from typing import Protocol

import torch


class Watch(Protocol):
    """What a training step tells of its parts: a `Stopwatch`, or what is recorded in its place."""

    def start(self) -> None:
        """Begin the first part."""

    def split(self, part: str) -> None:
        """End `part` and begin the next one."""


class Stopwatch:
    """Stopwatch that splits time into named parts.

    A part begins at `start` or at the last `split`, and ends at the next `split`. On the CPU it is measured by the
    clock, on a CUDA device by events in its stream. The events are read by `seconds` alone, so that no step waits.

    Args:
        device: Device whose work is measured.
    """

    def __init__(self, device: torch.device) -> None:
        # The stream of this thread: a backward pass on CUDA runs in another thread, whose current stream may differ.
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._parts: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}
        self._seconds: dict[str, float] = {}
        self._last: torch.cuda.Event | float = 0.0

    def start(self) -> None:
        """Begin the first part."""
        self._last = self._now()

    def split(self, part: str) -> None:
        """Add the time since the last call to `part`, and begin the next part."""
        now = self._now()
        if isinstance(now, float):
            assert isinstance(self._last, float)
            self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        else:
            assert isinstance(self._last, torch.cuda.Event)
            self._parts.setdefault(part, []).append((self._last, now))
        self._last = now

    def seconds(self, part: str) -> float:
        """Return the seconds that `part` took in all; wait for the device."""
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
    """Return the peak memory in MiB.

    On CUDA it is the most that tensors have taken since the trainer last reset it, at the start of an epoch. On the CPU
    it is the most that this process has ever held.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
