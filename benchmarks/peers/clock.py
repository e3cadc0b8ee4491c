"""Simulated clock that lets four workers train the trials of any search, an epoch at a time."""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

KEYS = ["lambda", "h", "lr_max", "epsilon"]
EPOCHS = 27  # of a trial that nothing stops
WORKERS = 4

Config = dict[str, float]
Curve = Iterator[float]  # the best accuracy after each epoch


class Peer(Protocol):
    """A search, as the clock sees it. Trials are numbered from 0."""

    def next_trial(self) -> tuple[int, Config] | None:
        """Return the number and the configuration of a trial to train, new or paused before; None to wait."""
        ...

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Take in a trial's best accuracy after an epoch; return whether it trains on. None does after `EPOCHS`."""
        ...

    def winner(self) -> Config | None:
        """Return the configuration that the tool hands to its user now; None if it has none yet."""
        ...


@dataclass(frozen=True)
class Space:
    """Bounds of the searched hyperparameters.

    Attributes:
        bounds: Lowest and highest value of each.
        log: Those that are searched by their logarithms.
    """

    bounds: Mapping[str, tuple[float, float]]
    log: frozenset[str]


@dataclass(frozen=True)
class Snapshot:
    """What a search has after a number of epochs.

    Attributes:
        epochs: Epochs trained by all trials together.
        winner: The configuration that it hands to its user; None if it has none yet.
        trials: Trials begun.
        driver_seconds: CPU seconds spent in the search's own calls.
    """

    epochs: int
    winner: Config | None
    trials: int
    driver_seconds: float


def simulate(
    peer: Peer, train: Callable[[int, Config], Curve], seed: int, budgets: Iterable[int]
) -> Iterator[Snapshot]:
    """Let four workers train what a search proposes, and yield what it has found after each of `budgets` epochs.

    Epochs differ by a tenth in duration. A trial that is proposed again continues after its last epoch.

    Args:
        peer: The search.
        train: The learning curve of a trial of this number and configuration.
        seed: Of the durations.
        budgets: Numbers of epochs, ascending.

    Raises:
        RuntimeError: The search proposes nothing though no trial is running.
    """
    durations = np.random.default_rng(seed)
    due: list[tuple[float, int]] = []  # when the next epoch of a trial is over, and its number
    curves: dict[int, Curve] = {}
    trained: dict[int, int] = {}
    spent, idle, epochs = 0.0, WORKERS, 0

    def timed(call: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal spent
        begun = time.process_time()
        answer = call(*arguments)
        spent += time.process_time() - begun
        return answer

    def employ(now: float) -> None:
        nonlocal idle
        while idle and (proposal := timed(peer.next_trial)) is not None:
            number, config = proposal
            if number not in curves:
                curves[number], trained[number] = train(number, config), 0
            heapq.heappush(due, (now + durations.uniform(0.9, 1.1), number))
            idle -= 1

    employ(0.0)
    for budget in budgets:
        while epochs < budget:
            if not due:
                raise RuntimeError(f"after {epochs} epochs no trial is running and none is proposed")
            now, number = heapq.heappop(due)
            accuracy, epochs = next(curves[number]), epochs + 1
            trained[number] += 1
            if timed(peer.report, number, trained[number], accuracy):
                heapq.heappush(due, (now + durations.uniform(0.9, 1.1), number))
            else:
                idle += 1
                employ(now)
        yield Snapshot(epochs, peer.winner(), len(curves), spent)
