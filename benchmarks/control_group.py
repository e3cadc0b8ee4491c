"""What a control group knows of a search's rungs, and what acting on it costs: replays of recorded learning curves.

    python benchmarks/control_group.py [FASTAT_CURVES]

Replayed are the 57 curves of digits (search_quality_curves.csv), those of CURE on pictures (picture_curves.csv) and,
where the file is given, those of FastAT Benchmark (arXiv 2604.22853, github.com/fzjcdt/FastAT_Benchmark): methods of
fast adversarial training with three seeds each, in a csv with the columns dataset, method, seed, epoch, and the PGD
accuracies pgd and wa_pgd (averaged weights). In each replay the curves come in another order to four workers, and the
search's own `EarlyStopper` decides.

Because all curves are recorded to their end, the truth is known: how well the ranks at a rung predict the final ranks,
and whether the best trial was stopped. The results are in docs/early_stopping.md.
"""

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import picture_curves
from numpy.typing import NDArray

from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.schedulers.control_group import BETTER, NO_BETTER
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec

RESULTS = Path(__file__).parent / "results"
REPLAYS = 200
WORKERS = 4
SEARCHES = (24, 48)  # trials of the searches that show what adapting costs, where so many curves are recorded
SHARES = (0.1, 0.25)
DIGITS_RUNGS = ((1, 3), (3, 3), (6, 3), (9, 3))  # grace period and reduction factor
PICTURES_RUNGS = ((2, 3), (4, 3), (7, 3), (12, 3))  # of 20 epochs
FASTAT_RUNGS = ((3, 3), (10, 3), (30, 3), (60, 3))


@dataclass(frozen=True)
class Curves:
    """Recorded curves of one data set: the best PGD accuracy so far, (trials, epochs)."""

    name: str
    best: NDArray[np.float64]
    rungs: tuple[tuple[int, int], ...]


def read_digits() -> Curves:
    """Return the curves of the quick start's space, stretched to 27 epochs."""
    frame = pd.read_csv(RESULTS / "search_quality_curves.csv").filter(regex=r"^pgd_\d+$")
    return Curves("digits", np.maximum.accumulate(frame.to_numpy(dtype=float), axis=1), DIGITS_RUNGS)


def read_pictures() -> Iterator[Curves]:
    """Yield the curves of the space of `cure` on pictures, all together and by schedule."""
    curves = picture_curves.read()
    yield Curves("pictures", picture_curves.best_so_far(curves), PICTURES_RUNGS)
    for schedule, group in curves.groupby("lr_schedule"):
        yield Curves(f"pictures, {schedule}", picture_curves.best_so_far(group), PICTURES_RUNGS)


def read_fastat(path: Path) -> Iterator[Curves]:
    """Yield FastAT's curves of 100 epochs, of the weights and of their average, data set by data set."""
    for dataset, frame in pd.read_csv(path).groupby("dataset", sort=False):
        for column, words in (("pgd", ""), ("wa_pgd", ", averaged")):
            wide = frame.pivot(index=["method", "seed"], columns="epoch", values=column).dropna()
            yield Curves(f"{dataset}{words}", np.maximum.accumulate(wide.to_numpy(), axis=1), FASTAT_RUNGS)


@dataclass(frozen=True)
class Replay:
    """A replayed search.

    Attributes:
        stopper: What decided.
        trained: Epochs that each trial trained, (trials,).
    """

    stopper: EarlyStopper
    trained: NDArray[np.int64]


def replay(spec: SearchSpec, best: NDArray[np.float64], seed: int) -> Replay:
    """Let four workers train the trials by their curves, in the order of the rows; epochs differ by a tenth in time."""
    chance, stopper, length = np.random.default_rng(seed), EarlyStopper(spec), best.shape[1]
    marks = [*(rung for rung in spec.rungs if rung < length), length]  # nothing is decided at other epochs
    trained = np.zeros(len(best), dtype=int)
    due: list[tuple[float, int, int]] = []  # when a trial reaches its next mark, its number, and the mark's index

    def train(now: float, number: int, mark: int) -> None:
        epochs = marks[mark] - (marks[mark - 1] if mark else 0)
        heapq.heappush(due, (now + epochs * chance.uniform(0.9, 1.1), number, mark))

    for number in range(WORKERS):
        stopper.add(number)
        train(0.0, number, 0)
    begun = WORKERS
    while due:
        now, number, mark = heapq.heappop(due)
        epoch = trained[number] = marks[mark]
        metrics = {OBJECTIVE: float(best[number, epoch - 1]), "ended": "completed" if epoch == length else ""}
        if epoch < length and stopper.report(number, epoch, metrics):
            train(now, number, mark + 1)
            continue
        stopper.complete(number, epoch, metrics)
        if begun < len(best):
            stopper.add(begun)
            train(now, begun, 0)
            begun += 1
    return Replay(stopper, trained)


def make_spec(curves: Curves, grace_period: int, factor: int, control: float, *, adapt: bool, seed: int) -> SearchSpec:
    """Return a search with these rungs and this control group; its space does not matter."""
    asha = f"asha={{grace_period: {grace_period}, reduction_factor: {factor}, control: {control}, adapt: {adapt}}}"
    rest = [f"training.epochs={curves.best.shape[1]}", "start_from=[]", f"search.seed={seed}"]
    return specs.load("search_spaces/quickstart.yaml", [asha, *rest])


