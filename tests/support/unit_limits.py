"""What a unit test may not do: start a process, start Ray, or compute for long.

A test may take `AIM_SECONDS`; pytest lists those that took longer. It fails only at twice that, `MAX_SECONDS`, because
the same test takes up to half more of its CPU time in some runs: where it is the first of its process to use a library,
or where another program uses the same caches.

The limit is on CPU time, because other programs change the time on the clock. CPU time differs, too, with the machine.
So a test over the limit is compared with a fixed piece of work, done just after it. If this work is as quick as on the
machine that the limit was set on, the limit is `MAX_SECONDS`. Otherwise the limit grows in proportion. A test that is
the first of its process to import libraries has `FIRST_USE_SECONDS`, because importing scikit-learn, torchvision and
plotly takes seconds. There is no limit where lines are traced (by coverage or a debugger), because tracing multiplies
the time of some tests, and none where TUNE_CURE_FUZZ asks for thousands of examples.
"""

import multiprocessing.process
import subprocess
import sys
import time
from typing import Any, NoReturn

import pytest
import torch

from tests.support.fuzzing import EXAMPLES

CPU_SECONDS = "cpu_seconds"  # the property of a test's report that has the CPU time of its call
AIM_SECONDS = 2.0
MAX_SECONDS = 2 * AIM_SECONDS
FIRST_USE_SECONDS = 8.0
FIRST_USE_MODULES = 50  # a test that imports this many is the first to use a library
WORK_SECONDS = 0.0083  # CPU time of `do_fixed_work` where the limit was set: one idle core of an AMD EPYC of 2024
WORK_RUNS = 20  # the slowest counts: a test that is a little slow by chance does not fail


def do_fixed_work() -> None:
    """Compute as unit tests do: half in Python, half in torch on small tensors."""
    values = {}
    for number in range(40_000):
        values[f"{number % 500}"] = number * 0.5
    matrix = torch.ones(64, 64)
    for _ in range(300):
        matrix = (matrix @ matrix).tanh()


def measure_slowness() -> float:
    """Return the CPU time of the fixed work now, relative to `WORK_SECONDS`; at least 1."""
    seconds = []
    for _ in range(WORK_RUNS):
        start = time.process_time()
        do_fixed_work()
        seconds.append(time.process_time() - start)
    return max(1.0, max(seconds) / WORK_SECONDS)


def refuse_long_test(seconds: float, num_imported: int) -> None:
    """Fail the test that took these seconds of CPU time and imported so many modules if it is over the limit."""
    limit = FIRST_USE_SECONDS if num_imported >= FIRST_USE_MODULES else MAX_SECONDS
    if seconds <= limit or EXAMPLES or sys.gettrace():
        return
    limit *= measure_slowness()
    if seconds > limit:
        pytest.fail(f"a unit test takes at most {limit:.1f} s of CPU time on this machine, but this one {seconds:.1f}")


def refuse_process(*arguments: Any, **options: Any) -> NoReturn:
    """Raise, in place of starting a process."""
    pytest.fail("a unit test starts no process; move this test to tests/integration")


def refuse_ray(*arguments: Any, **options: Any) -> NoReturn:
    """Raise, in place of starting Ray or connecting to one."""
    pytest.fail("a unit test starts no Ray; move this test to tests/integration")


def refuse_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes and Ray be refused until the patch is undone."""
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse_process)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse_process)
    if "ray" in sys.modules:  # otherwise Ray is refused by the processes that it starts
        monkeypatch.setattr(sys.modules["ray"], "init", refuse_ray)
