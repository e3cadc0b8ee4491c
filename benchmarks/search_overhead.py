"""How much of a search's time its workers spend training and judging, and where the rest goes.

    .venv/bin/python benchmarks/search_overhead.py --output benchmarks/results

Runs a search (the quickstart's unless another is named) and reads its journal: every epoch's line has the time at which
it was written, the seconds of training and judging, and the process that did it. What lies between two lines of a
process and was neither is overhead: of an epoch (checkpoint, journal, the scheduler's decision) or of a trial's start.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from tune_cure.results import SearchResult

ROOT = Path(__file__).parent.parent


def gaps(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each epoch but the first of each process: `gap`, the seconds before it, and whether a trial began."""
    rows = []
    busy = epochs["train_seconds"] + epochs["eval_seconds"].fillna(0)
    for _, mine in epochs.assign(begun=epochs["time"] - busy).sort_values("time").groupby("pid"):
        before = mine.shift()
        table = pd.DataFrame({"gap": mine["begun"] - before["time"], "starts": mine["trial"] != before["trial"]})
        rows.append(table.iloc[1:])
    return pd.concat(rows)


def summary(result: SearchResult) -> pd.DataFrame:
    """What the workers of a search did with their time."""
    epochs, trials = result.epochs, result.trials
    busy = float((epochs["train_seconds"] + epochs["eval_seconds"].fillna(0)).sum())
    begun = float((epochs["time"] - epochs["train_seconds"] - epochs["eval_seconds"].fillna(0)).min())
    wall = float(epochs["time"].max()) - begun
    workers = epochs["pid"].nunique()
    between = gaps(epochs)
    starts, others = between.loc[between["starts"], "gap"], between.loc[~between["starts"], "gap"]
    return pd.DataFrame(
        [
            {
                "trials": len(trials),
                "epochs": len(epochs),
                "workers": workers,
                "seconds": wall,
                "share_in_training_and_judging": busy / (workers * wall),
                "share_in_epochs_overhead": float(others.sum()) / (workers * wall),
                "share_in_starts": float(starts.sum()) / (workers * wall),
                "overhead_of_an_epoch_median": float(others.median()),
                "start_of_a_trial_median": float(starts.median()),
                "start_of_a_trial_90_percent": float(starts.quantile(0.9)),
                "start_of_a_trial_longest": float(starts.max()),
            }
        ]
    )


def main() -> None:
    """Runs a search, or reads one, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces" / "quickstart.yaml", help="what to search")
    parser.add_argument("--run", type=Path, help="the folder of a search that has been run, to be read instead")
    parser.add_argument("--output", type=Path, help="a folder for search_overhead.csv")
    parser.add_argument("arguments", nargs="*", help="for the search, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(options.space)]
            subprocess.run([*command, "--output", f"{folder}/run", *options.arguments], check=True)
        table = summary(SearchResult(options.run or f"{folder}/run"))
    print(table.T.to_string(header=False, float_format="{:.3f}".format))
    if options.output:
        table.to_csv(options.output / "search_overhead.csv", index=False)


if __name__ == "__main__":
    main()
