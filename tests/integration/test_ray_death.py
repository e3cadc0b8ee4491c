"""What a search does when the Ray that it has started dies, or when it dies itself."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.spaces import TINY
from tests.support.two_nodes import children
from tune_cure.search import results
from tune_cure.search.journal import Journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PATIENCE = 300.0  # seconds


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    return [process for child in children(pid) for process in (child, *descendants(child))]


def living(processes: list[int]) -> list[int]:
    """Return those of the processes that have not ended."""
    states = {}
    for process in processes:
        with suppress(OSError):
            states[process] = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return [process for process, state in states.items() if state != "Z"]


def is_agent(process: int) -> bool:
    """Return whether a process is an agent of Ray's dashboard, by its program or the title that it has taken."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return any(b"agent" in word.lower() for word in words[:3])


def wait_until_gone(processes: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while living(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert living(processes) == []


def start_search(folder: Path, *more: str) -> subprocess.Popen[str]:
    space = folder / "space.yaml"
    space.write_text(TINY.replace("epochs: 4", "epochs: 8"))
    command = [sys.executable, "run_search.py", "--space", str(space), "--output", str(folder / "run")]
    settings = ["--set", "search.trials=4", "--set", "asha.grace_period=8"]
    return subprocess.Popen(
        [*command, *settings, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_a_checkpoint(search: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and search.poll() is None:
        if any(event["event"] == "checkpoint" for event in Journal(folder / "run").read()):
            return
        time.sleep(0.1)
    raise AssertionError(f"the search ended with {search.poll()}, or wrote no checkpoint")


def test_a_search_whose_ray_is_killed_writes_its_tables_and_can_be_resumed(tmp_path: Path) -> None:
    search = start_search(tmp_path)
    wait_for_a_checkpoint(search, tmp_path)
    processes = descendants(search.pid)
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    before = time.monotonic()
    out, _ = search.communicate(timeout=PATIENCE)
    assert search.returncode == 1, out
    assert time.monotonic() - before < 50  # Ray itself would end the process after a minute
    assert f"Ray has died, or was killed; all state is in {tmp_path / 'run'}. Continue with:" in out
    assert (tmp_path / "run" / "report.html").exists()
    curves = results.epochs(tmp_path / "run")
    wait_until_gone(processes, 20)

    resumed = start_search(tmp_path, "--resume")
    out, _ = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, out
    assert list(results.trials(tmp_path / "run")["status"]) == ["completed"] * 4
    again = results.epochs(tmp_path / "run").merge(curves[["trial", "epoch", "train_loss"]], on=["trial", "epoch"])
    assert len(again) == len(curves)
    assert (again["train_loss_x"] == again["train_loss_y"]).all()


def test_a_search_that_is_killed_leaves_no_server_and_no_worker_of_ray_behind(tmp_path: Path) -> None:
    search = start_search(tmp_path)
    wait_for_a_checkpoint(search, tmp_path)
    processes = descendants(search.pid)
    assert len(processes) > 3
    # The agents of Ray's dashboard end by themselves, a minute after they have lost Ray's server.
    others = [process for process in processes if not is_agent(process)]
    assert len(processes) - len(others) <= 2
    search.kill()
    search.communicate(timeout=PATIENCE)
    wait_until_gone(others, 30)