def kendall(early: NDArray[np.float64], final: NDArray[np.float64]) -> float:
    """Return the rank correlation of all recorded trials: the truth."""
    signs = np.sign(early[:, None] - early) * np.sign(final[:, None] - final)
    return float(signs.sum() / (len(early) * (len(early) - 1)))


def covers(low: float, high: float, truth: float) -> bool:
    """Return whether an interval has the truth in it, to the hundredth that people see."""
    return low - 0.01 <= truth <= high + 0.01


def measure_estimates(curves: Curves) -> Iterator[dict[str, Any]]:
    """Yield a row for each set of rungs, share and rung, and one for the chance that the winner was stopped."""
    for grace_period, factor in curves.rungs:
        for control in SHARES:
            yield from _estimates(curves, grace_period, factor, control)


def _estimates(curves: Curves, grace_period: int, factor: int, control: float) -> Iterator[dict[str, Any]]:
    base = {"curves": curves.name, "trials": len(curves.best), "grace_period": grace_period, "control": control}
    found: dict[int, list[Any]] = {}
    chances, is_stopped = [], []
    for seed in range(REPLAYS):
        order = np.random.default_rng(seed).permutation(len(curves.best))
        spec = make_spec(curves, grace_period, factor, control, adapt=False, seed=seed)
        played = replay(spec, curves.best[order], seed)
        for rung in played.stopper.group.rungs:
            found.setdefault(rung.epoch, []).append(rung)
        chances.append(played.stopper.group.winner_stopped())
        is_stopped.append(int(curves.best[order, -1].argmax()) in played.stopper.group.stop_epochs)
    for epoch, rungs in found.items():
        truth = kendall(curves.best[:, epoch - 1], curves.best[:, -1])
        known = [rung.correlation for rung in rungs if rung.correlation]
        yield base | {
            "estimate": "rank correlation",
            "rung": epoch,
            "truth": truth,
            "mean": np.mean([found.value for found in known]),
            "mean_low": np.mean([found.low for found in known]),
            "mean_high": np.mean([found.high for found in known]),
            "coverage": np.mean([covers(found.low, found.high, truth) for found in known]),
            "known": len(known) / REPLAYS,
            "effective_trials": np.mean([rung.effective_trials for rung in rungs]),
            "better": np.mean([rung.verdict == BETTER for rung in rungs]),
            "no_better": np.mean([rung.verdict == NO_BETTER for rung in rungs]),
        }
    known, truth = [chance for chance in chances if chance], (1 - control) * float(np.mean(is_stopped))
    yield base | {
        "estimate": "chance that the winner was stopped",
        "truth": truth,
        "mean": np.mean([found.value for found in known]),
        "mean_low": np.mean([found.low for found in known]),
        "mean_high": np.mean([found.high for found in known]),
        "coverage": np.mean([covers(found.low, found.high, truth) for found in known]),
        "known": len(known) / REPLAYS,
    }


WAYS = {"no control group": (0.0, False), "control group": (0.1, False), "adapted": (0.1, True)}


def measure_adapting(curves: Curves) -> Iterator[dict[str, Any]]:
    """Yield a row for each set of rungs, size of the search and way: what is saved, and what is lost by it.

    Beside it is what as many epochs lose in the first trials alone, each trained to its end.
    """
    for grace_period, factor in curves.rungs:
        for trials in [number for number in SEARCHES if number <= len(curves.best)] or [len(curves.best)]:
            for way, (control, adapt) in WAYS.items():
                saved, regrets, instead = [], [], []
                for seed in range(REPLAYS):
                    order = np.random.default_rng(seed).permutation(len(curves.best))[:trials]
                    best = curves.best[order]
                    spec = make_spec(curves, grace_period, factor, control, adapt=adapt, seed=seed)
                    trained = replay(spec, best, seed).trained
                    saved.append(1 - trained.sum() / best.size)
                    regrets.append(best[:, -1].max() - best[trained == best.shape[1], -1].max())
                    affordable = max(trained.sum() // best.shape[1], 1)
                    instead.append(best[:, -1].max() - best[:affordable, -1].max())
                yield {
                    "curves": curves.name,
                    "trials": trials,
                    "grace_period": grace_period,
                    "way": way,
                    "saved": np.mean(saved),
                    "winner_kept": np.mean(np.array(regrets) == 0),
                    "regret": np.mean(regrets),
                    "regret_se": np.std(regrets) / REPLAYS**0.5,
                    "regret_of_whole_trials": np.mean(instead),
                }


def main() -> None:
    """Replay all curves and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fastat", type=Path, nargs="?", help="the csv of FastAT's curves, packed or not")
    options = parser.parse_args()
    estimates, adapting = [], []
    for curves in [read_digits(), *read_pictures(), *(read_fastat(options.fastat) if options.fastat else [])]:
        if len(curves.best) >= max(SEARCHES):  # of fewer a tenth says nothing
            estimates += list(measure_estimates(curves))
        adapting += list(measure_adapting(curves))
        print(pd.DataFrame(estimates[-12:]).to_string(float_format="{:.2f}".format), flush=True)
        print(pd.DataFrame(adapting[-24:]).to_string(float_format="{:.3f}".format), flush=True)
    pd.DataFrame(estimates).to_csv(RESULTS / "control_group.csv", index=False, float_format="%.4g")
    pd.DataFrame(adapting).to_csv(RESULTS / "control_group_adapt.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
