"""Trials per hour against how many run at a time.

    .venv/bin/python benchmarks/scaling.py --concurrent 1 2 --output benchmarks/results

Runs the space once for each number, without a scheduler, so that every trial takes the same epochs; on a GPU, 4 at a
time means a quarter of it each. The clock runs from the first trial's start to the last one's end: Ray's own start is
not in it. `images_held` sums up, over the workers, what each holds in memory of the file of prepared images, pages that
several share counted once (Linux's Pss); `images_file` is the file's size.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
import torch
from search_overhead import summary

from tune_cure import spec as specs
from tune_cure.datasets import prepared_file
from tune_cure.results import SearchResult

ROOT = Path(__file__).parent.parent


def held(file: Path) -> tuple[float, float]:
    """MiB that all processes hold of a mapped file: shared pages counted once, and as often as they are mapped."""
    proportional = resident = 0
    for maps in Path("/proc").glob("[0-9]*/smaps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # it has ended, or is another user's
            continue
        inside = False
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                inside = line.endswith(str(file))
            elif inside and line.startswith("Pss:"):
                proportional += int(line.split()[1])
            elif inside and line.startswith("Rss:"):
                resident += int(line.split()[1])
    return proportional / 1024, resident / 1024


def measure(space: Path, concurrent: int, trials: int, arguments: list[str]) -> dict[str, float]:
    """One search with so many trials at a time."""
    changes = [
        "search.scheduler=none",
        "asha.grace_period=1",
        f"search.trials={trials}",
        f"resources.concurrent={concurrent}",
    ]
    if torch.cuda.is_available():
        changes.append(f"resources.gpus_per_trial={1 / concurrent}")
    given = [word for change in changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(space), "--output", f"{folder}/run"]
        process = subprocess.Popen([*command, *given, *arguments], stdout=subprocess.DEVNULL)
        spec_file = Path(folder, "run", "spec.yaml")
        most, ended = (0.0, 0.0), threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(1.0):
                if spec_file.exists():
                    data = specs.load(spec_file).data
                    most = max(most, held(prepared_file(data.dataset, data.folder, data.image_size)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
        if code:
            raise SystemExit(f"the search ended with exit code {code}")
        result = SearchResult(f"{folder}/run")
        row = summary(result).iloc[0]
        data = result.spec.data
        file = prepared_file(data.dataset, data.folder, data.image_size)
        return {
            "concurrent": concurrent,
            "trials": trials,
            "seconds": row["seconds"],
            "trials_per_hour": 3600 * trials / row["seconds"],
            "images_per_second": float(result.epochs["images_per_second"].mean()) * concurrent,
            "share_in_training_and_judging": row["share_in_training_and_judging"],
            "images_file": file.stat().st_size / 2**20,
            "images_held": most[0],
            "images_mapped": most[1],
        }


def main() -> None:
    """Measures each number and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces" / "quickstart.yaml", help="what to search")
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 2], help="trials at a time")
    parser.add_argument("--trials", type=int, help="in each search (default: twice as many as run at a time)")
    parser.add_argument("--output", type=Path, help="a folder for scaling.csv")
    parser.add_argument("arguments", nargs="*", help="for the searches, after --")
    options = parser.parse_args()
    rows = []
    for concurrent in options.concurrent:
        rows.append(measure(options.space, concurrent, options.trials or 2 * concurrent, options.arguments))
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format), flush=True)
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "scaling.csv", index=False)


if __name__ == "__main__":
    main()
