"""How long searches and training runs take, against what the command says before the first trial or epoch.

Each command runs alone, as a process. Its estimate is read from its own line; the time runs from that line to the
command's end.

    python benchmarks/estimates.py --data-root FOLDER --output benchmarks/results
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

CIFAR10 = ["--set", "data.train_examples=1280", "--set", "data.validation=400", "--set", "evaluation.examples=200"]
COMMANDS = {
    "search, quickstart of 8 trials": ["search", "--space", "quickstart", "--set", "search.trials=8"],
    "search, cifar10_cpu made small": [
        *["search", "--space", "cifar10_cpu", *CIFAR10, "--set", "training.epochs=3", "--set", "search.trials=4"],
        *["--set", "asha.grace_period=1", "--set", "rescore.examples=200"],
    ],
    "train, digits": ["train", "--dataset", "digits", "--lambda", "0.01", "--epochs", "40"],
    "train, CIFAR-10 made small": [
        *["train", "--dataset", "cifar10", "--model", "preact_resnet10", "--set", "model.width=8", *CIFAR10],
        *["--lambda", "0.1", "--epochs", "6"],
    ],
}
UNITS = {"h": 3600, "min": 60, "s": 1}


def parse_seconds(text: str) -> int:
    """Return the seconds of a duration in words: 1 min 20 s."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+) (h|min|s)\b", text))


def read_estimate(line: str) -> int | None:
    """Return the seconds that a line of the command's output announces for all of it; None if it is another line."""
    found = re.search(r"\(measured\).* about ([^,]+)$", line.strip())
    return parse_seconds(found[1]) if found else None


def run(words: list[str]) -> tuple[int, float]:
    """Run a command; return the seconds that it announces, and those that it takes from then on."""
    command = [sys.executable, "-u", "-m", "tune_cure", *words]
    estimate, started = None, 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if estimate is None and (estimate := read_estimate(line)) is not None:
                started = time.perf_counter()
    if process.returncode or estimate is None:
        raise SystemExit(f"{' '.join(words)}: ended with exit code {process.returncode} and the estimate {estimate}")
    return estimate, time.perf_counter() - started


def measure(data_root: str | None, names: list[str]) -> pd.DataFrame:
    """Run the commands of these names; return a row for each: what, estimated_seconds, seconds, ratio."""
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            root = ["--data-root", data_root] if data_root and "CIFAR" in name.upper() else []
            estimated, seconds = run([*COMMANDS[name], *root, "--output", str(Path(folder) / "run")])
        rows.append({"what": name, "estimated_seconds": estimated, "seconds": seconds, "ratio": seconds / estimated})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Run the commands, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with CIFAR-10; without it, it is downloaded")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="(default: all)")
    parser.add_argument("--output", type=Path, required=True, help="folder of estimates.csv")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "estimates.csv"
    frame = measure(options.data_root, options.only)
    frame.round({"seconds": 1, "ratio": 2}).to_csv(file, index=False)


if __name__ == "__main__":
    main()
