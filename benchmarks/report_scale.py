"""What the report of a large search takes: seconds, memory, and the size of its page.

    .venv/bin/python benchmarks/report_scale.py --trials 3 100 1000 10000 --output benchmarks/results

Journals are made up, with every trial trained to the end (the most that a report can meet), and `tune-cure report` is
run on each as a process of its own.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from tune_cure.search import run_files
from tune_cure.search.space.loading import load

SPACE = Path(__file__).parent.parent / "search_spaces" / "cure.yaml"


def make(directory: Path, trials: int, epochs: int) -> None:
    """Writes a search's folder whose trials are made up."""
    spec = load(SPACE, [f"search.trials={trials}", f"training.epochs={epochs}", "asha.grace_period=3"])
    (directory / run_files.SPEC).write_text(spec.to_yaml())
    draw = random.Random(0)
    clock = 1_760_000_000.0
    with (directory / run_files.JOURNAL).open("w") as journal:
        for number in range(trials):
            values = {key: math.exp(draw.uniform(*(math.log(float(end)) for end in of.values)))
                      if of.kind == "loguniform" else draw.uniform(*map(float, of.values))
                      for key, of in spec.space.items()}  # fmt: skip
            begun = clock + 20.0 * (number // 64)  # 64 at once
            line = {"event": "trial", "trial": number, "time": begun, "origin": "sampler", "hyperparameters": values}
            journal.write(json.dumps(line) + "\n")
            level, best = 0.45 * math.exp(-abs(math.log10(values["lambda"]))) + 0.05 * draw.random(), 0.0
            for epoch in range(1, epochs + 1):
                pgd = round(1000 * level * (1 - math.exp(-epoch / 8)) + draw.gauss(0, 10)) / 1000
                pgd, begun = min(max(pgd, 0.0), 1.0), begun + 20.0 / epochs
                best = max(best, pgd)
                line = {
                    "event": "epoch", "trial": number, "time": begun, "epoch": epoch, "lr": draw.random(),
                    "train_loss": 2 * draw.random(), "train_adversarial_accuracy": draw.random(),
                    "curvature": 0.01 + draw.random(), "clean_accuracy": min(pgd + 0.3 + 0.1 * draw.random(), 1.0),
                    "fgsm_accuracy": pgd, "pgd_accuracy": pgd, "clean_accuracy_se": 0.015, "fgsm_accuracy_se": 0.015,
                    "pgd_accuracy_se": 0.015, "fgsm_loss_increase": draw.random(), "gradient_alignment": draw.random(),
                    "pgd_accuracy_best": best, "catastrophic_overfitting": False, "train_seconds": 15.0 / epochs,
                    "attack_seconds": 3.0 / epochs, "penalty_seconds": 7.0 / epochs, "eval_seconds": 5.0 / epochs,
                    "images_per_second": 1e4 * draw.random(), "device_memory_mb": 1e3 * draw.random(),
                    "skipped_steps": 0, "objective": best, "ended": "", "host": "node", "pid": number % 64,
                }  # fmt: skip
                journal.write(json.dumps(line) + "\n")
            line = {"event": "end", "trial": number, "time": begun, "status": "completed", "reason": ""}
            journal.write(json.dumps(line) + "\n")


def measure(trials: int, epochs: int) -> dict[str, float]:
    """The row of the table for a search of so many trials and epochs."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        make(directory, trials, epochs)
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "tune_cure", "report", folder], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"the report of {trials} trials failed")
        return {
            "trials": trials,
            "epochs": trials * epochs,
            "journal_mb": (directory / run_files.JOURNAL).stat().st_size / 1e6,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_memory_mb": round(usage.ru_maxrss / 1000),
            "html_mb": round((directory / "report.html").stat().st_size / 1e6, 2),
            "csv_mb": round((directory / "epochs.csv").stat().st_size / 1e6, 1),
            "parquet_mb": round((directory / "epochs.parquet").stat().st_size / 1e6, 1),
        }


def main() -> None:
    """Measures each size, and prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[3, 100, 1000, 10000])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, help="a folder for report_scale.csv")
    options = parser.parse_args()
    rows = []
    for trials in options.trials:
        rows.append(measure(trials, options.epochs))
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "report_scale.csv", index=False)


if __name__ == "__main__":
    main()
