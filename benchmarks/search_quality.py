"""How many epochs a search needs to find what plain random search finds: samplers and schedulers compared.

    python run_search.py --space search_spaces/quickstart.yaml --output results/curves --set training.epochs=27 \\
        --set search.scheduler=none --set search.sampler=random --set search.trials=128 --set start_from=[]
    python benchmarks/search_quality.py record results/curves    # the learning curves, some from several training seeds
    python benchmarks/search_quality.py surrogate                # the table, on a surrogate made of these curves
    python benchmarks/search_quality.py digits                   # a part of it, trained for real

The searches are those of the tool: its `StudyProposer` proposes and is told, its schedulers stop; only Ray's processes
are replaced, by a clock that gives each of four workers an epoch after the other. What came out is in
docs/search_quality.md.
"""

import argparse
import heapq
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import pandas as pd
import torch
from scipy.stats import bootstrap, qmc
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from tune_cure.data import splits as data
from tune_cure.search import results
from tune_cure.search.journal import OBJECTIVE, Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.stopping import SearchStopper
from tune_cure.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
CURVES, REPEATS = RESULTS / "search_quality_curves.csv", RESULTS / "search_quality_repeats.csv"
KEYS = ["lambda", "h", "lr_max", "epsilon"]
EPOCHS = 27
RANDOM_TRIALS = 48  # of plain random search: its best value is the goal, its epochs the measure
WORKERS = 4
REPEATED, REPEAT_SEEDS = 5, (1, 2)
OPTIMUM_POINTS = 2**15
DIGITS = "search_quality_digits"


class AsRayTells(StudyProposer):
    """Tells what Ray's OptunaSearch tells: a trial that was stopped early is complete with its last value."""

    def tell(self, number: int, status: str, epoch: int = 0, metrics: Mapping[str, Any] | None = None) -> None:
        """Tell the study that a trial is complete, however it ended."""
        super().tell(number, "completed", epoch, metrics)


@dataclass(frozen=True)
class Way:
    """One of the ways to search that are compared; `more` are further settings of the search space."""

    sampler: str
    scheduler: str = "asha"
    grace_period: int = 9
    proposer: type[StudyProposer] = StudyProposer
    more: tuple[str, ...] = ()

    def spec(self, seed: int) -> SearchSpec:
        """The space of the quick start, with longer runs, nothing to start from, and no end."""
        chosen = [f"search.sampler={self.sampler}", f"search.scheduler={self.scheduler}", f"search.seed={seed}"]
        asha = f"asha={{grace_period: {self.grace_period}, reduction_factor: 3}}"
        rest = [f"training.epochs={EPOCHS}", "start_from=[]", "search.trials=1000000"]
        return specs.load("search_spaces/quickstart.yaml", [*chosen, asha, *rest, *self.more])

    def start(self, seed: int, folder: Path) -> tuple[StudyProposer, EarlyStopper]:
        """Return what proposes the trials of a search, and what stops them early."""
        spec = self.spec(seed)
        stopper, storage = SearchStopper(spec, folder, None, []), optuna.storages.InMemoryStorage()
        return self.proposer(spec, Journal(folder), [], stopper, storage=storage), EarlyStopper(spec)


WAYS = {
    "random, no stopping": Way("random", "none"),
    "random, ASHA from 9": Way("random"),
    "QMC, ASHA from 9": Way("qmc"),
    "TPE, no stopping": Way("tpe", "none"),
    "TPE, ASHA from 9": Way("tpe"),
    "TPE, ASHA from 9, stopped told complete": Way("tpe", proposer=AsRayTells),
    "TPE, ASHA from 3": Way("tpe", grace_period=3),
    "TPE, ASHA from 3, stopped told complete": Way("tpe", grace_period=3, proposer=AsRayTells),
    "TPE, ASHA from 3, adapted": Way("tpe", grace_period=3, more=("asha.control=0.1", "asha.adapt=true")),
    "TPE, ASHA from 1": Way("tpe", grace_period=1),
    "TPE, ASHA from 1, stopped told complete": Way("tpe", grace_period=1, proposer=AsRayTells),
    "TPE, Hyperband from 3": Way("tpe", "hyperband", 3),
    "TPE, median from 9": Way("tpe", "median"),
    "GP, no stopping": Way("gp", "none"),
    "GP, ASHA from 9": Way("gp"),
}
PLAIN, OURS = "random, no stopping", "TPE, ASHA from 9"
LONGER = {name: WAYS[name] for name in (PLAIN, "TPE, no stopping", OURS, "GP, no stopping")}


