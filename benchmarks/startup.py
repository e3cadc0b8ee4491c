"""How long commands take before they answer, as multiples of `python -c "import torch"` in the same round.

In each round every command runs once, one after another, as a process of its own. A ratio is taken within a round, so
that a slow moment of the machine counts on both sides. Run it on idle cores. Pictures and best model of the run are
made in a round that does not count: `report` is measured where they are current.

    python benchmarks/startup.py --output benchmarks/results

`--before` also runs each command as another commit has it, right before, and adds the ratio of the two:

    git worktree add /tmp/before d2c61a4
    python benchmarks/startup.py --run results/quickstart --before /tmp/before --output benchmarks/results
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]  # `python -m` takes the package of the working directory
REFERENCE = "import torch"
LIMITS = {"--help": 0.3, "--version": 0.3, "error in a search space": 0.6, "error in a run": 0.6, "watch": 0.8}
FINISHED = ROOT / "tests/data/v0_1_0/finished"
SPACE = """
name: startup
data: {dataset: digits, validation: 360}
model: small_cnn
space:
  lamda: {loguniform: [0.001, 1]}
"""


def commands(folder: Path, finished: Path) -> dict[str, list[str]]:
    """Return the command lines by name; their files are written into `folder`.

    Args:
        folder: An empty folder.
        finished: The folder of a finished search, which watch, compare, replay and report read; it is copied.
    """
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "run.yaml").write_text("training: {epoch: 3}\n", encoding="utf-8")
    runs = [folder / "first", folder / "second"]
    for run in runs:
        shutil.copytree(finished, run)
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


def measure(rounds: int, finished: Path, earlier: Path | None = None) -> pd.DataFrame:
    """Run all commands in each round.

    Args:
        rounds: How often each command runs.
        finished: The folder of a finished search.
        earlier: A checkout of an earlier commit, whose commands run, too; None for none.

    Returns:
        A row for each command and round: `round`, `command`, `seconds`, `cpu_seconds`, and with `earlier` the same two
        of the earlier commit as `before_seconds` and `before_cpu_seconds`.
    """
    rows = []
    with tempfile.TemporaryDirectory() as now, tempfile.TemporaryDirectory() as before:
        lines, earlier_lines = commands(Path(now), finished), commands(Path(before), finished)
        for number in range(-1, rounds):  # round -1 fills the disk cache, and does not count
            for name, words in lines.items():
                row = {"round": number, "command": name}
                if earlier is not None:
                    row["before_seconds"], row["before_cpu_seconds"] = take_time(earlier_lines[name], earlier)
                row["seconds"], row["cpu_seconds"] = take_time(words)
                rows.append(row)
    frame = pd.DataFrame(rows)
    return frame[frame["round"] >= 0]


def take_time(words: list[str], package: Path | None = None) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a command; `package`: the checkout to run in; None is this one."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(words, capture_output=True, check=False, cwd=package or ROOT)
    seconds, after = time.perf_counter() - started, os.times()
    return seconds, sum(after[2:4]) - sum(before[2:4])  # of children: user and system time


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each command: median seconds, and medians and quartiles of its ratios.

    `times_import_torch` is its time over that of importing torch, `times_before` that over its own time before.
    """
    rows = []
    by_round = frame.pivot(index="round", columns="command", values="seconds")
    cpu = frame.pivot(index="round", columns="command", values="cpu_seconds")
    for name in frame["command"].unique():
        ratio = by_round[name] / by_round[REFERENCE]
        of_command = frame[frame["command"] == name]
        times_before = of_command["seconds"] / of_command.get("before_seconds", math.nan)
        times_before_cpu = of_command["cpu_seconds"] / of_command.get("before_cpu_seconds", math.nan)
        rows.append(
            {
                "command": name,
                "seconds": by_round[name].median(),
                "times_import_torch": ratio.median(),
                "times_import_torch_25": ratio.quantile(0.25),
                "times_import_torch_75": ratio.quantile(0.75),
                "times_import_torch_cpu": (cpu[name] / cpu[REFERENCE]).median(),
                "limit": LIMITS.get(name),
                "times_before": times_before.median(),
                "times_before_25": times_before.quantile(0.25),
                "times_before_75": times_before.quantile(0.75),
                "times_before_cpu": times_before_cpu.median(),
                "rounds": len(by_round),
            }
        )
    return pd.DataFrame(rows).round(3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each command runs (default: 9)")
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    parser.add_argument("--run", type=Path, default=FINISHED, help="a finished search (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, to compare with")
    options = parser.parse_args()
    frame = summary(measure(options.rounds, options.run.resolve(), options.before and options.before.resolve()))
    print(frame.to_string(index=False))
    if options.output:
        frame.to_csv(options.output / "startup.csv", index=False)


if __name__ == "__main__":
    main()
