"""What benchmarks/faults.py does to searches: each kind of fault, when it strikes, and how its cause is put right.

Linux only. The small file system that is filled, and the folder that is made read-only, take root.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SPACE = """
name: faults
data: {dataset: digits, validation: 260}
model: {name: small_cnn, width: 8}
training: {epochs: 8, batch_size: 64, lr_schedule: cyclic}
space:
  lambda: {loguniform: [0.001, 1]}
  h: {uniform: [0.5, 2]}
  lr_max: {loguniform: [0.01, 0.5]}
  epsilon: {uniform: [0.05, 0.2]}
start_from:
  - {lambda: 0.01, h: 1.0, lr_max: 0.1, epsilon: 0.1}
  - {lambda: 0.05, h: 1.5, lr_max: 0.2, epsilon: 0.1}
evaluation: {epsilon: 0.1, steps: 5, examples: 200}
rescore: {top: 4, steps: 50, restarts: 10}
search: {trials: 10, seed: 0}
asha: {grace_period: 2, reduction_factor: 2}
resources: {concurrent: 2}
"""
PAUSE = 20.0  # seconds of a pause: longer than Ray waits for a sign of life
ROOM = 5 * 2**30  # bytes of memory that may be used until Ray kills trials
HOG = 7 * 2**30  # bytes of memory that something else takes


class Search:
    """A search as its user has it: a process, a folder, what it printed."""

    def __init__(self, folder: Path, *more: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log").open("a+")
        space = folder.with_name("space.yaml")
        space.write_text(SPACE)
        command = [sys.executable, "run_search.py", "--space", str(space), "--output", str(folder), *more]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self.folder / "journal.jsonl"

    def events(self) -> list[dict[str, Any]]:
        """The whole lines of the journal; none before it is begun."""
        return lines(self.journal.read_bytes()) if self.journal.exists() else []

    def wait_for(self, is_reached: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Waits until the journal has got so far."""
        while not is_reached(self.events()):
            if self.process.poll() is not None:
                raise RuntimeError(f"the search ended before it was struck; see {self.log.name}")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Processes that have trained a trial and still live."""
        pids = {event["pid"] for event in self.events() if event["event"] == "epoch"}
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def descendants(self) -> list[int]:
        """Every process that this one has started, and those that these have."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            fields = _read(stat).rpartition(b")")[2].split()
            if fields:
                parents[int(stat.parent.name)] = int(fields[1])
        found, queue = [], [self.process.pid]
        while queue:
            queue = [pid for pid, parent in parents.items() if parent in queue]
            found += queue
        return found


def lines(content: bytes) -> list[dict[str, Any]]:
    """The whole lines of a journal."""
    found = []
    for line in content.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # torn
            continue
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process is gone
        return b""


def kill(pid: int, with_signal: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, with_signal)


# ---- Processes that end


def kill_worker(search: Search, chance: random.Random) -> None:
    """SIGKILL to the process of a trial."""
    while not (workers := search.workers()):
        time.sleep(0.02)
    kill(chance.choice(workers))


def kill_driver(search: Search, chance: random.Random) -> None:
    """SIGKILL to the search."""
    search.process.kill()


def kill_ray(search: Search, chance: random.Random) -> None:
    """SIGKILL to every process of Ray, workers included."""
    for pid in search.descendants():
        kill(pid)


def kill_again_and_again(search: Search, chance: random.Random) -> None:
    """SIGKILL to the search, and to three searches in a row that continue it, each within its first 15 seconds."""
    search.process.kill()
    search.process.wait()
    for _ in range(3):
        again = Search(search.folder, "--resume")
        with suppress(subprocess.TimeoutExpired):
            again.process.wait(chance.uniform(1, 15))
        again.process.kill()
        again.process.wait()


def lose_study(search: Search, chance: random.Random) -> None:
    """SIGKILL to the search, whose study is deleted."""
    search.process.kill()
    search.process.wait()
    (search.folder / "study.db").unlink()


