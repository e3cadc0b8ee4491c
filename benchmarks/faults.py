"""Breaks searches at random moments in every way that a night can, continues them, and says what was lost.

    make faults

Each search runs the command line on handwritten digits, two trials at a time. A fault strikes after a random time;
where it ends the search, the command with --resume continues it. Then the run's folder is compared with what it was at
the moment of the fault, and the trials of start_from with those of a search that nothing befell, to the last digit.

The kinds of faults are in fault_kinds.py.
"""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from fault_kinds import FAULTS, Fault, Search, lines

from tune_cure.search import results

PATIENCE = 600  # seconds until a search counts as hanging
SMALL = 128  # MiB of the file system that is filled
LOSSES = (
    "trials lost",
    "trials run twice",
    "trials not ended",
    "trials failed",
    "numbers changed",
    "study disagrees",
    "tracebacks",
    "no word how to continue",
)
TOLD = {"completed": "COMPLETE", "failed": "FAIL"}  # every other end: PRUNED


def judge(folder: Path, before: list[dict[str, Any]], reference: pd.DataFrame) -> dict[str, int]:
    """What is wrong with a search that was struck and has come to its end."""
    after = lines((folder / "journal.jsonl").read_bytes())
    trials, curves = results.trials(folder), results.epochs(folder)
    proposed = {event["trial"]: event["hyperparameters"] for event in after if event["event"] == "trial"}
    known = {event["trial"]: event["hyperparameters"] for event in before if event["event"] == "trial"}
    values = {(row["trial"], row["epoch"]): row["train_loss"] for _, row in curves.iterrows()}
    seen = {(e["trial"], e["epoch"]): e["train_loss"] for e in before if e["event"] == "epoch"}
    ends = Counter(event["trial"] for event in after if event["event"] == "end")
    leaders = Counter(event["trial"] for event in after if event["event"] == "leader")
    runs = Counter((event["trial"], event["epoch"]) for event in after if event["event"] == "epoch")
    gaps = [t for t, curve in curves.groupby("trial") if list(curve["epoch"]) != list(range(1, len(curve) + 1))]
    short = trials[(trials["status"] == "completed") & (trials["epochs_trained"] < 8)]
    ours = {key: value for key, value in values.items() if key[0] < 2}
    study = optuna.load_study(study_name="faults", storage=f"sqlite:///{folder / 'study.db'}")
    told = {trial.number: trial.state.name for trial in study.trials}
    return {
        "trials lost": len([t for t in known if proposed.get(t) != known[t]]) + len(gaps) + len(short),
        "trials run twice": sum(count > 1 for count in [*ends.values(), *leaders.values()])
        + int(trials[["lambda", "h"]].duplicated().sum()),
        "trials not ended": 10 - len(ends) + int((trials["status"] == "unfinished").sum()) + (not leaders),
        "trials failed": int((trials["status"] == "failed").sum()),
        "numbers changed": sum(values.get(key) != value for key, value in seen.items())
        + sum(ours.get((row["trial"], row["epoch"])) != row["train_loss"] for _, row in reference.iterrows())
        + sum(event not in after for event in before if event["event"] == "leader"),
        "study disagrees": sum(
            told.get(row["trial"]) != TOLD.get(row["status"], "PRUNED") for _, row in trials.iterrows()
        ),
        "epochs run again": sum(count - 1 for count in runs.values()),
        "retries": int(trials["retries"].sum()),
    }


