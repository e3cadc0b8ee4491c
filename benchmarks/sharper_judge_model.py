"""The judge of a simulated search, who sees whether networks are right about single images: for sharper_judge.py.

Each network has a true accuracy after each epoch. An image has a difficulty that all networks share, one for each
trial, and one for each epoch, all normal; a network is right where their weighted sum is below the quantile of its true
accuracy. Two networks agree on single images as far as real ones do (judge_agreement.csv). All networks are judged on
the same images, the first of a fixed order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from judge_agreement import AGREEMENT
from numpy.typing import NDArray
from scipy.special import ndtri

from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.space.config import SearchSpec

POOL = 5  # the validation set has as many times the images of `evaluation.examples`, as in cure.yaml


@dataclass(frozen=True)
class Judging:
    """How many images a search judges by, in parts of the n of today.

    Attributes:
        early: In each epoch before `late_from`.
        late: In each later one.
        late_from: The first epoch of the later ones.
        rung: By which the best weights so far are judged at a rung and at the end; 0 for no other than before.
        doubt: Standard errors of a paired difference below which a rung takes more images; 0 for no race.
        exact: Whether the judge knows the true accuracies, at no cost.
    """

    early: float
    late: float
    late_from: int = 1
    rung: float = 0.0
    doubt: float = 0.0
    exact: bool = False


@dataclass(frozen=True)
class Latent:
    """Correlations of the normal variables behind the outcomes of two networks on an image, by thirds of the training.

    Attributes:
        between: Of networks of two trials after the same epoch, (3,).
        within: Of one trial's after neighboring epochs, (3,).
    """

    between: NDArray[Any]
    within: NDArray[Any]


def read_latent() -> Latent:
    """Return the correlations that were measured."""
    frame = pd.read_csv(AGREEMENT)
    third = (frame["later_epoch"] - 1) // (frame["later_epoch"].max() // 3)
    between, neighbors = frame["pair"] == "configurations", frame["later_epoch"] - frame["epoch"] == 1
    return Latent(*(frame[which].groupby(third)["latent"].mean().to_numpy() for which in (between, neighbors)))


@dataclass
class Judged:
    """A trial as the judge sees it.

    Attributes:
        number: Its number.
        value: What its configuration reaches without noise.
        truth: True accuracies of its network after each epoch, (epochs,).
        right: Whether the network is right, (epochs, images), for the thirds of the training that it began.
        objective: The best accuracy so far.
        best: The epoch of it.
        seen: How many images judged the best weights.
        ended: Whether it ran to its end.
    """

    number: int
    value: float
    truth: NDArray[Any]
    right: NDArray[np.bool_]
    objective: float = -1.0
    best: int = 0
    seen: int = 0
    ended: bool = False

    def outcomes(self) -> NDArray[Any]:
        """Return whether the best weights are right about each image, as numbers."""
        return self.right[self.best - 1].astype(np.float32)

    @property
    def reached(self) -> float:
        """The true accuracy of the best weights."""
        return float(self.truth[self.best - 1])


@dataclass
class Judge:
    """Judges the trials of one search, and counts the images.

    Attributes:
        judging: How many images it takes.
        num_images: The n of today.
        latent: How far networks agree.
        spec: The search, whose rungs count.
        seed: Of the images and outcomes.
        trials: What it has seen, by number.
        cost: Attacked images so far.
    """

    judging: Judging
    num_images: int
    latent: Latent
    spec: SearchSpec
    seed: int
    trials: dict[int, Judged] = field(default_factory=dict)
    cost: int = 0

    def __post_init__(self) -> None:
        self.size = POOL * self.num_images
        self.difficulty = np.random.default_rng((self.seed, 0)).standard_normal(self.size, dtype=np.float32)

    def count(self, part: float) -> int:
        """Return a number of images, at most all there are."""
        return min(round(part * self.num_images), self.size)

    def judge(self, number: int, value: float, truth: NDArray[Any]) -> Iterator[dict[str, Any]]:
        """Yield the results of a trial with these true accuracies, an epoch at a time."""
        thirds = self._outcomes(number, truth)
        trial = self.trials[number] = Judged(number, value, truth, next(thirds))
        rungs = [rung for rung in self.spec.rungs if rung < len(truth)]
        for epoch in range(1, len(truth) + 1):
            if epoch > len(trial.right):
                trial.right = np.concatenate([trial.right, next(thirds)])
            count = self.count(self.judging.early if epoch < self.judging.late_from else self.judging.late)
            self.cost += 0 if self.judging.exact else count
            found = truth[epoch - 1] if self.judging.exact else trial.right[epoch - 1, :count].mean()
            if found > trial.objective:
                trial.objective, trial.best, trial.seen = float(found), epoch, count
            is_last = epoch == len(truth)
            if self.judging.rung and (epoch in rungs or is_last):
                self.see(trial, self.count(self.judging.rung))
                trial.objective = float(trial.outcomes()[: trial.seen].mean())
            trial.ended = is_last
            yield {"training_iteration": epoch, OBJECTIVE: trial.objective, "ended": "completed" if is_last else ""}

    def see(self, trial: Judged, count: int) -> None:
        """Judge the best weights of a trial on the first `count` images, of which some may be judged already."""
        self.cost += max(count - trial.seen, 0)
        trial.seen = max(count, trial.seen)

    def _outcomes(self, number: int, truth: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
        chance = np.random.default_rng((self.seed, 1 + number))
        own = chance.standard_normal(self.size, dtype=np.float32)
        limits = ndtri(truth)[:, None].astype(np.float32)
        for part, between, within in zip(
            np.array_split(limits, 3), self.latent.between, self.latent.within, strict=True
        ):
            each = chance.standard_normal((len(part), self.size), dtype=np.float32)
            lasting = np.float32(between**0.5) * self.difficulty + np.float32((within - between) ** 0.5) * own
            yield lasting + np.float32((1 - within) ** 0.5) * each < part


@dataclass
class Entry:
    """Weights that reached a rung: whether they are right about each image, and how many were asked for."""

    right: NDArray[Any]
    seen: int


class Race:
    """ASHA whose rungs take more images where a paired test leaves open on which side of the cut a trial is.

    The trial at the cut gets as many images as the new one, with its weights of then: what a real search could hardly
    do, because it keeps no such weights. So this is the most that a race can do.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.entries: dict[int, list[Entry]] = {rung: [] for rung in judge.spec.rungs}
        self.cut = 100 / judge.spec.asha.reduction_factor

    def add(self, number: int) -> None:
        """Take in a new trial."""

    def complete(self, number: int, epoch: int, metrics: dict[str, Any]) -> None:
        """Take in the end of a trial, which changes no rung."""

    def report(self, number: int, epoch: int, metrics: dict[str, Any]) -> bool:
        """Return whether a trial trains on."""
        others = self.entries.get(epoch)
        if others is None:
            return True
        trial = self.judge.trials[number]
        new = Entry(trial.outcomes(), trial.seen)
        goes_on = not others or self._passes(new, others)
        trial.seen = new.seen
        others.append(new)
        return goes_on

    def _passes(self, new: Entry, others: list[Entry]) -> bool:
        step = self.judge.count(0.5)
        while True:
            counts = [min(new.seen, other.seen) for other in others]
            differences = [new.right[:n] - other.right[:n] for n, other in zip(counts, others, strict=True)]
            means = np.array([difference.mean() for difference in differences])
            ahead = float(np.percentile(means, self.cut))  # of the trial at the cut
            nearest = int(np.abs(means - ahead).argmin())
            error = float(differences[nearest].std()) / counts[nearest] ** 0.5
            if abs(ahead) >= self.judge.judging.doubt * error or counts[nearest] >= self.judge.size:
                return ahead >= 0
            for entry in (new, others[nearest]):
                wanted = min(counts[nearest] + step, self.judge.size)
                self.judge.cost += max(wanted - entry.seen, 0)
                entry.seen = max(wanted, entry.seen)
