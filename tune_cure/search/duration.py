"""Estimate of how long a search takes, before its first trial: what its rule lets trials train, and their speed."""

import math
import random
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import StricterEvaluation
from tune_cure.search.journal import OBJECTIVE, RUNG
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.training.speed import Speed, cpu_threads, measure_speed

START_SECONDS = 15.0  # Ray's start and end, the workers' imports, tables and report: docs/performance.md
EPOCH_OVERHEAD = 0.02  # seconds between two epochs of a trial: docs/performance.md
SIDE_BY_SIDE = 0.77  # speed of a trial beside another one, as a share of its speed alone: docs/performance.md
PLAYED_TRIALS = 200  # at most in one game; a search of more trials is scaled up
GAMES = 10
STEPS = {"apgd_t": 9 * 100, "autoattack": 11 * 500}
"""Steps of PGD that take as long as another attack.

APGD-T makes 100 steps towards each of 9 classes. AutoAttack takes 8 to 13 times as long as PGD-50 with 10 starts:
docs/confirming.md.
"""


@dataclass(frozen=True)
class Duration:
    """Expected cost of a search.

    Attributes:
        epochs: Epochs of all trials together.
        seconds: From the command to the report.
    """

    epochs: float
    seconds: float


def typical_hyperparameters(spec: SearchSpec) -> dict[str, Any]:
    """Return the first values of `start_from`, or else the middle of the space: their cost stands for all trials."""
    middle = {key: _middle(distribution) for key, distribution in spec.space.items()}
    return middle | (spec.start_from[0] if spec.start_from else {})


def _middle(distribution: Distribution) -> Any:
    if distribution.kind == "choice":
        return distribution.values[0]
    low, high = distribution.values
    if distribution.kind == "loguniform":
        return math.sqrt(low * high)
    step = distribution.step or (1 if distribution.kind == "int" else None)
    middle = (low + high) / 2 if step is None else low + (high - low) / 2 // step * step
    return int(middle) if distribution.kind == "int" else float(middle)


def measure_trial_speed(spec: SearchSpec, splits: Splits) -> Speed:
    """Return the speed of a trial on this machine's CPU, with the number of threads that trials have."""
    config = spec.training_config(typical_hyperparameters(spec))
    with cpu_threads(spec.resources.cpus_per_trial):
        return measure_speed(config, splits, model=spec.model, evaluation=spec.evaluation)


def estimate_duration(
    spec: SearchSpec, speed: Speed, *, num_train: int, num_judged: int, num_fresh: int, concurrent: int
) -> Duration:
    """Return how long a search takes on workers of this speed.

    Args:
        spec: The search.
        speed: Of a trial that has the machine for itself.
        num_train: Training images.
        num_judged: Validation images that each epoch is judged on.
        num_fresh: Validation images that the leaders are judged on at the end.
        concurrent: Trials at a time.
    """
    workers = min(concurrent, spec.search.trials)
    speed_of_each = SIDE_BY_SIDE if workers > 1 else 1.0
    pace = workers * speed_of_each
    played = play(spec, workers)
    if spec.search.budget_seconds is not None:
        played = played.within(spec.search.budget_seconds * speed_of_each / (num_train * speed.trained_image))
    epoch = speed.of_epoch(num_train, num_judged, spec.evaluation) + EPOCH_OVERHEAD
    again = spec.rescore.top * _judging_seconds(speed, num_fresh, spec.rescoring)
    if spec.rung_judgement:
        again += played.at_rungs * _judging_seconds(speed, num_judged, spec.rung_judgement)
    return Duration(played.epochs, START_SECONDS + (played.epochs * epoch + again) / pace)


def _judging_seconds(speed: Speed, num_judged: int, evaluation: StricterEvaluation) -> float:
    """Return the seconds in which a network is judged by another attack than that of each epoch."""
    steps = STEPS.get(evaluation.attack)
    as_pgd = evaluation if steps is None else evaluation.model_copy(update={"steps": steps, "restarts": 1})
    return speed.of_evaluation(num_judged, as_pgd)


@dataclass(frozen=True)
class Played:
    """Epochs of all trials of a search together.

    Attributes:
        epochs: Epochs that they train.
        at_rungs: Those of these epochs after which ASHA or Hyperband compares trials.
    """

    epochs: float
    at_rungs: float

    def within(self, budget: float) -> "Played":
        """Return what of it a budget of so many epochs pays for."""
        share = min(1.0, budget / self.epochs)
        return Played(share * self.epochs, share * self.at_rungs)


def play(spec: SearchSpec, concurrent: int) -> Played:
    """Return the epochs of all trials together, as the search's own rule of early stopping and its budget decide.

    The rule plays games with made-up trials, whose accuracies are random and keep their order. So what is counted is
    what a formula leaves out: the first trials pass every rung, and those of `start_from` and of the control group are
    never stopped. A budget of seconds needs the speed of trials; `estimate_duration` takes it into account.

    Args:
        spec: The search.
        concurrent: Trials at a time.
    """
    played = _play_all(spec, concurrent)
    return played if spec.search.budget_epochs is None else played.within(spec.search.budget_epochs)


def _play_all(spec: SearchSpec, concurrent: int) -> Played:
    """Return the epochs of all trials together without a budget."""
    trials, length = spec.search.trials, spec.training_config(typical_hyperparameters(spec)).epochs
    if spec.search.scheduler == "none":
        return Played(float(trials * length), 0.0)
    played = min(trials, PLAYED_TRIALS)
    games = [
        _play(spec, played, length, concurrent, seed) for seed in range(max(1, min(GAMES, 2 * PLAYED_TRIALS // played)))
    ]
    scale = trials / played
    return Played(scale * fmean(game.epochs for game in games), scale * fmean(game.at_rungs for game in games))


def _play(spec: SearchSpec, trials: int, length: int, concurrent: int, seed: int) -> Played:
    """Return the epochs of all trials in one game; running trials report by turns."""
    chance, stopper = random.Random(seed), EarlyStopper(spec)
    waiting = list(range(trials))[::-1]
    running: list[tuple[int, int, float]] = []  # number, epochs trained, accuracy
    total, at_rungs, rungs = 0, 0, set(spec.rungs)
    while waiting or running:
        while waiting and len(running) < concurrent:
            stopper.add(waiting[-1])
            running.append((waiting.pop(), 0, chance.random()))
        number, epoch, accuracy = running.pop(0)
        epoch, total = epoch + 1, total + 1
        at_rungs += epoch in rungs
        metrics = {OBJECTIVE: accuracy, RUNG: accuracy, "ended": "completed" if epoch >= length else ""}
        if epoch < length and stopper.report(number, epoch, metrics):
            running.append((number, epoch, accuracy))
        else:
            stopper.complete(number, epoch, metrics)
    return Played(total, at_rungs)