@contextmanager
def place(fault: Fault | None) -> Iterator[Path]:
    """A folder for one try; on a small file system of its own where that is to be filled."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        if fault is None or not fault.has_small_disk:
            yield Path(name)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def attempt(name: str, chance: random.Random, events: int, reference: pd.DataFrame) -> dict[str, Any]:
    """One search, struck once; `events` is the number of events that an undisturbed search records."""
    fault = FAULTS[name]
    with place(fault) as parent:
        search = Search(parent / "run", environment=fault.environment())
        fault.moment(search, chance, events)
        before = search.events()
        fault.strike(search, chance)
        struck = time.monotonic()
        code = search.process.wait(PATIENCE)
        row = {"after events": len(before), "stopped after seconds": time.monotonic() - struck, "first exit code": code}
        fault.repair(search)
        if name == "power cut, files torn":
            before = search.events()  # what was torn off the journal was never known to be on the disk
        log = Path(search.log.name)
        is_begun = (search.folder / "spec.yaml").exists()
        missing = code > 0 and is_begun and "--resume" not in log.read_text()
        resumed = code != 0
        if resumed:
            code = Search(parent / "run", *(["--resume"] if is_begun else [])).process.wait(PATIENCE)
        row |= {"resumed": resumed, "exit code": code, **judge(parent / "run", before, reference)}
        row |= {"tracebacks": log.read_text().count("Traceback"), "no word how to continue": int(missing)}
        if code != 0 or any(row[loss] for loss in LOSSES):
            kept = Path(tempfile.mkdtemp(prefix="faults-kept-"))
            shutil.copytree(parent, kept, dirs_exist_ok=True)
            print(f"  not as it should be: {row}; kept in {kept}", flush=True)
        return row


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Puts tries into a table, in the place of the same tries in it."""
    table = pd.DataFrame(rows)
    if file.exists():
        table = pd.concat([pd.read_csv(file), table]).drop_duplicates(["fault", "try"], keep="last")
    order = {name: position for position, name in enumerate(FAULTS)}
    table = table.sort_values("try").sort_values("fault", key=lambda column: column.map(order), kind="stable")
    table.to_csv(file, index=False)


def summary(rows: list[dict[str, Any]]) -> str:
    """What became of the tries of one fault, in a line."""
    done = pd.DataFrame(rows)
    said = ", ".join(f"{name} {done[name].sum()}" for name in (*LOSSES, "epochs run again", "retries"))
    reached = f"{len(done)} tries, {done['resumed'].sum()} resumed, {(done['exit code'] == 0).sum()} to their end"
    return f"{done['fault'][0]:51} {reached}: {said}"


def run(names: list[str], jobs: int, options: argparse.Namespace, events: int, reference: pd.DataFrame) -> None:
    """Runs the tries of some faults, `jobs` at a time, prints their lines, and writes each try into the table."""

    def attempt_one(name: str, number: int) -> dict[str, Any]:
        chance = random.Random(f"{options.seed} {name} {number}")
        return {"fault": name, "try": number, **attempt(name, chance, events, reference)}

    numbers = range(options.first, options.first + options.tries)
    with ThreadPoolExecutor(jobs) as pool:
        tries = {name: [pool.submit(attempt_one, name, number) for number in numbers] for name in names}
        for attempted in tries.values():
            rows = []
            for one in attempted:
                rows.append(one.result())
                if options.output:
                    write(options.output / "faults.csv", rows)
            print(summary(rows), flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first try: others follow earlier ones")
    parser.add_argument("--jobs", type=int, default=1, help="tries at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", choices=FAULTS, nargs="+", metavar="FAULT", help="some of: " + "; ".join(FAULTS))
    parser.add_argument(
        "--undisturbed", type=Path, help="an earlier undisturbed search on this machine, or a new folder"
    )
    parser.add_argument("--output", type=Path, help="a folder for faults.csv; other tries in it stay")
    options = parser.parse_args()
    with place(None) as parent:
        undisturbed = options.undisturbed or parent / "undisturbed"
        if not undisturbed.exists():
            assert Search(undisturbed).process.wait(PATIENCE) == 0, "the search fails without any fault"
        events = len(lines((undisturbed / "journal.jsonl").read_bytes()))
        reference = results.epochs(undisturbed).query("trial < 2")[["trial", "epoch", "train_loss"]]
    print(f"undisturbed, a search records {events} events\n", flush=True)
    names = [name for name in options.only or FAULTS if os.geteuid() == 0 or not FAULTS[name].needs_root]
    for name in set(options.only or FAULTS) - set(names):
        print(f"{name:51} left out: it takes root", flush=True)
    alone = [name for name in names if FAULTS[name].is_alone]
    for jobs, group in ((options.jobs, [name for name in names if name not in alone]), (1, alone)):
        run(group, jobs, options, events, reference)


if __name__ == "__main__":
    main()
