"""Budgets of a league: how much each method may spend, and whose turn it is to propose a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

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

    A space with fewer configurations has that many trials, which may leave some of the budget.

    Args:
        spec: The search.
        unit: The unit of the budget.
        budget: Seconds or epochs of training.
        epoch_seconds: The measured seconds of training in an epoch; not read for epochs.
    """
    update: dict[str, Any]
    if unit == "epochs":
        update = {"budget_epochs": int(budget), "budget_seconds": None, "trials": int(budget)}
    else:
        most = math.ceil(budget / (SHORTEST * epoch_seconds))
        update = {"budget_epochs": None, "budget_seconds": budget, "trials": max(most, len(spec.start_from))}
    return limit_trials(spec.model_copy(update={"search": spec.search.model_copy(update=update)}))


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
