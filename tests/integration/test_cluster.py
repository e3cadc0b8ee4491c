import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.support.spaces import TINY
from tune_cure.ray_backend.cluster import ClusterError, check_address
from tune_cure.search import results
from tune_cure.search.journal import Event, Journal

PATIENCE = 600.0  # seconds: two Rays, torch in four processes, on two cores that others use, too


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:9", "Ray Client is not supported; use --address HOST:PORT .* or `ray job submit`"),
        ("ray://10.0.0.1", "Ray Client is not supported"),
        ("10.0.0.1", "HOST:PORT is needed"),
        ("somewhere:port", "HOST:PORT is needed"),
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
    ],
)
def test_an_address_that_cannot_be_joined_gives_an_error_of_one_line(address: str, said: str) -> None:
    with pytest.raises(ClusterError, match=said) as raised:
        check_address(address)
    assert str(raised.value).startswith(f"--address {address}: ")
    assert "\n" not in str(raised.value)


class TwoNodes:
    """A cluster of two nodes on this machine, each with one CPU."""

    def __init__(self, folder: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.two_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.address: str = told["address"]
        self.raylets: list[int] = told["raylets"]

    def kill_second(self) -> None:
        """As a machine that loses power."""
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Ends all its processes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)


@pytest.fixture
def cluster() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.close()


def node_of(event: Event) -> int | None:
    """The raylet that started the worker of an epoch; None if the worker is gone."""
    try:
        status = Path(f"/proc/{event['pid']}/stat").read_text()
    except FileNotFoundError:
        return None
    return int(status.rpartition(")")[2].split()[1])


def wait_for(found: Callable[[], Any], search: subprocess.Popen[str]) -> Any:
    """The first true answer of `found` while the search runs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and search.poll() is None:
        if answer := found():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"the search ended with {search.poll()}, or nothing came: {search.stdout}")


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the node of a process in /proc")
def test_trials_of_a_killed_node_continue_on_another_node_from_their_last_checkpoint(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    space, folder = tmp_path / "space.yaml", tmp_path / "shared"
    space.write_text(TINY.replace("{concurrent: 1}", "{concurrent: auto}").replace("epochs: 4", "epochs: 30"))
    command = [sys.executable, "run_search.py", "--space", str(space), "--output", str(folder)]
    search = subprocess.Popen(
        [*command, "--address", cluster.address, "--set", "search.trials=3", "--set", "asha.grace_period=30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )

    def lost() -> int | None:
        """A trial that runs on the second node and has a checkpoint of its second epoch or later."""
        events = Journal(folder).read() if folder.exists() else []
        ended = {event["trial"] for event in events if event["event"] == "end"}
        saved = {event["trial"]: event["epoch"] for event in events if event["event"] == "checkpoint"}
        on_second = {e["trial"] for e in events if e["event"] == "epoch" and node_of(e) == cluster.raylets[1]}
        return next((trial + 1 for trial in on_second - ended if 2 <= saved.get(trial, 0) < 20), None)

    try:
        number = wait_for(lost, search) - 1
        cluster.kill_second()
        out, _ = search.communicate(timeout=PATIENCE)
    finally:
        search.kill()
    assert search.returncode == 0, out
    assert "2 CPUs, no GPU on 2 machines: 2 trials at a time" in out

    events = Journal(folder).read()
    trials = results.trials(folder)
    assert list(trials["trial"]) == [0, 1, 2]
    assert set(trials["status"]) == {"completed"}
    assert Counter(event["trial"] for event in events if event["event"] == "end") == Counter(range(3))
    epochs = [event for event in events if event["event"] == "epoch" and event["trial"] == number]
    pids = list(dict.fromkeys(event["pid"] for event in epochs))
    assert len(pids) == 2  # it went on in another process
    moved = next(index for index, event in enumerate(epochs) if event["pid"] == pids[1])
    assert epochs[moved]["epoch"] >= 3  # and not from the beginning
    assert epochs[moved]["epoch"] - epochs[moved - 1]["epoch"] in (0, 1)  # at most the epoch that was not saved, again
    curve = results.epochs(folder).query(f"trial == {number}")["epoch"]
    assert list(curve) == list(range(1, len(curve) + 1))
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}")
    assert [told.number for told in study.trials] == [0, 1, 2]
    assert all(told.state.is_finished() for told in study.trials)


OWN_NETWORK = """
import os
import time
from pathlib import Path

from torch import nn


def flat(num_classes, in_channels, width=4):
    builders, deadline = Path(BUILDERS), time.time() + 60
    (builders / str(os.getpid())).touch()
    while len(list(builders.iterdir())) < 2 and time.time() < deadline:
        time.sleep(0.1)  # until the other machine has a worker, too
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))
"""
OWN_PARTS = """
import tune_cure
import own_direction

tune_cure.register("direction", "ascent", own_direction.ascent)
"""
OWN_DIRECTION = "def ascent(point):\n    return point.h * point.gradient.sign()\n"
DRIVER = """
import sys
from pathlib import Path

from tune_cure.ray_backend import session, tuner
from tune_cure.search.space.loading import load
from tune_cure.search.space.own_parts import own_part_files

space, address = sys.argv[1:]
own = ["training.direction=ascent", "model=own_network:flat", "training.epochs=1", "search.trials=2"]
spec = load(space, [*own, "resources.concurrent=2", "start_from=[]"], import_parts=True)
session.start_ray(address, modules=own_part_files(spec))
for file in (*Path(space).parent.glob("*.py"), Path("own_network.py")):
    file.unlink()  # as on a machine that never had it
folder = Path("run").absolute()
folder.mkdir()
assert tuner.run(spec, folder, tuner.RunOptions(address=address)).finished
"""


@pytest.mark.ray
def test_own_parts_are_sent_to_machines_that_lack_their_files(tmp_path: Path) -> None:
    for name in ("nodes", "here", "spaces", "builders"):
        (tmp_path / name).mkdir()
    space = tmp_path / "spaces" / "space.yaml"
    space.write_text("parts: own_parts.py\n" + TINY)
    (tmp_path / "spaces" / "own_parts.py").write_text(OWN_PARTS)
    (tmp_path / "spaces" / "own_direction.py").write_text(OWN_DIRECTION)
    (tmp_path / "here" / "own_network.py").write_text(OWN_NETWORK.replace("BUILDERS", repr(str(tmp_path / "builders"))))
    nodes = TwoNodes(tmp_path / "nodes")
    try:
        search = subprocess.run(
            [sys.executable, "-c", DRIVER, str(space), nodes.address],
            cwd=tmp_path / "here",
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        nodes.close()
    assert search.returncode == 0, search.stderr[-3000:]
    assert set(results.trials(tmp_path / "here" / "run")["status"]) <= {"completed", "stopped"}
    # One on each node, which has a single CPU. Tune may give the second trial to the first worker that is free.
    assert len(list((tmp_path / "builders").iterdir())) == 2
