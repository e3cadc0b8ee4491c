"""Criteria of a search: metrics that are optimized, constraints on metrics, the Pareto front of several metrics."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_cure.evaluation.names import ACCURACIES, ACCURACY_LABELS
from tune_cure.utils.formatting import format_exactly
from tune_cure.utils.schema import OneOf, parse_number

METRICS = ("pgd_accuracy_best", *ACCURACIES[::-1], "clean_accuracy_best", "fgsm_accuracy_best")
"""Accuracies at the last judged epoch, and with `_best` at the epoch of best PGD accuracy, whose weights are kept."""

WORST = {"max": 0.0, "min": 1.0}
"""The worst value that a metric can have, by `search.mode`."""

_CONSTRAINT = re.compile(r"(\w+)\s*(>=|<=)\s*(\S+)")
_is_metric = OneOf(METRICS)


def describe_metric(name: str) -> str:
    """Return a search metric in words: the best PGD accuracy of any epoch."""
    if name == "pgd_accuracy_best":
        return "the best PGD accuracy of any epoch"
    label = ACCURACY_LABELS[name.removesuffix("_best")]
    epoch = "at the epoch of the best PGD accuracy" if name.endswith("_best") else "after the last epoch"
    return f"the {label} accuracy {epoch}"


def reached(last: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, Any]:
    """Return every metric of a trial.

    Args:
        last: The metrics of its last judged epoch.
        best: The metrics of its epoch of best PGD accuracy.
    """
    return {name: last.get(name) for name in ACCURACIES} | {f"{name}_best": best.get(name) for name in ACCURACIES}


def metrics(value: Any) -> str | list[str]:
    """Return `value` as the name of one metric or a list of several names.

    Raises:
        ValueError: It is neither, or a metric is unknown or listed twice.
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
    """Bound on a metric, such as `clean_accuracy >= 0.8`. Trials that violate it rank behind those that keep it.

    Attributes:
        metric: One of `METRICS`.
        sign: `>=` or `<=`.
        bound: The bound itself, a fraction.
    """

    metric: str
    sign: str
    bound: float

    @classmethod
    @functools.lru_cache
    def parse(cls, text: str) -> "Constraint":
        """Parse a constraint from the YAML.

        Raises:
            ValueError: The text is not of the form METRIC >= NUMBER or METRIC <= NUMBER.
        """
        match = _CONSTRAINT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"METRIC >= NUMBER or METRIC <= NUMBER is needed, but found {text!r}")
        return cls(_is_metric(match[1]), match[2], float(parse_number(match[3])))

    def __str__(self) -> str:
        # The text is stored: with a rounded bound, an accuracy of exactly 2/3 would violate `>= 2/3`.
        return f"{self.metric} {self.sign} {format_exactly(self.bound)}"

    def violation(self, values: Mapping[str, Any]) -> float:
        """Return by how much metrics violate the bound: at most 0 if they keep it, 1 if the metric was not measured."""
        value = values.get(self.metric)
        if value is None:
            return 1.0
        return float(self.bound - value if self.sign == ">=" else value - self.bound)


def pareto_front(points: Sequence[Sequence[float]], mode: str) -> list[bool]:
    """Return, for each point, whether no other is at least as good in all coordinates and better in one.

    Args:
        points: The metrics of each trial.
        mode: max or min: what is better in every coordinate.
    """
    if not points:
        return []
    values = np.array(points, dtype=float) * (1 if mode == "max" else -1)
    is_on_front = np.zeros(len(values), dtype=bool)
    for place in np.lexsort(values.T)[::-1]:  # a point that is beaten comes after one of the front that beats it
        front, point = values[is_on_front], values[place]
        is_on_front[place] = not ((front >= point).all(axis=1) & (front > point).any(axis=1)).any()
    return is_on_front.tolist()
