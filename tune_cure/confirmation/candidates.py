"""Configurations that a confirmation retrains: the search's leading trials, and the baselines to compare them with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.results import SearchResult
from tune_cure.training.config import TrainingConfig
from tune_cure.utils.errors import TuneCureError

WITHOUT_PENALTY = {"lambda": 0.0}


@dataclass(frozen=True)
class Candidate:
    """A configuration to retrain.

    Attributes:
        name: Its name in tables and the name of its folder: `trial-11`, `start_from`, `fgsm`, `ablation`.
        kind: leader or baseline.
        config: How its networks are trained.
        description: Where it comes from, in words.
    """

    name: str
    kind: str
    config: TrainingConfig
    description: str


class CandidateError(TuneCureError):
    """A search without a trial that can be confirmed."""


def choose_candidates(result: SearchResult, top: int, baselines: Sequence[str]) -> list[Candidate]:
    """Return the leading trials, best first, and then the baselines.

    A baseline whose configuration is already among the candidates is left out.

    Args:
        result: The search.
        top: The number of leading trials. Only trials that ended soundly count.
        baselines: Names from `BASELINES`; empty for none.

    Raises:
        CandidateError: No trial has ended soundly.
    """
    sound = result.leaders[~result.leaders["status"].isin([*UNSOUND_STATUSES, "unfinished"])]
    if sound.empty:
        raise CandidateError(f"{result.directory}: no trial has come to a sound end yet: there is nothing to confirm")
    proposed = {event["trial"]: event["hyperparameters"] for event in result.events if event["event"] == "trial"}
    candidates = [
        Candidate(f"trial-{number}", "leader", result.spec.training_config(proposed[number]), f"trial {number}")
        for number in sound["trial"].head(top)
    ]
    winner = proposed[int(sound["trial"].iloc[0])]
    for name in dict.fromkeys(baselines):
        values, description = BASELINES[name](result, winner)
        config = result.spec.training_config(values)
        if all(config != candidate.config for candidate in candidates):
            candidates.append(Candidate(name, "baseline", config, description))
    return candidates


def _start_from(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if result.spec.start_from:
        return dict(result.spec.start_from[0]), "the first configuration of start_from"
    return winner, "the winner, as there is no start_from"


def _fgsm(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    values, description = _start_from(result, winner)
    return values | WITHOUT_PENALTY, f"plain FGSM: {description}, without the penalty"


def _ablation(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    return winner | WITHOUT_PENALTY, "the winner without the penalty"


BASELINES: dict[str, Callable[[SearchResult, dict[str, Any]], tuple[dict[str, Any], str]]] = {
    "start_from": _start_from,
    "fgsm": _fgsm,
    "ablation": _ablation,
}
"""Baselines by name: functions of the search and its winner's hyperparameters.

Each returns the baseline's hyperparameters and its description.
"""
