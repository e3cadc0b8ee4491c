from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.support.journals import BEST, write_search
from tests.support.spaces import tiny
from tune_cure.cli.views.search_results import print_results
from tune_cure.reports.headline import caveat
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.posterior import posterior_means
from tune_cure.search.ranking import rank_leaders, rank_trials
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load
from tune_cure.utils.yaml_config import SpecError

POSTERIOR = ("rescore.choose=posterior", "rescore.top=3")


def smooth(frame: pd.DataFrame) -> "pd.Series[float]":
    """The accuracy without noise: highest in the middle of h."""
    return 0.7 - 0.3 * (frame["h"] - 1.2) ** 2


def search(spec: SearchSpec, seed: int, trials: int = 40) -> pd.DataFrame:
    """Complete trials with noise of 3 points, of which the first three were judged again with noise of 1.5 points."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "trial": range(trials),
            "lambda": 10 ** random.uniform(-3, 0, trials),
            "h": random.uniform(0.5, 2, trials),
            "lr_max": 10 ** random.uniform(-2, np.log10(0.5), trials),
            "epsilon": random.uniform(0.05, 0.2, trials),
            "status": "completed",
            "feasible": True,
        }
    )
    frame["objective"] = frame["pgd_accuracy_best"] = smooth(frame) + random.normal(0, 0.03, trials)
    frame["pgd_accuracy_best_se"] = 0.03
    frame["fresh_examples"], frame["fresh_pgd_accuracy"] = 1000.0, np.nan
    finalists = rank_trials(frame, spec).head(spec.rescore.top).index
    again = smooth(frame.loc[finalists]) + random.normal(0, 0.015, len(finalists)) - 0.02  # by a stronger attack
    frame.loc[finalists, "fresh_pgd_accuracy"] = again
    return frame


def test_the_posterior_mean_chooses_better_winners_than_the_luckiest_second_judgement(tmp_path: Path) -> None:
    spec, fresh = tiny(tmp_path, *POSTERIOR), tiny(tmp_path)
    regrets = []
    for seed in range(8):
        frame = search(spec, seed)
        best = smooth(frame).max()
        regrets.append([best - smooth(rank_leaders(frame, chosen)).iloc[0] for chosen in (spec, fresh)])
    by_posterior, by_fresh = np.mean(regrets, axis=0)
    assert by_posterior < 0.8 * by_fresh


def test_a_second_judgement_of_many_images_outweighs_the_neighbors(tmp_path: Path) -> None:
    spec = tiny(tmp_path, *POSTERIOR)
    frame = search(spec, 0)
    finalists = rank_trials(frame, spec).head(3)
    last = finalists.index[-1]
    frame.loc[finalists.index, "fresh_pgd_accuracy"] = [0.5, 0.5, 0.9]
    frame["fresh_examples"], frame["pgd_accuracy_best_se"] = 1e6, 1.0  # all noise of the first judgement is of images
    assert rank_leaders(frame, spec).index[0] == last


def test_only_differences_between_the_second_judgements_count(tmp_path: Path) -> None:
    spec = tiny(tmp_path, *POSTERIOR)
    frame = search(spec, 1)
    order = rank_trials(frame, spec)
    means = posterior_means(order, order.head(3), spec)
    weaker = order.head(3).assign(fresh_pgd_accuracy=order["fresh_pgd_accuracy"] - 0.05)
    assert posterior_means(order, weaker, spec).to_numpy() == pytest.approx(means.to_numpy(), abs=2e-3)
    assert means.index.tolist() == order.head(3).index.tolist()


def test_choices_and_inactive_hyperparameters_are_learned_from_too(tmp_path: Path) -> None:
    space = "space={optimizer: {choice: [sgd, adam]}, momentum: {uniform: [0.5, 0.99]}, lr_max: {uniform: [0.01, 0.5]}}"
    spec = tiny(tmp_path, *POSTERIOR, space, "start_from=[]")
    frame = search(spec, 2).assign(optimizer=["sgd", "adam"] * 20, momentum=[0.9, np.nan] * 20)
    frame["objective"] = np.where(frame["optimizer"].eq("sgd"), 0.6, 0.4) + 0.001 * np.sin(np.arange(40))
    order = rank_trials(frame, spec)
    finalists = order.iloc[[0, 39]].assign(fresh_pgd_accuracy=0.5)
    means = posterior_means(order, finalists, spec)
    assert means.iloc[0] > means.iloc[1] + 0.1


def test_the_second_judgement_decides_alone_where_too_little_is_known(tmp_path: Path) -> None:
    spec, fresh = tiny(tmp_path, *POSTERIOR), tiny(tmp_path)
    few = search(spec, 0, trials=7)
    assert rank_leaders(few, spec).equals(rank_leaders(few, fresh))
    stopped = search(spec, 0)
    stopped.loc[rank_trials(stopped, spec).index[0], "status"] = "stopped"
    assert rank_leaders(stopped, spec).equals(rank_leaders(stopped, fresh))


def test_a_search_says_that_the_posterior_mean_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_search(tmp_path, stops=False)
    journal, settings = Journal(tmp_path), ["rescore.top=4"]
    for number, row in SearchResult(tmp_path).leaders.head(4).reset_index().iterrows():
        accuracy = 0.3 + 0.01 * int(str(number))  # the last finalist is ahead in the second judgement
        judged = {"pgd_accuracy": accuracy, "pgd_accuracy_se": 0.05, "clean_accuracy": 0.9, "examples": 90}
        journal.append("leader", int(row["trial"]), epoch=int(row["best_epoch"]), **judged)
    said = {}
    for choose in ("fresh", "posterior"):
        spec = load(tmp_path / "space.yaml", [*settings, f"rescore.choose={choose}"])
        (tmp_path / run_files.SPEC).write_text(spec.to_yaml())
        result = SearchResult(tmp_path)
        print_results(result, None, Console(width=300))
        said[choose] = (result.best, capsys.readouterr().out, caveat(result, None))
    by_fresh, by_posterior = said["fresh"], said["posterior"]
    assert by_fresh[0] is not None
    assert by_posterior[0] is not None
    assert by_posterior[0].trial == BEST != by_fresh[0].trial  # it is 20 points ahead on the search's own images
    assert "the posterior mean decides, which has it" in by_posterior[1]
    assert "looked at; it decides" in by_fresh[1]
    assert "decided by the posterior mean of a Gaussian process" in by_posterior[2]
    assert "It also decided which of the leading trials won" in by_fresh[2]


def test_a_trial_that_is_no_finalist_any_more_does_not_change_what_is_said_to_have_decided(tmp_path: Path) -> None:
    write_search(tmp_path, stops=False)
    spec, journal = load(tmp_path / "space.yaml", ["rescore.choose=posterior", "rescore.top=3"]), Journal(tmp_path)
    (tmp_path / run_files.SPEC).write_text(spec.to_yaml())
    order = SearchResult(tmp_path).leaders
    stopped = int(order.loc[order["status"].eq("completed"), "trial"].iloc[-1])
    for number in [stopped, *order["trial"].head(3)]:
        epoch = int(order.set_index("trial").loc[number, "best_epoch"])
        judged = {"pgd_accuracy": 0.3, "pgd_accuracy_se": 0.05, "clean_accuracy": 0.9, "examples": 90}
        journal.append("leader", int(number), epoch=epoch, **judged)
    lines = journal.path.read_text().splitlines(keepends=True)
    ends = f'{{"event": "end", "trial": {stopped}, '
    changed = [line.replace("completed", "stopped") if line.startswith(ends) else line for line in lines]
    journal.path.write_text("".join(changed))
    result = SearchResult(tmp_path)
    assert result.trials.set_index("trial").loc[stopped, ["status", "fresh_pgd_accuracy"]].tolist() == ["stopped", 0.3]
    means = posterior_means(order[order["status"].eq("completed")], result.leaders.head(3), spec)
    assert means.is_monotonic_decreasing  # the three are equal but for the posterior means, by which they are ordered
    assert result.is_chosen_by_posterior


def test_the_posterior_mean_is_refused_where_the_second_judgement_does_not_decide(tmp_path: Path) -> None:
    for other in ("search.metric=clean_accuracy", "search.mode=min"):
        with pytest.raises(SpecError, match=r"rescore\.choose: posterior goes with a PGD accuracy as first metric"):
            tiny(tmp_path, "rescore.choose=posterior", other)
