"""Budgets of a league: how much each method may spend, and whose turn it is to propose a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from tune_cure.search.proposals.auto_sampler import AUTO, choose_sampler, read_traits
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.configurations import limit_trials

if TYPE_CHECKING:
    from tune_cure.search.proposals.proposer import StudyProposer

BudgetUnit = Literal["seconds", "epochs"]
COARSE = 0.05  # share of a budget; an epoch that costs more leaves budgets unequal by more than that
SHORTEST = 0.5  # of the expected seconds of an epoch: no epoch is shorter, so that the number of trials has an end


def equal_budget(trials: int, unit: BudgetUnit, epochs: Mapping[str, int], epoch_seconds: Mapping[str, float]) -> float:
    """Return what each method may spend, so that all of them together have `trials` whole trials a method.

    Args:
        trials: Number of whole trials that a method of average cost can train.
        unit: What is equal: seconds or epochs of training.
        epochs: The epochs of a whole trial, by method.
        epoch_seconds: The measured seconds of training in an epoch, by method; not read for epochs.
    """
    if unit == "epochs":
        return float(math.ceil(trials * fmean(epochs.values())))
    return trials * fmean(epochs[name] * epoch_seconds[name] for name in epochs)


def with_budget(spec: SearchSpec, unit: BudgetUnit, budget: float, epoch_seconds: float) -> SearchSpec:
    """Return a method's search with its budget; its number of trials is only a limit that the budget does not reach.

    A space with fewer configurations has that many trials, which may leave some of the budget. The sampler that `auto`
    stands for is settled here for a budget in seconds: what an epoch takes says how many trials that pays for.

    Args:
        spec: The search.
        unit: The unit of the budget.
        budget: Seconds or epochs of training.
        epoch_seconds: The measured seconds of training in an epoch; not read for epochs.
    """
    if unit == "epochs":
        return _with(spec, budget_epochs=int(budget), budget_seconds=None, trials=int(budget))
    most = math.ceil(budget / (SHORTEST * epoch_seconds))
    budgeted = _with(spec, budget_epochs=None, budget_seconds=budget, trials=max(most, len(spec.start_from)))
    if spec.search.sampler != AUTO:
        return budgeted
    num_whole = int(round(budget / (epoch_seconds * spec.max_epochs), 6))  # 24 trials may be 23.999… by their seconds
    traits = read_traits(budgeted)
    sampler, _ = choose_sampler(replace(traits, num_trials=min(traits.num_trials, num_whole)))
    return _with(budgeted, sampler=sampler)


def _with(spec: SearchSpec, **settings: Any) -> SearchSpec:
    """Return a search with other keys of `search`, and at most as many trials as its space has configurations."""
    return limit_trials(spec.model_copy(update={"search": spec.search.model_copy(update=settings)}))


def coarse_methods(budget: float, epoch_seconds: Mapping[str, float]) -> list[str]:
    """Return the methods of which one epoch is so large a part of the budget that budgets cannot be equal."""
    return [name for name, seconds in epoch_seconds.items() if seconds > COARSE * budget]


@dataclass(frozen=True)
class Turns:
    """Rule for whose turn it is to propose a trial.

    Trials that an interruption left unfinished go first. Then the method with the smallest share of its budget is next,
    where running trials count with all that they may still cost. So no method waits while another one runs ahead of it.

    Attributes:
        proposers: What proposes the trials of each method, in the order of the league.
    """

    proposers: Mapping[str, StudyProposer]

    def order(self) -> Iterable[str]:
        """Return the methods that may propose, the next one first; a search that has ended for a fault is left out."""
        waiting = [name for name, proposer in self.proposers.items() if not proposer.stopper.outcome]
        return sorted(waiting, key=self._priority)

    def _priority(self, name: str) -> tuple[bool, float]:
        proposer = self.proposers[name]
        return not proposer.has_unfinished, proposer.stopper.budget.committed_share
