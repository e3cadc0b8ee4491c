"""Losses, and names of batch-norm statistics and distances, for configurations, which need no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cure.utils.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry(
    "loss",
    {
        "cross_entropy": "tune_cure.gradients.input_gradients:cross_entropy",
        "margin": "tune_cure.gradients.input_gradients:margin",
    },
)
"""From (N, K) logits and (N,) labels to (N,) losses, by name."""

STATISTICS_NAMES = ("running", "batch")
"""Keys of `batch_norm_mode.STATISTICS`."""

DISTANCE_NAMES = ("softmax", "nuclear")
"""Keys of `logit_distances.DISTANCES`."""
