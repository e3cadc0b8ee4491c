"""A sampler of your own. To use it, copy the function into tune_cure/search/proposals/samplers.py and add

    "halton": halton,

to `SAMPLERS` there; then `search: {sampler: halton}`. What it cannot search is said in `unfit`.
"""

from optuna.samplers import BaseSampler, QMCSampler


def halton(seed: int, drawn: int) -> BaseSampler:
    """A scrambled Halton sequence; another one after an interruption, when `drawn` trials have been proposed."""
    return QMCSampler(qmc_type="halton", scramble=True, seed=seed + drawn)
