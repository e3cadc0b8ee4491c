"""Breaks searches at random moments in every way that a night can, continues them, and says what was lost.

    make faults

Each search runs the command line on handwritten digits, two trials at a time. A fault strikes after a random time;
where it ends the search, the command with --resume continues it. Then the run's folder is compared with what it was at
the moment of the fault, and the trials of start_from with those of a search that nothing befell, to the last digit.

Linux only. The full disk is a small file system that this script mounts, which takes root.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from tune_cure.search import results

ROOT = Path(__file__).parents[1]
SPACE = """
name: faults
data: {dataset: digits, validation: 200}
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
search: {trials: 10, seed: 0}
asha: {grace_period: 2, reduction_factor: 2}
resources: {concurrent: 2}
"""
PATIENCE = 600  # seconds until a search counts as hanging
SMALL = 128  # MiB of the file system that is filled
LOSSES = ("trials lost", "trials run twice", "trials not ended", "trials failed", "numbers changed", "study disagrees")
TOLD = {"completed": "COMPLETE", "failed": "FAIL"}  # every other end: PRUNED


class Search:
    """A search as its user has it: a process, a folder, what it printed."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log").open("a+")
        space = folder.with_name("space.yaml")
        space.write_text(SPACE)
        command = [sys.executable, "run_search.py", "--space", str(space), "--output", str(folder), *more]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self.folder / "journal.jsonl"

    def reach(self, count: int) -> None:
        """Waits until the journal has so many lines."""
        while not self.journal.exists() or self.journal.read_bytes().count(b"\n") < count:
            if self.process.poll() is not None:
                raise RuntimeError(f"the search ended before it was struck; see {self.log.name}")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Processes that have trained a trial and still live."""
        pids = {event["pid"] for event in lines(self.journal.read_bytes()) if event["event"] == "epoch"}
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
            children = [pid for pid, parent in parents.items() if parent in queue]
            found += children
            queue = children
        return found


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process is gone
        return b""


def kill(pid: int, with_signal: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, with_signal)


# ---- Faults: each strikes a search that is under way


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


def interrupt(search: Search, chance: random.Random) -> None:
    """Ctrl-C, as a terminal sends it: to all processes of the command's group."""
    os.killpg(search.process.pid, signal.SIGINT)


def terminate_group(search: Search, chance: random.Random) -> None:
    """SIGTERM to the search and all its processes at once, as batch systems send it at the end of a job."""
    for pid in [search.process.pid, *search.descendants()]:
        kill(pid, signal.SIGTERM)


def fill_disk(search: Search, chance: random.Random) -> None:
    """The disk is full to the last byte from now on."""
    filler = search.folder.with_name("filler")
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


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


FAULTS: dict[str, Callable[[Search, random.Random], None]] = {
    "kill -9 of a trial's process": kill_worker,
    "kill -9 of the search": kill_driver,
    "kill -9 of all of Ray": kill_ray,
    "Ctrl-C": interrupt,
    "SIGTERM to all processes": terminate_group,
    "full disk": fill_disk,
    "power cut, files torn": cut_power,
}


# ---- What was lost


def lines(content: bytes) -> list[dict[str, Any]]:
    """The whole lines of a journal."""
    found = []
    for line in content.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # torn
            continue
    return found


