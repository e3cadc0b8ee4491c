"""What the rule of catastrophic overfitting sees on recorded curves, and what ending a run at its collapse saves.

    python benchmarks/collapse_rule.py FASTAT_CURVES

FASTAT_CURVES are those of FastAT Benchmark (arXiv 2604.22853, github.com/fzjcdt/FastAT_Benchmark): methods of fast
adversarial training with three seeds each, in a csv with the columns dataset, method, seed, epoch, and the FGSM and PGD
accuracies of the weights (fgsm, pgd) and of their average (wa_fgsm, wa_pgd). The curves have no gradient alignment, so
the rule's second sign plays no part here.

collapse_rule.csv has how many collapses the rule sees, and how many where none is. A curve counts as collapsed from the
first epoch in which PGD accuracy is less than half of FGSM accuracy and more than 0.1 below it. The rule compares with
the epoch of the best PGD accuracy so far; beside it stands the comparison with the epoch before. The results are in
docs/correctness.md.

collapse_ending.csv has the runs of each data set as the trials of one search, under both values of
`search.on_collapse`: what ending saves, and whether it costs the winner. The results are in docs/early_stopping.md.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.evaluation.catastrophic_overfitting import catastrophic_overfitting
from tune_cure.evaluation.standard_error import standard_error

RESULTS = Path(__file__).parent / "results"
IMAGES = 1000  # that a search judges its epochs on; the recorded accuracies are of all test images
GAP = 0.1
WEIGHTS = {"as trained": "", "averaged": "wa_"}
REFERENCES = ("best epoch so far", "epoch before")


def read_curves(frame: pd.DataFrame, prefix: str) -> Iterator[list[dict[str, float]]]:
    """Yield the metrics of each run's epochs, as the rule takes them."""
    for _, run in frame.groupby(["dataset", "method", "seed"], sort=False):
        accuracies = run[[f"{prefix}pgd", f"{prefix}fgsm"]].dropna()
        yield [_metrics(pgd, fgsm) for pgd, fgsm in accuracies.itertuples(index=False)]


def _metrics(pgd: float, fgsm: float) -> dict[str, float]:
    errors = {"pgd_accuracy_se": standard_error(pgd, IMAGES), "fgsm_accuracy_se": standard_error(fgsm, IMAGES)}
    return {"pgd_accuracy": pgd, "fgsm_accuracy": fgsm, **errors, "fgsm_loss_increase": 1.0, "gradient_alignment": 1.0}


def first(found: list[bool]) -> int | None:
    """Return the first epoch, from 0 on, in which something was found; None if there is none."""
    return found.index(True) if any(found) else None


def first_collapse(curve: list[dict[str, float]]) -> int | None:
    """Return the first epoch, from 0 on, of a collapse; None if there is none."""
    found = [
        epoch["pgd_accuracy"] < epoch["fgsm_accuracy"] / 2 and epoch["fgsm_accuracy"] - epoch["pgd_accuracy"] > GAP
        for epoch in curve
    ]
    return first(found)


def seen(curve: list[dict[str, float]], reference: str) -> list[bool]:
    """Return for each epoch whether the rule sees a collapse in it."""
    found = [False]
    for number, now in enumerate(curve[1:], 1):
        before = curve[:number]
        best = max(before, key=lambda epoch: epoch["pgd_accuracy"])
        found.append(catastrophic_overfitting(best if reference == REFERENCES[0] else before[-1], now))
    return found


def measure(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for the weights as trained and averaged, and for each epoch that is compared with."""
    rows: list[dict[str, Any]] = []
    for weights, prefix in WEIGHTS.items():
        curves = [curve for curve in read_curves(frame, prefix) if curve]
        collapses = [first_collapse(curve) for curve in curves]
        for reference in REFERENCES:
            firsts = [first(seen(curve, reference)) for curve in curves]
            pairs = list(zip(collapses, firsts, strict=True))
            delays = [late - begun for begun, late in pairs if begun is not None and late is not None]
            rows.append({
                "weights": weights, "compared_with": reference, "curves": len(curves),
                "collapsed": sum(begun is not None for begun in collapses), "seen": len(delays),
                "median_delay": float(np.median(delays)),
                "seen_without": sum(begun is None and late is not None for begun, late in pairs),
            })  # fmt: skip
    return pd.DataFrame(rows)


def measure_ending(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for the weights as trained and averaged of each data set, whose runs are the trials of a search.

    Columns: `collapsed` runs; of these `better_later` have a higher PGD accuracy after their first collapse than before
    it, and `in_the_end` are collapsed in their last epoch. `saved` is the share of all epochs that come after a first
    collapse. `winner_end` and `winner_continue` are the best PGD accuracy of the winner with `search.on_collapse: end`,
    where no collapsed run can win, and `continue`, where none can that is collapsed in its last epoch.
    `best_rank_of_collapsed` is the best place that a collapsed run has among all by its best PGD accuracy.
    """
    rows: list[dict[str, Any]] = []
    for weights, prefix in WEIGHTS.items():
        for dataset, runs in frame.groupby("dataset", sort=False):
            curves = [curve for curve in read_curves(runs, prefix) if curve]
            found = [seen(curve, REFERENCES[0]) for curve in curves]
            accuracies = [[epoch["pgd_accuracy"] for epoch in curve] for curve in curves]
            rows.append({"weights": weights, "dataset": dataset} | _describe_ending(found, accuracies))
    return pd.DataFrame(rows)


def _describe_ending(found: list[list[bool]], accuracies: list[list[float]]) -> dict[str, Any]:
    """Return a row of `measure_ending` by what the rule sees in each epoch of each run, and the PGD accuracies."""
    starts = {run: start for run, seen_in in enumerate(found) if (start := first(seen_in)) is not None}
    later = [max(accuracies[run][start + 1 :], default=0.0) > max(accuracies[run][: start + 1])
             for run, start in starts.items()]  # fmt: skip
    best = [max(accuracy) for accuracy in accuracies]
    best_collapsed = max(best[run] for run in starts)
    left = sum(len(found[run]) - 1 - start for run, start in starts.items())
    return {
        "runs": len(found), "collapsed": len(starts), "better_later": sum(later),
        "in_the_end": sum(seen_in[-1] for seen_in in found),
        "saved": left / sum(map(len, found)),
        "winner_end": max(best[run] for run in range(len(found)) if run not in starts),
        "winner_continue": max(best[run] for run, seen_in in enumerate(found) if not seen_in[-1]),
        "best_rank_of_collapsed": 1 + sum(value > best_collapsed for value in best),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, help="the csv of FastAT's curves, packed or not")
    frame = pd.read_csv(parser.parse_args().curves)
    for name, table in {"rule": measure(frame), "ending": measure_ending(frame)}.items():
        table.to_csv(RESULTS / f"collapse_{name}.csv", index=False, float_format="%.4g")
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
