"""How much of a search's time its workers spend training and judging, and where the rest goes.

    .venv/bin/python benchmarks/search_overhead.py --output benchmarks/results

Runs a search (the quickstart's unless another is named) and reads its journal: every epoch's line has the time at which
it was written, the seconds of training and judging, and the process that did it. What lies between two lines of a
process, or of one and of that which took its place, and was neither is overhead: of an epoch (checkpoint, journal, the
scheduler's decision) or of a trial's start. `workers` is the most trials that ran at once.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from tune_cure.search.results import SearchResult

ROOT = Path(__file__).parent.parent


def stretches(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial in each process that ran it, in order: `trial`, `pid`, and when it `begun` and `ended`."""
    groups = epochs.assign(begun=_begun(epochs)).groupby(["trial", "pid"], as_index=False)
    return groups.agg(begun=("begun", "min"), ended=("time", "max")).sort_values("begun", ignore_index=True)


def at_a_time(epochs: pd.DataFrame) -> int:
    """The most trials that ran at once. No scheduler that lets trials pause: a pause counts as running."""
    each = stretches(epochs)
    return max(int(((each["begun"] <= now) & (each["ended"] > now)).sum()) for now in each["begun"])


def slots(epochs: pd.DataFrame) -> pd.Series:
    """For each epoch, which of the places for trials it ran in.

    A process stays where it is. A new one (each trial has its own, where trials share GPUs) takes the place that was
    vacated last, and one that nobody has had yet only if none is free.
    """
    places: list[tuple[float, int]] = []  # until when it was taken, and by which process
    found = {}
    for row in stretches(epochs).itertuples():
        own = [place for place, (_, pid) in enumerate(places) if pid == row.pid]
        free = sorted((ended, place) for place, (ended, _) in enumerate(places) if ended <= row.begun)
        place = own[0] if own else free[-1][1] if free else len(places)
        places[place : place + 1] = [(row.ended, row.pid)]
        found[row.trial, row.pid] = place
    keys = zip(epochs["trial"], epochs["pid"], strict=True)
    return pd.Series([found[key] for key in keys], index=epochs.index)


def gaps(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each epoch but the first of each place: `gap`, the seconds before it, and whether a trial began."""
    rows = []
    for _, mine in epochs.assign(begun=_begun(epochs)).sort_values("time").groupby(slots(epochs)):
        before = mine.shift()
        table = pd.DataFrame({"gap": mine["begun"] - before["time"], "starts": mine["trial"] != before["trial"]})
        rows.append(table.iloc[1:])
    return pd.concat(rows)


def summary(result: SearchResult) -> pd.DataFrame:
    """What the workers of a search did with their time."""
    epochs, trials = result.epochs, result.trials
    wall = float(epochs["time"].max() - _begun(epochs).min())
    workers = at_a_time(epochs)
    between = gaps(epochs)
    starts, others = between.loc[between["starts"], "gap"], between.loc[~between["starts"], "gap"]
    return pd.DataFrame(
        [
            {
                "trials": len(trials),
                "epochs": len(epochs),
                "workers": workers,
                "seconds": wall,
                "share_in_training_and_judging": float(_busy(epochs).sum()) / (workers * wall),
                "share_in_epochs_overhead": float(others.sum()) / (workers * wall),
                "share_in_starts": float(starts.sum()) / (workers * wall),
                "overhead_of_an_epoch_median": float(others.median()),
                "start_of_a_trial_median": float(starts.median()),
                "start_of_a_trial_90_percent": float(starts.quantile(0.9)),
                "start_of_a_trial_longest": float(starts.max()),
            }
        ]
    )


def _busy(epochs: pd.DataFrame) -> pd.Series:
    return epochs["train_seconds"] + epochs["eval_seconds"].fillna(0)


def _begun(epochs: pd.DataFrame) -> pd.Series:
    return epochs["time"] - _busy(epochs)


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
