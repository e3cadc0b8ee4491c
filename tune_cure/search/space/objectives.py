"""What trials are judged by: metrics to optimise, constraints to keep, and the Pareto front of several metrics."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_cure.evaluation.names import ACCURACIES
from tune_cure.utils.schema import OneOf, parse_number

METRICS = ("pgd_accuracy_best", *ACCURACIES[::-1], "clean_accuracy_best", "fgsm_accuracy_best")
"""Accuracies at the last judged epoch, and `_best` at that of the best PGD accuracy, whose weights are kept."""

_CONSTRAINT = re.compile(r"(\w+)\s*(>=|<=)\s*(\S+)")
_is_metric = OneOf(METRICS)


def reached(last: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric of a trial from two of its epochs: the last, and that of the best PGD accuracy."""
    return {name: last.get(name) for name in ACCURACIES} | {f"{name}_best": best.get(name) for name in ACCURACIES}


def metrics(value: Any) -> str | list[str]:
    """`value` as one metric or a list of several.

    Raises:
        ValueError: It is neither.
    """
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"a metric or a list of metrics is needed, but found {value!r}; allowed are {', '.join(METRICS)}"
        )
    for name in names:
        _is_metric(name)
    if len(set(names)) < len(names):
        raise ValueError(f"a metric is listed twice in {names}")
    return names if len(names) > 1 else str(names[0])


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial must keep: `clean_accuracy >= 0.8`."""

    metric: str
    sign: str
    bound: float

    @classmethod
    @functools.lru_cache
    def parse(cls, text: str) -> "Constraint":
        """The constraint that `text` says.

        Raises:
            ValueError: It says none.
        """
        match = _CONSTRAINT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"METRIC >= NUMBER or METRIC <= NUMBER is needed, but found {text!r}")
        return cls(_is_metric(match[1]), match[2], float(parse_number(match[3])))

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def violation(self, values: Mapping[str, Any]) -> float:
        """By how much metrics violate it; at most 0 if they keep it, and 1 where there is no such metric."""
        value = values.get(self.metric)
        if value is None:
            return 1.0
        return float(self.bound - value if self.sign == ">=" else value - self.bound)


def pareto_front(points: Sequence[Sequence[float]], mode: str) -> list[bool]:
    """Of each point whether no other is at least as good in all coordinates and better in one."""
    values = np.array(points, dtype=float) * (1 if mode == "max" else -1)
    return [not bool(((values >= point).all(axis=1) & (values > point).any(axis=1)).any()) for point in values]
