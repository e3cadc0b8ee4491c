"""How long TPE takes for a proposal after so many trials, by itself: one process, a study in memory.

python benchmarks/proposal.py --output benchmarks/results
"""

import argparse
import random
import time
import warnings
from pathlib import Path

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution

from tune_cure.search.proposals.samplers import tpe

TRIALS = (100, 1000, 3000, 10000)
PROPOSALS = 10
SPACE: dict[str, BaseDistribution] = {name: FloatDistribution(0.001, 1, log=True) for name in "abcd"}


def milliseconds(trials: int) -> float:
    """CPU time of one proposal."""
    draw = random.Random(0)
    study = optuna.create_study(direction="maximize", sampler=tpe(0, drawn=0))
    for _ in range(trials):
        params = {name: draw.uniform(0.001, 1) for name in SPACE}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=SPACE, value=draw.random()))
    started = time.process_time()
    for _ in range(PROPOSALS):
        study.ask(SPACE)
    return 1000 * (time.process_time() - started) / PROPOSALS


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    frame = pd.DataFrame([{"trials": trials, "proposal_ms": milliseconds(trials)} for trials in TRIALS])
    print(frame.to_string(index=False))
    if options.output:
        frame.to_csv(options.output / "proposal.csv", index=False)


if __name__ == "__main__":
    main()
