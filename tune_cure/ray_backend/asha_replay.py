"""What ASHA with other numbers would have done to a search, from its recorded learning curves."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.ray_backend.schedulers import Asha, result_of
from tune_cure.search import ranking, results
from tune_cure.search.journal import OBJECTIVE, Event, Journal
from tune_cure.search.space.config import AshaConfig, SearchSpec
from tune_cure.utils.files import replace_text

FILE = "replay.csv"
ORDERS = 20


def write(directory: Path, grace_periods: Iterable[int], reduction_factors: Iterable[float]) -> pd.DataFrame:
    """Replays the search in `directory` for each pair of numbers, and writes replay.csv there: a row for each.

    Each is replayed in the recorded order of epochs, and in `ORDERS` others, in which whole trials follow each other at
    random: what one order says of the winner is luck, for the first trials at a rung pass it. Proposals stay what they
    were, though the sampler would have been told other things; a trial that was stopped when it was recorded ends
    there in every replay.
    """
    spec, trials = results.read_spec(directory), results.trials(directory)
    order = ranking.rank_trials(trials, spec)
    recorded = _by_trial(Journal(directory).read())
    in_order = sorted((event for events in recorded.values() for event in events), key=lambda event: event["time"])
    random = np.random.default_rng(0)
    shuffled = [
        [event for number in random.permutation(list(recorded)) for event in recorded[number]] for _ in range(ORDERS)
    ]
    rows = []
    for grace_period in grace_periods:
        for factor in reduction_factors:
            asha = AshaConfig(grace_period=grace_period, reduction_factor=factor)
            numbers = spec.model_copy(update={"asha": asha})
            others = pd.DataFrame([_replay(numbers, order, events) for events in shuffled])
            names = ["epochs_saved", "winner_kept", "regret"]
            rows.append(
                {
                    "grace_period": grace_period,
                    "reduction_factor": factor,
                    **_replay(numbers, order, in_order),
                    **{f"{name}_mean": float(others[name].mean()) for name in names},
                }
            )
    frame = pd.DataFrame(rows)
    replace_text(directory / FILE, frame.to_csv(index=False))
    return frame


def complete(directory: Path) -> tuple[int, int]:
    """How many learning curves of the search end where the training did, and how many there are."""
    trials = results.trials(directory)
    return int((~trials["status"].isin(("stopped", "unfinished"))).sum()), len(trials)


def _by_trial(events: list[Event]) -> dict[int, list[Event]]:
    """The epochs of each trial; one that a crash made run twice counts once."""
    trials: dict[int, dict[int, Event]] = {}
    for event in events:
        if event["event"] == "epoch":
            trials.setdefault(event["trial"], {}).setdefault(event["epoch"], event)
    return {number: list(epochs.values()) for number, epochs in trials.items()}


def _replay(spec: SearchSpec, order: pd.DataFrame, epochs: list[Event]) -> dict[str, Any]:
    """What ASHA makes of `epochs`; `order` are the judged trials as they were recorded, best first."""
    scheduler = Asha(spec, [])
    reached: dict[int, float] = {}  # a trial's objective so far
    stopped: set[int] = set()
    trained = 0
    for event in epochs:
        number = event["trial"]
        if number in stopped:
            continue
        trial = SimpleNamespace(trial_id=str(number), config={"trial": number})
        if number not in reached:
            scheduler.on_trial_add(None, trial)
        trained, reached[number] = trained + 1, event[OBJECTIVE]
        result = result_of(event)
        if event["ended"] and event["ended"] != "stopped":
            scheduler.on_trial_complete(None, trial, result)
        elif scheduler.on_trial_result(None, trial, result) == Asha.STOP:
            stopped.add(number)
    winner, best = int(order.iloc[0]["trial"]), float(order.iloc[0]["objective"])
    ended = order["status"].where(~order["trial"].isin(stopped), "stopped")
    replayed = order.assign(objective=order["trial"].map(reached), status=ended)
    value = float(ranking.rank_trials(replayed, spec).iloc[0]["objective"])
    return {
        "stopped": len(stopped),
        "epochs": trained,
        "epochs_saved": 1 - trained / len(epochs),
        "winner_kept": winner not in stopped,
        "best": value,
        "regret": best - value if spec.search.mode == "max" else value - best,
    }
