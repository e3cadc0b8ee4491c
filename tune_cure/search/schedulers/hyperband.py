"""Asynchronous Hyperband (Li et al. 2018, arXiv 1603.06560): ASHA in several brackets, the last of which stops nothing.

The brackets get the paper's shares of the trials, which make their epochs about equal.
Deviation: the paper's trials wait at each rung for the others of their bracket; here ASHA decides at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tune_cure.search.schedulers.asha import Asha, Bracket

if TYPE_CHECKING:
    from tune_cure.search.space.config import SearchSpec


def hyperband(spec: SearchSpec) -> Asha:
    """Return ASHA with a bracket for each rung, and one without rungs before the last epoch."""
    shares = spec.bracket_shares

    def draw_bracket(number: int) -> int:
        return int(np.random.default_rng((spec.search.seed, number)).choice(len(shares), p=shares))

    return Asha(spec, [Bracket(spec, num_skipped) for num_skipped in range(len(shares))], draw_bracket)
