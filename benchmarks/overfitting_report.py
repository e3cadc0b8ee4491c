"""Tables of the runs of overfitting.py that are there: collapses, accuracies, and what ending a run early would cost.

    python benchmarks/overfitting_report.py

Writes overfitting_arms.csv, a row for each arm; overfitting_collapses.csv, a row for each run that collapsed; and
overfitting_pairs.csv, how arms compare with `cure` by the tests that overfitting_protocol.md names: the primary
hypothesis once its two arms have all their runs, and all else once all arms have.

Accuracies are compared by the seeds of the two arms alone, as `tune-cure confirm` did when the protocol was written. An
arm of one run is compared with nothing, because one run does not tell how much seeds differ: `cure_zero` must equal the
run of `fgsm_rs` with its seed, which is said instead.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from overfitting import ARMS, MAIN, QUESTION, RESULTS, Job
from scipy import stats

from tune_cure.utils import significance

COLLAPSES = ("collapsed", "in_the_end")
PRIMARY = ("fgsm_rs", "collapsed")  # tested by itself
COPY, ORIGINAL = "cure_zero", "fgsm_rs"  # the same computation, so the same numbers
COPIED = ("lr", "train_loss", "clean_accuracy", "fgsm_accuracy", "pgd_accuracy", "gradient_alignment")
ACCURACIES = ("last_clean", "last_pgd_50_10", "last_autoattack", "best_clean", "best_pgd_50_10", "best_autoattack")


@dataclass(frozen=True)
class Run:
    """A run that is trained.

    Attributes:
        arm: Its arm.
        seed: Its seed.
        summary: What overfitting.py says of it.
        log: Its epochs.
        is_done: Whether its networks are judged, too, if it has any.
        last: Whether its last network withstands AutoAttack on each test image; None if it diverged, or is not judged.
    """

    arm: str
    seed: int
    summary: dict[str, Any]
    log: pd.DataFrame
    is_done: bool
    last: NDArray[np.bool_] | None

    @property
    def collapsed(self) -> list[int]:
        """The epochs after which it was collapsed."""
        return list(self.summary["collapsed_epochs"])

    def has(self, outcome: str) -> bool:
        """Return whether an outcome of the protocol came true: `collapsed` at some epoch, or `in_the_end`."""
        return bool(self.collapsed) if outcome == "collapsed" else bool(self.summary["collapsed_in_the_end"])


def read(results: Path) -> dict[str, list[Run]]:
    """Return the trained runs of each arm that has some, by seed."""
    found = {name: list(_read_arm(name, results)) for name in ARMS}
    return {name: runs for name, runs in found.items() if runs}


def _read_arm(name: str, results: Path) -> Iterator[Run]:
    for seed in range(ARMS[name].seeds):
        job = Job(name, seed, {}, results)
        if not job.summary:
            continue
        last, outcomes = None, job.file("-last.npz")
        if outcomes.exists():
            with np.load(outcomes) as arrays:
                last = arrays["autoattack"]
        yield Run(name, seed, job.summary, pd.read_csv(job.file(".csv")), job.is_done, last)


def describe_arms(arms: dict[str, list[Run]]) -> pd.DataFrame:
    """Return a row for each arm: how many runs collapsed, with exact 95% intervals, mean accuracies, minutes.

    The accuracies are those of the `judged` runs. A run that diverged counts as wrong on every image.
    """
    rows = []
    for name, runs in arms.items():
        ever, end = (sum(run.has(outcome) for run in runs) for outcome in COLLAPSES)
        row: dict[str, Any] = {"arm": name, "planned": ARMS[name].seeds, "runs": len(runs), "collapsed": ever}
        interval = stats.binomtest(ever, len(runs)).proportion_ci()
        row |= {
            "collapsed_low": interval.low,
            "collapsed_high": interval.high,
            "recovered": ever - end,
            "in_the_end": end,
            "judged": sum(run.is_done for run in runs),
        }
        for key in ACCURACIES:
            found = np.array([run.summary.get(key, 0.0) for run in runs if run.is_done])
            mean, deviation = significance.mean_and_deviation(found) if len(found) else (math.nan, math.nan)
            row |= {key: mean, f"{key}_sd": deviation}
        rows.append(row | {"minutes": np.median([run.summary["train_seconds"] for run in runs]) / 60})
    return pd.DataFrame(rows)


def compare(arms: dict[str, list[Run]]) -> pd.DataFrame:
    """Return a row for each other arm and each outcome: the difference of `cure`, and p-values after Holm.

    Arms of one run have no row. The primary hypothesis stands by itself, and all others are adjusted together.
    """
    rows: list[dict[str, Any]] = []
    num_images = max((len(run.last) for runs in arms.values() for run in runs if run.last is not None), default=1)
    for name in [name for name in arms if name != MAIN and len(arms[name]) > 1]:
        rows += [_compare_counts(arms[MAIN], arms[name], outcome) for outcome in COLLAPSES]
        if common := {run.seed for run in arms[MAIN] if run.is_done} & {run.seed for run in arms[name] if run.is_done}:
            first, second = (_outcomes(arms[arm], common, num_images) for arm in (MAIN, name))
            rows.append(_compare_accuracies(first, second, name))
    alone = [index for index, row in enumerate(rows) if (row["arm"], row["outcome"]) == PRIMARY]
    adjusted = significance.holm([row["p"] for row in rows], alone=alone[0] if alone else None)
    return pd.DataFrame(rows).assign(p_holm=adjusted)


def compare_complete(arms: dict[str, list[Run]]) -> pd.DataFrame:
    """Return the rows of `compare` that the protocol tests by now: none of an arm that lacks runs.

    The primary hypothesis is tested by itself, so it waits for its two arms alone, which need not be judged. The others
    are adjusted together, so each of them waits for all runs.
    """
    if all(sum(run.is_done for run in arms.get(name, [])) == arm.seeds for name, arm in ARMS.items()):
        return compare(arms)
    if any(len(arms.get(name, [])) < ARMS[name].seeds for name in QUESTION):
        return pd.DataFrame()
    pairs = compare({name: arms[name] for name in QUESTION})
    return pairs[(pairs["arm"] == PRIMARY[0]) & (pairs["outcome"] == PRIMARY[1])].dropna(axis="columns")


def _compare_counts(first: list[Run], second: list[Run], outcome: str) -> dict[str, Any]:
    one, two = (sum(run.has(outcome) for run in runs) for runs in (first, second))
    p_value = stats.fisher_exact([(one, len(first) - one), (two, len(second) - two)]).pvalue
    row = {"arm": second[0].arm, "outcome": outcome, "runs": len(first), "runs_of_arm": len(second)}
    return row | {"difference": one / len(first) - two / len(second), "p": float(p_value)}


def _compare_accuracies(first: NDArray[Any], second: NDArray[Any], name: str) -> dict[str, Any]:
    found = significance.paired_difference(first, second)
    row = {"arm": name, "outcome": "last_autoattack", "runs": len(first), "runs_of_arm": len(second)}
    return row | {"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p_value}


def _outcomes(runs: list[Run], seeds: set[int], num_images: int) -> NDArray[np.bool_]:
    """Return the outcomes of last networks under AutoAttack, (seeds, images); of a run that diverged, all are wrong."""
    wrong = np.zeros(num_images, dtype=bool)
    return np.stack([wrong if run.last is None else run.last for run in runs if run.seed in seeds])


def is_copy(arms: dict[str, list[Run]]) -> bool | None:
    """Return whether CURE with lambda = 0 has the numbers of FGSM with the same seed; None without these runs."""
    logs = {(run.arm, run.seed): run.log for runs in arms.values() for run in runs}
    pairs = [(log, logs.get((ORIGINAL, seed))) for (arm, seed), log in logs.items() if arm == COPY]
    known = [(log, other) for log, other in pairs if other is not None]
    return all(log[name].equals(other[name]) for log, other in known for name in COPIED) if known else None


def list_collapses(arms: dict[str, list[Run]]) -> pd.DataFrame:
    """Return a row for each run that collapsed: when, whether it recovered, and what ending it then saves and costs.

    `best_before` is the best PGD-10 accuracy on validation images up to the first collapse, which is what the run has
    if it ends there, and `best_after` that of the epochs after it; `seconds_after` are those of training.
    """
    rows = []
    for run in [run for runs in arms.values() for run in runs if run.collapsed]:
        log, first = run.log, run.collapsed[0]
        after = log[log["epoch"] > first]
        rows.append({
            "arm": run.arm,
            "seed": run.seed,
            "first_epoch": first,
            "epochs_collapsed": len(run.collapsed),
            "recovered": not run.has("in_the_end"),
            "best_before": log.loc[log["epoch"] <= first, "pgd_accuracy"].max(),
            "best_after": after["pgd_accuracy"].max(),
            "last": log["pgd_accuracy"].iloc[-1],
            "seconds_after": after["train_seconds"].sum(),
            "share_after": after["train_seconds"].sum() / log["train_seconds"].sum(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Write and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    arms = read(RESULTS)
    if MAIN not in arms:
        parser.error(f"there is no run of {MAIN} yet, with which all others are compared")
    tables = {"arms": describe_arms(arms), "collapses": list_collapses(arms)}
    if missing := sum(arm.seeds for arm in ARMS.values()) - sum(run.is_done for runs in arms.values() for run in runs):
        print(f"{missing} runs are not done: the protocol tests no hypothesis before all runs that it needs are there")
    if (found := is_copy(arms)) is not None:
        print(f"{COPY} {'equals' if found else 'differs from'} {ORIGINAL} of the same seed to the last digit")
    if len(pairs := compare_complete(arms)):
        tables["pairs"] = pairs
    for name, table in tables.items():
        table.to_csv(RESULTS.parent / f"overfitting_{name}.csv", index=False, float_format="%.5g")
        print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    main()
