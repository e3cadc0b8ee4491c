"""Which sampler suits which search: TPE and Gaussian processes on spaces of several kinds, by the number of trials.

    python benchmarks/search_quality_auto.py --seeds 20    # minutes of CPU time; a search that the CSV has is kept

The searches are those of search_quality.py without early stopping, on its surrogate of recorded learning curves. The
larger space has four hyperparameters more, which make no difference; the sampler must find that out. In the space with
choices two of the four are lists of values. The regret without noise is taken after the epochs of several numbers of
whole trials. The results, and what `search.sampler: auto` makes of them, are in docs/search_quality.md.
"""

import argparse
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from search_quality import CURVES, EPOCHS, REPEATS, Surrogate, Way, run

RESULTS = Path(__file__).parent / "results"
SEEDS, SUMMARY = RESULTS / "search_quality_auto_seeds.csv", RESULTS / "search_quality_auto.csv"
TRIALS = (16, 24, 32)  # numbers of whole trials after whose epochs the regret is taken
RESAMPLES = 10_000
IDLE = (  # searched, and without effect on the surrogate
    "space.momentum={uniform: [0.5, 0.95]}",
    "space.weight_decay={loguniform: [0.00001, 0.01]}",
    "space.label_smoothing={uniform: [0.01, 0.3]}",
    "space.alpha={uniform: [0.5, 2]}",
)
CHOICES = (
    "space.h={choice: [0.2, 0.56, 0.92, 1.28, 1.64, 2.0]}",
    "space.epsilon={choice: [0.05, 0.09, 0.13, 0.17, 0.21, 0.25]}",
)
SPACES: dict[str, tuple[str, ...]] = {
    "8 numbers": IDLE,
    "2 numbers, 2 choices": CHOICES,
}
SAMPLERS = ("tpe", "gp")


def regrets(surrogate: Surrogate, way: Way, seed: int) -> dict[int, float]:
    """Return the regret of one search after the epochs of each number of whole trials."""
    most = max(TRIALS) * EPOCHS
    outcome = run(way, seed, surrogate.train(seed), goal=float("inf"), least=most, most=most)
    return {trials: surrogate.optimum - surrogate.value(outcome.leader[trials * EPOCHS - 1]) for trials in TRIALS}


def compare(surrogate: Surrogate, seeds: int) -> pd.DataFrame:
    """Return a row for each space, sampler and seed; those in the CSV are not searched again."""
    frame = pd.read_csv(SEEDS) if SEEDS.exists() else pd.DataFrame(columns=["space", "sampler", "seed"])
    done = set(frame[["space", "sampler", "seed"]].itertuples(index=False, name=None))
    for seed in range(seeds):
        for space, more in SPACES.items():
            for sampler in SAMPLERS:
                if (space, sampler, seed) in done:
                    continue
                found = regrets(surrogate, Way(sampler, "none", more=more), seed)
                row = {"space": space, "sampler": sampler, "seed": seed}
                row |= {f"regret_{trials}": regret for trials, regret in found.items()}
                frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
                frame.to_csv(SEEDS, index=False, float_format="%.5g")
        print(f"seed {seed}", flush=True)
    return frame


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each space and number of trials: mean regrets, and the difference of `gp` to `tpe`.

    Differences are taken seed by seed, with the 95% interval of a bootstrap over the seeds.
    """
    chance, rows = np.random.default_rng(0), []
    for space, group in frame.groupby("space", sort=False):
        for trials in TRIALS:
            regret = group.pivot(index="seed", columns="sampler", values=f"regret_{trials}").dropna()
            difference = (regret["gp"] - regret["tpe"]).to_numpy()
            means = chance.choice(difference, (RESAMPLES, len(difference))).mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
            row = {"space": space, "trials": trials, "seeds": len(regret)}
            row |= {"tpe": regret["tpe"].mean(), "gp": regret["gp"].mean()}
            rows.append(row | {"difference": difference.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def main() -> None:
    """Search, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    frame = compare(Surrogate(pd.read_csv(CURVES), pd.read_csv(REPEATS)), options.seeds)
    summary = summarize(frame)
    summary.to_csv(SUMMARY, index=False, float_format="%.4g")
    print(summary.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
