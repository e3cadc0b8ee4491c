import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fake_ray import FakeRay
from tune_cure.ray_backend import confirmation
from tune_cure.ray_backend.guard import DeadRayError
from tune_cure.utils.signals import WorkLeftBehindError


@dataclass
class Job:
    """A job without work."""

    folder: Path
    data: None = None

    def status(self) -> None: ...


Run = Callable[[Callable[[], None]], dict[str, str]]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a call of Ray that waits for ever waits for; set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def said() -> threading.Event:
    """Set once a first Ctrl-C was noticed; a second one before that would be lost, since Python counts no signals."""
    return threading.Event()


@pytest.fixture
def run(said: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs two jobs on a Ray that calls a function whenever somebody waits for it; the first job is done at once."""
    done: list[str] = []

    def wait(references: list[str], **_: object) -> tuple[list[str], list[str]]:
        if not done:
            done.append(references[0])
            return references[:1], references[1:]
        during()
        return [], references

    def remote(**_: object) -> Callable[[object], SimpleNamespace]:
        return lambda function: SimpleNamespace(remote=lambda parts, job, *_: job)

    monkeypatch.setattr(confirmation.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(confirmation.ray, "remote", remote)
    monkeypatch.setattr(confirmation.ray, "get", lambda reference: None)
    monkeypatch.setattr(confirmation.ray, "wait", wait)
    monkeypatch.setattr(
        confirmation, "_plan", lambda *_: SimpleNamespace(cpus_per_trial=1, gpus_per_trial=0, concurrent=2)
    )
    spec = SimpleNamespace(parts=[], search=SimpleNamespace(retries=0))
    jobs: list[Any] = [Job(tmp_path / name) for name in ("first", "second")]
    during: Callable[[], None]

    def run(function: Callable[[], None]) -> dict[str, str]:
        nonlocal during
        during = function
        return confirmation.run(jobs, SimpleNamespace(spec=spec), on_interrupt=said.set)  # type: ignore[arg-type]

    return run


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRay:
    return FakeRay(monkeypatch, tmp_path)


def test_the_jobs_that_are_left_when_ray_dies_fail_for_it(
    fake_ray: FakeRay, run: Run, released: threading.Event, tmp_path: Path
) -> None:
    def die() -> None:
        fake_ray.exit_code = -signal.SIGKILL
        released.wait()

    assert run(die) == {str(tmp_path / "second"): "Ray has died, or was killed"}


def test_all_jobs_fail_if_ray_dies_while_it_is_measured_how_many_share_a_gpu(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise DeadRayError("Ray has died")

    monkeypatch.setattr(confirmation, "_plan", die)
    failures = run(lambda: pytest.fail("a job has begun"))
    assert failures == {str(tmp_path / name): "Ray has died" for name in ("first", "second")}


def test_ctrl_c_ends_the_jobs_and_a_second_one_waits_for_nothing(
    fake_ray: FakeRay, run: Run, released: threading.Event, said: threading.Event
) -> None:
    pressed = iter([signal.SIGINT])

    def interrupt() -> None:
        for number in pressed:
            signal.raise_signal(number)
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(interrupt)
    assert caught.type is KeyboardInterrupt

    said.clear()

    def interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        said.wait()
        signal.raise_signal(signal.SIGINT)
        released.wait()

    with pytest.raises(WorkLeftBehindError):
        run(interrupt_twice)
    assert fake_ray.abandoned == [True]
