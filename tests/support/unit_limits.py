"""What a unit test may not do: start a process, start Ray, or compute for long."""

import multiprocessing.process
import os
import subprocess
import sys
from typing import Any, NoReturn

import pytest

CPU_SECONDS = "cpu_seconds"  # the property of a test's report that has the CPU time of its call
AIM_SECONDS = 2
MAX_SECONDS = 5  # room for slower machines; CPU time, so that other programs do not matter
IS_FUZZED = "TUNE_CURE_FUZZ" in os.environ  # thousands of examples are asked for


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
