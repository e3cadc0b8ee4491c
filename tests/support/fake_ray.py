"""A Ray that a test can let die, as the watch over Ray's processes sees it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tune_cure.ray_backend import guard


class FakeRay:
    """Ray with one process, which a test can let die."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.exit_code: int | None = None
        self.calls: list[str] = []
        process = SimpleNamespace(poll=lambda: self.exit_code)
        monkeypatch.setattr(guard.ray_internals, "vital_processes", lambda: [process])
        self.session = tmp_path / "session"
        self.session.mkdir()
        monkeypatch.setattr(guard.ray_internals, "vital_paths", lambda: [self.session, tmp_path / "never-made"])
        monkeypatch.setattr(guard.ray_internals, "forbid_automatic_start", lambda: self.calls.append("forbid"))
        monkeypatch.setattr(guard.ray, "shutdown", lambda: self.calls.append("shutdown"))
        monkeypatch.setattr(guard.session, "abandon_ray", lambda: self.abandoned.append(True))
        monkeypatch.setattr(guard.session, "keep_logs", lambda: None)
        self.abandoned: list[bool] = []
        monkeypatch.setattr(guard, "LOOK_SECONDS", 0.1)
        monkeypatch.setattr(guard, "GRACE_SECONDS", 0.1)
