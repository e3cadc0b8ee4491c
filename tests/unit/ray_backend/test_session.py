import gc
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import ray

from tune_cure.ray_backend import session
from tune_cure.ray_backend.cluster import ClusterError
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.monitoring.dashboard import AUTH_MODE, OWN_TOKEN, OWN_TOKEN_FILE, DashboardError


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (AUTH_MODE, OWN_TOKEN, OWN_TOKEN_FILE):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / ".ray" / "auth_token"
    monkeypatch.setattr(dashboard, "TOKEN", path)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_its_owners_alone_from_the_first_moment(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []

    def make(num_bytes: int) -> str:
        modes.append(mode(token))
        return "x" * 2 * num_bytes

    monkeypatch.setattr(dashboard.secrets, "token_hex", make)
    before = os.umask(0)
    dashboard.make_token()
    os.umask(before)
    assert (modes, mode(token)) == ([0o600], 0o600)
    assert len(token.read_text()) == 64


def test_a_token_that_is_there_is_kept_and_closed_to_others(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("x" * 64)
    token.chmod(0o644)
    dashboard.make_token()
    assert (token.read_text(), mode(token)) == ("x" * 64, 0o600)


def test_an_empty_token_which_ray_fills_is_closed_to_others_before(token: Path) -> None:
    token.parent.mkdir()
    token.touch(0o644)
    dashboard.make_token()
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    assert mode(token) == 0o600


@pytest.mark.parametrize(
    ("variable", "value"), [(AUTH_MODE, "disabled"), (OWN_TOKEN, "mine"), (OWN_TOKEN_FILE, "/mine")]
)
def test_no_token_is_made_where_ray_does_not_ask_for_it(
    variable: str, value: str, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    dashboard.make_token()
    assert not token.exists()


def test_a_home_that_cannot_be_written_is_one_line(token: Path) -> None:
    token.parent.write_text("a file in the place of the folder")
    with pytest.raises(
        DashboardError, match="the dashboard's token cannot be kept there: File exists; set RAY_AUTH_TOKEN"
    ):
        dashboard.make_token()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({AUTH_MODE: "token"}, "asks for the token in ~/.ray/auth_token"),
        ({AUTH_MODE: "token", OWN_TOKEN: "mine"}, "asks for the token in RAY_AUTH_TOKEN"),
        ({AUTH_MODE: "token", OWN_TOKEN_FILE: "/mine"}, "asks for the token in /mine"),
        ({AUTH_MODE: "disabled"}, "asks for no token: whoever reaches it can run code as you"),
        ({}, "asks for no token: whoever reaches it can run code as you"),
    ],
)
def test_the_terminal_says_what_the_dashboard_asks_for(
    variables: dict[str, str], words: str, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert dashboard.describe_token() == words


class FakeRay:
    """A session of Ray that has started, with its folder and Ray's link to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "session_1"
        (self.folder / "logs").mkdir(parents=True)
        self.latest = folder / "session_latest"
        self.latest.symlink_to(self.folder)
        self.gc_was_on: list[bool] = []
        monkeypatch.setattr(session, "_current", session._Ray("http://127.0.0.1:8265", self.folder))
        monkeypatch.setattr(session.ray, "shutdown", lambda **_: self.gc_was_on.append(gc.isenabled()))


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    return FakeRay(tmp_path, monkeypatch)


def test_the_folder_of_a_session_is_removed_when_it_ends_and_no_other(fake_ray: FakeRay) -> None:
    other = fake_ray.folder.with_name("session_2")
    other.mkdir()
    session.stop_ray()
    assert not fake_ray.folder.exists()
    assert not fake_ray.latest.is_symlink()
    assert other.exists()
    assert session.kept_logs() is None
    assert session.dashboard_url() == ""


def test_a_link_to_a_later_session_is_left(fake_ray: FakeRay) -> None:
    fake_ray.latest.unlink()
    fake_ray.latest.symlink_to(fake_ray.folder.with_name("session_2"))
    session.stop_ray()
    assert fake_ray.latest.is_symlink()


def test_logs_are_kept_where_something_has_failed(fake_ray: FakeRay) -> None:
    session.keep_logs()
    session.stop_ray()
    assert session.kept_logs() == fake_ray.folder / "logs"
    assert fake_ray.folder.exists()


def test_no_handle_of_rays_is_collected_while_ray_shuts_down(fake_ray: FakeRay) -> None:
    session.stop_ray()
    assert fake_ray.gc_was_on == [False]
    assert gc.isenabled()


def test_a_ray_that_a_thread_still_uses_is_not_shut_down(fake_ray: FakeRay) -> None:
    session.abandon_ray()
    session.stop_ray()
    assert fake_ray.gc_was_on == []
    assert fake_ray.folder.exists()


def test_a_ray_that_is_started_has_the_cpus_and_gpus_that_this_process_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    started: dict[str, Any] = {}

    def init(**options: Any) -> SimpleNamespace:
        started.update(options)
        return SimpleNamespace(dashboard_url="", address_info={"session_dir": "/nowhere"})

    monkeypatch.setattr(session, "_quieten", lambda verbose: None)
    monkeypatch.setattr(session, "_current", session._Ray())
    monkeypatch.setenv(session.SNAPSHOTS, "")
    monkeypatch.setattr(session.dashboard, "make_token", lambda: None)
    monkeypatch.setattr(session.ray_internals, "listen_on_loopback", lambda: None)
    monkeypatch.setattr(session.ray, "init", init)
    session.start_ray()
    assert (started["num_cpus"], started["num_gpus"]) == (1, 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("nothing answers\nat all"), "nothing answers"),
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7\n"
                "This process on node 10.0.0.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
            ),
            "Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.11.7 "
            "This process on node 10.0.0.2 was started with: Ray: 2.60.0 Python: 3.11.7",
        ),
        (ray.exceptions.AuthenticationError("InvalidAuthToken"), "InvalidAuthToken. "),
    ],
    ids=["connection", "version", "token"],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(session.cluster, "check_address", lambda address: None)
    monkeypatch.setattr(session, "_quieten", lambda verbose: None)
    monkeypatch.setenv(session.SNAPSHOTS, "")
    monkeypatch.setattr(session.ray, "init", init)
    with pytest.raises(ClusterError) as caught:
        session.start_ray("10.0.0.1:6379")
    assert str(caught.value).startswith(f"--address 10.0.0.1:6379: {said}")
    assert str(caught.value).isprintable()  # one line