def cut_power(search: Search, chance: random.Random) -> None:
    """Everything is killed; the ends of the journal, the study and the newest checkpoint are torn off."""
    search.process.kill()
    for pid in search.descendants():
        kill(pid)
    search.process.wait()
    _tear(search.journal, chance.randint(1, 200), chance)
    _tear(search.folder / "study.db", chance.randint(1, 20000), chance)
    checkpoints = sorted(search.folder.glob("trials*/**/trainer.pt"), key=lambda path: path.stat().st_mtime)
    if checkpoints and chance.random() < 0.5:  # else what the journal calls written is written
        _tear(checkpoints[-1], chance.randint(1, 5000), chance)


def _tear(file: Path, count: int, chance: random.Random) -> None:
    """The last `count` bytes are gone, or zeros, as file systems leave them."""
    size = file.stat().st_size
    os.truncate(file, max(0, size - count))
    if chance.random() < 0.5:
        with file.open("ab") as end:
            end.write(bytes(min(count, size)))


# ---- Signals


def interrupt(search: Search, chance: random.Random) -> None:
    """Ctrl-C, as a terminal sends it: to all processes of the command's group."""
    os.killpg(search.process.pid, signal.SIGINT)


def interrupt_twice(search: Search, chance: random.Random) -> None:
    """Ctrl-C, and again within a second."""
    interrupt(search, chance)
    time.sleep(chance.uniform(0.05, 1))
    with suppress(ProcessLookupError):
        interrupt(search, chance)


def hang_up(search: Search, chance: random.Random) -> None:
    """SIGHUP to all processes of the command's group, as of a terminal that is closed."""
    os.killpg(search.process.pid, signal.SIGHUP)


def terminate(search: Search, chance: random.Random) -> None:
    """SIGTERM to the search alone, as service managers send it."""
    search.process.terminate()


def terminate_group(search: Search, chance: random.Random) -> None:
    """SIGTERM to the search and all its processes at once, as batch systems send it at the end of a job."""
    for pid in [search.process.pid, *search.descendants()]:
        kill(pid, signal.SIGTERM)


# ---- Pauses


def pause_driver(search: Search, chance: random.Random) -> None:
    """The search stands still for a while; its trials do not."""
    _pause([search.process.pid])


def pause_worker(search: Search, chance: random.Random) -> None:
    """The process of a trial stands still for a while."""
    while not (workers := search.workers()):
        time.sleep(0.02)
    _pause([chance.choice(workers)])


def pause_all(search: Search, chance: random.Random) -> None:
    """The search and all of Ray stand still for a while, as on a laptop that is closed."""
    _pause([search.process.pid, *search.descendants()])


def _pause(pids: list[int]) -> None:
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE)
    for pid in pids:
        kill(pid, signal.SIGCONT)


# ---- Disks, folders, memory


def fill_disk(search: Search, chance: random.Random) -> None:
    """The disk is full to the last byte from now on."""
    with suppress(OSError), _filler(search).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def empty_disk(search: Search) -> None:
    """There is room again."""
    _filler(search).unlink(missing_ok=True)


def _filler(search: Search) -> Path:
    return search.folder.with_name("filler")


def make_read_only(search: Search, chance: random.Random) -> None:
    """The run's folder is on a file system that is read-only from now on, as after an error of a disk."""
    subprocess.run(["mount", "--bind", search.folder, search.folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", search.folder], check=True)


def make_writable(search: Search) -> None:
    """The file system is as it was."""
    subprocess.run(["umount", "--lazy", search.folder], check=True)


def move_folder(search: Search, chance: random.Random) -> None:
    """The run's folder is moved away; for the search it is as if deleted."""
    search.folder.rename(search.folder.with_name("moved"))


def move_folder_back(search: Search) -> None:
    """The run's folder is back; what Ray has made in its place is deleted."""
    shutil.rmtree(search.folder, ignore_errors=True)
    search.folder.with_name("moved").rename(search.folder)


def delete_session(search: Search, chance: random.Random) -> None:
    """The folder of Ray's session is deleted, as programs do that clean folders of temporary files."""
    for pid in search.descendants():
        if found := re.search(rb"/tmp/ray/session_[\d_-]+\d", _read(Path(f"/proc/{pid}/cmdline"))):
            shutil.rmtree(found[0].decode(), ignore_errors=True)
            return
    raise RuntimeError("Ray's session has no folder in /tmp/ray")


def memory_threshold() -> dict[str, str]:
    """The environment of a search whose Ray kills trials when `ROOM` more of the memory is used than now."""
    memory = dict(re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text()))
    total, available = 1024 * int(memory["MemTotal"]), 1024 * int(memory["MemAvailable"])
    threshold = (total - available + ROOM) / total
    return {"RAY_memory_usage_threshold": f"{threshold:.3f}"}


def fill_memory(search: Search, chance: random.Random) -> None:
    """Something else takes memory until Ray has killed trials."""
    begun = len(search.events())
    content = f"content = bytes([1]) * {HOG}; import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", content]) as hog:
        with suppress(RuntimeError):
            search.wait_for(lambda events: any(event["event"] == "retry" for event in events[begun:]))
        hog.kill()


