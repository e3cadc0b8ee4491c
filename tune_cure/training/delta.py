"""`delta`, the older word for the penalty: `regularizer`, and for CURE its `direction`, in one name.

The command line of `CURE_fast_adversarial`, older YAML files and older runs say `delta`. It is understood wherever
hyperparameters are given, and expanded into the two keys.
"""

from collections.abc import Mapping
from typing import Any

from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.registry import did_you_mean
from tune_cure.utils.yaml_config import ProblemError

DELTA = "delta"
SAME_AS = {  # keys that say the same in other words: only one of them can be given
    DELTA: ("regularizer", "direction"),
    "regularizer": (DELTA,),
    "direction": (DELTA,),
    "alpha": ("step_size",),
    "step_size": ("alpha",),
}
_DEFAULT_DIRECTION = "classic"


def delta_names() -> list[str]:
    """Return the names that `delta` may have: the directions of CURE, then the other penalties."""
    return list(dict.fromkeys([*DIRECTIONS, *(name for name in REGULARIZERS if name != "cure")]))


def check_delta(value: Any, path: str) -> str:
    """Return `value` if it is a name of `delta`.

    Raises:
        ProblemError: It is not; the error names `path`.
    """
    names = delta_names()
    if not isinstance(value, str):
        raise ProblemError(path, f"one of {', '.join(names)} is needed, but found {shorten_repr(value)}")
    if value not in names:
        raise ProblemError(path, f"{shorten_repr(value)} is not one of {', '.join(names)}{did_you_mean(value, names)}")
    return value


def split_delta(delta: str) -> dict[str, str]:
    """Return the regularizer and the direction that a name of `delta` stands for."""
    if delta in DIRECTIONS:
        return {"regularizer": "cure", "direction": delta}
    return {"regularizer": delta, "direction": _DEFAULT_DIRECTION}


def collapse_delta(regularizer: str, direction: str) -> str:
    """Return the name of `delta` that stands for a regularizer and a direction."""
    return direction if regularizer == "cure" else regularizer


def expand_delta(values: Mapping[str, Any], path: str = "", *, section: str = "") -> dict[str, Any]:
    """Return `values` with the key `delta`, if there is one, replaced by `regularizer` and `direction`.

    Args:
        values: Hyperparameters by YAML names.
        path: Their section, for example `training`; empty if errors are to name `delta` alone.
        section: Prefix of all their names, for example `training.`.

    Raises:
        ProblemError: `delta` has a wrong value, or is given beside one of the two.
    """
    key = section + DELTA
    if key not in values:
        return dict(values)
    where = f"{path}.{DELTA}" if path else DELTA
    for other in ("regularizer", "direction"):
        if section + other in values:
            raise ProblemError(where, f"says regularizer and direction in one word; leave out {DELTA} or {other}")
    parts = {section + name: part for name, part in split_delta(check_delta(values[key], where)).items()}
    expanded: dict[str, Any] = {}
    for name, value in values.items():
        expanded |= parts if name == key else {name: value}
    return expanded


def delta_notice(delta: Any) -> str:
    """Return the line that says what a fixed `delta` is now; `direction` belongs to CURE alone."""
    parts = split_delta(delta) if delta in DIRECTIONS else {"regularizer": delta}
    return f"{DELTA}: {delta} is now " + ", ".join(f"{key}: {name}" for key, name in parts.items())


def say_delta_in(values: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters in the words of a search space with these `keys`: `delta`, or regularizer and direction.

    What an earlier search called by the one is so understood in a space that has the other.
    """
    if isinstance(values.get(DELTA), str) and DELTA not in keys:
        return expand_delta(values)
    if DELTA in keys and DELTA not in values and values.keys() & {"regularizer", "direction"}:
        rest = {key: value for key, value in values.items() if key not in ("regularizer", "direction")}
        regularizer, direction = values.get("regularizer", "cure"), values.get("direction", _DEFAULT_DIRECTION)
        # A cell without a text: the penalty made no difference in that trial.
        return {DELTA: collapse_delta(regularizer, direction), **rest} if isinstance(regularizer, str) else rest
    return dict(values)
