"""Chance level of a task, and whether an accuracy is clearly above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy import special

if TYPE_CHECKING:
    from torch import Tensor

LEVEL = 0.95


def chance_level(labels: Tensor) -> float:
    """Return the share of the most frequent class among labels (N,): the accuracy of one fixed answer.

    No attack lowers it, so it is the chance level of clean and of robust accuracy alike.
    """
    return float(labels.bincount().max()) / len(labels)


def is_clearly_above(accuracy: float, num_examples: int, chance: float, *, num_compared: int = 1) -> bool:
    """Return whether an accuracy is above a chance level by more than luck.

    It is if the lower bound of its exact binomial interval (Clopper and Pearson 1934), one-sided at 95%, is above the
    chance level. For the best of several accuracies, the level is adjusted after Bonferroni.

    Args:
        accuracy: The accuracy, a fraction.
        num_examples: The number of images that it was measured on.
        chance: The accuracy of one fixed answer, a fraction.
        num_compared: The number of accuracies of which this is the highest.
    """
    correct = round(accuracy * num_examples)
    if correct == 0:
        return False
    lowest = special.betaincinv(correct, num_examples - correct + 1, (1 - LEVEL) / num_compared)
    return bool(lowest > chance)
