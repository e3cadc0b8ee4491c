"""Calls of Ray that end even if Ray has died: they run in a thread that can be left behind."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray

from tune_cure.ray_backend import ray_internals, session
from tune_cure.ray_backend.tasks import LimitedTasks
from tune_cure.ray_backend.worker_errors import describe
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.signals import WorkLeftBehindError, on_ctrl_c

POLL_SECONDS = 0.05  # until the main thread handles a signal that another thread has received
TASK_SECONDS = 0.5  # from one look at tasks to the next
LOOK_SECONDS = 1.0  # from one look at Ray's processes to the next
GRACE_SECONDS = 5.0  # for a call to end by itself once Ray has died

_logger = logging.getLogger(__name__)


class RayWatch:
    """Watch over the Ray that this process uses: over processes that it has started, and files that Ray needs.

    Programs that clean folders of temporary files delete Ray's files while Ray runs. No worker can start then, and each
    trial fails. Processes of a cluster that was joined are not watched.
    """

    def __init__(self) -> None:
        self.processes = ray_internals.vital_processes()
        self.paths = [path for path in ray_internals.vital_paths() if path.exists()]

    def __reduce__(self) -> tuple[type["RayWatch"], tuple[()]]:
        return RayWatch, ()  # Tune pickles its callbacks, but no process can be pickled

    def find_fault(self) -> str:
        """Return in words why Ray cannot go on; empty if it can."""
        if any(process.poll() is not None for process in self.processes):
            return "Ray has died, or was killed"
        missing = next((path for path in self.paths if not path.exists()), None)
        return f"Ray cannot go on: {missing} was deleted" if missing else ""


class Stoppable(Protocol):
    """The stopper of a search or of a league, which decides when its work ends."""

    @property
    def num_interrupts(self) -> int:
        """How often Ctrl-C was pressed."""

    def end(self, outcome: str, reason: str) -> None:
        """End the work; of several calls the first one counts."""

    def interrupt(self) -> None:
        """End the work because of Ctrl-C."""

    def stop_all(self) -> bool:
        """Return whether the work stops now."""


class DeadRayError(TuneCureError):
    """Ray has died, or was killed, while something was measured that comes before all training."""

    exit_code = 1


class WorkerError(TuneCureError):
    """A measurement that comes before all training has failed, or its process has died."""

    exit_code = 1


class GuardedCall:
    """A call that uses Ray, in a daemon thread, while the caller watches over Ray's processes.

    Where Ray dies, its functions wait for it, and after a minute Ray ends the whole process. Here the caller notices
    within seconds, disconnects from Ray, which then ends nothing, and leaves behind a call that goes on waiting. After
    a second Ctrl-C it leaves behind the call and Ray.

    Args:
        work: What to call. It must end soon once `stopper` has an outcome.
        stopper: Is told of Ray's death.
        interrupt: Is called at Ctrl-C, and tells the stopper; None tells the stopper alone.
    """

    def __init__(
        self, work: Callable[[], object], stopper: Stoppable, interrupt: Callable[[], None] | None = None
    ) -> None:
        self.work, self.stopper, self.interrupt = work, stopper, interrupt or stopper.interrupt
        self.error: BaseException | None = None
        self.ray = RayWatch()
        self.thread = threading.Thread(target=self._work, name="uses-ray", daemon=True)

    def run(self) -> None:
        """Run the call until it ends, Ray has died, or Ctrl-C was pressed twice.

        Raises:
            Exception: The call has raised it, and Ray lives.
        """
        with on_ctrl_c(self.interrupt):  # not KeyboardInterrupt, which could come between any two steps
            self.thread.start()
            while self.thread.is_alive() and not self.ray.find_fault() and not self._is_given_up():
                self._wait()
        if fault := self.ray.find_fault():
            self.stopper.end("ray", fault)
            self._disconnect()
        elif self._is_given_up():
            ray_internals.forbid_automatic_start()  # by the call, if this Ray ends before it
            session.abandon_ray()
        elif self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            self.work()
        except BaseException as error:  # raised again in the thread that has called `run`
            self.error = error

    def _wait(self) -> None:
        """Wait until the call has ended or is given up, or it is time to look at Ray's processes."""
        deadline = time.monotonic() + LOOK_SECONDS
        while self.thread.is_alive() and not self._is_given_up() and time.monotonic() < deadline:
            self.thread.join(POLL_SECONDS)

    def _is_given_up(self) -> bool:
        return self.stopper.num_interrupts > 1

    def _disconnect(self) -> None:
        """End the connection to a dead Ray, and give the call time to end with an error of Ray's."""
        ray_internals.forbid_automatic_start()
        session.keep_logs()
        ray.shutdown()
        self.thread.join(GRACE_SECONDS)
        _logger.debug("the work on Ray %s: %s", "is left behind" if self.thread.is_alive() else "has ended", self.error)


def wait_for(submissions: Sequence[Callable[[], Any]], most: int | None = None) -> list[Any]:
    """Submit Ray tasks, and return what they return, in their order, once all have ended.

    Args:
        submissions: Functions that submit a task each, and return its reference.
        most: How many may be under way at a time; None sets no limit.

    Raises:
        DeadRayError: Ray has died; this is noticed within seconds.
        KeyboardInterrupt: Ctrl-C was pressed; as WorkLeftBehindError where it was pressed twice.
        Exception: A task has raised it.
        WorkerError: The process of a task has died, or its exception cannot be sent to this one.
    """
    waiting = _Waiting(LimitedTasks(enumerate(submissions), most or len(submissions)))
    try:
        GuardedCall(waiting.follow, waiting).run()
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if not isinstance(cause, ray.exceptions.RayError):
            raise cause from error
        raise WorkerError(describe(error)) from error  # a process has died, or its exception cannot be sent
    if waiting.num_interrupts:
        raise WorkLeftBehindError if session.is_abandoned() else KeyboardInterrupt
    if waiting.reason:
        raise DeadRayError(waiting.reason)
    return waiting.results


class _Waiting:
    """Waiting for Ray tasks, until all have ended, Ctrl-C is pressed or Ray dies.

    Args:
        tasks: The tasks, by their places.

    Attributes:
        results: What they return, in the order of their places, once all have ended.
        num_interrupts: How often Ctrl-C was pressed.
        reason: Why Ray cannot go on; empty if it can.
    """

    def __init__(self, tasks: LimitedTasks[int]) -> None:
        self.tasks, self.results = tasks, list[Any]()
        self.num_interrupts, self.reason = 0, ""

    def follow(self) -> None:
        """Wait until all tasks have ended, or one has failed."""
        results: dict[int, Any] = {}
        while self.tasks.left and not self.stop_all():
            for place, reference in self.tasks.wait(TASK_SECONDS):
                results[place] = ray.get(reference)  # raises the error of one that has failed
                self.tasks.settle(reference)
        if not self.tasks.left:
            self.results = [results[place] for place in sorted(results)]

    def end(self, outcome: str, reason: str) -> None:
        """Wait no longer because Ray has died."""
        self.reason = reason

    def interrupt(self) -> None:
        """Wait no longer because of Ctrl-C."""
        self.num_interrupts += 1

    def stop_all(self) -> bool:
        """Return whether nothing is waited for any more."""
        return bool(self.reason or self.num_interrupts)
