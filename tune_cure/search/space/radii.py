"""Radii in 1/255, as papers write them, where pixels have 8 bits. Tables for programs keep plain numbers."""

from typing import Any

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.utils.formatting import format_value

LEVELS = 255
COARSE_DATASETS = ("digits",)  # whose pixels have fewer than 8 bits, so that a radius in 1/255 means nothing there


def is_in_255ths(spec: SearchSpec, key: str) -> bool:
    """Return whether the searched hyperparameter `key` is an L∞ radius of pictures with 8 bits."""
    is_linf = spec.training.get("norm", "linf") == "linf" and "norm" not in spec.space
    return key == "epsilon" and is_linf and spec.data.dataset not in COARSE_DATASETS


def format_setting(spec: SearchSpec, key: str, value: Any) -> str:
    """Return a hyperparameter's value as tables show it: 8/255 for a radius of such pictures, else four digits."""
    if isinstance(value, int | float) and is_in_255ths(spec, key):
        return f"{LEVELS * value:.3g}/{LEVELS}"
    return format_value(value)


def format_distribution(spec: SearchSpec, key: str) -> str:
    """Return the distribution of a hyperparameter in words; a radius of such pictures is in 1/255."""
    distribution: Distribution = spec.space[key]
    if not is_in_255ths(spec, key):
        return str(distribution)
    step = "" if distribution.step is None else f" step {format_setting(spec, key, distribution.step)}"
    values = ", ".join(format_setting(spec, key, value) for value in distribution.values)
    return f"{distribution.kind} [{values}]{step}"
