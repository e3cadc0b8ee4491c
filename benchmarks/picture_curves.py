"""Whole learning curves of CURE on real pictures: recorded from a search in which nothing is stopped, and their ranks.

    tune-cure search benchmarks/picture_curves.yaml --data-root FOLDER --output results/pictures   # 5 core hours
    python benchmarks/picture_curves.py results/pictures

Writes picture_curves.csv, a row for each trial with its hyperparameters and its PGD accuracy after each epoch, and
picture_curves_ranks.csv: how well the order of the trials by their best accuracy after some epochs predicts their
order in the end, for all trials and for those with one schedule or one way of averaging. picture_curves_left_out.csv
says how well the curves predict each other, as a surrogate has to. The results are in docs/early_stopping.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from search_quality import as_unit, left_out_error, process, trees, whole_curves

from tune_cure.evaluation.standard_error import standard_error
from tune_cure.search.space import loading

RESULTS = Path(__file__).parent / "results"
CURVES = RESULTS / "picture_curves.csv"
RANKS = RESULTS / "picture_curves_ranks.csv"
LEFT_OUT = RESULTS / "picture_curves_left_out.csv"
SPACE = Path(__file__).parent / "picture_curves.yaml"
HYPERPARAMETERS = ["lambda", "h", "lr_max", "epsilon", "lr_schedule", "averaging"]
GROUPS = ("lr_schedule", "averaging")
RESAMPLES = 5000


def read() -> pd.DataFrame:
    """Return the recorded curves, a row for each trial."""
    return pd.read_csv(CURVES, keep_default_na=False)  # averaging "none" is a name


def best_so_far(curves: pd.DataFrame) -> NDArray[np.float64]:
    """Return the best PGD accuracy up to each epoch, (trials, epochs)."""
    accuracies = curves.filter(regex=r"^pgd_\d+$").to_numpy(dtype=float)
    return np.maximum.accumulate(accuracies, axis=1)


def record(folder: Path) -> pd.DataFrame:
    """Write and return the curves of a search's trials that ran to their end."""
    whole_curves(folder, HYPERPARAMETERS).to_csv(CURVES, index=False, float_format="%.5g")
    return read()


def rank(curves: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's and Kendall's correlation of the best so far after each epoch with the best of all epochs.

    `low` and `high` bound Spearman's with 95% confidence, by a bootstrap over the trials.
    """
    groups = [("all", curves)]
    for column in GROUPS:
        groups += [(f"{column}: {value}", members) for value, members in curves.groupby(column)]
    rows: list[dict[str, Any]] = []
    for name, members in groups:
        best = pd.DataFrame(best_so_far(members))
        last = best.columns[-1]
        for epoch in best.columns[:-1]:
            spearman, kendall = (best[epoch].corr(best[last], method=how) for how in ("spearman", "kendall"))
            low, high = bootstrap_spearman(best[epoch].to_numpy(), best[last].to_numpy())
            rows.append({"trials": name, "number": len(members), "epoch": epoch + 1, "spearman": spearman, "low": low,
                         "high": high, "kendall": kendall, "best": best[last].max()})  # fmt: skip
    return pd.DataFrame(rows)


def bootstrap_spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Return a 95% interval of Spearman's correlation of two columns of as many trials, by percentiles."""
    drawn = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    ranks = [stats.rankdata(column[drawn], axis=1) for column in (first, second)]
    one, two = (of - of.mean(axis=1, keepdims=True) for of in ranks)
    products, scales = (one * two).sum(axis=1), np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    low, high = np.percentile(products[scales > 0] / scales[scales > 0], [2.5, 97.5])  # else one trial alone was drawn
    return float(low), float(high)


def predict(curves: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each mean of a surrogate: how far off it is from the best of a curve that it did not see.

    Beside it are the spread of these values and the standard error of one of them, by the images that it is judged on.
    """
    spec = loading.load(str(SPACE))
    columns = [as_unit(spec.space[key], curves[key].to_numpy()) for key in HYPERPARAMETERS]
    at, accuracies = np.stack(columns, axis=1), curves.filter(regex=r"^pgd_\d+$").to_numpy(dtype=float)
    error = float(np.mean([standard_error(best, spec.evaluation.examples) for best in accuracies.max(axis=1)]))
    rows = []
    for name, mean in {"process": process(len(columns)), "trees": trees()}.items():
        left_out, spread = left_out_error(mean.fit(at, accuracies), at, accuracies)
        rows.append({"mean": name, "left_out_error": left_out, "spread": spread, "standard_error": error})
    return pd.DataFrame(rows)


def main() -> None:
    """Record a search's curves and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="of the search; without it, the tables alone are made anew"
    )
    folder = parser.parse_args().folder
    curves = record(folder) if folder else read()
    ranks = rank(curves)
    ranks.to_csv(RANKS, index=False, float_format="%.3g")
    print(ranks.pivot(index="trials", columns="epoch", values="spearman").to_string(float_format="{:.2f}".format))
    left_out = predict(curves)
    left_out.to_csv(LEFT_OUT, index=False, float_format="%.3g")
    print(left_out.to_string(index=False))


if __name__ == "__main__":
    main()
