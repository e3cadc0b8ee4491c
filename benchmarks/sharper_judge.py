"""Validation images where they decide: other ways to spend the images of a search, compared at equal cost.

    python benchmarks/sharper_judge.py run --seeds 200   # half an hour; goes on with the searches that the CSV lacks
    python benchmarks/sharper_judge.py summarize

Searches of the surrogate of search_quality.py with ASHA from 9, in which the true accuracy of each network is known and
the judge sees outcomes of single images (sharper_judge_model.py). Equal cost is as many epochs of training, and as many
attacked images in the search and after it together. The results are in docs/second_judgement.md.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
from judge_agreement import AGREEMENT
from numpy.typing import NDArray
from search_quality import CURVES, EPOCHS, KEYS, RANDOM_TRIALS, REPEATS, Surrogate, Way, run
from sharper_judge_model import POOL, Judge, Judged, Judging, Latent, Race, read_latent

from tune_cure.search.ranking import rank_leaders
from tune_cure.search.schedulers.early_stopper import EarlyStopper

RESULTS = Path(__file__).parent / "results"
SEEDS, SUMMARY = RESULTS / "sharper_judge_seeds.csv", RESULTS / "sharper_judge.csv"
RACE = ((16, 0.5), (8, 1.0), (4, 2.0), (2, 4.0))  # leaders, and the fresh images of each by then, in parts of n
TODAY = "today"
NUM_IMAGES = 1000
RANDOM, TPE = "random search", "TPE"
DRAWN_TRIALS, MAX_DRAWN = 28, 200  # whole trials whose epochs a random search spends, and the most that it begins

Configs = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """A kind of search on which the ways are compared.

    Attributes:
        optimum: The best value of a configuration.
        epochs: The epochs of training that each search spends.
        num_images: The n of today.
        latent: How far its networks agree.
        way: How it searches.
        train: Value and true accuracies of a configuration, by the search's seed and the configuration.
        judgings: The ways to judge that are compared.
    """

    optimum: float
    epochs: int
    num_images: int
    latent: Latent
    way: Way
    train: Callable[[int, dict[str, Any]], tuple[float, NDArray[Any]]]
    judgings: dict[str, Judging]


class Drawn:
    """Proposes configurations that are drawn before; only their numbers count."""

    def __init__(self) -> None:
        self.next = 0

    def propose(self) -> SimpleNamespace:
        """Return the next trial."""
        number, self.next = self.next, self.next + 1
        return SimpleNamespace(number=number, hyperparameters={})

    def report(self, *args: object) -> None:
        """Learn nothing."""

    def tell(self, *args: object) -> None:
        """Learn nothing."""


class DrawnWay(Way):
    """Random search, whose configurations are drawn before."""

    def start(self, seed: int, folder: Path) -> Any:
        """Return what proposes and what stops."""
        return Drawn(), EarlyStopper(self.spec(seed))


def search(setting: Setting, judging: Judging, seed: int) -> tuple[Judge, Configs]:
    """Run a search, and return its judge with all trials, and their configurations by number."""
    judge, configs = Judge(judging, setting.num_images, setting.latent, setting.way.spec(seed), seed), {}

    def train(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        configs[config["trial"]] = config
        return judge.judge(config["trial"], *setting.train(seed, config))

    def start(seed: int, folder: Path) -> Any:
        proposer, stopper = setting.way.start(seed, folder)
        return proposer, Race(judge) if judging.doubt else stopper

    run(SimpleNamespace(start=start), seed, train, goal=float("inf"), least=setting.epochs, most=setting.epochs)
    return judge, configs


def fresh_accuracy(judge: Judge, trial: Judged, part: float) -> float:
    """Return the accuracy of a trial's best weights on images that no epoch was judged on."""
    judged = judge.count(max(judge.judging.early, judge.judging.late))
    return float(trial.outcomes()[judged : judged + judge.count(part)].mean())


