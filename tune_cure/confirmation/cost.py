"""Time that a confirmation takes, estimated from what its search recorded of its epochs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tune_cure.confirmation.candidates import has_penalty
from tune_cure.confirmation.plan import Job
from tune_cure.evaluation.names import MIN_TARGETED_CLASSES
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.trial_table import judged_examples
from tune_cure.training.config import TrainingConfig

PGD_STEPS = 500
"""Steps of PGD-50-10 for an image that withstands all of them."""
BREAKING = 0.05
"""Share of `PGD_STEPS` that images take that PGD breaks on the way."""
AUTOATTACK_PER_PGD = 11.0
"""Time of AutoAttack as a multiple of that of PGD-50-10: 8 to 13 on digits, by how robust the network is."""
UNTARGETED_PER_PGD = 3.5
"""The same for AutoAttack without its targeted parts."""
OTHER_STEPS = 3
"""Gradients of an image in an evaluation of the search that are not steps of PGD: clean, FGSM, alignment."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one device.

    Attributes:
        training: Seconds of training.
        pgd: Seconds of judging by all attacks but AutoAttack.
        autoattack: Seconds of AutoAttack.
    """

    training: float
    pgd: float
    autoattack: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.pgd + self.autoattack

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.training + other.training, self.pgd + other.pgd, self.autoattack + other.autoattack)

    def __truediv__(self, number: float) -> "Cost":
        return Cost(self.training / number, self.pgd / number, self.autoattack / number)


def estimate_costs(
    result: SearchResult, jobs: Sequence[Job], *, num_searched: int, num_classes: int
) -> dict[str, Cost]:
    """Return the cost of one run of each candidate, by its name; empty if the search has recorded no times.

    A candidate that was a trial of the search takes as long an epoch as it took there. A baseline that was not takes
    what the winner took, without the penalty, and with as many attack steps as it makes itself. A candidate with a
    network of its own has no estimate: the search has no times of it.

    Args:
        result: The search.
        jobs: The jobs.
        num_searched: The number of training images in the search.
        num_classes: The number of classes.
    """
    epochs = find_timed_epochs(result)
    leaders = [int(job.candidate.name.removeprefix("trial-")) for job in jobs if job.candidate.kind == "leader"]
    known = {*leaders, *result.trials.loc[result.trials["origin"].eq("start_from"), "trial"]} & {*epochs["trial"]}
    trials = {
        number: result.spec.training_config(result.proposals[number]) for number in result.proposals if number in known
    }
    costs: dict[str, Cost] = {}
    for job in jobs:
        config, name = job.candidate.config, job.candidate.name
        own = next((number for number, of_trial in trials.items() if of_trial == config), leaders[0])
        if name not in costs and own in trials and config is not None and job.model == result.spec.model:
            costs[name] = estimate_run(result, own, job, num_searched=num_searched, num_classes=num_classes)
    return costs


def leave_out_done(cost: Cost, job: Job) -> Cost:
    """Return the cost of what a run still has to do, of the cost of the whole run.

    AutoAttack counts in full until all of it is over.
    """
    is_judged = all((job.outcome_folder(epsilon) / run_files.OUTCOMES).exists() for epsilon in job.plan.epsilons)
    return replace(cost, training=0.0 if job.is_trained else cost.training, pgd=0.0 if is_judged else cost.pgd)


def find_timed_epochs(result: SearchResult) -> pd.DataFrame:
    """Return the rows of `SearchResult.epochs` with all that an estimate is made of."""
    return result.epochs.dropna(subset=["train_seconds", "eval_seconds", "pgd_accuracy"])


def estimate_run(result: SearchResult, trial: int, job: Job, *, num_searched: int, num_classes: int) -> Cost:
    """Return the cost of one run, from the epochs of a trial that was trained alike.

    Args:
        result: The search of the trial.
        trial: The trial, which has timed epochs.
        job: The run, of a configuration with the search's network.
        num_searched: The number of training images in the search.
        num_classes: The number of classes.
    """
    epochs = find_timed_epochs(result)
    recorded = epochs[epochs["trial"].eq(trial)]
    trained, config = result.spec.training_config(result.proposals[trial]), job.training
    train = _epoch_seconds(recorded, trained, config) * config.epochs * job.plan.train_images / num_searched
    judging = _judging_seconds(recorded, result, job, num_classes)
    cost = Cost(train, *judging)
    if job.plan.held_out:
        cost += Cost(float(recorded["eval_seconds"].median()) * config.epochs, 0.0, 0.0)
        # The best weights are judged, too, unless they are the last ones, as they may have been in the search.
        is_last_best = recorded["pgd_accuracy"].idxmax() == recorded.index[-1]
        cost += Cost(0.0, *([0.0, 0.0] if is_last_best else judging))
    return cost


def _epoch_seconds(recorded: pd.DataFrame, trained: TrainingConfig, config: TrainingConfig) -> float:
    """Return the seconds of an epoch of `config`, from the epochs of a trial that was trained as `trained` says."""
    seconds = recorded[["train_seconds", "attack_seconds", "penalty_seconds"]].fillna(0.0).median()
    rest = seconds["train_seconds"] - seconds["attack_seconds"] - seconds["penalty_seconds"]
    attack = seconds["attack_seconds"] * _attack_steps(config) / max(1, _attack_steps(trained))
    return float(rest + attack + (seconds["penalty_seconds"] if has_penalty(config) else 0.0))


def _attack_steps(config: TrainingConfig) -> int:
    """Return how many gradients the training attack takes; 1 for an attack whose number is not known."""
    return {"pgd": int(config.attack_steps), "none": 0}.get(config.attack, 1)


def _judging_seconds(recorded: pd.DataFrame, result: SearchResult, job: Job, num_classes: int) -> tuple[float, float]:
    """Return the seconds of judging one run by PGD and by AutoAttack, at all radii."""
    evaluation = result.spec.evaluation
    steps = recorded["pgd_accuracy"] * evaluation.steps * evaluation.restarts + OTHER_STEPS
    step_seconds = float((recorded["eval_seconds"] / (steps * judged_examples(result.spec))).median())
    share = float(recorded["pgd_accuracy"].iloc[-1]) + BREAKING
    pgd = step_seconds * PGD_STEPS * share * job.plan.examples * len(job.plan.epsilons)
    ratio = AUTOATTACK_PER_PGD if num_classes >= MIN_TARGETED_CLASSES else UNTARGETED_PER_PGD
    return pgd, ratio * pgd * job.plan.autoattack