@dataclass
class Outcome:
    """What a search had found after each epoch that it trained: the best value, and the trial that has it."""

    best: list[float] = field(default_factory=list)
    leader: list[dict[str, float]] = field(default_factory=list)
    trials: int = 0

    def epochs_to(self, value: float) -> int | None:
        """The epochs trained when the best reached `value`."""
        return next((spent for spent, best in enumerate(self.best, start=1) if best >= value), None)


def run(
    way: Way,
    seed: int,
    train: Callable[[dict[str, Any]], Iterator[dict[str, Any]]],
    *,
    goal: float,
    least: int,
    most: int,
) -> Outcome:
    """A search by `WORKERS` workers until it has trained `most` epochs, or `least` and has reached `goal`.

    Args:
        way: How.
        seed: Of the proposals, and of the epochs' durations, which differ by a tenth.
        train: A trial's results, an epoch at a time: its PGD accuracy and how it `ended`, if it did.
        goal: The value to reach.
        least: Epochs.
        most: Epochs.
    """
    durations = np.random.default_rng(seed)
    outcome, due = Outcome(), []  # due: when the next epoch of a trial is over
    # Nobody resumes from this journal, so it need not wait for the disk.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(os, "fsync"):
        proposer, stopper = way.start(seed, Path(folder))

        def begin(now: float) -> None:
            trial = proposer.propose()
            assert trial is not None
            config = {**trial.hyperparameters, "trial": trial.number}
            stopper.add(trial.number)
            heapq.heappush(due, (now + durations.uniform(0.9, 1.1), trial.number, config, train(config)))
            outcome.trials += 1

        for _ in range(WORKERS):
            begin(0.0)
        while len(outcome.best) < most and not (len(outcome.best) >= least and outcome.best[-1] >= goal):
            now, number, config, epochs = heapq.heappop(due)
            result = next(epochs)
            epoch = result["training_iteration"]
            better = not outcome.best or result[OBJECTIVE] > outcome.best[-1]
            outcome.best.append(result[OBJECTIVE] if better else outcome.best[-1])
            outcome.leader.append(config if better else outcome.leader[-1])
            if result["ended"]:
                stopper.complete(number, epoch, result)
            else:
                proposer.report(number, epoch, result[OBJECTIVE])
                if stopper.report(number, epoch, result):
                    heapq.heappush(due, (now + durations.uniform(0.9, 1.1), number, config, epochs))
                    continue
            proposer.tell(number, result["ended"] or "stopped", epoch, result)
            begin(now)
    return outcome


def as_results(accuracies: "np.ndarray[Any, Any]") -> Iterator[dict[str, Any]]:
    """A learning curve as the results of a trial: the objective is the best so far."""
    for epoch, best in enumerate(np.maximum.accumulate(accuracies), start=1):
        ended = "completed" if epoch == len(accuracies) else ""
        yield {"training_iteration": epoch, OBJECTIVE: float(best), "ended": ended}


def process(dimensions: int = len(KEYS)) -> GaussianProcessRegressor:
    """A smooth mean. All epochs share the kernel: a length for each hyperparameter, and noise, fitted to all curves."""
    kernel = Matern([1.0] * dimensions, (0.1, 20.0), nu=2.5) + WhiteKernel(0.05, (1e-4, 1.0))
    return GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0)


def trees() -> ExtraTreesRegressor:
    """A mean of many steps, which favors no sampler that is a Gaussian process itself."""
    return ExtraTreesRegressor(200, random_state=0)


MEANS = {"process": process, "trees": trees}


