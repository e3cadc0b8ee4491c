"""The directions of CURE by name. Their formulas are in cure.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cure.utils.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cure.regularizers.cure import Point

DIRECTIONS: Registry[Callable[[Point], Tensor]] = Registry(
    "direction",
    {
        "classic": "tune_cure.regularizers.cure:classic",
        "gradient": "tune_cure.regularizers.cure:gradient",
        "random": "tune_cure.regularizers.cure:random",
        "fgsm": "tune_cure.regularizers.cure:fgsm",
        "linf": "tune_cure.regularizers.cure:linf",
    },
)
LENGTH_H = ("classic", "gradient")
"""The directions whose length is h."""
WITHIN_BALL = ("random", "fgsm", "linf")
"""The directions that stay in the training attack's ball, whatever h is."""
