import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.support.fake_ray import FakeRay
from tests.support.spaces import tiny
from tune_cure.ray_backend.guard import DeadRayError, GuardedCall, RayWatch, WorkerError, wait_for
from tune_cure.ray_backend.resources import DeviceError
from tune_cure.search.stopping import SearchStopper


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRay:
    return FakeRay(monkeypatch, tmp_path)


@pytest.fixture
def stopper(tmp_path: Path) -> SearchStopper:
    return SearchStopper(tiny(tmp_path), tmp_path, None, [])


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What work that waits for ever waits for; set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_work_that_ends_ends_the_call(fake_ray: FakeRay, stopper: SearchStopper) -> None:
    done: list[int] = []
    GuardedCall(lambda: done.append(1), stopper).run()
    assert done == [1]
    assert (stopper.outcome, fake_ray.calls) == ("", [])


def test_an_error_of_the_work_is_raised_by_the_call(fake_ray: FakeRay, stopper: SearchStopper) -> None:
    with pytest.raises(ZeroDivisionError):
        GuardedCall(lambda: 1 // 0, stopper).run()
    assert fake_ray.calls == []


def test_work_that_waits_for_a_dead_ray_is_left_behind(
    fake_ray: FakeRay, stopper: SearchStopper, released: threading.Event
) -> None:
    fake_ray.exit_code = -signal.SIGKILL
    call = GuardedCall(released.wait, stopper)
    call.run()
    assert call.thread.is_alive()
    assert (stopper.outcome, stopper.reason) == ("ray", "Ray has died, or was killed")
    assert fake_ray.calls == ["forbid", "shutdown"]  # in this order: or Tune's loop would start another Ray


def test_a_ray_whose_session_folder_is_deleted_counts_as_dead(
    fake_ray: FakeRay, stopper: SearchStopper, released: threading.Event
) -> None:
    watch = RayWatch()
    assert watch.find_fault() == ""
    call = GuardedCall(lambda: (fake_ray.session.rmdir(), released.wait()), stopper)
    call.run()
    reason = f"Ray cannot go on: {fake_ray.session} was deleted"
    assert (stopper.outcome, stopper.reason) == ("ray", reason)
    assert watch.find_fault() == reason
    assert fake_ray.calls == ["forbid", "shutdown"]


def test_an_error_that_a_dead_ray_has_caused_is_not_raised(fake_ray: FakeRay, stopper: SearchStopper) -> None:
    fake_ray.exit_code = 1
    GuardedCall(lambda: 1 // 0, stopper).run()
    assert stopper.outcome == "ray"


def test_ctrl_c_stops_the_search_and_waits_for_the_work(fake_ray: FakeRay, stopper: SearchStopper) -> None:
    done: list[str] = []

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        while not stopper.outcome:
            time.sleep(0.01)
        done.append(stopper.outcome)

    before = signal.getsignal(signal.SIGINT)
    GuardedCall(work, stopper).run()
    assert done == ["interrupted"]
    assert signal.getsignal(signal.SIGINT) is before
    assert fake_ray.calls == []


def test_a_second_ctrl_c_does_not_wait(fake_ray: FakeRay, stopper: SearchStopper, released: threading.Event) -> None:
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        while not stopper.outcome:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        released.wait()

    call = GuardedCall(work, stopper)
    call.run()
    assert call.thread.is_alive()
    assert stopper.outcome == "interrupted"
    assert fake_ray.calls == ["forbid"]  # or Tune's loop would start another Ray when this one is shut down
    assert fake_ray.abandoned == [True]  # Ray ends the process whose thread calls it after its shutdown


class Tasks:
    """Ray tasks that end one after another, a look at them each; `while_waiting` is called before the next one ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, while_waiting: Callable[[], object] = lambda: None) -> None:
        self.while_waiting = while_waiting
        self.under_way: list[int] = []  # at each look
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", lambda reference: 10 * reference)

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        self.under_way.append(len(references))
        self.while_waiting()
        return references[-1:], references[:-1]


def submissions(*references: int) -> list[Callable[[], int]]:
    return [lambda reference=reference: reference for reference in references]  # type: ignore[misc]


@pytest.mark.usefixtures("fake_ray")
@pytest.mark.parametrize(("most", "under_way"), [(None, [3, 2, 1]), (2, [2, 2, 1]), (1, [1, 1, 1])])
def test_tasks_are_waited_for_and_their_results_come_in_their_order(
    most: int | None, under_way: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(monkeypatch)
    assert wait_for(submissions(1, 2, 3), most) == [10, 20, 30]
    assert tasks.under_way == under_way


@pytest.mark.usefixtures("fake_ray")
@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            ray.exceptions.RayTaskError("task", "Traceback (most recent call last):", DeviceError("of the task")),
            DeviceError,
            "of the task",
        ),
        (ray.exceptions.WorkerCrashedError(), WorkerError, "The worker died unexpectedly while executing this task"),
        (
            ray.exceptions.RayTaskError(
                "task", 'Traceback\n  File "x"\nOwnError: a\nb', ray.exceptions.RayError("a\nb")
            ),
            WorkerError,
            "OwnError: a",
        ),
    ],
    ids=["raised", "died", "raised what no other process can read"],
)
def test_the_error_of_a_task_is_one_line(
    error: Exception, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tasks(monkeypatch)

    def fail(reference: int) -> Any:
        raise error

    monkeypatch.setattr(ray, "get", fail)
    with pytest.raises(kind) as raised:
        wait_for(submissions(1))
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_tasks_of_a_ray_that_dies_are_an_error_of_one_line(
    fake_ray: FakeRay, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ray.exit_code = -signal.SIGKILL
    Tasks(monkeypatch, released.wait)
    with pytest.raises(DeadRayError, match=r"^Ray has died, or was killed$"):
        wait_for(submissions(1))
    assert fake_ray.calls == ["forbid", "shutdown"]


def test_ctrl_c_while_tasks_run_ends_the_waiting_first(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def press() -> None:
        looks.append(1)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)  # until the main thread has handled it

    Tasks(monkeypatch, press)
    with pytest.raises(KeyboardInterrupt):
        wait_for(submissions(1, 2, 3))
    assert looks == [1]
    assert not any(thread.name == "uses-ray" for thread in threading.enumerate()), (
        "Ray's shutdown would end the process"
    )
    assert fake_ray.calls == []
