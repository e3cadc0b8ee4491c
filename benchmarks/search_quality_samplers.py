"""Ideas for better searches, measured on the surrogate of search_quality.py: how they begin, propose and choose.

    python benchmarks/search_quality_samplers.py starts               # minutes
    python benchmarks/search_quality_samplers.py winners              # minutes
    python benchmarks/search_quality_samplers.py gp                   # half an hour: `gp` and `tpe`
    python benchmarks/search_quality_samplers.py gp --mean trees      # the same on another surrogate
    python benchmarks/search_quality_samplers.py known                # minutes: what no sampler can beat

**starts**: the first trials at points of a scrambled Sobol sequence instead of at random ones, and more of them. Each
search is measured against plain random search of the same seed, as in search_quality.py. **winners**: the regret
without noise of the trial that a search names its winner: by its best accuracy, by the second judgement of the leaders,
or by posterior mean (`rescore.choose`). **known**: a sampler that proposes nothing but the optimum. The surrogate is a
Gaussian process, or with `--mean trees` the mean of many trees, which favors no sampler. The results are in
docs/search_quality.md.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc
from search_quality import CURVES, EPOCHS, MEANS, RANDOM_TRIALS, REPEATS, Surrogate, Way, run

from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.ranking import rank_leaders
from tune_cure.search.space.config import SearchSpec

RESULTS = Path(__file__).parent / "results"
BUDGET = RANDOM_TRIALS * EPOCHS
MAX_KEYS, POINTS = 64, 128
NUM_IMAGES, NUM_FRESH = 360, 1000


class SobolStart:
    """Points of a scrambled Sobol sequence by a trial's number, for any keys; log scales and choices by quantiles."""

    def __init__(self, seed: int) -> None:
        self._points = qmc.Sobol(MAX_KEYS, seed=seed).random(POINTS)
        self._dimensions: dict[str, int] = {}

    def draw(self, trial: FrozenTrial, key: str, distribution: BaseDistribution) -> Any:
        """Return a trial's value of a key."""
        quantile = self._points[trial.number % POINTS, self._dimensions.setdefault(key, len(self._dimensions))]
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(quantile * len(distribution.choices))]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = distribution.low, distribution.high
        if distribution.step:
            return low + distribution.step * int(quantile * (round((high - low) / distribution.step) + 1))
        return float(low * (high / low) ** quantile if distribution.log else low + quantile * (high - low))


class SobolTPE(TPESampler):
    """The project's `tpe`, which begins with Sobol points."""

    def __init__(self, seed: int, num_start: int) -> None:
        super().__init__(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=num_start)
        self._start, self._num_start = SobolStart(seed), num_start

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value of one key; the start's, as long as too few trials have ended."""
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if len(ended) < self._num_start:
            return self._start.draw(trial, param_name, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)


def tpe_16(seed: int, drawn: int) -> BaseSampler:
    """TPE with 16 random trials to begin with."""
    return TPESampler(seed=seed + drawn, multivariate=True, group=True, constant_liar=True, n_startup_trials=16)


def sobol_10(seed: int, drawn: int) -> BaseSampler:
    """TPE with 10 Sobol points to begin with."""
    return SobolTPE(seed + drawn, 10)


def sobol_16(seed: int, drawn: int) -> BaseSampler:
    """TPE with 16 Sobol points to begin with."""
    return SobolTPE(seed + drawn, 16)


@cache
def _optimum() -> dict[str, float]:
    return Surrogate(pd.read_csv(CURVES), pd.read_csv(REPEATS)).best


class Known(TPESampler):
    """A sampler that proposes the surrogate's optimum, after some random trials."""

    def __init__(self, seed: int, num_random: int) -> None:
        super().__init__(seed=seed)
        self._num_random = num_random

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the optimum's value of one key, or a random one; no two trials are quite alike, as the tool has it."""
        if trial.number >= self._num_random:
            return _optimum()[param_name] * (1 - 1e-6 * trial.number)
        return super().sample_independent(study, trial, param_name, param_distribution)


