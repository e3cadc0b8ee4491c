"""Ray tasks of which only so many are under way at a time."""

from collections.abc import Callable
from functools import partial

import pytest

from tune_cure.ray_backend import tasks as tasks_module
from tune_cure.ray_backend.tasks import LimitedTasks


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_tasks_than_allowed_are_under_way_and_each_runs_once_in_order(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[str] = []
    begun: list[str] = []
    most_seen: list[int] = []

    def submit(name: str) -> str:
        under_way.append(name)
        begun.append(name)
        return f"reference of {name}"

    def wait(references: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert references == [f"reference of {name}" for name in under_way]
        most_seen.append(len(under_way))
        under_way.pop(0)
        return references[:1], references[1:]

    monkeypatch.setattr(tasks_module.ray, "wait", wait)
    submissions: list[tuple[str, Callable[[], str]]] = [(name, partial(submit, name)) for name in "abcd"]
    tasks = LimitedTasks(submissions, most)
    ended = []
    while tasks.left:
        assert tasks.left == [name for name in "abcd" if name not in dict(ended)]
        for name, reference in tasks.wait(0.5):
            assert name in tasks.left  # until its result was read
            tasks.settle(reference)
            ended.append((name, reference))
    assert ended == [(name, f"reference of {name}") for name in "abcd"]
    assert begun == list("abcd")
    assert max(most_seen) == min(most, 4)


def test_a_task_that_a_dead_ray_does_not_take_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise ConnectionError("Ray has died")

    monkeypatch.setattr(tasks_module.ray, "wait", lambda references, timeout: (references, []))
    tasks = LimitedTasks([("a", lambda: "reference of a"), ("b", fail), ("c", fail)], 1)
    [(_, reference)] = tasks.wait(0.5)
    tasks.settle(reference)
    with pytest.raises(ConnectionError):
        tasks.wait(0.5)
    assert tasks.left == ["b", "c"]
