"""Which configurations a search's confirmation retrains: its leaders, and what they are measured against."""

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
        name: What it is called, in tables and as a folder: `trial-11`, `start_from`, `fgsm`, `ablation`.
        kind: leader or baseline.
        config: How it trains.
        description: In words.
    """

    name: str
    kind: str
    config: TrainingConfig
    description: str


class CandidateError(TuneCureError):
    """A search without a trial that could be confirmed."""


def choose_candidates(result: SearchResult, top: int, baselines: Sequence[str]) -> list[Candidate]:
    """The first `top` leaders, best first, then the baselines; a baseline that a leader is already is left out.

    Raises:
        CandidateError: No trial came to a sound end.
    """
    sound = result.leaders[~result.leaders["status"].isin([*UNSOUND_STATUSES, "unfinished"])]
    if sound.empty:
        raise CandidateError(f"{result.directory}: no trial has come to a sound end yet: there is nothing to confirm")
    proposed = {event["trial"]: event["hyperparameters"] for event in result.events if event["event"] == "trial"}
    chosen = [
        Candidate(f"trial-{number}", "leader", result.spec.training_config(proposed[number]), f"trial {number}")
        for number in sound["trial"].head(top)
    ]
    winner = proposed[int(sound["trial"].iloc[0])]
    for name in dict.fromkeys(baselines):
        values, description = BASELINES[name](result, winner)
        config = result.spec.training_config(values)
        if all(config != candidate.config for candidate in chosen):
            chosen.append(Candidate(name, "baseline", config, description))
    return chosen


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
"""By name: of a search and its winner's hyperparameters, those of a baseline, and what it is in words."""
