"""Configurations that a confirmation retrains: the search's leading trials, and the baselines to compare them with."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tune_cure.confirmation.job_config import read_job_config
from tune_cure.search import run_files
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.results import SearchResult
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.presets import METHOD, METHODS, NO_METHOD
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_radius, join_words

ABLATION = "ablation"
WITHOUT_PENALTY = {"lambda": 0.0}
PGD_STEPS = 7
"""Steps of the PGD baseline, each a quarter of the radius: 7 steps of 2/255 at 8/255, as in Madry et al. 2018.

Wong et al. 2020 compare with the same attack.
"""
CROSS_ENTROPY_ALONE = {
    "adversarial_weight": 1.0,
    **dict.fromkeys(("clean_weight", "trades_weight", "boosted_weight", "mart_weight", "hat_weight"), 0.0),
    "awp_gamma": 0.0,
}
"""The loss of PGD adversarial training (Madry et al. 2018, arXiv 1706.06083), at weights that are not perturbed."""


@dataclass(frozen=True)
class Candidate:
    """A configuration to retrain, or a trained network to judge as it is.

    Attributes:
        name: Its name in tables and the name of its folder: `trial-11`, `start_from`, `fgsm`, `ablation`, `pgd`.
        kind: leader, baseline, or candidate (the user's own); winner or preset in a league.
        config: How its networks are trained; None for a trained network.
        description: Where it comes from, in words.
        model: Its network, if that is not the search's.
        trained: The trained network, as `trained_networks.load_trained` names it; None for a configuration.
        digest: Stands for the trained network, its weights and its answers; empty for a configuration.
    """

    name: str
    kind: str
    config: TrainingConfig | None
    description: str
    model: ModelConfig | None = None
    trained: str | None = None
    digest: str = ""


class CandidateError(TuneCureError):
    """A search without a trial that can be confirmed."""


def choose_candidates(result: SearchResult, top: int, baselines: Sequence[str]) -> list[Candidate]:
    """Return the leading trials, best first, and then the baselines.

    A baseline whose configuration is already among the candidates is left out, and so is the ablation of a winner
    without a penalty; see `explain_baselines`. Winner and ablation answer whether the penalty helped, so another leader
    or baseline with the ablation's configuration is left out, and not the ablation. A baseline of an earlier winner
    keeps its folder: that of a new one is then called `ablation-of-trial-7`.

    Args:
        result: The search.
        top: The number of leading trials. Only trials that ended soundly count, and of equal ones the first.
        baselines: Names from `BASELINES`; empty for none.

    Raises:
        CandidateError: No trial has ended soundly.
        FolderError: The config.yaml of a baseline that an earlier command has begun is damaged.
    """
    sound = list_sound_trials(result)
    if not sound:
        raise CandidateError(f"{result.directory}: no trial has come to a sound end yet: there is nothing to confirm")
    leaders = list(itertools.islice(_leaders(result, sound), top))
    winner = result.proposals[sound[0]]
    asked = {candidate.name: candidate for candidate in _baselines(result, winner, baselines)}
    if not has_penalty(leaders[0].config):
        asked.pop(ABLATION, None)
    ablation = asked.get(ABLATION)
    if ablation is not None and (same := [it for it in leaders if it.config == ablation.config]):
        leaders = [leader for leader in leaders if leader not in same]
        trials = join_words(leader.description for leader in same)
        asked[ABLATION] = replace(ablation, description=f"{ablation.description}, as {trials}")
    chosen, taken = list(leaders), [candidate.config for candidate in (*leaders, ablation) if candidate is not None]
    for name, candidate in asked.items():
        if name == ABLATION or candidate.config not in taken:
            chosen.append(_settle(candidate, result, leaders[0], winner))
            taken.append(chosen[-1].config)
    return chosen


def _leaders(result: SearchResult, numbers: Sequence[int]) -> Iterator[Candidate]:
    """Yield the trials of these numbers as candidates, each configuration once: version 0.2.0 could train one twice."""
    taken: list[TrainingConfig] = []
    for number in numbers:
        config = result.spec.training_config(result.proposals[number])
        if config not in taken:
            taken.append(config)
            yield Candidate(f"trial-{number}", "leader", config, f"trial {number}")


def list_sound_trials(result: SearchResult) -> list[int]:
    """Return the numbers of the trials that ended soundly, best first."""
    is_sound = ~result.leaders["status"].isin([*UNSOUND_STATUSES, "unfinished"])
    return [int(number) for number in result.leaders.loc[is_sound, "trial"]]


def _baselines(result: SearchResult, winner: dict[str, Any], names: Sequence[str]) -> Iterator[Candidate]:
    """Yield the baselines of these names, each once."""
    for name in dict.fromkeys(names):
        values, description = BASELINES[name](result, winner)
        yield Candidate(name, "baseline", result.spec.training_config(values), description)


def has_penalty(config: TrainingConfig | None) -> bool:
    """Return whether the training has a penalty with a weight above 0."""
    return config is not None and config.lambda_ != 0 and config.regularizer != "none"


def find_hyperparameters(result: SearchResult, leader: str) -> dict[str, Any] | None:
    """Return the hyperparameters of the trial that a leader's name stands for; None if the search has no such trial."""
    return {f"trial-{number}": values for number, values in result.proposals.items()}.get(leader)


def explain_baselines(result: SearchResult, candidates: Sequence[Candidate], baselines: Sequence[str]) -> list[str]:
    """Return a sentence for each baseline that `choose_candidates` left out, or took as an earlier version began it.

    Args:
        result: The search.
        candidates: What `choose_candidates` returned.
        baselines: The names that it was given.
    """
    names = [candidate.name.partition("-of-")[0] for candidate in candidates if candidate.kind == "baseline"]
    winner = candidates[0]
    hyperparameters = find_hyperparameters(result, winner.name)
    assert hyperparameters is not None, winner.name
    sentences = []
    for baseline in _baselines(result, hyperparameters, [name for name in baselines if name not in names]):
        if baseline.name == ABLATION and not has_penalty(winner.config):
            reason = f"{winner.description}, the winner, trains without a penalty"
        elif baseline.name == "start_from" and not result.spec.start_from:
            reason = "the search has none"
        else:
            equal = next(candidate.name for candidate in candidates if candidate.config == baseline.config)
            reason = f"its configuration is that of {equal}"
        sentences.append(f"{baseline.name} is left out: {reason}")
    fgsm = next((candidate.config for candidate in candidates if candidate.name == "fgsm"), None)
    if fgsm is not None and fgsm.epsilon != result.spec.evaluation.epsilon:
        radii = [format_radius(epsilon, fgsm.norm) for epsilon in (fgsm.epsilon, result.spec.evaluation.epsilon)]
        folder = result.directory / run_files.CONFIRM / "fgsm"
        sentences.append(
            f"fgsm goes on with {radii[0]} in training, as an earlier version began it; move {folder} away to train it "
            f"at {radii[1]}, where it is judged"
        )
    return sentences


def _settle(candidate: Candidate, result: SearchResult, winner: Candidate, values: dict[str, Any]) -> Candidate:
    """Return a baseline under a name whose folder holds no other networks.

    Version 0.1.0 trained `fgsm` at the radius of start_from; one that it began goes on so.

    Args:
        candidate: The baseline.
        result: The search.
        winner: The first leader.
        values: The winner's hyperparameters.
    """
    begun = _begun_config(result, candidate.name)
    if begun is None or begun == candidate.config:
        return candidate
    if candidate.name == "fgsm":
        start, description = _start_from(result, values)
        earlier = result.spec.training_config(start | WITHOUT_PENALTY)
        if begun == earlier:
            return replace(candidate, config=earlier, description=f"plain FGSM: {description}, without the penalty")
    return replace(candidate, name=f"{candidate.name}-of-{winner.name}")


def _begun_config(result: SearchResult, name: str) -> TrainingConfig | None:
    """Return how the networks in the folder of a candidate are trained; None if there are none."""
    files = sorted((result.directory / run_files.CONFIRM / name).glob(f"seed-*/{run_files.JOB_CONFIG}"))
    return read_job_config(files[0].parent).training if files else None


def _start_from(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if result.spec.start_from:
        return dict(result.spec.start_from[0]), "the first configuration of start_from"
    return winner, "the winner, as there is no start_from"


def _ablation(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    return winner | WITHOUT_PENALTY, "the winner without the penalty"


def _fgsm(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    values, description = _start_from(result, winner)
    at = format_radius(result.spec.evaluation.epsilon, result.spec.evaluation.norm)
    plain = _plain(result, "fgsm_rs")
    values = values | WITHOUT_PENALTY | CROSS_ENTROPY_ALONE | {"attack": "fgsm"} | plain | _judged_ball(result, values)
    start = ", with the start of fgsm_rs" if plain else ""
    return values, f"plain FGSM at {at}, where it is judged: {description}, with the cross-entropy alone{start}"


def _pgd(result: SearchResult, winner: dict[str, Any]) -> tuple[dict[str, Any], str]:
    at = format_radius(result.spec.evaluation.epsilon, result.spec.evaluation.norm)
    values = winner | WITHOUT_PENALTY | CROSS_ENTROPY_ALONE | {"attack": "pgd", "attack_steps": PGD_STEPS}
    return (
        values | _plain(result, "pgd") | _judged_ball(result, winner),
        f"PGD adversarial training at {at}, {PGD_STEPS} steps of a quarter of it: the winner's other settings",
    )


def _plain(result: SearchResult, method: str) -> dict[str, Any]:
    """Return the keys of a plain method, in place of the searched one's; empty in a search without a method."""
    if result.spec.training.get(METHOD, NO_METHOD) == NO_METHOD:
        return {}
    plain = {METHOD: method, **METHODS[method].keys}
    if result.spec.training_config({}).step_size is not None or "step_size" in result.spec.space:
        plain.pop("alpha", None)
    return plain


def _judged_ball(result: SearchResult, values: dict[str, Any]) -> dict[str, Any]:
    """Return the norm and the radius that networks are judged at, and a step in pixel units that fits the radius."""
    evaluation, config = result.spec.evaluation, result.spec.training_config(values)
    ball: dict[str, Any] = {"norm": evaluation.norm, "epsilon": evaluation.epsilon}
    if config.step_size is not None:
        ball["step_size"] = config.step_size / config.epsilon * evaluation.epsilon
    return ball


BASELINES: dict[str, Callable[[SearchResult, dict[str, Any]], tuple[dict[str, Any], str]]] = {
    "start_from": _start_from,
    ABLATION: _ablation,
    "fgsm": _fgsm,
    "pgd": _pgd,
}
"""Baselines by name: functions of the search and its winner's hyperparameters.

Each returns the baseline's hyperparameters and its description.
"""
DEFAULT_BASELINES = tuple(BASELINES)
