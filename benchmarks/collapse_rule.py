"""How many collapses the rule of catastrophic overfitting sees on recorded curves, and how many it sees where none is.

    python benchmarks/collapse_rule.py FASTAT_CURVES

FASTAT_CURVES are those of FastAT Benchmark (arXiv 2604.22853, github.com/fzjcdt/FastAT_Benchmark): methods of fast
adversarial training with three seeds each, in a csv with the columns dataset, method, seed, epoch, and the FGSM and PGD
accuracies of the weights (fgsm, pgd) and of their average (wa_fgsm, wa_pgd). The curves have no gradient alignment, so
the rule's second sign plays no part here.

A curve counts as collapsed from the first epoch in which PGD accuracy is less than half of FGSM accuracy and more than
0.1 below it. The rule compares with the epoch of the best PGD accuracy so far; beside it stands the comparison with the
epoch before. Writes collapse_rule.csv. The results are in docs/correctness.md.
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


def first_collapse(curve: list[dict[str, float]]) -> int | None:
    """Return the first epoch, from 0 on, of a collapse; None if there is none."""
    found = [
        epoch["pgd_accuracy"] < epoch["fgsm_accuracy"] / 2 and epoch["fgsm_accuracy"] - epoch["pgd_accuracy"] > GAP
        for epoch in curve
    ]
    return found.index(True) if any(found) else None


def first_seen(curve: list[dict[str, float]], reference: str) -> int | None:
    """Return the first epoch, from 0 on, in which the rule sees one; None if there is none."""
    for number, now in enumerate(curve[1:], 1):
        before = curve[:number]
        best = max(before, key=lambda epoch: epoch["pgd_accuracy"])
        if catastrophic_overfitting(best if reference == REFERENCES[0] else before[-1], now):
            return number
    return None


def measure(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for the weights as trained and averaged, and for each epoch that is compared with."""
    rows: list[dict[str, Any]] = []
    for weights, prefix in WEIGHTS.items():
        curves = [curve for curve in read_curves(frame, prefix) if curve]
        collapses = [first_collapse(curve) for curve in curves]
        for reference in REFERENCES:
            seen = [first_seen(curve, reference) for curve in curves]
            pairs = list(zip(collapses, seen, strict=True))
            delays = [late - begun for begun, late in pairs if begun is not None and late is not None]
            rows.append({
                "weights": weights, "compared_with": reference, "curves": len(curves),
                "collapsed": sum(begun is not None for begun in collapses), "seen": len(delays),
                "median_delay": float(np.median(delays)),
                "seen_without": sum(begun is None and late is not None for begun, late in pairs),
            })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, help="the csv of FastAT's curves, packed or not")
    table = measure(pd.read_csv(parser.parse_args().curves))
    table.to_csv(RESULTS / "collapse_rule.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
