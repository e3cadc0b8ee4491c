"""The limits of unit tests: no process, no Ray, seconds of CPU time, and no waiting for the disk."""

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Generator, Iterator

import pytest
import torch
from sqlalchemy import Engine, event

from tests.support.unit_limits import CPU_SECONDS, refuse_both, refuse_long_test
from tune_cure.gradients import batch_norm, double_backward
from tune_cure.utils import environment


@pytest.fixture(scope="session", autouse=True)
def known_platform() -> None:
    """Ask for the platform once: Python starts `uname` for it, and keeps the answer."""
    platform.platform()


@pytest.fixture(scope="session", autouse=True)
def unsynced_disk() -> Iterator[None]:
    """Let files reach the disk when it likes: no unit test cuts the power, and thousands of waits take minutes."""

    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connect)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    event.remove(Engine, "connect", connect)


@pytest.fixture(autouse=True)
def no_processes(known_platform: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_both(monkeypatch)
    monkeypatch.setattr(environment, "_git_commit", lambda: None)  # which git, a process, would be asked for


@pytest.fixture(autouse=True)
def no_ray_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the Ray that a test of the same process may have started: its logs would be named by a later command."""
    if session := sys.modules.get("tune_cure.ray_backend.session"):
        monkeypatch.setattr(session, "_current", session._Ray())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test's CPU time, and fail it where it is above the limit."""
    start, num_modules = time.process_time(), len(sys.modules)
    result = yield
    seconds = time.process_time() - start
    item.user_properties.append((CPU_SECONDS, seconds))
    refuse_long_test(seconds, len(sys.modules) - num_modules)
    return result


@pytest.fixture
def double() -> Iterator[None]:
    """Tensors are made in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm computes on the CPU as it does on a GPU."""
    for module in (batch_norm, double_backward):
        monkeypatch.setattr(module, "prefers_few_launches", lambda images: True)