def hand_over(judge: Judge) -> Iterator[tuple[str, Judged, int]]:
    """Yield the winner by each rule, and how many images the rule attacks after the search."""
    leaders = sorted((trial for trial in judge.trials.values() if trial.best), key=lambda trial: -trial.objective)
    yield "best accuracy", leaders[0], 0
    if judge.judging.exact or judge.judging.rung:
        return
    for top, part in ((3, 1.0), (3, 3.0), (8, 1.0), (8, 3.0)):
        again = max(leaders[:top], key=lambda trial: fresh_accuracy(judge, trial, part))
        yield f"{top} leaders on {part:g}n", again, top * judge.count(part)
    racing, cost, before = leaders, 0, 0.0
    for top, part in RACE:
        racing = racing[:top]
        cost += len(racing) * (judge.count(part) - judge.count(before))
        racing = sorted(racing, key=lambda trial: -fresh_accuracy(judge, trial, part))
        before = part
    yield "race of 16 leaders", racing[0], cost
    yield "true accuracy", max(leaders, key=lambda trial: trial.reached), 0


def by_posterior(judge: Judge, configs: Configs) -> Iterator[tuple[str, Judged, int]]:
    """Yield the winners by posterior mean (`rescore.choose`) and their costs, as `hand_over` does."""
    order = sorted(judge.trials.values(), key=lambda trial: trial.objective, reverse=True)
    rows = [
        {**configs[trial.number], "status": "completed" if trial.ended else "stopped", "feasible": True}
        for trial in order
    ]
    best = np.array([trial.objective for trial in order])
    errors = (best * (1 - best) / judge.num_images) ** 0.5
    frame = pd.DataFrame(rows).assign(objective=best, pgd_accuracy_best=best, pgd_accuracy_best_se=errors)
    for top, part in ((3, 1.0), (3, 3.0), (8, 1.0), (8, 3.0)):
        fresh = [fresh_accuracy(judge, trial, part) if place < top else np.nan for place, trial in enumerate(order)]
        judged = frame.assign(fresh_pgd_accuracy=fresh, fresh_examples=float(judge.count(part)))
        rescore = judge.spec.rescore.model_copy(update={"top": top, "choose": "posterior"})
        winner = rank_leaders(judged, judge.spec.model_copy(update={"rescore": rescore})).iloc[0]
        yield f"posterior of {top} on {part:g}n", judge.trials[winner["trial"]], top * judge.count(part)