def judge(folder: Path, before: list[dict[str, Any]], reference: pd.DataFrame) -> dict[str, int]:
    """What is wrong with a search that was struck and has come to its end."""
    after = lines((folder / "journal.jsonl").read_bytes())
    trials, curves = results.trials(folder), results.epochs(folder)
    proposed = {event["trial"]: event["hyperparameters"] for event in after if event["event"] == "trial"}
    known = {event["trial"]: event["hyperparameters"] for event in before if event["event"] == "trial"}
    values = {(row["trial"], row["epoch"]): row["train_loss"] for _, row in curves.iterrows()}
    seen = {(e["trial"], e["epoch"]): e["train_loss"] for e in before if e["event"] == "epoch"}
    ends = Counter(event["trial"] for event in after if event["event"] == "end")
    runs = Counter((event["trial"], event["epoch"]) for event in after if event["event"] == "epoch")
    gaps = [t for t, curve in curves.groupby("trial") if list(curve["epoch"]) != list(range(1, len(curve) + 1))]
    short = trials[(trials["status"] == "completed") & (trials["epochs_trained"] < 8)]
    ours = {key: value for key, value in values.items() if key[0] < 2}
    study = optuna.load_study(study_name="faults", storage=f"sqlite:///{folder / 'study.db'}")
    told = {trial.number: trial.state.name for trial in study.trials}
    return {
        "trials lost": len([t for t in known if proposed.get(t) != known[t]]) + len(gaps) + len(short),
        "trials run twice": sum(count > 1 for count in ends.values()) + int(trials[["lambda", "h"]].duplicated().sum()),
        "trials not ended": 10 - len(ends) + int((trials["status"] == "unfinished").sum()),
        "trials failed": int((trials["status"] == "failed").sum()),
        "numbers changed": sum(values.get(key) != value for key, value in seen.items())
        + sum(ours.get((row["trial"], row["epoch"])) != row["train_loss"] for _, row in reference.iterrows()),
        "study disagrees": sum(
            told.get(row["trial"]) != TOLD.get(row["status"], "PRUNED") for _, row in trials.iterrows()
        ),
        "epochs run again": sum(count - 1 for count in runs.values()),
        "retries": int(trials["retries"].sum()),
    }


@contextmanager
def place(fault: str) -> Iterator[Path]:
    """A folder for one try; on a small file system of its own where that is to be filled."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        if fault != "full disk":
            yield Path(name)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def attempt(fault: str, chance: random.Random, events: int, reference: pd.DataFrame) -> dict[str, Any]:
    """One search, struck once, when its journal has some part of the `events` that it has in the end."""
    with place(fault) as parent:
        search = Search(parent / "run")
        after = chance.randint(1, round(0.9 * events))  # with two trials at a time the number of events varies
        search.reach(after)
        time.sleep(chance.uniform(0, 0.2))
        before = lines(search.journal.read_bytes())
        FAULTS[fault](search, chance)
        struck = time.monotonic()
        code = search.process.wait(PATIENCE)
        stopped = time.monotonic() - struck
        (parent / "filler").unlink(missing_ok=True)
        whole = lines(search.journal.read_bytes())
        if fault == "power cut, files torn":
            before = whole  # what was torn off the journal was never known to be on the disk
        resumed = code != 0
        if resumed:
            code = Search(parent / "run", "--resume").process.wait(PATIENCE)
        row = {"after events": after, "stopped after seconds": stopped, "resumed": resumed, "exit code": code}
        row |= judge(parent / "run", before, reference)
        if code != 0 or any(row[name] for name in LOSSES):
            kept = Path(tempfile.mkdtemp(prefix="faults-kept-"))
            shutil.copytree(parent, kept, dirs_exist_ok=True)
            print(f"  not as it should be: {row}; kept in {kept}", flush=True)
        return row


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", choices=FAULTS, help="one fault")
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with place("none") as parent:
        search = Search(parent / "run")
        assert search.process.wait(PATIENCE) == 0, "the search fails without any fault"
        events = len(lines(search.journal.read_bytes()))
        reference = results.epochs(parent / "run").query("trial < 2")[["trial", "epoch", "train_loss"]]
    print(
        f"undisturbed, a search records {events} events; faults strike after any of the first nine tenths\n", flush=True
    )
    rows = []
    for fault in [options.only] if options.only else FAULTS:
        if fault == "full disk" and os.geteuid() != 0:
            print(f"{fault:30} left out: to mount a small file system takes root", flush=True)
            continue
        rows += [
            {"fault": fault, "try": number, **attempt(fault, chance, events, reference)}
            for number in range(options.tries)
        ]
        done = pd.DataFrame(rows).query("fault == @fault")
        said = ", ".join(f"{name} {done[name].sum()}" for name in (*LOSSES, "epochs run again", "retries"))
        reached = f"{len(done)} tries, {done['resumed'].sum()} resumed, {(done['exit code'] == 0).sum()} to their end"
        print(f"{fault:30} {reached}: {said}", flush=True)
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "faults.csv", index=False)


if __name__ == "__main__":
    main()
