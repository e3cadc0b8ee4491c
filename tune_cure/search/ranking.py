"""The order of trials: by how they ended, then by metrics. Tables, views, patience and checkpoints share it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from tune_cure.search.journal import OBJECTIVE, Event
from tune_cure.search.proposals import posterior
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import reached

UNSOUND_STATUSES = ("catastrophic_overfitting", "diverged", "failed")
"""Statuses that rank a trial behind all others: its accuracies before that end are not what its configuration gives."""


class RankKey(NamedTuple):
    """Sort key of a judged trial; larger keys rank first.

    Attributes:
        sound: Whether the trial did not end with one of `UNSOUND_STATUSES`.
        feasible: Whether the trial keeps the constraints.
        objectives: The metrics, the first one first, negated if less is better; −inf for one that was not measured.
        earliness: Minus the trial's number: of equal trials the first ranks first.
        metrics: The metrics as they are; NaN for one that was not measured.
    """

    sound: bool
    feasible: bool
    objectives: tuple[float, ...]
    earliness: int
    metrics: tuple[float, ...]

    @property
    def trial(self) -> int:
        """The trial's number."""
        return -self.earliness

    def improves_on(self, best: "RankKey | None") -> bool:
        """Return whether this trial is sound and reached more than the `best` before it, by the first metric.

        A feasible trial improves on an infeasible one. Any sound trial improves on None.
        """
        if not self.sound:
            return False
        return best is None or (self.feasible, self.objectives[0]) > (best.feasible, best.objectives[0])


def rank_key(row: Mapping[Any, Any], spec: SearchSpec) -> RankKey | None:
    """Return the sort key of a trial; None if the trial was never judged.

    Args:
        row: The trial's row of `SearchResult.trials`, or at least its columns trial, status, feasible, objective and
            those of the metrics.
        spec: The search.
    """
    if pd.isna(row["objective"]):
        return None
    sign = 1 if spec.search.mode == "max" else -1
    # The journal has the first metric as the objective.
    objectives = [row["objective"], *(row[name] for name in spec.search.metrics[1:])]
    return RankKey(
        sound=row["status"] not in UNSOUND_STATUSES,
        feasible=bool(row["feasible"]),
        objectives=tuple(float("-inf") if pd.isna(value) else sign * float(value) for value in objectives),
        earliness=-int(row["trial"]),
        metrics=tuple(float("nan") if pd.isna(row[name]) else float(row[name]) for name in spec.search.metrics),
    )


class RankTracker:
    """Follower of a journal that gives each trial its sort key when it ends. The cost of an event is constant.

    Args:
        spec: The search.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._last: dict[int, Event] = {}
        self._best: dict[int, Event] = {}

    def take(self, event: Event) -> RankKey | None:
        """Take in an event; return the sort key of the trial that it ends, None if it ends none or was never judged."""
        number = event["trial"]
        if event["event"] == "epoch" and event["pgd_accuracy"] is not None:
            self._last[number] = event
            if number not in self._best or event["pgd_accuracy"] > self._best[number]["pgd_accuracy"]:
                self._best[number] = event
        if event["event"] != "end" or number not in self._last:
            return None
        return rank_epochs(number, event["status"], self._last.pop(number), self._best.pop(number), self.spec)


def rank_epochs(number: int, status: str, last: Event, best: Event, spec: SearchSpec) -> RankKey | None:
    """Return the sort key of a trial from its epochs.

    Args:
        number: The trial's number.
        status: How it ended; empty while it runs.
        last: The event of its last judged epoch.
        best: The event of its epoch of highest PGD accuracy.
        spec: The search.
    """
    values = reached(last, best)
    feasible = all(constraint.violation(values) <= 0 for constraint in spec.search.parsed_constraints)
    row = {"trial": number, "status": status, "feasible": feasible, "objective": last[OBJECTIVE]}
    return rank_key(row | values, spec)


def rank_records(frame: pd.DataFrame, spec: SearchSpec) -> list[dict[Any, Any]]:
    """Return rows of `SearchResult.trials` with the values that `rank_key` reads."""
    columns = list(dict.fromkeys(["trial", "status", "feasible", "objective", *spec.search.metrics]))
    return frame[columns].to_dict("records")


def rank_trials(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Return the judged rows of `SearchResult.trials`, best first, in the order of `RankKey`."""
    keys = [rank_key(row, spec) for row in rank_records(frame, spec)]
    judged = [(key, place) for place, key in enumerate(keys) if key is not None]
    return frame.iloc[[place for _, place in sorted(judged, reverse=True)]]


def comparable_to_first(order: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ranked trials that ended like the first one: equally sound and equally feasible.

    All others rank behind these whatever they reached.
    """
    unsound, infeasible = order["status"].isin(UNSOUND_STATUSES), order["feasible"].eq(False)
    return order[unsound.eq(unsound.iloc[0]) & infeasible.eq(infeasible.iloc[0])]


def rescoring_decides(spec: SearchSpec) -> bool:
    """Return whether the second judgement of the leaders decides among them: only if PGD accuracy is maximized."""
    return spec.search.metrics[0].startswith("pgd_accuracy") and spec.search.mode == "max"


def ranks_by_another_metric(spec: SearchSpec) -> bool:
    """Return whether the objective differs from the best PGD accuracy of any epoch, which every table of trials has."""
    return spec.search.metrics[0] != "pgd_accuracy_best"


def select_finalists(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Return the rows of `SearchResult.trials` that are to be judged again, best first.

    These are the first `rescore.top` that ended soundly. If one of them keeps the constraints, those that violate them
    are left out, because they cannot win.
    """
    return _finalists(rank_trials(frame, spec), spec)


def _finalists(order: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Return the finalists of trials that are ranked already."""
    first = order[~order["status"].isin(UNSOUND_STATUSES)].head(spec.rescore.top)
    infeasible = first["feasible"].eq(False)
    return first if infeasible.all() else first[~infeasible]


def _judged_again(order: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Return the finalists of ranked trials that were judged again; a trial that is none any more is left out."""
    return _finalists(order, spec).dropna(subset=["fresh_pgd_accuracy"])


def rank_leaders(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """Return the rows of `rank_trials`; finalists that were judged again lead in that order, if it decides.

    With `rescore.choose: posterior` they lead in the order of their posterior means (`posterior.posterior_means`), once
    enough trials ran to their end.
    """
    order = rank_trials(frame, spec)
    if not rescoring_decides(spec):
        return order
    again = _judged_again(order, spec)
    decisive = again["fresh_pgd_accuracy"]
    if chooses_by_posterior(order, spec):
        complete = order[order["status"].eq("completed")]
        decisive = posterior.posterior_means(complete, again, spec)
    by_decisive = again.loc[decisive.sort_values(ascending=False, kind="stable").index]
    return pd.concat([by_decisive, order.drop(index=again.index)])


def chooses_by_posterior(order: pd.DataFrame, spec: SearchSpec) -> bool:
    """Return whether posterior means decide among the finalists: if asked for, and enough trials ran to their end.

    Args:
        order: The judged trials, as `rank_trials` orders them.
        spec: The search; the second judgement decides in it.
    """
    again = _judged_again(order, spec)
    is_known = len(again) > 0 and again["status"].eq("completed").all()
    num_complete = order["status"].eq("completed").sum()
    return bool(spec.rescore.choose == "posterior" and is_known and num_complete >= posterior.MIN_TRIALS)