def rows_of(name: str, setting: Setting, judging: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each rule: what it hands over, and what search and rule cost in images of today's epochs."""
    judge, configs = search(setting, setting.judgings[judging], seed)
    potential = np.array([trial.truth.max() for trial in judge.trials.values()])
    values = np.array([trial.value for trial in judge.trials.values()])
    winners = list(hand_over(judge))
    if (name, judging) == (TPE, TODAY):
        winners += by_posterior(judge, configs)
    for rule, winner, after in winners:
        yield {
            "search": name,
            "judging": judging,
            "rule": rule,
            "seed": seed,
            "trials": len(judge.trials),
            "images": (judge.cost + after) / (setting.num_images * setting.epochs),
            "regret": setting.optimum - winner.value,
            "accuracy": winner.reached,
            "value_rank": 1 + int((values > winner.value).sum()),
            "rank": 1 + int((potential > winner.reached).sum()),
        }


EXACT = Judging(0, 0, exact=True)
JUDGINGS = {
    TODAY: Judging(1, 1),
    "3% less in each epoch": Judging(0.97, 0.97),
    "race at rungs": Judging(0.91, 0.91, doubt=1.5),
    "less, all at rungs and the end": Judging(0.61, 0.61, rung=POOL),
    "a quarter before the first rung": Judging(0.25, 1.8, late_from=9),
    "true accuracies": EXACT,
}
BY_TPE = {TODAY: Judging(1, 1), "2% less in each epoch": Judging(0.98, 0.98)}


class Digits:
    """The surrogate's trials, whose deviations are those of the weights alone: what images add to them is taken out."""

    def __init__(self) -> None:
        repeats = pd.read_csv(REPEATS)
        self.surrogate = Surrogate(pd.read_csv(CURVES), repeats)
        self.weights = self.surrogate.noise * weight_shares(repeats)
        self.drawn: dict[int, NDArray[Any]] = {}  # the mean curves of a seed's random configurations

    def train(self, seed: int, config: dict[str, Any]) -> tuple[float, NDArray[Any]]:
        """Return value and true accuracies of a trial; of a random configuration if the search proposes none."""
        if KEYS[0] in config:
            mean = self.surrogate._accuracies(self.surrogate.unit(np.array([[config[key] for key in KEYS]])))[0]
        else:
            if seed not in self.drawn:
                at = np.random.default_rng((seed, MAX_DRAWN)).random((MAX_DRAWN, len(KEYS)))
                self.drawn = {seed: self.surrogate._accuracies(at)}
            mean = self.drawn[seed][config["trial"]]
        noise = self.weights[np.random.default_rng((seed, config["trial"])).integers(len(self.weights))]
        return float(mean.max()), np.clip(mean + noise, 0.01, 0.99)


def weight_shares(repeats: pd.DataFrame) -> NDArray[Any]:
    """Return the share of the recorded deviations that is of the weights, in each epoch, as standard deviations.

    Two seeds of a configuration were judged on the same images. Of the variance of an accuracy p over seeds,
    p (1 - p) (1 - agreement) / images is of these images, the rest of the weights; each by thirds of the training.
    """
    columns = [f"pgd_{epoch}" for epoch in range(1, EPOCHS + 1)]
    groups, agreement = repeats.groupby("trial")[columns], pd.read_csv(AGREEMENT)
    agreement = agreement[agreement["pair"] == "seeds of one configuration"]
    chance = (groups.mean() * (1 - groups.mean())).mean().to_numpy() / agreement["images"].iloc[0]
    recorded, shares = groups.var(ddof=1).mean().to_numpy(), []
    for third in np.split(np.arange(EPOCHS), 3):
        agree = agreement.loc[agreement["epoch"].sub(1).isin(third), "agreement"].mean()
        of_images = (1 - agree) * chance[third].mean() / recorded[third].mean()
        shares += [max(1 - of_images, 0.0) ** 0.5] * len(third)
    return np.array(shares)


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield the kinds of search by name."""
    digits, latent = Digits(), read_latent()
    optimum = digits.surrogate.optimum
    drawn = DRAWN_TRIALS * EPOCHS
    yield RANDOM, Setting(optimum, drawn, NUM_IMAGES, latent, DrawnWay("random"), digits.train, JUDGINGS)
    yield TPE, Setting(optimum, RANDOM_TRIALS * EPOCHS, NUM_IMAGES, latent, Way("tpe"), digits.train, BY_TPE)


def measure(seeds: int) -> None:
    """Run the searches that the CSV lacks, and write it every now and then."""
    done = pd.read_csv(SEEDS) if SEEDS.exists() else pd.DataFrame(columns=["search", "judging", "seed"])
    known = set(done[["search", "judging", "seed"]].itertuples(index=False, name=None))
    for name, setting in settings():
        for judging in setting.judgings:
            missing = [seed for seed in range(seeds) if (name, judging, seed) not in known]
            for some in (missing[start : start + 25] for start in range(0, len(missing), 25)):
                rows = [row for seed in some for row in rows_of(name, setting, judging, seed)]
                done = pd.concat([done, pd.DataFrame(rows)])
                done.to_csv(SEEDS, index=False, float_format="%.5g")
                print(f"{name}: {judging}, {some[-1] + 1} searches", flush=True)


MEASURES = ["images", "regret", "accuracy", "value_rank", "rank"]
TODAYS_RULE = "3 leaders on 1n"


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each way and rule: means, and differences to today seed by seed with 95% intervals."""
    rows = []
    for search_name, group in frame.groupby("search", sort=False):
        today = group[(group["judging"] == TODAY) & (group["rule"] == TODAYS_RULE)].set_index("seed")
        for (judging, rule), found in group.groupby(["judging", "rule"], sort=False):
            row: dict[str, Any] = {"search": search_name, "judging": judging, "rule": rule, "searches": len(found)}
            for name in MEASURES:
                row[name] = found[name].mean()
                difference = found.set_index("seed")[name] - today[name]
                half = 1.96 * difference.sem()
                row |= {f"{name}_low": difference.mean() - half, f"{name}_high": difference.mean() + half}
            rows.append(row)
    return pd.DataFrame(rows).drop(columns=["images_low", "images_high"])


def main() -> None:
    """Measure, or make the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    runs = parts.add_parser("run")
    runs.add_argument("--seeds", type=int, default=200)
    parts.add_parser("summarize")
    options = parser.parse_args()
    if options.part == "run":
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        measure(options.seeds)
    summary = summarize(pd.read_csv(SEEDS))
    summary.to_csv(SUMMARY, index=False, float_format="%.4g")
    print(summary.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