# ---- When a fault strikes


def after_some_events(search: Search, chance: random.Random, events: int) -> None:
    """Waits for a random part of the first nine tenths of the `events` that a search has in the end."""
    count = chance.randint(1, round(0.9 * events))  # with two trials at a time the number of events varies
    search.wait_for(lambda found: len(found) >= count)
    time.sleep(chance.uniform(0, 0.2))


def while_leaders_are_judged(search: Search, chance: random.Random, events: int) -> None:
    """Waits until all trials have ended, and for a random part of the seconds after that."""
    search.wait_for(lambda found: sum(event["event"] == "end" for event in found) == 10)
    time.sleep(chance.uniform(0, 3))


def before_the_first_trial(search: Search, chance: random.Random, events: int) -> None:
    """Waits for some of the seconds in which Python, the data and Ray are loaded."""
    time.sleep(chance.uniform(0.3, 7))


def _nothing(search: Search) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        strike: What happens to the search.
        moment: Waits until it is to happen; is given the number of events that an undisturbed search records.
        repair: Puts the cause right once the search has ended.
        environment: Variables of the search's environment.
        needs_root: Whether only root can do it.
        has_small_disk: Whether the run is on a small file system of its own.
        is_alone: Whether its tries run one at a time, because other searches disturb what it measures.
    """

    strike: Callable[[Search, random.Random], None]
    moment: Callable[[Search, random.Random, int], None] = after_some_events
    repair: Callable[[Search], None] = _nothing
    environment: Callable[[], dict[str, str]] = dict
    needs_root: bool = False
    has_small_disk: bool = False
    is_alone: bool = False


FAULTS: dict[str, Fault] = {
    "kill -9 of a trial's process": Fault(kill_worker),
    "kill -9 of the search": Fault(kill_driver),
    "kill -9 of the search and of three that continue it": Fault(kill_again_and_again),
    "kill -9 of all of Ray": Fault(kill_ray),
    "kill -9 of the search, study.db deleted": Fault(lose_study),
    "power cut, files torn": Fault(cut_power),
    "Ctrl-C": Fault(interrupt),
    "Ctrl-C twice": Fault(interrupt_twice),
    "Ctrl-C before the first trial": Fault(interrupt, before_the_first_trial),
    "Ctrl-C while the leaders are judged": Fault(interrupt, while_leaders_are_judged),
    "SIGHUP: the terminal is closed": Fault(hang_up),
    "SIGTERM to the search": Fault(terminate),
    "SIGTERM to all processes": Fault(terminate_group),
    "pause of the search, 20 s": Fault(pause_driver),
    "pause of a trial's process, 20 s": Fault(pause_worker),
    "pause of all processes, 20 s": Fault(pause_all),
    "full disk": Fault(fill_disk, repair=empty_disk, needs_root=True, has_small_disk=True),
    "run's folder read-only": Fault(make_read_only, repair=make_writable, needs_root=True),
    "run's folder moved away": Fault(move_folder, repair=move_folder_back),
    "folder of Ray's session deleted": Fault(delete_session),
    "full memory, Ray kills trials": Fault(fill_memory, environment=memory_threshold, is_alone=True),
}
