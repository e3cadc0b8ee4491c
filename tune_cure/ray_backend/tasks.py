"""Ray tasks of which only so many are under way at a time."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import ray

Key = TypeVar("Key")


class LimitedTasks(Generic[Key]):
    """Ray tasks of which only so many are under way at a time; each is submitted when an earlier one has ended.

    Ray itself would begin as many as its CPUs and GPUs allow, whatever `resources.concurrent` says.

    Args:
        submissions: What each task is known by, and the function that submits it and returns its reference.
        most: How many may be under way.
    """

    def __init__(self, submissions: Iterable[tuple[Key, Callable[[], Any]]], most: int) -> None:
        self._waiting, self._most = deque(submissions), most
        self._running: dict[Any, Key] = {}

    @property
    def left(self) -> list[Key]:
        """The tasks that are not settled: those under way, and those that wait."""
        return [*self._running.values(), *(key for key, _ in list(self._waiting))]

    def wait(self, seconds: float) -> list[tuple[Key, Any]]:
        """Wait so long for a task to end, and return those that have ended, each with its reference.

        They are left until `settle` is called: if Ray dies before their results are read, they have not succeeded.
        """
        while self._waiting and len(self._running) < self._most:
            key, submit = self._waiting[0]
            self._running[submit()] = key
            self._waiting.popleft()  # not before: a dead Ray takes no task, and this one would be lost
        ended, _ = ray.wait(list(self._running), timeout=seconds)
        return [(self._running[reference], reference) for reference in ended]

    def settle(self, reference: Any) -> None:
        """Count a task that has ended as done, or as failed: its result was read."""
        del self._running[reference]
