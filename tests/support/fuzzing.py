"""Settings of tests that try damaged input; TUNE_CURE_FUZZ=5000 makes that many examples of each kind, at random."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis import settings

EXAMPLES = os.environ.get("TUNE_CURE_FUZZ")


def fuzzed(examples: int) -> "settings":
    """Return settings for the same `examples` damaged inputs in every run, or the number asked for at random."""
    from hypothesis import HealthCheck, Phase, settings  # here, because the limits of unit tests need EXAMPLES alone

    return settings(
        max_examples=int(EXAMPLES or examples),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # making a failing damage smaller would run a command for minutes
        suppress_health_check=list(HealthCheck),
    )
