"""Tables of trials and epochs, built from the events of a journal. Columns: docs/columns.md."""

import math
import sys
from array import array
from threading import Lock
from typing import Any

import pandas as pd

from tune_cure.evaluation.autoattack_version import read_version
from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.search.budget import SPENT
from tune_cure.search.journal import OBJECTIVE, RUNG, SEARCH_EVENTS, Event, JournalContent
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.schedulers.control_group import is_control
from tune_cure.search.space import objectives
from tune_cure.search.space.config import SearchSpec

SECONDS = ("train_seconds", "attack_seconds", "penalty_seconds", "eval_seconds")
EPOCH_COLUMNS = ("trial", *EPOCH_METRICS, OBJECTIVE, RUNG, "time", "host", "pid")  # of epochs.csv
BUDGET = "budget"  # stands for a status where untrained epochs are counted
NOT_FLOATS = ("trial", "epoch", "skipped_steps", "catastrophic_overfitting", "host", "pid")


class SearchRecord:
    """Everything that a search's journal says, in memory. The tables are built from it.

    A search adds each event once it is on the disk, so it does not read its own journal again. Most events are epochs:
    they are kept as columns, which take a fifth of the memory of dictionaries. One thread may add events while another
    takes snapshots.

    Args:
        content: What the journal says so far; None if it is empty.

    Attributes:
        history: The events of trials in `content`.
    """

    def __init__(self, content: JournalContent | None = None) -> None:
        self.history = list(content.trial_events) if content else []
        self._lock = Lock()
        self._events: list[Event] = []
        self._search_events: list[Event] = []
        self._epochs: dict[str, Any] = {name: [] if name in NOT_FLOATS else array("d") for name in EPOCH_COLUMNS}
        for event in (*self.history, *(content.search_events if content else ())):
            self.take(event)

    @property
    def events(self) -> list[Event]:
        """The events of trials, without those of epochs, in the journal's order."""
        return self._events

    @property
    def search_events(self) -> list[Event]:
        """The events of the search as a whole, in the journal's order."""
        return self._search_events

    def take(self, event: Event) -> None:
        """Add an event of the journal."""
        with self._lock:
            if event["event"] == "epoch":
                self._take_epoch(event)
            else:
                (self._search_events if event["event"] in SEARCH_EVENTS else self._events).append(event)

    def _take_epoch(self, event: Event) -> None:
        for name, column in self._epochs.items():
            value = event.get(name)
            if isinstance(column, array):
                column.append(math.nan if value is None else value)  # no number in a journal is NaN
            else:
                column.append(sys.intern(value) if isinstance(value, str) else value)

    def snapshot(self) -> "SearchRecord":
        """Return a copy, without the history, that later events do not change."""
        copy = SearchRecord()
        with self._lock:
            copy._events, copy._search_events = list(self._events), list(self._search_events)
            copy._epochs = {name: column[:] for name, column in self._epochs.items()}
        return copy

    def build_epoch_table(self) -> pd.DataFrame:
        """Build the table `SearchResult.epochs`."""
        frame = pd.DataFrame(self._epochs, columns=list(EPOCH_COLUMNS))
        return frame.drop_duplicates(["trial", "epoch"], keep="last").sort_values(["trial", "epoch"], ignore_index=True)

    def build_trial_table(self, spec: SearchSpec) -> pd.DataFrame:
        """Build the table `SearchResult.trials`."""
        events: dict[int, list[Event]] = {}
        for event in self._events:
            events.setdefault(event["trial"], []).append(event)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(self._epochs["trial"]):
            places.setdefault(number, []).append(place)
        rows = (_row(spec, events[number], self._epoch_events(places.get(number, []))) for number in sorted(events))
        return _trial_table(spec, list(rows))

    def _epoch_events(self, places: list[int]) -> list[Event]:
        """Return the events of epochs by their places in the columns, with the keys of `EPOCH_COLUMNS`."""
        values = {name: [column[place] for place in places] for name, column in self._epochs.items()}
        for name in values.keys() - set(NOT_FLOATS):
            values[name] = [None if math.isnan(value) else value for value in values[name]]
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _trial_table(spec: SearchSpec, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=_columns(spec))
    for key in spec.space:
        if frame[key].isna().any():  # inactive in some trials: whole numbers of the others must not become floats
            frame[key] = pd.Series([row.get(key) for row in rows], dtype=object)
    if spec.search.on_collapse == "continue":
        frame["recovery_epoch"] = pd.Series([row.get("recovery_epoch") for row in rows], dtype=float)
    if spec.rescoring.attack != "pgd":
        frame["fresh_autoattack_version"] = pd.Series([row.get("fresh_autoattack_version") for row in rows], dtype=str)
    if len(spec.search.metrics) > 1:
        frame["pareto_front"] = _on_pareto_front(frame, spec)
    if spec.asha.control:
        frame["control"] = [is_control(spec, int(number)) for number in frame["trial"]]
    return frame


def _on_pareto_front(frame: pd.DataFrame, spec: SearchSpec) -> pd.Series:
    """Return, for each trial, whether no other is better in one metric and as good in all.

    Only trials that ended soundly and keep the constraints are compared; the others are not on the front.
    """
    eligible = frame[~frame["status"].isin(UNSOUND_STATUSES) & frame["feasible"].ne(False)]
    eligible = eligible.dropna(subset=spec.search.metrics)
    on_front = objectives.pareto_front(eligible[spec.search.metrics].to_numpy(dtype=float).tolist(), spec.search.mode)
    return pd.Series(on_front, index=eligible.index, dtype=bool).reindex(frame.index, fill_value=False)


