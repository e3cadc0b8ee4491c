"""Which trials are stopped early: Ray's schedulers, but they know trials by number and are rebuilt from the journal.

A scheduler that Ray restores has forgotten what it saw; a trial that goes on at epoch 9 would then enter its late score
where first epochs are compared, and get younger trials stopped by it. Here the recorded epochs are replayed first.

The trials of start_from are never stopped: what the winner is compared with must have had its full schedule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from tune_cure.search.journal import OBJECTIVE, RUNG, Event
from tune_cure.search.space.config import SearchSpec

MIN_RIVALS = 3  # trials as old that the median rule needs before it stops any


class Numbered(NamedTuple):
    """As much of a Tune trial as the schedulers look at; equal to itself over interruptions of the search."""

    trial_id: int


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Ray's ASHA."""

    def __init__(self, spec: SearchSpec, history: list[Event], brackets: int | None = None) -> None:
        super().__init__(
            metric=OBJECTIVE,
            mode=spec.search.mode,
            max_t=spec.max_epochs,
            grace_period=spec.asha.grace_period,
            reduction_factor=spec.asha.reduction_factor,
            brackets=brackets or spec.asha.brackets,
        )
        self.seed, self.starts = spec.search.seed, len(spec.start_from)
        for event in history:
            if event["event"] == "trial":
                self._add(event["trial"])
            elif event["event"] == "epoch":
                super().on_trial_result(None, Numbered(event["trial"]), _compared(result_of(event)))

    def _add(self, number: int) -> None:
        # Ray draws the bracket from numpy's global state: for the moment, make that the trial's own.
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed((self.seed, number))  # noqa: NPY002
        super().on_trial_add(None, Numbered(number))
        np.random.set_state(state)  # noqa: NPY002

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Gives a trial its bracket."""
        self._add(trial.config["trial"])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        number = trial.config["trial"]
        decision: str = super().on_trial_result(tune_controller, Numbered(number), _compared(result))
        return decision if number >= self.starts else self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enters a finished trial's last result into its rung."""
        super().on_trial_complete(tune_controller, Numbered(trial.config["trial"]), _compared(result))

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forgets a trial's bracket."""
        super().on_trial_remove(tune_controller, Numbered(trial.config["trial"]))


class Hyperband(Asha):
    """Asynchronous Hyperband (Li et al. 2018, arXiv 1603.06560): an ASHA for each bracket, the last stops nothing.

    The brackets get the shares of the trials that make their epochs about equal, as in the paper; its synchronous
    rungs, at which trials would wait for each other, are those of ASHA here.
    """

    def __init__(self, spec: SearchSpec, history: list[Event]) -> None:
        self.shares = spec.bracket_shares
        super().__init__(spec, history, brackets=len(self.shares))

    def _add(self, number: int) -> None:
        bracket = np.random.default_rng((self.seed, number)).choice(len(self.shares), p=self.shares)
        self._trial_info[number] = self._brackets[bracket]


class Median(MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017): a trial ends if its best is below the others' median mean."""

    def __init__(self, spec: SearchSpec, history: list[Event]) -> None:
        super().__init__(
            time_attr="training_iteration",
            metric=OBJECTIVE,
            mode=spec.search.mode,
            grace_period=spec.asha.grace_period,
            min_samples_required=MIN_RIVALS,
            min_time_slice=float("inf"),  # never pause a trial: it would give up its place to train
        )
        self.starts = len(spec.start_from)
        for event in history:
            if event["event"] == "epoch":
                seen = self._results[Numbered(event["trial"])]
                if len(seen) < event["epoch"]:  # a crash can make an epoch run twice
                    seen.append(result_of(event))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        number = Numbered(trial.config["trial"])
        if number.trial_id < self.starts:
            self._results[number].append(result)
            return str(self.CONTINUE)
        return str(super().on_trial_result(tune_controller, number, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enters a finished trial's last result."""
        super().on_trial_complete(tune_controller, Numbered(trial.config["trial"]), result)


def result_of(event: Event) -> dict[str, Any]:
    """As much of a trial's result as the schedulers look at, from the journal's line of its epoch."""
    return {"training_iteration": event["epoch"], OBJECTIVE: event[OBJECTIVE], RUNG: event.get(RUNG)}


def _compared(result: dict[str, Any]) -> dict[str, Any]:
    """At a rung, by the accuracy under the stronger attack if there is one."""
    return result if result.get(RUNG) is None else {**result, OBJECTIVE: result[RUNG]}


SCHEDULERS: dict[str, Callable[[SearchSpec, list[Event]], TrialScheduler]] = {
    "asha": Asha,
    "hyperband": Hyperband,
    "median": Median,
    "none": lambda spec, history: FIFOScheduler(),
}


def make(spec: SearchSpec, history: list[Event]) -> TrialScheduler:
    """The scheduler of a search, knowing the trials that its journal has already."""
    return SCHEDULERS[spec.search.scheduler](spec, history)
