"""The rules decide as Ray Tune's schedulers do. These tests import Ray's classes, and start no Ray.

Ray's schedulers are set up as version 0.1.0 of this project did: trials known by number, and each trial's bracket drawn
from numpy's global generator, seeded by the trial's number.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from tests.support.spaces import tiny
from tune_cure.search.schedulers.registry import SCHEDULERS, StoppingRule
from tune_cure.search.space.config import AshaConfig, SearchSpec

PARTS, STREAMS = 2, 300  # of each rule: parts of the test, and random searches in each
MAX_EPOCHS = 30


class RayTrial(NamedTuple):
    """What Ray's schedulers look at of a trial."""

    trial_id: int


class RayAsha:
    """Ray's ASHA as a `StoppingRule`; `bracket_shares` are Hyperband's, None means Ray's own draw."""

    def __init__(self, spec: SearchSpec, bracket_shares: list[float] | None = None) -> None:
        self.seed, self.shares = spec.search.seed, bracket_shares
        self.scheduler = AsyncHyperBandScheduler(
            metric="objective",
            mode=spec.search.mode,
            max_t=spec.max_epochs,
            grace_period=spec.asha.grace_period,
            reduction_factor=spec.asha.reduction_factor,
            brackets=len(bracket_shares) if bracket_shares else spec.asha.brackets,
        )

    def add(self, number: int) -> None:
        if self.shares:
            bracket = np.random.default_rng((self.seed, number)).choice(len(self.shares), p=self.shares)
            self.scheduler._trial_info[number] = self.scheduler._brackets[bracket]
            return
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed((self.seed, number))  # noqa: NPY002
        self.scheduler.on_trial_add(None, RayTrial(number))
        np.random.set_state(state)  # noqa: NPY002

    def report(self, number: int, epoch: int, objective: float) -> bool:
        result = {"training_iteration": epoch, "objective": objective}
        return bool(self.scheduler.on_trial_result(None, RayTrial(number), result) == "CONTINUE")

    def complete(self, number: int, epoch: int, objective: float) -> None:
        result = {"training_iteration": epoch, "objective": objective}
        self.scheduler.on_trial_complete(None, RayTrial(number), result)


class RayMedian:
    """Ray's median rule as a `StoppingRule`."""

    def __init__(self, spec: SearchSpec) -> None:
        self.scheduler = MedianStoppingRule(
            time_attr="training_iteration",
            metric="objective",
            mode=spec.search.mode,
            grace_period=spec.asha.grace_period,
            min_samples_required=3,
            min_time_slice=float("inf"),
        )

    def add(self, number: int) -> None:
        self.scheduler.on_trial_add(None, RayTrial(number))

    def report(self, number: int, epoch: int, objective: float) -> bool:
        result = {"training_iteration": epoch, "objective": objective}
        return bool(self.scheduler.on_trial_result(None, RayTrial(number), result) == "CONTINUE")

    def complete(self, number: int, epoch: int, objective: float) -> None:
        result = {"training_iteration": epoch, "objective": objective}
        self.scheduler.on_trial_complete(None, RayTrial(number), result)


RAYS: dict[str, Callable[[SearchSpec], Any]] = {
    "asha": RayAsha,
    "hyperband": lambda spec: RayAsha(spec, spec.bracket_shares),
    "median": RayMedian,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SearchSpec:
    return tiny(tmp_path_factory.mktemp("base"))


def random_spec(base: SearchSpec, scheduler: str, random: np.random.Generator) -> SearchSpec:
    """Return the search with a random seed, mode, length and numbers of ASHA."""
    epochs = int(random.integers(1, MAX_EPOCHS + 1))
    update = {"scheduler": scheduler, "seed": int(random.integers(2**31)), "mode": str(random.choice(["max", "min"]))}
    asha = AshaConfig(
        grace_period=int(random.integers(1, epochs + 1)),
        reduction_factor=random.choice([1.5, 2, 2.5, 3, 4, float(random.uniform(1.5, 5))]),
        brackets=int(random.integers(1, 6)),
    )
    training = {**base.training, "epochs": epochs}
    return base.model_copy(update={"search": base.search.model_copy(update=update), "asha": asha, "training": training})


def decisions(rule: StoppingRule, spec: SearchSpec, random: np.random.Generator) -> Iterator[tuple[int, int, bool]]:
    """Run a search of random learning curves, several trials at a time, and yield each decision of `rule`."""
    max_epochs = spec.max_epochs
    num_trials, concurrent = int(random.integers(2, 30)), int(random.integers(1, 7))
    coarse = bool(random.integers(2))  # accuracies on few images are often equal
    running: dict[int, tuple[int, int]] = {}  # the epoch of each trial, and the last that it can reach
    begun = 0
    while running or begun < num_trials:
        while len(running) < concurrent and begun < num_trials:
            running[begun] = (0, int(random.integers(1, max_epochs + 1)))
            rule.add(begun)
            begun += 1
        number = int(random.choice(list(running)))
        epoch, last = running[number][0] + 1, running[number][1]
        objective = float(random.integers(6) / 5 if coarse else random.random())
        if epoch >= last:
            rule.complete(number, epoch, objective)
            del running[number]
            continue
        goes_on = rule.report(number, epoch, objective)
        yield number, epoch, goes_on
        if goes_on:
            running[number] = (epoch, last)
        else:
            rule.complete(number, epoch, objective)  # Tune reports the last epoch again when it stops a trial
            del running[number]


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("scheduler", RAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_rule_decides_as_rays_scheduler_on_random_searches(base: SearchSpec, scheduler: str, part: int) -> None:
    outcomes = set()
    for seed in range(part * STREAMS, (part + 1) * STREAMS):
        spec = random_spec(base, scheduler, np.random.default_rng((seed, 0)))
        rules = (SCHEDULERS[scheduler](spec), RAYS[scheduler](spec))
        ours, rays = (list(decisions(rule, spec, np.random.default_rng((seed, 1)))) for rule in rules)
        assert ours == rays, (seed, spec.asha, spec.search)
        outcomes |= {goes_on for _, _, goes_on in ours}
    assert outcomes == {True, False}