def _columns(spec: SearchSpec) -> list[str]:
    return ["trial", "status", "origin", *spec.space, "epochs_trained", "objective", "best_epoch", "pgd_accuracy_best",
            "pgd_accuracy_best_se", "clean_accuracy_best", "fgsm_accuracy_best", "pgd_accuracy", "clean_accuracy",
            "fgsm_accuracy", "curvature", "catastrophic_overfitting_epoch", *SECONDS, "skipped_steps", "started",
            "ended", "retries", "reason", "fresh_pgd_accuracy", "fresh_pgd_accuracy_se", "fresh_clean_accuracy",
            "fresh_examples", "feasible"]  # fmt: skip


def _row(spec: SearchSpec, events: list[Event], epochs: list[Event]) -> dict[str, Any]:
    """Return a trial's row from the events of its epochs and its other events."""
    start = next(event for event in events if event["event"] == "trial")
    by_epoch = {event["epoch"]: event for event in epochs}
    end = next((event for event in reversed(events) if event["event"] == "end"), None)
    row: dict[str, Any] = {
        "trial": start["trial"],
        "status": end["status"] if end else "unfinished",
        "origin": start["origin"],
        **start["hyperparameters"],
        "epochs_trained": len(by_epoch),
        **{name: sum(event.get(name) or 0.0 for event in by_epoch.values()) for name in SECONDS},
        "skipped_steps": sum(event["skipped_steps"] for event in by_epoch.values()),
        "started": start["time"],
        "ended": end["time"] if end else None,
        "retries": sum(event["event"] == "retry" for event in events),
        "reason": next((event["reason"] for event in reversed(events) if event.get("reason")), ""),
    }
    judged = [event for _, event in sorted(by_epoch.items()) if event["pgd_accuracy"] is not None]
    if not judged:
        return row
    # Of equal epochs max takes the first, like the Trainer that keeps the best weights.
    last, best = judged[-1], max(judged, key=lambda event: event["pgd_accuracy"])
    row |= objectives.reached(last, best)
    row |= {
        "curvature": last["curvature"],
        "objective": last[OBJECTIVE],
        "best_epoch": best["epoch"],
        "pgd_accuracy_best_se": standard_error(best["pgd_accuracy"], judged_examples(spec)),
        "feasible": all(constraint.violation(row) <= 0 for constraint in spec.search.parsed_constraints),
        **_collapse(judged),
    }
    return row | _fresh_accuracies(spec, events, best["epoch"])


def _collapse(judged: list[Event]) -> dict[str, int]:
    """Return the first epoch that shows catastrophic overfitting, and the one since which none does, if there are."""
    collapsed = [place for place, event in enumerate(judged) if event["catastrophic_overfitting"]]
    if not collapsed:
        return {}
    epochs = {"catastrophic_overfitting_epoch": judged[collapsed[0]]["epoch"]}
    since = judged[collapsed[-1] + 1 :]
    return epochs | ({"recovery_epoch": since[0]["epoch"]} if since else {})


def _fresh_accuracies(spec: SearchSpec, events: list[Event], best_epoch: int) -> dict[str, Any]:
    """Return a leader's accuracies under the second judgement.

    Empty if the leader was not judged again, or by another attack than now, or with other best weights.
    """
    judgement = next((event for event in reversed(events) if event["event"] == "leader"), None)
    if judgement is None or judgement["epoch"] != best_epoch:
        return {}
    if judgement.get("attack") not in (None, rescoring_attack(spec)):
        return {}
    names = ("pgd_accuracy", "pgd_accuracy_se", "clean_accuracy", "examples")
    version = read_version(judgement) or None
    return {**{f"fresh_{name}": judgement[name] for name in names}, "fresh_autoattack_version": version}


def rescoring_attack(spec: SearchSpec) -> dict[str, Any]:
    """Return the attack of the second judgement as the journal records it: PGD as version 0.1.0 did."""
    is_pgd = spec.rescoring.attack == "pgd"
    return spec.rescoring.model_dump(mode="json", exclude={"attack"} if is_pgd else None)


def judged_examples(spec: SearchSpec) -> int:
    """Return the number of validation images that each accuracy of the search was measured on."""
    return min(spec.evaluation.examples, spec.data.num_validation)


def planned_epochs(frame: pd.DataFrame, spec: SearchSpec) -> "pd.Series[int]":
    """Return how many epochs each trial trains if nothing ends it early; its own number if `epochs` is searched."""
    return frame["epochs"].astype(int) if "epochs" in spec.space else pd.Series(spec.max_epochs, index=frame.index)


def were_ended_by_budget(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Return which trials were stopped because the search's budget was spent, not because others were better."""
    return frame["reason"].eq(SPENT) & frame["status"].eq("stopped")


def were_cut_while_overfitted(frame: pd.DataFrame, spec: SearchSpec) -> "pd.Series[bool]":
    """Return which trials a rung or the budget ended while they were overfitted and might have recovered."""
    if spec.search.on_collapse == "end":
        return pd.Series(False, index=frame.index)
    is_early = frame["epochs_trained"] < planned_epochs(frame, spec)  # such a trial ends by itself in its last epoch
    return frame["status"].eq("catastrophic_overfitting") & is_early


def count_untrained_epochs(frame: pd.DataFrame, spec: SearchSpec) -> dict[str, int]:
    """Return how many epochs were not trained, by the status of the trials that ended early.

    Trials that were stopped because the budget was spent are under `BUDGET`: early stopping saved nothing there.
    """
    left = (planned_epochs(frame, spec) - frame["epochs_trained"]).clip(lower=0)
    cause = frame["status"].mask(were_ended_by_budget(frame), BUDGET)
    by_cause = left[frame["status"] != "completed"].groupby(cause).sum()
    return {str(name): int(epochs) for name, epochs in by_cause.items() if epochs}