def known(seed: int, drawn: int) -> BaseSampler:
    """Nothing but the optimum."""
    return Known(seed + drawn, 0)


def known_10(seed: int, drawn: int) -> BaseSampler:
    """The optimum after 10 random trials."""
    return Known(seed + drawn, 10)


STARTS = {
    "TPE, 10 random": "tpe",
    "TPE, 10 Sobol": "search_quality_samplers:sobol_10",
    "TPE, 16 random": "search_quality_samplers:tpe_16",
    "TPE, 16 Sobol": "search_quality_samplers:sobol_16",
    "Sobol alone": "qmc",
}
SAMPLERS = {
    "starts": STARTS,
    "gp": {"TPE, 10 random": "tpe", "GP, 10 random": "gp"},
    "known": {
        "TPE, 10 random": "tpe",
        "optimum, 10 random": "search_quality_samplers:known_10",
        "optimum, at once": "search_quality_samplers:known",
    },
}
SCHEDULERS = {"no stopping": "none", "ASHA from 9": "asha"}


def compare_starts(surrogate: Surrogate, seeds: int, samplers: dict[str, str]) -> pd.DataFrame:
    """Return a row for each seed and way: epochs until plain random search's best, and regrets on the way."""
    rows = []
    spend = {"least": BUDGET, "most": BUDGET}
    for seed in range(seeds):
        train = surrogate.train(seed)
        goal = run(Way("random", "none"), seed, train, goal=float("inf"), **spend).best[-1]
        for name, sampler in samplers.items():
            for words, scheduler in SCHEDULERS.items():
                outcome = run(Way(sampler, scheduler), seed, train, goal=float("inf"), **spend)
                epochs = outcome.epochs_to(goal)
                regrets = {
                    f"regret_at_{words}": surrogate.optimum - surrogate.value(outcome.leader[BUDGET // part - 1])
                    for part, words in ((5, "a_fifth"), (2, "a_half"), (1, "all"))
                }
                share = 1.0 if epochs is None else epochs / BUDGET
                rows.append({"way": name, "scheduler": words, "seed": seed, "share": share, **regrets})
        print(f"seed {seed}", flush=True)
    return pd.DataFrame(rows)


def summarize_starts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return medians and means, and the mean difference to the first way with its standard error."""
    first = next(iter(STARTS))
    rows = []
    for (scheduler, way), group in frame.groupby(["scheduler", "way"], sort=False):
        row = {"scheduler": scheduler, "way": way, "seeds": len(group), "median_share": group["share"].median()}
        base = frame[frame["way"].eq(first) & frame["scheduler"].eq(scheduler)].set_index("seed")
        for name in ("share", "regret_at_a_fifth", "regret_at_a_half", "regret_at_all"):
            difference = group.set_index("seed")[name] - base[name]
            row |= {name: group[name].mean(), f"{name}_difference": difference.mean(), f"{name}_se": difference.sem()}
        rows.append(row)
    return pd.DataFrame(rows)


SEARCHES = {  # sampler, scheduler, and share of the epochs of 48 whole trials
    "48 trials, no stopping": ("tpe", "none", 1.0),
    "24 trials, no stopping": ("tpe", "none", 0.5),
    "epochs of 48 trials, ASHA from 9": ("tpe", "asha", 1.0),
    "epochs of 16 trials, ASHA from 9": ("tpe", "asha", 1 / 3),
    "gp, 48 trials, no stopping": ("gp", "none", 1.0),
}
TOPS = (3, 8)


def finished_trials(surrogate: Surrogate, way: Way, seed: int, epochs: int) -> pd.DataFrame:
    """Return the trials of a search that ran to their end, with their values without noise."""
    rows: list[dict[str, Any]] = []
    trials = surrogate.train(seed)

    def train(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for result in trials(config):
            if result["ended"]:
                rows.append({**config, "objective": result[OBJECTIVE], "value": surrogate.value(config)})
            yield result

    run(way, seed, train, goal=float("inf"), least=epochs, most=epochs)
    frame = pd.DataFrame(rows).assign(status="completed", feasible=True)
    frame["pgd_accuracy_best"] = frame["objective"]
    frame["pgd_accuracy_best_se"] = (frame["objective"] * (1 - frame["objective"]) / NUM_IMAGES) ** 0.5
    return frame.sort_values("trial", ignore_index=True)


def judge_again(frame: pd.DataFrame, seed: int) -> "np.ndarray[Any, Any]":
    """Return a second judgement of each trial, on fresh images: half of a trial's own deviation is of its weights."""
    weights = 0.5 * (frame["objective"] - frame["value"])
    noise = (frame["value"] * (1 - frame["value"]) / NUM_FRESH) ** 0.5
    return (frame["value"] + weights + noise * np.random.default_rng(seed).normal(size=len(frame))).to_numpy()


def compare_winners(surrogate: Surrogate, seeds: int) -> pd.DataFrame:
    """Return a row for each search and seed: the regret of the winner by each rule."""
    rows = []
    for name, (sampler, scheduler, share) in SEARCHES.items():
        for seed in range(seeds):
            frame = finished_trials(surrogate, Way(sampler, scheduler), seed, int(share * BUDGET))
            if len(frame) < max(TOPS):
                continue
            again, by_objective = judge_again(frame, seed), frame["objective"].rank(ascending=False, method="first")
            row = {"search": name, "seed": seed, "best of all": surrogate.optimum - frame["value"].max()}
            row["best accuracy"] = surrogate.optimum - frame.loc[by_objective.idxmin(), "value"]
            for top in TOPS:
                judged = frame.assign(fresh_pgd_accuracy=np.where(by_objective <= top, again, np.nan))
                judged = judged.assign(fresh_examples=float(NUM_FRESH))
                for choose in ("fresh", "posterior"):
                    winner = rank_leaders(judged, _spec(top, choose)).iloc[0]
                    row[f"{choose}, top {top}"] = surrogate.optimum - winner["value"]
            rows.append(row)
        print(name, flush=True)
    return pd.DataFrame(rows)


def _spec(top: int, choose: str) -> SearchSpec:
    spec = Way("tpe", "none").spec(0)
    return spec.model_copy(update={"rescore": spec.rescore.model_copy(update={"top": top, "choose": choose})})


def summarize_winners(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean regret by each rule, and its difference to the second judgement of three trials."""
    rows = []
    for search, group in frame.groupby("search", sort=False):
        for rule in frame.columns.drop(["search", "seed"]):
            difference = group[rule] - group[f"fresh, top {TOPS[0]}"]
            row = {"search": search, "rule": rule, "searches": len(group), "regret": group[rule].mean()}
            rows.append(row | {"difference": difference.mean(), "se": difference.sem()})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*SAMPLERS, "winners"])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--mean", choices=MEANS, default="process", help="of the surrogate")
    options = parser.parse_args()
    if (options.part, options.mean) == ("known", "trees"):
        parser.error("the optimum is known of the process alone")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = Surrogate(pd.read_csv(CURVES), pd.read_csv(REPEATS), options.mean)
    if options.part == "gp":
        error, spread = surrogate.left_out_error()
        print(f"a left-out curve's best value is predicted to {error:.3f}; they spread by {spread:.3f}")
    summarize: Callable[[pd.DataFrame], pd.DataFrame]
    if options.part == "winners":
        name, frame, summarize = "winners", compare_winners(surrogate, options.seeds), summarize_winners
    else:
        frame = compare_starts(surrogate, options.seeds, SAMPLERS[options.part])
        name, summarize = options.part, summarize_starts
    name += "" if options.mean == "process" else f"_{options.mean}"
    frame.to_csv(RESULTS / f"search_quality_{name}_seeds.csv", index=False, float_format="%.5g")
    summary = summarize(frame)
    summary.to_csv(RESULTS / f"search_quality_{name}.csv", index=False, float_format="%.4g")
    print(summary.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
