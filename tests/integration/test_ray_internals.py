"""A test for each use of a private name of Ray, named after the function that uses it, and a search without them."""

import importlib
import ipaddress
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from tests.support.spaces import tiny
from tune_cure.ray_backend import ray_internals
from tune_cure.search import results


def run_python(code: str) -> str:
    """Return the standard output of a program that runs in a process of its own."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return process.stdout.strip()


def test_listen_on_loopback_makes_ray_take_the_loopback_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ray_internals.LOOPBACK_VARIABLE, "1")
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr("ray._private.worker._global_node", None)  # or Ray gives the address of the tests' own node
    ray_internals.listen_on_loopback()
    assert ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback
    assert os.environ[ray_internals.LOOPBACK_VARIABLE] == "0"
    assert not caplog.records


def test_listen_on_loopback_warns_where_ray_has_lost_the_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ray_internals.LOOPBACK_VARIABLE, "1")
    monkeypatch.delattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER")
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.7")
    with caplog.at_level(logging.WARNING):
        ray_internals.listen_on_loopback()
    assert "open to other machines that have the token" in caplog.text
    assert os.environ[ray_internals.LOOPBACK_VARIABLE] == "0"


MEMORY_KILL = """
import os
os.environ |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "50"}
import ray
from tune_cure.ray_backend import worker_errors

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1)
class Worker:
    def step(self):
        import time
        time.sleep(60)

try:
    ray.get(Worker.remote().step.remote())
except ray.exceptions.RayError as error:
    print(type(error).__name__, worker_errors.describe(error))
"""


def test_the_error_of_a_worker_that_rays_memory_monitor_killed_says_that_memory_was_full() -> None:
    said = run_python(MEMORY_KILL).splitlines()[-1]
    assert re.fullmatch(r"OutOfMemoryError killed by Ray: the machine's memory was \d+% full", said)


def test_any_port_for_the_log_agent_lets_ray_choose_a_free_port_within_the_block_alone() -> None:
    module = importlib.import_module("ray._private.parameter")
    with ray_internals.any_port_for_the_log_agent():
        assert module.RayParams().dashboard_agent_listen_port == 0
    assert module.RayParams().dashboard_agent_listen_port > 0


def test_any_port_for_the_log_agent_leaves_rays_port_where_ray_has_lost_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("ray._private.parameter.RayParams")
    with ray_internals.any_port_for_the_log_agent():
        pass
    assert not hasattr(importlib.import_module("ray._private.parameter"), "RayParams")


def test_hide_worker_deaths_hides_the_report_of_a_death_and_no_other_line_of_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("ray._private.worker")
    monkeypatch.setattr(module, "print_to_stdstream", module.print_to_stdstream)
    ray_internals.hide_worker_deaths()
    hiding = module.print_to_stdstream
    ray_internals.hide_worker_deaths()
    assert module.print_to_stdstream is hiding  # it was not wrapped twice
    death = f"{ray_internals.DEATH_REPORT} by an unexpected system error."
    for line in (death, "The actor cannot be scheduled right now."):
        module.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    printed = capsys.readouterr().out
    assert ray_internals.DEATH_REPORT not in printed
    assert "cannot be scheduled" in printed


def test_hide_worker_deaths_changes_nothing_where_ray_has_lost_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ray._private.worker.print_to_stdstream")
    ray_internals.hide_worker_deaths()
    assert not hasattr(importlib.import_module("ray._private.worker"), "print_to_stdstream")


@pytest.mark.usefixtures("ray_session")
def test_vital_processes_are_the_running_server_processes_of_ray() -> None:
    processes = ray_internals.vital_processes()
    assert [Path(process.args[0]).name for process in processes] == list(ray_internals.VITAL_PROCESSES)
    assert all(process.poll() is None for process in processes)


def test_vital_processes_are_none_where_ray_has_lost_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace())
    assert ray_internals.vital_processes() == []
    monkeypatch.delattr("ray._private.worker._global_node")
    assert ray_internals.vital_processes() == []


@pytest.mark.usefixtures("ray_session")
def test_vital_paths() -> None:
    session, logs, *sockets = ray_internals.vital_paths()
    assert session.name.startswith("session_")
    assert logs == session / "logs"
    assert [socket.name for socket in sockets] == ["raylet", "plasma_store"]
    assert all(path.exists() for path in (session, logs, *sockets))


def test_vital_paths_are_none_where_ray_has_lost_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace())
    assert ray_internals.vital_paths() == []
    monkeypatch.delattr("ray._private.worker._global_node")
    assert ray_internals.vital_paths() == []


def test_forbid_automatic_start_makes_a_call_before_ray_init_an_error() -> None:
    printed = run_python("""
import ray
from tune_cure.ray_backend import ray_internals
ray_internals.forbid_automatic_start()
try:
    ray.put(1)
except ray.exceptions.RaySystemError as error:
    print(error, ray.is_initialized())
""")
    assert "Ray has not been started yet" in printed
    assert printed.endswith("False")


def test_forbid_automatic_start_sets_the_variable_where_ray_has_lost_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ray_internals.RECONNECT_VARIABLE, "1")
    monkeypatch.delattr("ray._private.auto_init_hook.enable_auto_connect")
    ray_internals.forbid_automatic_start()
    assert os.environ[ray_internals.RECONNECT_VARIABLE] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rename_process_changes_the_command_line_that_the_system_shows() -> None:
    printed = run_python("""
from pathlib import Path
from tune_cure.ray_backend import ray_internals
ray_internals.rename_process("ray::trial 17")
print(Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0 ").decode())
""")
    assert printed == "ray::trial 17"


def test_rename_process_takes_the_package_setproctitle_where_ray_has_lost_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles: list[str] = []
    monkeypatch.delattr("ray._raylet.setproctitle")
    monkeypatch.setitem(sys.modules, "setproctitle", SimpleNamespace(setproctitle=titles.append))  # type: ignore[arg-type]
    ray_internals.rename_process("ray::trial 17")
    assert titles == ["ray::trial 17"]
    monkeypatch.setitem(sys.modules, "setproctitle", None)  # type: ignore[arg-type]
    ray_internals.rename_process("ray::trial 18")
    assert titles == ["ray::trial 17"]


# Ray's own code uses these names, so they cannot be deleted from its modules. Instead ray_internals finds none of the
# modules, in the search's process as in those of the trials, as if Ray had moved all of them.
MOVED = """
import importlib
import sys

find = importlib.import_module

def import_module(name, package=None):
    if name.startswith("ray.") and sys._getframe(1).f_globals["__name__"] == "tune_cure.ray_backend.ray_internals":
        raise ModuleNotFoundError(name)
    return find(name, package)

importlib.import_module = import_module
"""


def test_a_search_finishes_where_ray_has_lost_all_private_names(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=2", "training.epochs=2")
    (tmp_path / "sitecustomize.py").write_text(MOVED)
    command = [
        sys.executable,
        "run_search.py",
        "--space",
        str(tmp_path / "spec.yaml"),
        "--output",
        str(tmp_path / "run"),
    ]
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert list(results.trials(tmp_path / "run")["status"]) == ["completed", "completed"]
