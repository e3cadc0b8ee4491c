"""Writes the table of arms of docs/results.md from overfitting_arms.csv: `python -m tools.overfitting_arms`.

benchmarks/overfitting_report.py makes the file. With `--check` nothing is written: the exit code is 1 if the page is
not what the file says.
"""

import sys
from typing import Any

import pandas as pd

from tools import marked_page

PAGE = marked_page.DOCS / "results.md"
ARMS = marked_page.DOCS.parent / "benchmarks" / "results" / "overfitting_arms.csv"
ACCURACIES = {
    "last network: AutoAttack": "last_autoattack",
    "PGD-50-10": "last_pgd_50_10",
    "clean": "last_clean",
    "best network: AutoAttack": "best_autoattack",
}
HEAD = ["arm", "runs", "judged", "collapsed", "of these recovered", *ACCURACIES, "minutes of training"]


def table(arms: pd.DataFrame) -> str:
    """Return a row for each arm, accuracies in percent; a dash where no run is judged yet."""
    head, *rows = (f"| {' | '.join(cells)} |\n" for cells in [HEAD, *(_cells(arm) for _, arm in arms.iterrows())])
    return "".join([head, "|" + "---|" * len(HEAD) + "\n", *rows])


def _cells(arm: "pd.Series[Any]") -> list[str]:
    runs = f"{arm['runs']} of {arm['planned']}"
    counts = [str(arm[name]) for name in ("judged", "collapsed", "recovered")]
    accuracies = [f"{100 * arm[name]:.1f}" if arm["judged"] else "–" for name in ACCURACIES.values()]
    return [f"`{arm['arm']}`", runs, *counts, *accuracies, f"{arm['minutes']:.0f}"]


def written(page: str) -> str:
    """Return `page` with what stands between the marks written anew."""
    return marked_page.rewrite(page, "overfitting_arms", table(pd.read_csv(ARMS)))


if __name__ == "__main__":
    sys.exit(marked_page.write_or_check(PAGE, written, __doc__))
