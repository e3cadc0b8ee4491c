"""Control group of a search: trials that nothing stops, drawn by the seed, and what they say of the rungs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cure.search.schedulers.foresight import Estimate, RankCorrelation, chance_of_stopping_best

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec

STREAM = 0x636F6E74726F6C  # keeps these draws apart from other draws by seed and trial number
MIN_KNOWN = 8  # effective trials from which on a small correlation is no accident
MIN_USEFUL = 0.3  # correlation that is worth stopping trials for: of two trials, 65% in the right order
UNSOUND = -2.0  # final value of a trial that diverged or overfitted catastrophically: below every accuracy
BETTER, NO_BETTER, UNKNOWN = "better than chance", "no better than chance", "not known yet"


def is_control(spec: SearchSpec, number: int) -> bool:
    """Return whether a trial was drawn into the control group: by the seed and its number alone, so for good.

    The trials of start_from are not drawn: nothing stops them in any case, so they stand for no other trial.
    """
    share = spec.asha.control
    if number < len(spec.start_from) or share == 0:
        return False
    return bool(np.random.default_rng((spec.search.seed, number, STREAM)).random() < share)


def is_spared(spec: SearchSpec, number: int) -> bool:
    """Return whether nothing stops a trial: one of start_from, or of the control group."""
    return number < len(spec.start_from) or is_control(spec, number)


@dataclass(frozen=True)
class RungForesight:
    """Estimate of how well the ranks at a rung predict the final ranks.

    Attributes:
        epoch: The rung.
        trials: How many trials that reached it are known to their end.
        effective_trials: How many equally weighted trials would say as much.
        correlation: Kendall's rank correlation; None while there are too few trials.
    """

    epoch: int
    trials: int
    effective_trials: float
    correlation: Estimate | None

    @property
    def verdict(self) -> str:
        """Return `BETTER`, `NO_BETTER` or `UNKNOWN`."""
        if self.correlation is None:
            return UNKNOWN
        if self.correlation.low > 0:
            return BETTER
        is_small = self.effective_trials >= MIN_KNOWN and self.correlation.value < MIN_USEFUL
        return NO_BETTER if is_small else UNKNOWN

    def __str__(self) -> str:
        found = "too few trials are known to their end"
        if self.correlation is not None:
            tau = self.correlation
            value, low, high = (format_correlation(number) for number in (tau.value, tau.low, tau.high))
            found = f"rank correlation with the end {value} (95% interval {low} to {high})"
        return f"rung {self.epoch}: {found}; {self.verdict}"


def format_correlation(number: float) -> str:
    """Return a correlation with two digits and a true minus sign."""
    return f"{number:.2f}".replace("-", "−")


def describe_warning(spec: SearchSpec, rung: RungForesight) -> str:
    """Return what to think of a rung that is no better than chance, in words; empty for any other rung."""
    if rung.verdict != NO_BETTER:
        return ""
    remedy = "it stops nobody until it is"
    if not spec.asha.adapt:
        remedy = "in the next search, asha.adapt: true lets a rung stop nobody until it is better"
    return f"rung {rung.epoch} is no better than chance at telling which trials end well; {remedy}"


class ControlGroup:
    """Record of what the rungs decided and of how trials ended, from which the rungs are judged.

    Args:
        spec: The search.

    Attributes:
        stop_epochs: Where a rung stopped a trial, or would have stopped one that is spared, by the trial's number.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._sign = 1 if spec.search.mode == "max" else -1
        self._values: dict[int, dict[int, float]] = {rung: {} for rung in spec.rungs}  # by rung and trial
        self._correlations = {rung: RankCorrelation() for rung in spec.rungs}
        self.stop_epochs: dict[int, int] = {}
        self._stand_ins: set[int] = set()  # members that a rung would have stopped and that are known to their end
        self._trusted: set[int] = set()  # rungs that stop trials although `asha.adapt` is set
        self._finals: dict[int, float] = {}
        self._last_epochs: dict[int, int] = {}  # of trials in `_finals`

    def is_out(self, number: int) -> bool:
        """Return whether a trial trains on only because it is a member: rungs compare no other trial with it then."""
        return number in self.stop_epochs and is_control(self.spec, number)

    def reach(self, number: int, epoch: int, compared: float) -> None:
        """Take in an epoch of a trial, and what trials are compared by."""
        if epoch in self._values:
            self._values[epoch].setdefault(number, self._sign * compared)

    def stop(self, number: int, epoch: int) -> bool:
        """Take in that a rung wants to stop a trial after an epoch, and return whether the trial trains on."""
        if epoch < self.spec.max_epochs:
            if not self._may_stop(epoch):
                return True
            self.stop_epochs.setdefault(number, epoch)
        return is_spared(self.spec, number)

    def end(self, number: int, epoch: int, objective: float, status: str) -> None:
        """Take in the end of a trial; one that was stopped, or that failed, leaves its final value unknown.

        Args:
            number: The trial's number.
            epoch: Its last epoch.
            objective: The objective then.
            status: How it ended (`event_schemas.Status`); empty counts as stopped.
        """
        if status in ("", "stopped", "failed") or number in self._finals:
            return
        final = self._sign * objective if status == "completed" else UNSOUND
        self._finals[number], self._last_epochs[number] = final, epoch
        if self.is_out(number):
            self._stand_ins.add(number)
        for rung, values in self._values.items():
            if number in values:
                self._correlations[rung].add(values[number], final, self._weight(number))
        if self.spec.asha.adapt:
            self._update_trust()

    def judge(self, rung: int) -> RungForesight:
        """Return how well the ranks at a rung predict the final ranks.

        Nothing is known while more trials were stopped than are known to their end, and no member stands for them.
        """
        correlation = self._correlations[rung]
        is_fair = self._stand_ins or len(self.stop_epochs) <= len(self._finals)
        estimate = correlation.estimate() if is_fair else None
        return RungForesight(rung, correlation.num_trials, correlation.effective_trials, estimate)

    @property
    def has_stand_ins(self) -> bool:
        """True if a member that a rung would have stopped is known to its end, so that it stands for stopped trials."""
        return bool(self._stand_ins)

    @property
    def rungs(self) -> list[RungForesight]:
        """The rungs in their order, each judged."""
        return [self.judge(rung) for rung in self._correlations]

    def winner_stopped(self) -> Estimate | None:
        """Return the chance that a rung stopped the trial that would have won; None while no member stands for these.

        It is smaller than the chance that a rung wanted to, because the winner may have been a member.
        """
        if not self.stop_epochs:
            return Estimate(0.0, 0.0, 0.0)
        if not self._stand_ins:
            return None
        numbers = list(self._finals)
        chance = chance_of_stopping_best(
            [self._finals[number] for number in numbers],
            [number in self.stop_epochs for number in numbers],
            [self._weight(number) for number in numbers],
        )
        left = 1 - self.spec.asha.control
        return Estimate(left * chance.value, left * chance.low, left * chance.high)

    def describe_winner(self) -> str:
        """Return the chance that stopping ended the trial that would have won, in words."""
        chance = self.winner_stopped()
        if chance is None:
            return "whether stopping ended the winner is not known: no trial that was spared shows how the others end"
        return (
            f"chance that stopping ended the trial that would have won: {chance.value:.0%} "
            f"(95% interval {chance.low:.0%} to {chance.high:.0%})"
        )

    def summarize(self) -> dict[str, Any]:
        """Return what is known as the content of summary.json; docs/columns.md describes its keys."""
        chance = self.winner_stopped()
        return {
            "rungs": [
                {
                    "epoch": rung.epoch,
                    "trials": rung.trials,
                    "effective_trials": rung.effective_trials,
                    "rank_correlation": None if rung.correlation is None else vars(rung.correlation),
                    "verdict": rung.verdict,
                }
                for rung in self.rungs
            ],
            "trials_spared": len(self._stand_ins),
            "epochs_of_spared": sum(self._last_epochs[name] - self.stop_epochs[name] for name in self._stand_ins),
            "winner_stopped": None if chance is None else vars(chance),
        }

    def _update_trust(self) -> None:
        """Trust the rungs that are better than chance, and no more those that are not; others stay as they were."""
        for rung in self.rungs:
            if rung.verdict == BETTER:
                self._trusted.add(rung.epoch)
            elif rung.verdict == NO_BETTER:
                self._trusted.discard(rung.epoch)

    def _may_stop(self, epoch: int) -> bool:
        """Return whether the rung that an epoch has reached may stop trials."""
        return not self.spec.asha.adapt or max(rung for rung in self._values if rung <= epoch) in self._trusted

    def _weight(self, number: int) -> float:
        """Return how many trials one that is known to its end stands for."""
        return 1 / self.spec.asha.control if self.is_out(number) else 1.0
