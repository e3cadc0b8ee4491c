"""A search's folder as pandas frames, its leaders and its summary.

Everything here is made from the folder's journal, so it works on a search that runs, was interrupted, or is long over.
The columns are described in docs/columns.md.
"""

import pandas as pd

from tune_cure.search.space.config import SearchSpec

UNSOUND_STATUSES = ("catastrophic_overfitting", "diverged", "failed")
"""Ends after which a trial is ranked behind all others: what it scored before is not what its configuration gives."""


def rank_trials(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """The rows of `trials`, best first.

    Sound ends come before unsound ones, of these the trials that keep the constraints before the others, then the
    objective counts (the first metric, if there are several, then the second, …), then who was first.
    """
    frame = frame.dropna(subset=["objective"])
    behind = frame.assign(_unsound=frame["status"].isin(UNSOUND_STATUSES), _infeasible=frame["feasible"].eq(False))
    metrics, is_min = ["objective", *spec.search.metrics[1:]], spec.search.mode == "min"
    order = behind.sort_values(
        ["_unsound", "_infeasible", *metrics, "trial"], ascending=[True, True, *[is_min] * len(metrics), True]
    )
    return order.drop(columns=["_unsound", "_infeasible"])


def rescoring_decides(spec: SearchSpec) -> bool:
    """Whether the second judgement of the leaders decides among them: only where PGD accuracy is what is maximised."""
    return spec.search.metrics[0].startswith("pgd_accuracy") and spec.search.mode == "max"


def finalists(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """The rows of `trials` that are to be judged again: the first `rescore.top` of `ranked` that came to a sound end.

    Where the first of them keeps the constraints, those that violate them are left out: they could not win.
    """
    return _finalists(rank_trials(frame, spec), spec)


def _finalists(order: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Those of trials that are in the order of `ranked`."""
    first = order[~order["status"].isin(UNSOUND_STATUSES)].head(spec.rescore.top)
    infeasible = first["feasible"].eq(False)
    return first if infeasible.all() else first[~infeasible]


def rank_leaders(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """As `ranked`, but the `finalists` that were judged again in the order that this gave, if it decides."""
    order = rank_trials(frame, spec)
    if not rescoring_decides(spec):
        return order
    again = _finalists(order, spec).dropna(subset=["fresh_pgd_accuracy"])
    by_fresh = again.sort_values("fresh_pgd_accuracy", ascending=False, kind="stable")
    return pd.concat([by_fresh, order.drop(index=again.index)])
