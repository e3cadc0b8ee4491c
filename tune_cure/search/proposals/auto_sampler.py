"""Choice of the sampler that `search.sampler: auto` stands for, by what was measured (docs/search_quality.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune_cure.utils.formatting import format_count

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec

AUTO = "auto"
# The searches in which gp was better than tpe; outside of these, nothing was measured, or tpe was as good.
MIN_TRIALS, MAX_TRIALS = 24, 48
MIN_STOPPED_TRIALS, MAX_STOPPED_TRIALS = 40, 80  # where trials may be stopped
MAX_KEYS = 4
FIRST_RUNG = 1 / 3


@dataclass(frozen=True)
class SearchTraits:
    """Traits of a search that decide about its sampler.

    Attributes:
        num_keys: The number of searched hyperparameters.
        num_trials: The number of trials; fewer if the budget in epochs pays for fewer that train to their end.
        first_rung: The share of its epochs that every trial trains: 1 without early stopping, 0 where a scheduler
            other than ASHA stops trials.
        at_times: A hyperparameter that only some trials have; None if there is none.
        choice: A hyperparameter that is drawn from a list of values; None if there is none.
        num_metrics: The number of metrics that are optimized.
        is_constrained: Whether there are constraints.
    """

    num_keys: int
    num_trials: int
    first_rung: float = 1.0
    at_times: str | None = None
    choice: str | None = None
    num_metrics: int = 1
    is_constrained: bool = False


def choose_sampler(traits: SearchTraits) -> tuple[str, str]:
    """Return the name of the sampler that `auto` stands for, and the reason in words."""
    num_keys, num_trials = traits.num_keys, traits.num_trials
    is_whole = traits.first_rung == 1
    least, most = (MIN_TRIALS, MAX_TRIALS) if is_whole else (MIN_STOPPED_TRIALS, MAX_STOPPED_TRIALS)
    against_gp = {
        f"only some trials have {traits.at_times}": traits.at_times is not None,
        f"there are {traits.num_metrics} metrics": traits.num_metrics > 1,
        "there are constraints": traits.is_constrained,
        "trials may be stopped in the first third of their epochs": traits.first_rung < FIRST_RUNG,
        f"{traits.choice} is a choice": traits.choice is not None,
        f"more than {MAX_KEYS} hyperparameters": num_keys > MAX_KEYS,
        f"fewer than {least} trials": num_trials < least,
        f"more than {most} trials": num_trials > most,
    }
    reason = next((reason for reason, holds in against_gp.items() if holds), None)
    if reason is not None:
        return "tpe", reason
    numbers = format_count(num_keys, "number")
    return "gp", f"{num_trials} trials over {numbers}, and none is stopped in the first third of its epochs"


def read_traits(spec: SearchSpec) -> SearchTraits:
    """Return what decides about the sampler of a search, whose `start_from` is resolved."""
    inactive = spec.inactive_keys()
    missing = [key for start in spec.start_from for key in spec.space if key not in start]
    search, num_trials = spec.search, spec.search.trials
    first_rung = {"none": 1.0, "asha": spec.asha.grace_period / spec.max_epochs}
    if search.budget_epochs is not None:
        num_trials = min(num_trials, search.budget_epochs // spec.max_epochs)
    return SearchTraits(
        num_keys=sum(not inactive.get(key) for key in spec.space),
        num_trials=num_trials,
        first_rung=first_rung.get(search.scheduler, 0.0),
        at_times=next((key for key in [*inactive, *missing] if not inactive.get(key)), None),
        choice=next((key for key, distribution in spec.space.items() if distribution.kind == "choice"), None),
        num_metrics=len(search.metrics),
        is_constrained=bool(search.constraints),
    )


def resolve_sampler(spec: SearchSpec) -> tuple[str, str]:
    """Return the name of a search's sampler, and why `auto` stands for it; the reason is empty without `auto`."""
    if spec.search.sampler != AUTO:
        return spec.search.sampler, ""
    return choose_sampler(read_traits(spec))
