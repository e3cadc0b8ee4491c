"""Configurations of a search: which are the same, and all of them in a space that has no range without steps."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import deciding_keys
from tune_cure.training.interactions import inactive_hyperparameters

MAX_COUNTED = 10_000  # configurations; a space with more of them is not counted

Identity = tuple[tuple[str, str], ...]


def identify(spec: SearchSpec, hyperparameters: Mapping[str, Any]) -> Identity:
    """Return a key that two configurations share if they are the same; on a grid the last digits of a value may differ.

    Args:
        spec: The search.
        hyperparameters: Values of its searched hyperparameters, as the search or its study has them.
    """
    parts = []
    for key in sorted(hyperparameters):
        distribution, value = spec.space[key], hyperparameters[key]
        parts.append((key, repr(value if distribution.step is None else distribution.count_steps(value))))
    return tuple(parts)


def count_possible_trials(spec: SearchSpec) -> int:
    """Return `search.trials`, or the number of the space's configurations if that is known and smaller."""
    trials = spec.search.trials
    if spec.has_unread_parts:  # which hyperparameters make a difference is not known
        return trials
    limit = min(trials, MAX_COUNTED)
    num_found = sum(1 for _ in itertools.islice(list_configurations(spec), limit + 1))
    return num_found if 0 < num_found <= limit else trials


def limit_trials(spec: SearchSpec) -> SearchSpec:
    """Return the search with no more trials than its space has configurations."""
    search = spec.search.model_copy(update={"trials": count_possible_trials(spec)})
    return spec.model_copy(update={"search": search})


def list_configurations(spec: SearchSpec) -> Iterator[dict[str, Any]]:
    """Yield each configuration of a space; none if one of its hyperparameters has a range without `step`."""
    inactive = spec.inactive_keys()
    if all(distribution.grid for key, distribution in spec.space.items() if not inactive.get(key)):
        deciding = [key for key in deciding_keys() if key in spec.space]
        yield from _extend(spec, {}, deciding, [key for key in spec.space if key not in deciding])


def _extend(
    spec: SearchSpec, values: dict[str, Any], deciding: Sequence[str], others: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the configurations with these values of some hyperparameters that decide whether others are active.

    Args:
        spec: The search.
        values: Values that are chosen already.
        deciding: Those that decide and are not chosen yet, in the order of `deciding_keys`.
        others: Those that decide nothing.
    """
    inactive = inactive_hyperparameters(spec.training_config(values))
    if deciding:
        key, *rest = deciding
        choices = [values] if key in inactive else ({**values, key: value} for value in spec.space[key].grid)
        for chosen in choices:
            yield from _extend(spec, chosen, rest, others)
        return
    active = [key for key in others if key not in inactive]
    # product keeps all values of each grid; a longer one has more configurations than are counted in any case.
    grids = (itertools.islice(spec.space[key].grid, MAX_COUNTED + 1) for key in active)
    for point in itertools.product(*grids):
        yield {**values, **dict(zip(active, point, strict=True))}
