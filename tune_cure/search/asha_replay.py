"""Replay of a search's recorded learning curves under other numbers of ASHA."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.search import ranking, run_files
from tune_cure.search.journal import Event, Journal, end_status
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space.config import AshaConfig, SearchSpec
from tune_cure.search.space.objectives import WORST
from tune_cure.search.trial_table import were_cut_while_overfitted
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.files import replace_text

ORDERS = 20  # random orders of the trials that each pair of numbers is replayed in


def write(result: SearchResult, grace_periods: Iterable[int], reduction_factors: Iterable[float]) -> pd.DataFrame:
    """Replay a search for each pair of numbers, and write a row for each to replay.csv in its folder.

    Each pair is replayed in the recorded order of epochs, and in `ORDERS` others, in which whole trials follow each
    other at random: the first trials at a rung pass it, so whether the winner is kept in one order is luck. The
    proposals stay those of the recorded search, although another ASHA would have told the sampler other values. A trial
    that was stopped when it was recorded ends there in every replay.

    Args:
        result: The search.
        grace_periods: Values of `asha.grace_period`, in epochs.
        reduction_factors: Values of `asha.reduction_factor`.

    Raises:
        JournalError: The journal is damaged.
    """
    spec, trials, directory = result.spec, result.trials, result.directory
    order = ranking.rank_records(ranking.rank_trials(trials, spec), spec)
    recorded = _epochs_by_trial(Journal(directory).read())
    in_order = sorted((event for events in recorded.values() for event in events), key=lambda event: event["time"])
    random = np.random.default_rng(0)
    shuffled = [
        [event for number in random.permutation(list(recorded)) for event in recorded[number]] for _ in range(ORDERS)
    ]
    rows = []
    for grace_period in grace_periods:
        for factor in reduction_factors:
            replayed_spec = _with_asha(spec, AshaConfig(grace_period=grace_period, reduction_factor=factor))
            replays = pd.DataFrame([_replay(replayed_spec, order, events) for events in shuffled])
            names = ["epochs_saved", "winner_kept", "regret"]
            rows.append(
                {
                    "grace_period": grace_period,
                    "reduction_factor": factor,
                    **_replay(replayed_spec, order, in_order),
                    **{f"{name}_mean": float(replays[name].mean()) for name in names},
                }
            )
    frame = pd.DataFrame(rows)
    replace_text(directory / run_files.REPLAY, format_csv(frame))
    return frame


def weigh(frame: pd.DataFrame, noise: float) -> pd.DataFrame:
    """Return the pairs of numbers that no other pair beats in both what is kept and what is saved, most kept first.

    A pair keeps as much as its regret is small: the larger one of that in the recorded order and that in the mean of
    other orders. What is kept counts first: the recommended pair saves the most of those that lose no more than the
    judge's noise. If every pair loses more, it is the one that loses least.

    Args:
        frame: What `write` returned.
        noise: The regret that may be chance, a fraction.

    Returns:
        Rows of `frame` with the columns loss (a fraction) and recommended (true in one row).
    """
    weighed = frame.assign(loss=frame[["regret", "regret_mean"]].max(axis=1))
    weighed = weighed.sort_values(["loss", "epochs_saved_mean", "winner_kept_mean"], ascending=[True, False, False])
    # Of pairs that keep at least as much, each must save more than all before it.
    best_before = weighed["epochs_saved_mean"].cummax().shift(fill_value=-np.inf)
    front = weighed[weighed["epochs_saved_mean"] > best_before]
    within = front[front["loss"] <= noise]
    recommended = within.index[-1] if len(within) else front.index[0]
    return front.assign(recommended=front.index == recommended)


def count_complete_curves(result: SearchResult) -> tuple[int, int]:
    """Return how many learning curves of a search end where no scheduler ended them, and how many there are.

    A trial that diverged, or that its collapse ended, ends there under every scheduler. One that failed does not.
    """
    trials = result.trials
    is_cut = trials["status"].isin(("stopped", "unfinished", "failed")) | were_cut_while_overfitted(trials, result.spec)
    return int((~is_cut).sum()), len(trials)


def _with_asha(spec: SearchSpec, asha: AshaConfig) -> SearchSpec:
    """Return the search with ASHA as its scheduler, whichever it was recorded with."""
    return spec.model_copy(update={"asha": asha, "search": spec.search.model_copy(update={"scheduler": "asha"})})


def _epochs_by_trial(events: list[Event]) -> dict[int, list[Event]]:
    """Return the epochs of each trial; one that a crash made run twice counts once."""
    trials: dict[int, dict[int, Event]] = {}
    for event in events:
        if event["event"] == "epoch":
            trials.setdefault(event["trial"], {}).setdefault(event["epoch"], event)
    return {number: list(epochs.values()) for number, epochs in trials.items()}


def _replay(spec: SearchSpec, order: list[dict[Any, Any]], epochs: list[Event]) -> dict[str, Any]:
    """Return what ASHA makes of recorded epochs.

    Args:
        spec: The search, with the numbers of ASHA to replay.
        order: `rank_records` of the judged trials as they were recorded, best first.
        epochs: The recorded epochs, in the order of the replay.
    """
    stopper, tracker = EarlyStopper(spec), ranking.RankTracker(spec)
    begun: set[int] = set()
    stopped: dict[int, str] = {}  # how each trial that ASHA stops would have ended
    num_trained = 0
    for event in epochs:
        number, epoch = event["trial"], event["epoch"]
        if number in stopped:
            continue
        if number not in begun:
            begun.add(number)
            stopper.add(number)
        num_trained += 1
        tracker.take(event)
        if event["ended"] and event["ended"] != "stopped":
            stopper.complete(number, epoch, event)
        elif not stopper.report(number, epoch, event):
            stopped[number] = end_status("stopped", event)
    statuses = {int(row["trial"]): row["status"] for row in order} | stopped
    ends = ({"event": "end", "trial": number, "status": status} for number, status in statuses.items())
    won = max(key for end in ends if (key := tracker.take(end)) is not None)
    recorded = ranking.rank_key(order[0], spec)
    assert recorded is not None
    return {
        "stopped": len(stopped),
        "epochs": num_trained,
        "epochs_saved": 1 - num_trained / len(epochs),
        "winner_kept": recorded.trial not in stopped,
        "best": abs(won.objectives[0]),
        "regret": _regret(recorded, won, spec),
    }


def _regret(recorded: ranking.RankKey, won: ranking.RankKey, spec: SearchSpec) -> float:
    """Return by how much the recorded winner is better than the trial that would have won; never negative.

    If that trial is not as sound or not as feasible, whatever it has reached counts for nothing.
    """
    is_comparable = (won.sound, won.feasible) >= (recorded.sound, recorded.feasible)
    worst = WORST[spec.search.mode] * (1 if spec.search.mode == "max" else -1)
    return max(recorded.objectives[0] - (won.objectives[0] if is_comparable else worst), 0.0)
