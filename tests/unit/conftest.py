"""The limits of unit tests: no process, no Ray, seconds of CPU time."""

import platform
import time
from collections.abc import Generator

import pytest

from tests.support.unit_limits import CPU_SECONDS, IS_FUZZED, MAX_SECONDS, refuse_both
from tune_cure.utils import environment


@pytest.fixture(scope="session", autouse=True)
def known_platform() -> None:
    """Ask for the platform once: Python starts `uname` for it, and keeps the answer."""
    platform.platform()


@pytest.fixture(autouse=True)
def no_processes(known_platform: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_both(monkeypatch)
    monkeypatch.setattr(environment, "_git_commit", lambda: None)  # which git, a process, would be asked for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test's CPU time, and fail it where it is far above the aim."""
    start = time.process_time()
    result = yield
    seconds = time.process_time() - start
    item.user_properties.append((CPU_SECONDS, seconds))
    if seconds > MAX_SECONDS and not IS_FUZZED:
        pytest.fail(f"a unit test takes at most {MAX_SECONDS} s of CPU time, but this one took {seconds:.1f}")
    return result
