"""Standard error of an accuracy."""

import math


def standard_error(accuracy: float, num_examples: int) -> float:
    """Return the binomial standard error of an accuracy (a fraction) measured on `num_examples` examples."""
    return math.sqrt(accuracy * (1.0 - accuracy) / num_examples)
