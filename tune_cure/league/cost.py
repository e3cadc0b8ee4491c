"""Cost of a league: what an epoch of each method takes, and how long searches and confirmation take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from tune_cure.confirmation.cost import Cost, estimate_run, find_timed_epochs
from tune_cure.confirmation.plan import Job
from tune_cure.league.methods import PRESET_SUFFIX
from tune_cure.search.results import SearchResult
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
    from tune_cure.data.batches import num_trained  # imports torch, as do the others
    from tune_cure.search.duration import typical_hyperparameters
    from tune_cure.training.speed import measure_speed

    config = spec.training_config(typical_hyperparameters(spec))
    speed = measure_speed(config, splits, model=spec.model, evaluation=spec.evaluation, device=device)
    num_judged = min(spec.evaluation.examples, len(splits.validation))
    return EpochCost(
        train_seconds=num_trained(len(splits.train), config.batch_size) * speed.trained_image,
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


def estimate_confirmation(
    results: Mapping[str, SearchResult], jobs: Sequence[Job], *, num_searched: int, num_classes: int
) -> dict[str, Cost]:
    """Return the cost of one run of each winner and each untuned preset, by its name.

    Each was a trial of its method's search, and takes as long an epoch as it took there. A candidate whose trial has
    recorded no times is left out.

    Args:
        results: The search of each method.
        jobs: The jobs of the league's confirmation.
        num_searched: The number of training images in the searches.
        num_classes: The number of classes.
    """
    costs: dict[str, Cost] = {}
    for job in {job.candidate.name: job for job in jobs}.values():
        name = job.candidate.name
        result = results[name.removesuffix(PRESET_SUFFIX)]
        timed = set(find_timed_epochs(result)["trial"])
        numbers = [number for number in result.leaders["trial"] if number in timed]  # winners are the first of these
        own = next((it for it in numbers if result.spec.training_config(result.proposals[it]) == job.training), None)
        if own is not None:
            costs[name] = estimate_run(result, own, job, num_searched=num_searched, num_classes=num_classes)
    return costs
