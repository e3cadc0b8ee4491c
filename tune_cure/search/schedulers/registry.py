"""Early-stopping rules by their name in `search.scheduler`. To add one: write such a class, and add a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tune_cure.search.schedulers.asha import asha
from tune_cure.search.schedulers.hyperband import hyperband
from tune_cure.search.schedulers.median import MedianRule

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec


class StoppingRule(Protocol):
    """Interface of every early-stopping rule. Trials are known by number, epochs count from 1."""

    def add(self, number: int) -> None:
        """Take in a new trial."""

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Take in an epoch of a trial, and return whether the trial trains on."""

    def complete(self, number: int, epoch: int, objective: float) -> None:
        """Take in the last epoch of an ended trial, which was reported before if the rule has ended the trial."""

    def restore(self, number: int, epoch: int, objective: float) -> None:
        """Take in an epoch of an earlier session; one that a crash made run twice comes twice."""


class NoEarlyStopping:
    """Rule that stops no trial."""

    def __init__(self, spec: SearchSpec) -> None:
        pass

    def add(self, number: int) -> None:
        """Do nothing: no decision depends on the trial."""

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Return True: every trial trains on."""
        return True

    def complete(self, number: int, epoch: int, objective: float) -> None:
        """Do nothing: no decision depends on the trial."""

    def restore(self, number: int, epoch: int, objective: float) -> None:
        """Do nothing: no decision depends on the trial."""


SCHEDULERS: dict[str, Callable[[SearchSpec], StoppingRule]] = {
    "asha": asha,
    "hyperband": hyperband,
    "median": MedianRule,
    "none": NoEarlyStopping,
}
