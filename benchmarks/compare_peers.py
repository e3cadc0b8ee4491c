"""Searches of this tool and of others on the surrogate of search_quality.py: what each hands to its user.

    python3 -m venv FOLDER
    FOLDER/bin/pip install -r benchmarks/peers/requirements.txt -e .
    FOLDER/bin/python benchmarks/compare_peers.py run --seeds 20        # a finished search is kept
    FOLDER/bin/python benchmarks/compare_peers.py summarize

All search the same space by the same clock of four workers, with the same noise for a trial's number and seed. Every
tool is called through its public interface (benchmarks/peers/). After 1/8, 1/4, 1/2 and all of the epochs of 48 whole
trials, the configuration that the tool would hand to its user is noted, with its value without noise, trained to its
end, and the CPU seconds that the tool's own calls took. docs/other_tools.md has the results.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from peers.clock import EPOCHS, KEYS, Config, Curve, Peer, Space, simulate
from peers.ours import Ours, read_space
from search_quality import CURVES, REPEATS, Surrogate

from tune_cure.search.journal import OBJECTIVE

RESULTS = Path(__file__).parent / "results"
WHOLE_TRIALS = 48
BUDGETS = [WHOLE_TRIALS * EPOCHS // part for part in (8, 4, 2, 1)]
RUNGS = (9, 3)
NO_RUNG = 0
NUM_FRESH = 1000  # images of the second judgement
SMAC_TRIALS = 72  # evaluations at 9 or 27 epochs that fit into the epochs of 48 whole trials
OURS = "tune_cure: tpe, ASHA"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        make: Makes the search, of a space, a seed and a first rung.
        rungs: The first rungs that are compared; `NO_RUNG` where nothing is stopped.
    """

    make: Callable[[Space, int, int], Peer]
    rungs: tuple[int, ...] = RUNGS


def ours(sampler: str, scheduler: str = "asha", more: str = "") -> Callable[[Space, int, int], Peer]:
    """Return what makes a search by this tool."""

    def make(space: Space, seed: int, rung: int) -> Peer:
        return Ours(seed, sampler, scheduler, f"grace_period: {rung or EPOCHS}, reduction_factor: 3{more}")

    return make


def optuna_study(sampler: str, pruner: str) -> Callable[[Space, int, int], Peer]:
    """Return what makes a search by Optuna alone."""
    from peers import optuna_alone

    samplers = {"TPE": optuna.samplers.TPESampler, "GP": optuna.samplers.GPSampler}
    pruners = {"Hyperband": optuna_alone.hyperband, "SuccessiveHalving": optuna_alone.successive_halving}

    def make(space: Space, seed: int, rung: int) -> Peer:
        return optuna_alone.OptunaAlone(space, samplers[sampler](seed=seed), pruners[pruner](rung))

    return make


def ray_optuna(space: Space, seed: int, rung: int) -> Peer:
    """Return Ray Tune's OptunaSearch with ASHA."""
    from peers import ray_tune

    return ray_tune.optuna_asha(space, seed, rung)


def ray_bohb(space: Space, seed: int, rung: int) -> Peer:
    """Return Ray Tune's BOHB."""
    from peers import ray_tune

    return ray_tune.bohb(space, seed)


def syne_tune(name: str) -> Callable[[Space, int, int], Peer]:
    """Return what makes a search by Syne Tune."""

    def make(space: Space, seed: int, rung: int) -> Peer:
        from peers import syne_tune_asha

        return syne_tune_asha.make(name, space, seed, rung)

    return make


def smac(space: Space, seed: int, rung: int) -> Peer:
    """Return SMAC3 with multi-fidelity."""
    from peers.smac_multi_fidelity import Smac

    return Smac(space, seed, rung, SMAC_TRIALS)


AGAIN = f"{OURS}, leaders judged again"
WAYS = {
    OURS: Way(ours("tpe")),
    AGAIN: Way(ours("tpe")),
    "tune_cure: tpe, ASHA, adapted by a control group": Way(ours("tpe", more=", control: 0.1, adapt: true"), (3,)),
    "tune_cure: gp, ASHA": Way(ours("gp")),
    "tune_cure: tpe, no stopping": Way(ours("tpe", "none"), (NO_RUNG,)),
    "tune_cure: gp, no stopping": Way(ours("gp", "none"), (NO_RUNG,)),
    "tune_cure: random, no stopping": Way(ours("random", "none"), (NO_RUNG,)),
    "Optuna: TPE, SuccessiveHalvingPruner": Way(optuna_study("TPE", "SuccessiveHalving")),
    "Optuna: TPE, HyperbandPruner": Way(optuna_study("TPE", "Hyperband")),
    "Optuna: GP, SuccessiveHalvingPruner": Way(optuna_study("GP", "SuccessiveHalving")),
    "Optuna: GP, HyperbandPruner": Way(optuna_study("GP", "Hyperband")),
    "Ray Tune: OptunaSearch, ASHA": Way(ray_optuna),
    "Ray Tune: TuneBOHB, HyperBandForBOHB": Way(ray_bohb, (1,)),
    "Syne Tune: ASHA": Way(syne_tune("ASHA")),
    "Syne Tune: BOHB": Way(syne_tune("BOHB")),
    "Syne Tune: ASHACQR": Way(syne_tune("ASHACQR"), (9,)),
    "SMAC3: MultiFidelityFacade": Way(smac),
}


