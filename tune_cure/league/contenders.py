"""Configurations that a league retrains and judges: the winner of each method's search, and its untuned preset."""

from dataclasses import replace

from tune_cure.confirmation.candidates import Candidate, CandidateError, choose_candidates
from tune_cure.league.folder import League, has_only_failures
from tune_cure.league.methods import PRESET_SUFFIX
from tune_cure.search.results import SearchResult
from tune_cure.utils.formatting import format_hyperparameters

WINNER, PRESET = "winner", "preset"
"""Kinds of candidates in a league."""


def choose_contenders(league: League) -> list[Candidate]:
    """Return the winner and the untuned preset of each method, in the league's order.

    A method whose search has no sound trial takes part with its preset alone, and one whose trials all failed not at
    all: its preset was the first of them. A preset that has won its search is the winner, and is not trained twice.

    Raises:
        CandidateError: The trials of all methods failed.
    """
    chosen = []
    can_train = {method: result for method, result in league.results().items() if not has_only_failures(result)}
    if not can_train:
        raise CandidateError(f"{league.folder}: the trials of all methods failed: there is nothing to confirm")
    for method, result in can_train.items():
        winner, preset = _find_winner(method, result), _make_preset(method, result)
        chosen += [winner] if winner else []
        chosen += [preset] if winner is None or winner.config != preset.config else []
    return chosen


def preset_name(method: str) -> str:
    """Return the name of the candidate that is a method's untuned preset."""
    return f"{method}{PRESET_SUFFIX}"


def _find_winner(method: str, result: SearchResult) -> Candidate | None:
    """Return the leading trial of a method's search; None if no trial has ended soundly."""
    try:
        (leader,) = choose_candidates(result, 1, [])
    except CandidateError:
        return None
    values = result.proposals[int(leader.name.removeprefix("trial-"))]
    description = f"{leader.description} of the search of {method}: {format_hyperparameters(values)}"
    return replace(leader, name=method, kind=WINNER, description=description)


def _make_preset(method: str, result: SearchResult) -> Candidate:
    """Return the untuned preset, with which a method's search has begun."""
    values = result.spec.start_from[0]
    description = f"the untuned preset of {method}: {format_hyperparameters(values)}"
    return Candidate(preset_name(method), PRESET, result.spec.training_config(values), description)
