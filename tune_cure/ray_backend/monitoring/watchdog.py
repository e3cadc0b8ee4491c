"""Notices within seconds that the Ray of this machine has died: Ray itself takes a minute, and ends the process."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import ray

INTERVAL = 1.0  # seconds from one look to the next
VITAL_PROCESSES = ("gcs_server", "raylet")  # without one of these nothing goes on


class RayWatchdog:
    """While in this context, calls `on_lost` once, in a thread of its own, if a vital process of Ray has died.

    Only processes that this one has started are watched: those of a cluster that was joined are others' to mind.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.on_lost = on_lost
        self.over = threading.Event()

    def __enter__(self) -> Self:
        node = ray._private.worker._global_node
        started = node.all_processes if node else {}
        self.watched = [info.process for name in VITAL_PROCESSES for info in started.get(name, [])]
        self.thread = threading.Thread(target=self._watch, name="ray-watch", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(INTERVAL):
            if any(process.poll() is not None for process in self.watched):
                self.on_lost()
                return
