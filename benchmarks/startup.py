"""How long commands take before they answer, as multiples of `python -c "import torch"` in the same round.

In each round every command runs once, one after another, as a process of its own. A ratio is taken within a round, so
that a slow moment of the machine counts on both sides. Run it on idle cores.

    python benchmarks/startup.py --output benchmarks/results
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

REFERENCE = "import torch"
LIMITS = {"--help": 0.3, "--version": 0.3, "error in a search space": 1.3, "error in a run": 1.3}
FINISHED = Path("tests/data/v0_1_0/finished")  # the search that watch, compare, replay and report read
SPACE = """
name: startup
data: {dataset: digits, validation: 360}
model: small_cnn
space:
  lamda: {loguniform: [0.001, 1]}
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the command lines by name; their files are written into `folder`."""
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "run.yaml").write_text("training: {epoch: 3}\n", encoding="utf-8")
    runs = [folder / "first", folder / "second"]
    for run in runs:
        shutil.copytree(FINISHED, run)
    package = [sys.executable, "-m", "tune_cure"]
    return {
        REFERENCE: [sys.executable, "-c", REFERENCE],
        "--help": [*package, "--help"],
        "--version": [*package, "--version"],
        "error in a search space": [*package, "search", "--space", str(folder / "space.yaml")],
        "error in a run": [*package, "train", "--config", str(folder / "run.yaml")],
        "watch": [*package, "watch", str(runs[0])],
        "compare": [*package, "compare", *map(str, runs)],
        "replay": [*package, "replay", str(runs[0])],
        "report": [*package, "report", str(runs[0])],
    }


def measure(rounds: int) -> pd.DataFrame:
    """Run all commands in each round, and return a row for each: `round`, `command`, `seconds`, `cpu_seconds`."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lines = commands(Path(folder))
        for number in range(-1, rounds):  # round -1 fills the disk cache, and does not count
            for name, words in lines.items():
                before, started = os.times(), time.perf_counter()
                subprocess.run(words, capture_output=True, check=False)
                seconds, after = time.perf_counter() - started, os.times()
                cpu = sum(after[2:4]) - sum(before[2:4])  # of children: user and system time
                rows.append({"round": number, "command": name, "seconds": seconds, "cpu_seconds": cpu})
    frame = pd.DataFrame(rows)
    return frame[frame["round"] >= 0]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each command: median seconds, and median and quartiles of its ratio to importing torch."""
    rows = []
    by_round = frame.pivot(index="round", columns="command", values="seconds")
    cpu = frame.pivot(index="round", columns="command", values="cpu_seconds")
    for name in frame["command"].unique():
        ratio = by_round[name] / by_round[REFERENCE]
        rows.append(
            {
                "command": name,
                "seconds": by_round[name].median(),
                "times_import_torch": ratio.median(),
                "times_import_torch_25": ratio.quantile(0.25),
                "times_import_torch_75": ratio.quantile(0.75),
                "times_import_torch_cpu": (cpu[name] / cpu[REFERENCE]).median(),
                "limit": LIMITS.get(name),
                "rounds": len(by_round),
            }
        )
    return pd.DataFrame(rows).round(3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each command runs (default: 9)")
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    frame = summary(measure(options.rounds))
    print(frame.to_string(index=False))
    if options.output:
        frame.to_csv(options.output / "startup.csv", index=False)


if __name__ == "__main__":
    main()