def judge_again(surrogate: Surrogate, seed: int) -> Callable[[Config, int, float], float]:
    """Return a second judgement on fresh images, in which half of a trial's own deviation stays: it is of its weights.

    A trial that is judged twice has the same result both times.
    """

    def judge(config: Config, epoch: int, accuracy: float) -> float:
        mean = surrogate.mean.predict(surrogate.unit(np.array([[config[key] for key in KEYS]])))[0, :epoch]
        reached = float(np.clip(mean, 0.0, 1.0).max())
        chance = np.random.default_rng([seed, epoch, int(1e9 * config["h"])])
        noise = (reached * (1 - reached) / NUM_FRESH) ** 0.5 * float(chance.normal())
        return reached + 0.5 * (accuracy - reached) + noise

    return judge


def run(surrogate: Surrogate, name: str, rung: int, seed: int) -> pd.DataFrame:
    """Return a row for each budget of one search."""
    peer = WAYS[name].make(read_space(), seed, rung)
    if name == AGAIN:
        assert isinstance(peer, Ours)
        peer.judge = judge_again(surrogate, seed)
    trials = surrogate.train(seed)

    def train(number: int, config: Config) -> Curve:
        return (float(result[OBJECTIVE]) for result in trials({**config, "trial": number}))

    rows = []
    for found in simulate(peer, train, seed, BUDGETS):
        value = float("nan") if found.winner is None else surrogate.value(found.winner)
        row = {"way": name, "first_rung": rung, "seed": seed, "epochs": found.epochs, "value": value}
        row |= {"regret": surrogate.optimum - value, "trials": found.trials, "driver_seconds": found.driver_seconds}
        rows.append(row)
    return pd.DataFrame(rows)


def run_missing(file: Path, seeds: int, only: list[str]) -> None:
    """Run the searches that the CSV lacks, seed by seed, and add each to it when it has ended."""
    for module in ("smac", "syne_tune", "ray", "dask", "distributed"):
        logging.getLogger(module).setLevel(logging.ERROR)
    surrogate = Surrogate(pd.read_csv(CURVES), pd.read_csv(REPEATS))
    for seed in range(seeds):
        for name in only:
            for rung in WAYS[name].rungs:
                done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["way", "first_rung", "seed"])
                if ((done["way"] == name) & (done["first_rung"] == rung) & (done["seed"] == seed)).any():
                    continue
                rows = run(surrogate, name, rung, seed)
                rows.to_csv(file, mode="a", header=not file.exists(), index=False, float_format="%.5g")
                last = rows.iloc[-1]
                found = f"{last['regret']:.4f}, {last['driver_seconds']:.1f} s"
                print(f"{name} from {rung}, seed {seed}: {found}", flush=True)


def bootstrap(values: "np.ndarray", chance: np.random.Generator) -> tuple[float, float]:
    """Return the 95% interval of a mean over seeds, by resampling them."""
    means = values[chance.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each way, first rung and budget: mean regret, and its paired difference to ours.

    The difference is to `OURS` with the same first rung; where nothing is stopped or no rung can be chosen, from 9.
    A seed for which a way had no winner yet is left out.
    """
    chance = np.random.default_rng(0)
    base = frame[frame["way"] == OURS].set_index(["first_rung", "epochs", "seed"])["regret"]
    rows = []
    for (way, rung, epochs), group in frame.groupby(["way", "first_rung", "epochs"], sort=False):
        found = group.dropna(subset=["regret"]).set_index("seed")
        difference = found["regret"] - base[rung if rung in RUNGS else RUNGS[0]][epochs].reindex(found.index)
        low, high = bootstrap(found["regret"].to_numpy(), chance)
        row = {"way": way, "first_rung": rung, "epochs": epochs, "seeds": len(found)}
        row |= {"regret": found["regret"].mean(), "low": low, "high": high}
        if way != OURS:
            low, high = bootstrap(difference.to_numpy(), chance)
            row |= {"difference": difference.mean(), "difference_low": low, "difference_high": high}
        rows.append(row | {"trials": group["trials"].median(), "driver_seconds": group["driver_seconds"].median()})
    summary = pd.DataFrame(rows)
    order = {name: place for place, name in enumerate(WAYS)}
    return summary.sort_values("first_rung", ascending=False, kind="stable").sort_values(
        "way", key=lambda ways: ways.map(order), kind="stable", ignore_index=True
    )


def main() -> None:
    """Run searches, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    running = parts.add_parser("run")
    running.add_argument("--seeds", type=int, default=20)
    running.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parts.add_parser("summarize")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    seeds_file = RESULTS / "search_quality_peers_seeds.csv"
    if options.part == "run":
        run_missing(seeds_file, options.seeds, options.only)
    else:
        summary = summarize(pd.read_csv(seeds_file))
        summary.to_csv(RESULTS / "search_quality_peers.csv", index=False, float_format="%.4g")
        print(summary.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
