"""Which trial of a search led when, and since when the winner did."""

import heapq

import pandas as pd

from tune_cure.search.ranking import comparable_to_first, rank_trials
from tune_cure.search.results import SearchResult


def leader_progress(result: SearchResult) -> pd.DataFrame:
    """Return the leader's objective after so many epochs and device hours: a row at each change, and one at the end.

    The leader at a moment is the trial that `ranking.rank_trials` would put first if the search had ended there. Only
    trials count that ended as soundly as the final winner: what others scored before they failed is no result.

    Columns: epochs, device_hours, trials (that had reported), objective, trial.
    """
    epochs = result.epochs.sort_values(["time", "trial", "epoch"], kind="stable")
    hours = (epochs["train_seconds"].fillna(0) + epochs["eval_seconds"].fillna(0)).cumsum() / 3600
    sign, is_judged = 1 if result.spec.search.mode == "max" else -1, epochs["pgd_accuracy"].notna()
    comparable = _trials_as_sound_as_the_winner(result)
    current: dict[int, float] = {}  # each trial's latest objective; with `sign`, larger is better
    heap: list[tuple[float, int]] = []  # of (−objective, trial): the best on top, of equals the first trial
    rows: list[tuple[int, float, int, float, int]] = []
    events = zip(hours, epochs["trial"], sign * epochs["objective"], is_judged, strict=True)
    begun: set[int] = set()
    for number, (spent, trial, objective, judged) in enumerate(events, 1):
        begun.add(trial)
        if judged and trial in comparable:
            current[trial] = objective
            heapq.heappush(heap, (-objective, trial))
        while heap and current[heap[0][1]] != -heap[0][0]:  # that trial has another objective now
            heapq.heappop(heap)
        if not heap:
            continue
        leader = (sign * -heap[0][0], heap[0][1])
        if number == len(epochs) or not rows or rows[-1][3:] != leader:
            rows.append((number, spent, len(begun), *leader))
    return pd.DataFrame(rows, columns=["epochs", "device_hours", "trials", "objective", "trial"])


def _trials_as_sound_as_the_winner(result: SearchResult) -> set[int]:
    """Return the judged trials that are sound, and keep the constraints, if and only if the first in rank does."""
    order = rank_trials(result.trials, result.spec)
    if order.empty:
        return set()
    return set(comparable_to_first(order)["trial"])


def find_lasting_lead(result: SearchResult) -> tuple[int, float] | None:
    """Return after how many epochs and device hours the winner took the lead for good.

    None if the winner did not lead at the end of the search, and became first only when the leaders were judged again.
    A lead that another trial took over does not count: the first trial to report always leads at first.
    """
    frame = leader_progress(result)
    if result.best is None or not (leads := frame["trial"].eq(result.best.trial)).iloc[-1]:
        return None
    row = frame[leads[::-1].cummin()[::-1]].iloc[0]
    return int(row["epochs"]), float(row["device_hours"])
