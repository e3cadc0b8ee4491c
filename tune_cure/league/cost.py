"""Cost of a league: what an epoch of each method takes on a machine, and how long all searches take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.schema import Schema

if TYPE_CHECKING:
    from tune_cure.data.splits import Splits
    from tune_cure.league.budget import BudgetUnit


class EpochCost(Schema):
    """Measured seconds of an epoch of a method's untuned preset."""

    train_seconds: float = Field(gt=0, description="Of training.")
    eval_seconds: float = Field(ge=0, description="Of the evaluation after it.")


def measure_epoch(spec: SearchSpec, splits: Splits, device: str = "cpu") -> EpochCost:
    """Return what an epoch of the first trial of a search takes in this process; takes some seconds.

    Args:
        spec: The search.
        splits: Its data, on the device.
        device: The device of all computations.
    """
    from tune_cure.search.duration import typical_hyperparameters  # imports torch
    from tune_cure.training.speed import measure_speed

    config = spec.training_config(typical_hyperparameters(spec))
    speed = measure_speed(config, splits, model=spec.model, evaluation=spec.evaluation, device=device)
    num_judged = min(spec.evaluation.examples, len(splits.validation))
    return EpochCost(
        train_seconds=len(splits.train) * speed.trained_image,
        eval_seconds=speed.of_evaluation(num_judged, spec.evaluation),
    )


def count_epochs(unit: BudgetUnit, budget: float, cost: EpochCost) -> float:
    """Return how many epochs a method can train with its budget."""
    return budget if unit == "epochs" else budget / cost.train_seconds


def estimate_seconds(unit: BudgetUnit, budget: float, costs: Mapping[str, EpochCost], concurrent: int) -> float:
    """Return how long the searches of a league take, from the command to their tables.

    Args:
        unit: The unit of the budget.
        budget: What each method may spend.
        costs: What an epoch of each method takes; the evaluation is not part of a budget, but takes time.
        concurrent: Trials at a time.
    """
    from tune_cure.search.duration import EPOCH_OVERHEAD, START_SECONDS  # imports torch

    seconds = sum(
        count_epochs(unit, budget, cost) * (cost.train_seconds + cost.eval_seconds + EPOCH_OVERHEAD)
        for cost in costs.values()
    )
    return START_SECONDS + seconds / concurrent