def as_unit(distribution: Distribution, column: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Values as parts of their range, of its logarithm for `loguniform`; of two choices the first is 1."""
    if distribution.kind == "choice":
        return np.asarray(column == distribution.values[0], dtype=float)
    low, high = distribution.values
    column = np.asarray(column, dtype=float)
    if distribution.kind == "loguniform":
        low, high, column = np.log(low), np.log(high), np.log(column)
    return (column - low) / (high - low)


class Surrogate:
    """Learning curves for any hyperparameters, from recorded ones: a mean and the noise of training seeds.

    Args:
        curves: The recorded curves.
        repeats: Those of some configurations, from several seeds.
        mean: What predicts a configuration's mean curve, one of `MEANS`.

    Attributes:
        best: The best configuration, over a dense grid of Sobol points.
        optimum: What it reaches without noise.
    """

    def __init__(self, curves: pd.DataFrame, repeats: pd.DataFrame, mean: str = "process") -> None:
        self.space = WAYS[PLAIN].spec(0).space
        self.at, self.curves = self.unit(curves[KEYS].to_numpy()), _by_epoch(curves)
        self.mean = MEANS[mean]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a length at its bound: it does not matter
            self.mean.fit(self.at, self.curves)
        groups = [_by_epoch(group) for _, group in repeats.groupby("trial")]
        # Deviations from the mean of n seeds have (n − 1)/n of the variance.
        self.noise = np.concatenate([(g - g.mean(0)) * np.sqrt(len(g) / (len(g) - 1)) for g in groups])
        grid = qmc.Sobol(len(KEYS), seed=0).random(OPTIMUM_POINTS)
        accuracies = self._accuracies(grid).max(axis=1)
        self.best = self.configuration(grid[accuracies.argmax()])
        self.optimum = float(accuracies.max())

    def unit(self, values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Hyperparameters (n, 4) as points of the unit cube, lambda and lr_max by their logarithms."""
        return np.stack([as_unit(self.space[key], of) for key, of in zip(KEYS, values.T, strict=True)], axis=1)

    def configuration(self, point: "np.ndarray[Any, Any]") -> dict[str, float]:
        """The hyperparameters at a point of the unit cube, (4,)."""
        found = {}
        for key, at in zip(KEYS, point, strict=True):
            low, high = self.space[key].values
            found[key] = float(
                low * (high / low) ** at if self.space[key].kind == "loguniform" else low + (high - low) * at
            )
        return found

    def _accuracies(self, at: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        return np.clip(self.mean.predict(at), 0.0, 1.0)

    def value(self, config: dict[str, float]) -> float:
        """What `config` reaches without noise, trained to the end."""
        return float(self._accuracies(self.unit(np.array([[config[key] for key in KEYS]]))).max())

    def train(self, seed: int) -> Callable[[dict[str, Any]], Iterator[dict[str, Any]]]:
        """The trials of the search of this seed."""

        def trial(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
            noise = self.noise[np.random.default_rng((seed, config["trial"])).integers(len(self.noise))]
            mean = self._accuracies(self.unit(np.array([[config[key] for key in KEYS]])))[0]
            return as_results(np.clip(mean + noise, 0.0, 1.0))

        return trial

    def left_out_error(self) -> tuple[float, float]:
        """Root mean square error of a curve's best value predicted from the other curves; these values' spread."""
        return left_out_error(self.mean, self.at, self.curves)


def left_out_error(
    mean: GaussianProcessRegressor | ExtraTreesRegressor, at: "np.ndarray[Any, Any]", curves: "np.ndarray[Any, Any]"
) -> tuple[float, float]:
    """Return how far off the best value of a curve is predicted by the others, and the spread of these values.

    Args:
        mean: What predicts, fitted to all curves; a process keeps its kernel.
        at: Points of the unit cube, (curves, hyperparameters).
        curves: Accuracies, (curves, epochs).
    """
    best, found = curves.max(1), []
    for index in range(len(best)):
        others = np.arange(len(best)) != index
        fixed = clone(mean)
        if isinstance(mean, GaussianProcessRegressor):
            fixed.set_params(kernel=mean.kernel_, optimizer=None)
        found.append(fixed.fit(at[others], curves[others]).predict(at[[index]]).max())
    return float(np.sqrt(np.mean((np.array(found) - best) ** 2))), float(best.std())


def foresight(curves: "np.ndarray[Any, Any]") -> dict[int, float]:
    """Spearman's rank correlation of the best so far after an epoch with the best of all epochs."""
    best = pd.DataFrame(np.maximum.accumulate(curves, axis=1), columns=range(1, EPOCHS + 1))
    return {epoch: float(best[epoch].corr(best[EPOCHS], method="spearman")) for epoch in (1, 2, 3, 6, 9, 12, 18)}


def _by_epoch(frame: pd.DataFrame) -> "np.ndarray[Any, Any]":
    return frame[[f"pgd_{epoch}" for epoch in range(1, EPOCHS + 1)]].to_numpy(dtype=float)


def whole_curves(folder: Path, keys: list[str]) -> pd.DataFrame:
    """Return the trials that ran to their end, with these hyperparameters and the PGD accuracy after each epoch."""
    trials, epochs = results.trials(folder), results.epochs(folder)
    trials = trials[trials["status"] == "completed"]
    wide = epochs.pivot(index="trial", columns="epoch", values="pgd_accuracy").add_prefix("pgd_")
    return trials[["trial", *keys]].join(wide, on="trial").sort_values("trial")


def record(folder: Path) -> None:
    """Writes the curves of the search in `folder`, and those of some of its trials trained from other seeds."""
    curves = whole_curves(folder, KEYS)
    curves.to_csv(CURVES, index=False, float_format="%.5g")
    spec = WAYS[PLAIN].spec(0)
    splits = data.load(spec.data)
    order = curves.assign(best=_by_epoch(curves).max(1)).sort_values("best")
    rows = []
    chosen = (np.linspace(0.3, 1.0, REPEATED) * (len(order) - 1)).astype(int)
    for _, row in order.iloc[chosen].iterrows():
        rows.append({"trial": row["trial"], "seed": 0, **row.filter(like="pgd_")})
        for seed in REPEAT_SEEDS:
            trainer = trainer_of(spec, splits, row[KEYS].to_dict(), seed)
            accuracies = [(trainer.train_epoch(), trainer.evaluate()["pgd_accuracy"])[1] for _ in range(EPOCHS)]
            rows.append({"trial": row["trial"], "seed": seed, **{f"pgd_{e}": a for e, a in enumerate(accuracies, 1)}})
            print(f"trial {row['trial']:.0f}, seed {seed}: {max(accuracies):.3f}", flush=True)
    pd.DataFrame(rows).to_csv(REPEATS, index=False, float_format="%.5g")


def trainer_of(spec: SearchSpec, splits: data.Splits, config: dict[str, Any], seed: int) -> Trainer:
    """A training run as a trial would make it."""
    hyperparameters = spec.training_config({key: config[key] for key in KEYS})
    return Trainer(hyperparameters, splits, model=spec.model, evaluation=spec.evaluation, seed=seed)


Trials = Callable[[int], Callable[[dict[str, Any]], Iterator[dict[str, Any]]]]


def compare(
    seeds: Iterable[int],
    ways: dict[str, Way],
    train: Trials,
    plain: Callable[[int], Outcome],
    *,
    least: float,
    most: float,
) -> pd.DataFrame:
    """A row for each way and seed: the epochs that it took to reach what plain random search of that seed reached.

    Args:
        seeds: Which seeds.
        ways: Which ways.
        train: The trials of a seed.
        plain: Plain random search of a seed.
        least: What every search spends of the epochs of plain random search.
        most: What it spends where it does not reach the goal.
    """
    rows = []
    for seed in seeds:
        reference = plain(seed)
        goal, budget = reference.best[-1], len(reference.best)
        for name, way in ways.items():
            outcome = reference
            if name != PLAIN:
                spend = {"least": max(int(least * budget), 1), "most": int(most * budget)}
                outcome = run(way, seed, train(seed), goal=goal, **spend)
            epochs = outcome.epochs_to(goal)
            share = None if epochs is None else epochs / budget
            at = min(budget // 5, len(outcome.best)) - 1
            row = {"random_trials": budget // EPOCHS, "way": name, "seed": seed, "goal": goal, "epochs": epochs}
            rows.append({**row, "share": share, "trials": outcome.trials, "best_at_a_fifth": outcome.best[at]})
            print(rows[-1], flush=True)
            rows[-1]["leader_at_a_fifth"] = outcome.leader[at]
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame, most: float) -> pd.DataFrame:
    """Median with its 95% interval, and quartiles, over the seeds.

    A search that did not reach the goal counts with all that it spent. The interval is a bootstrap over the seeds.
    """
    by = frame.fillna({"share": most}).groupby(["random_trials", "way"], sort=False)
    names = ["lower_quartile", "median", "upper_quartile"]
    summary = by["share"].quantile([0.25, 0.5, 0.75]).unstack().set_axis(names, axis=1)
    medians = by["share"].apply(lambda share: bootstrap((share,), np.median, method="percentile", rng=0))
    for name in ("low", "high"):
        summary[f"median_{name}"] = [getattr(found.confidence_interval, name) for found in medians]
    summary["within_a_fifth"] = by["share"].apply(lambda share: int((share <= 0.2).sum()))
    summary["reached"] = frame["epochs"].notna().groupby([frame["random_trials"], frame["way"]], sort=False).sum()
    summary["seeds"] = by.size()
    if "regret_at_a_fifth" in frame:
        summary["median_regret_at_a_fifth"] = by["regret_at_a_fifth"].median()
    return summary


def on_surrogate(seeds: int) -> None:
    """All ways on the surrogate, and some against a random search that is twice as long."""
    surrogate = Surrogate(pd.read_csv(CURVES), pd.read_csv(REPEATS))
    error, spread = surrogate.left_out_error()
    print(
        f"{len(surrogate.at)} curves; left out, their best values are predicted to {error:.3f} (they spread by "
        f"{spread:.3f}); the optimum is {surrogate.optimum:.3f}; noise of an epoch {surrogate.noise.std():.3f}"
    )
    known = ", ".join(f"{epoch}: {of:.2f}" for epoch, of in foresight(surrogate.curves).items())
    print(f"rank correlation of the best after so many epochs with the best of all: {known}")
    frames = []
    for num_trials, ways in ((RANDOM_TRIALS, WAYS), (2 * RANDOM_TRIALS, LONGER)):
        spend = {"least": num_trials * EPOCHS, "most": num_trials * EPOCHS}

        def plain(seed: int, spend: dict[str, int] = spend) -> Outcome:
            return run(WAYS[PLAIN], seed, surrogate.train(seed), goal=float("inf"), **spend)

        frames.append(compare(range(seeds), ways, surrogate.train, plain, least=0.2, most=1.0))
    frame = pd.concat(frames)
    frame["regret_at_a_fifth"] = surrogate.optimum - frame.pop("leader_at_a_fifth").map(surrogate.value)
    _write(frame, "search_quality_surrogate", 1.0)


def on_digits(seeds: int) -> None:
    """Our way, trained for real, against plain random search, whose trials are drawn from the recorded curves."""
    torch.set_num_threads(1)
    curves = _by_epoch(pd.read_csv(CURVES))
    spec = WAYS[PLAIN].spec(0)
    splits = data.load(spec.data)

    def plain(seed: int) -> Outcome:
        chosen = np.random.default_rng(seed).choice(len(curves), RANDOM_TRIALS, replace=False)
        best = [float(value) for value in np.maximum.accumulate(curves[chosen].ravel())]
        return Outcome(best, [{}] * len(best), RANDOM_TRIALS)

    def train(seed: int) -> Callable[[dict[str, Any]], Iterator[dict[str, Any]]]:
        def trial(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
            trainer = trainer_of(spec, splits, config, seed=0)  # as the recorded curves
            for epoch in range(1, EPOCHS + 1):
                metrics = trainer.train_epoch() | trainer.evaluate()
                ended = "catastrophic_overfitting" * metrics["catastrophic_overfitting"]
                ended = ended or "completed" * (epoch == EPOCHS)
                yield {"training_iteration": epoch, OBJECTIVE: metrics["pgd_accuracy_best"], "ended": ended}

        return trial

    ways = {name: WAYS[name] for name in (PLAIN, OURS)}
    done = RESULTS / f"{DIGITS}_seeds.csv"
    frame = pd.read_csv(done) if done.exists() else pd.DataFrame({"seed": []})
    for seed in sorted(set(range(seeds)) - set(frame["seed"])):  # minutes each: what was done before is kept
        one = compare([seed], ways, train, plain, least=0.0, most=0.4)
        frame = pd.concat([frame, one.drop(columns=["best_at_a_fifth", "leader_at_a_fifth"])])
        _write(frame, DIGITS, 0.4)


def _write(frame: pd.DataFrame, name: str, most: float) -> None:
    frame.to_csv(RESULTS / f"{name}_seeds.csv", index=False, float_format="%.5g")
    summary = table(frame, most)
    summary.to_csv(RESULTS / f"{name}.csv", float_format="%.4g")
    print(f"\n{summary.to_string(float_format='{:.3f}'.format)}")


def main() -> None:
    """Runs one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("record").add_argument("folder", type=Path)
    parts.add_parser("surrogate").add_argument("--seeds", type=int, default=60)
    parts.add_parser("digits").add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.part == "record":
        record(options.folder)
    else:
        (on_surrogate if options.part == "surrogate" else on_digits)(options.seeds)


if __name__ == "__main__":
    main()
