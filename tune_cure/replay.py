"""What ASHA with other numbers would have done to a search, from its recorded learning curves."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from tune_cure import results
from tune_cure.files import replace_text
from tune_cure.journal import OBJECTIVE, Event, Journal
from tune_cure.spec import AshaConfig, SearchSpec
from tune_cure.stopping import Asha

FILE = "replay.csv"


def write(directory: Path, grace_periods: Iterable[int], reduction_factors: Iterable[float]) -> pd.DataFrame:
    """Replays the search in `directory` for each pair of numbers, and writes replay.csv there: a row for each.

    The order of the epochs is that of the recording. Proposals stay what they were, though the sampler would have been
    told other things; a trial that was stopped when it was recorded ends there in every row.
    """
    spec, trials = results.read_spec(directory), results.trials(directory)
    events = Journal(directory).read()
    rows = []
    for grace_period in grace_periods:
        for factor in reduction_factors:
            asha = AshaConfig(grace_period=grace_period, reduction_factor=factor)
            rows.append(_replay(spec.model_copy(update={"asha": asha}), trials, events))
    frame = pd.DataFrame(rows)
    replace_text(directory / FILE, frame.to_csv(index=False))
    return frame


def complete(directory: Path) -> tuple[int, int]:
    """How many learning curves of the search end where the training did, and how many there are."""
    trials = results.trials(directory)
    return int((~trials["status"].isin(("stopped", "unfinished"))).sum()), len(trials)


def _replay(spec: SearchSpec, trials: pd.DataFrame, events: list[Event]) -> dict[str, object]:
    scheduler = Asha(spec, [])
    reached: dict[int, float] = {}  # a trial's objective so far
    epochs: dict[int, int] = {}
    stopped: set[int] = set()
    for event in events:
        number = event["trial"]
        trial = SimpleNamespace(trial_id=str(number), config={"trial": number})
        if event["event"] == "trial":
            scheduler.on_trial_add(None, trial)
        # An epoch that a crash made run twice counts once.
        elif event["event"] == "epoch" and number not in stopped and event["epoch"] > epochs.get(number, 0):
            epochs[number], reached[number] = event["epoch"], event[OBJECTIVE]
            result = {"training_iteration": event["epoch"], OBJECTIVE: event[OBJECTIVE]}
            if event["ended"]:
                scheduler.on_trial_complete(None, trial, result)
            elif scheduler.on_trial_result(None, trial, result) == Asha.STOP:
                stopped.add(number)
    order = results.ranked(trials, spec)
    winner, best = int(order.iloc[0]["trial"]), float(order.iloc[0]["objective"])
    statuses = {
        int(row["trial"]): "stopped" if row["trial"] in stopped else row["status"] for _, row in order.iterrows()
    }
    replayed = order.assign(objective=order["trial"].map(reached), status=order["trial"].map(statuses))
    value = float(results.ranked(replayed, spec).iloc[0]["objective"])
    total = int(trials["epochs_trained"].sum())
    return {
        "grace_period": spec.asha.grace_period,
        "reduction_factor": spec.asha.reduction_factor,
        "stopped": len(stopped),
        "epochs": sum(epochs.values()),
        "epochs_saved": 1 - sum(epochs.values()) / total,
        "winner_kept": winner not in stopped,
        "best": value,
        "regret": best - value if spec.search.mode == "max" else value - best,
    }
