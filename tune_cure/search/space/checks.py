"""Checks of a search space that span its sections: conflicting keys, settings that cannot go together, short trials."""

import itertools
from typing import Any

from tune_cure.search.proposals.auto_sampler import read_traits, resolve_sampler
from tune_cure.search.proposals.samplers import unfit
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.training.delta import DELTA, SAME_AS
from tune_cure.training.interactions import (
    CONFLICTING_KEYS,
    LENGTH_KEYS,
    explain_short_training,
    find_conflict,
    inactive_hyperparameters,
)
from tune_cure.utils.yaml_config import ProblemError


def check_given_once(spec: SearchSpec) -> None:
    """Raise an error if a hyperparameter is both searched and fixed."""
    for key in spec.space:
        if key in spec.training:
            raise ProblemError(f"space.{key}", "is also fixed under training; keep one of the two")


def check_same_keys(spec: SearchSpec) -> None:
    """Raise an error where keys that say the same in other words are given together."""
    given = {key: "training" for key, value in spec.training.items() if value is not None} | dict.fromkeys(
        spec.space, "space"
    )
    for key, section in given.items():
        for other in SAME_AS.get(key, ()):
            if other in given:
                raise ProblemError(
                    f"{section}.{key}", f"says the same as {given[other]}.{other} in other words; keep one of the two"
                )


def check_conflicts(spec: SearchSpec, *, says_delta: bool) -> None:
    """Raise an error where values of several hyperparameters, which trials can have together, conflict.

    Args:
        spec: The search.
        says_delta: Whether the file says `delta`; errors then name it, too.
    """
    keys = [key for key in CONFLICTING_KEYS if key in spec.space]
    for values in itertools.product(*(_extremes(spec.space[key]) for key in keys)):
        if problem := find_conflict(spec.training_config(dict(zip(keys, values, strict=True)))):
            key, message = problem
            if says_delta and key in SAME_AS[DELTA]:
                key = DELTA
            raise ProblemError(f"{'space' if key in spec.space else 'training'}.{key}", message)


def _extremes(distribution: Distribution) -> list[Any]:
    """Return the names that a hyperparameter can have, or the least and the most that it can be."""
    values = distribution.values
    return values if isinstance(values[0], str) else sorted({min(values), max(values)})


def explain_short_trainings(spec: SearchSpec) -> list[str]:
    """Return the lines of `explain_short_training` that hold for some of the trials, each once."""
    keys = [key for key in LENGTH_KEYS if key in spec.space]
    cases = itertools.product(*(_extremes(spec.space[key]) for key in keys))
    configs = (spec.training_config(dict(zip(keys, values, strict=True))) for values in cases)
    return list(dict.fromkeys(line for config in configs for line in explain_short_training(config)))


def check_something_matters(spec: SearchSpec) -> None:
    """Raise an error if no searched hyperparameter is active in any trial."""
    inactive = spec.inactive_keys()
    if all(inactive.get(key) for key in spec.space):
        key = next(iter(spec.space))
        why = inactive_hyperparameters(spec.training_config({}))[key]
        raise ProblemError(f"space.{key}", f"makes no difference, and nothing else is searched: {why}")


def check_early_stopping(spec: SearchSpec) -> None:
    """Raise an error if the numbers of `asha` do not fit the epochs, the metric or the scheduler."""
    asha, scheduler = spec.asha, spec.search.scheduler
    key = "asha.steps" if asha.attack == "pgd" else "asha.attack"
    if spec.rung_judgement and not (
        spec.search.metrics[0].startswith("pgd_accuracy") and scheduler in ("asha", "hyperband")
    ):
        raise ProblemError(key, "goes with a PGD accuracy as first metric, and with scheduler asha or hyperband")
    if asha.steps is not None and asha.attack != "pgd":
        raise ProblemError("asha.steps", f"are those of PGD, but asha.attack is {asha.attack}; leave out one of them")
    if asha.adapt and not asha.control:
        raise ProblemError("asha.adapt", "needs a control group, by which rungs are judged: asha.control above 0")
    if asha.adapt and scheduler == "median":
        raise ProblemError("asha.adapt", "judges rungs, which median has none of; use asha or hyperband")
    if asha.grace_period > spec.max_epochs:
        limit = f"must be at most training.epochs ({spec.max_epochs})"
        raise ProblemError("asha.grace_period", f"{limit}, but got {asha.grace_period}")
    if scheduler == "hyperband" and asha.brackets > 1:
        raise ProblemError("asha.brackets", "goes with search.scheduler asha; hyperband has as many as there are rungs")


def check_brackets(spec: SearchSpec) -> None:
    """Raise an error if a bracket of ASHA has no rung to begin at."""
    if spec.search.scheduler == "asha" and spec.asha.brackets > len(spec.rungs) + 1:
        limit = f"must be at most {len(spec.rungs) + 1}, one more than the rungs (after epoch {spec.rungs})"
        raise ProblemError("asha.brackets", f"{limit}, but got {spec.asha.brackets}")


def check_constraints(spec: SearchSpec) -> None:
    """Raise an error if no accuracy, or every one, keeps a constraint: accuracies are fractions, not percentages."""
    for index, constraint in enumerate(spec.search.parsed_constraints):
        if not 0 <= constraint.bound <= 1:
            message = f"{constraint}: a fraction between 0 and 1 is needed, but found {constraint.bound:g}"
            raise ProblemError(f"search.constraints[{index}]", message)


def check_winner(spec: SearchSpec) -> None:
    """Raise an error if the winner is to be chosen by posterior mean where the second judgement does not decide."""
    if spec.rescore.choose == "posterior" and not (
        spec.search.metrics[0].startswith("pgd_accuracy") and spec.search.mode == "max"
    ):
        raise ProblemError("rescore.choose", "posterior goes with a PGD accuracy as first metric, and with mode max")


def check_trials(spec: SearchSpec) -> None:
    """Raise an error if there are fewer trials than configurations of start_from, or two budgets."""
    if spec.search.budget_seconds is not None and spec.search.budget_epochs is not None:
        raise ProblemError("search.budget_epochs", "is given beside search.budget_seconds; keep one of the two")
    if len(spec.start_from) > spec.search.trials:
        limit = f"must be at least the number of start_from ({len(spec.start_from)})"
        raise ProblemError("search.trials", f"{limit}, but got {spec.search.trials}")


def check_sampler(spec: SearchSpec) -> None:
    """Raise an error if the sampler cannot search this space; `start_from` must be resolved."""
    traits = read_traits(spec)
    if reason := unfit(
        resolve_sampler(spec)[0],
        choice=traits.choice,
        at_times=traits.at_times,
        constrained=traits.is_constrained,
        objectives=traits.num_metrics,
        warm=spec.search.warm_start is not None,
    ):
        raise ProblemError("search.sampler", reason)
