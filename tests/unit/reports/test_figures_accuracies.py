import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.journals import BEST, write_search
from tune_cure.reports.figures import accuracies as figures, space as figures_space, style as plotting
from tune_cure.search import results
from tune_cure.search.space.config import SearchSpec


@pytest.fixture
def run(tmp_path: Path) -> tuple[SearchSpec, pd.DataFrame, pd.DataFrame]:
    spec = write_search(tmp_path)
    return spec, results.trials(tmp_path), results.epochs(tmp_path)


Run = tuple[SearchSpec, pd.DataFrame, pd.DataFrame]


def test_curves_emphasize_the_best_and_start_from_and_draw_the_rungs(run: Run) -> None:
    spec, trials, epochs = run
    figure = figures.plot_curves(trials, epochs, spec, BEST)
    names = [trace.name for trace in figure.data]
    assert names[0] == "other trials"
    assert names[-2:] == ["start_from: trial 0", f"best: trial {BEST}"]
    assert len(names) == 3 + trials["status"].nunique()
    assert [shape.x0 for shape in figure.layout.shapes] == spec.rungs == [1, 3, 9]


def test_a_curve_ends_where_its_trial_ended(run: Run) -> None:
    spec, trials, epochs = run
    others = figures.plot_curves(trials, epochs, spec, BEST).data[0]
    assert len(others.x) == len(others.y) == len(others.hovertext)
    ends = [before for before, at in zip(others.x, others.x[1:], strict=False) if at is None]
    judged = epochs.dropna(subset=["pgd_accuracy"]).groupby("trial")["epoch"].max()
    assert ends == [judged[number] for number in judged.index if number not in (0, BEST)]


def test_the_axis_follows_the_distribution(run: Run) -> None:
    spec, trials, _ = run
    axes = {key: figures_space.plot_hyperparameter(trials, spec, key, BEST).layout.xaxis for key in spec.space}
    assert {key: axis.type for key, axis in axes.items()} == {
        "lambda": "log", "h": "linear", "lr_max": "log", "momentum": "category"
    }  # fmt: skip
    assert axes["lambda"].range[0] < math.log10(0.003) < 1 < axes["lambda"].range[1]
    assert list(axes["lr_max"].ticktext) == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    assert list(axes["lambda"].ticktext) == ["0.01", "0.1", "1", "10"]
    assert list(axes["momentum"].categoryarray) == ["0", "0.9"]


def test_points_are_told_apart_by_symbol_and_color_and_the_best_is_ringed(run: Run) -> None:
    spec, trials, _ = run
    figure = figures.plot_tradeoff(trials, spec, BEST)
    front, *points, start, best = figure.data
    assert front.name == "Pareto front"
    assert len(points) == trials.dropna(subset=["pgd_accuracy_best"])["status"].nunique()
    assert len({trace.marker.symbol for trace in points}) == len(points)
    assert sum(len(trace.x) for trace in points) == trials["pgd_accuracy_best"].notna().sum()
    assert (start.name, best.name) == ("start_from", "best")
    assert best.y[0] == trials.set_index("trial").loc[BEST, "pgd_accuracy_best"]


def test_the_axes_of_the_trade_off_cover_the_finished_trials_and_others_lie_at_the_rim(run: Run) -> None:
    spec, trials, _ = run
    figure = figures.plot_tradeoff(trials, spec, BEST)
    finished = trials[trials["status"] == "completed"]
    for axis, column in ((figure.layout.xaxis, "clean_accuracy_best"), (figure.layout.yaxis, "pgd_accuracy_best")):
        assert list(axis.range) == plotting.accuracy_range(finished[column])
        assert trials[column].min() < axis.range[0] < finished[column].min()
    points = [trace for trace in figure.data if trace.name in ("stopped early", "diverged", "failed")]
    low_x, low_y = figure.layout.xaxis.range[0], figure.layout.yaxis.range[0]
    assert all(x >= low_x and y >= low_y for trace in points for x, y in zip(trace.x, trace.y, strict=True))
    at_rim = sum(x == low_x or y == low_y for trace in points for x, y in zip(trace.x, trace.y, strict=True))
    assert at_rim == figures.count_at_rim(trials, BEST) > 5
    number = next(int(row["trial"]) for _, row in trials.iterrows() if row["clean_accuracy_best"] < low_x)
    text = next(text for trace in points for text in trace.hovertext if f"trial {number}<" in text)
    assert f"clean {100 * trials.set_index('trial').loc[number, 'clean_accuracy_best']:.1f}%" in text  # not the rim's


def test_a_search_without_a_sound_trial_has_no_front(run: Run) -> None:
    spec, trials, _ = run
    unsound = trials[trials["status"].isin(["diverged", "catastrophic_overfitting"])]
    assert figures.find_front(unsound)["trial"].tolist() == []
    assert figures.plot_tradeoff(unsound, spec, None).data[0].x == ()


def test_a_search_without_finished_trials_shows_all_of_them(run: Run) -> None:
    spec, trials, _ = run
    stopped = trials[trials["status"] == "stopped"]
    assert figures.count_at_rim(stopped, None) == 0
    assert list(figures.plot_tradeoff(stopped, spec, None).layout.xaxis.range) == plotting.accuracy_range(
        stopped["clean_accuracy_best"]
    )


def test_rungs_too_close_to_each_other_share_a_label() -> None:
    assert figures.choose_labeled_rungs([1, 3, 9, 27, 81], 200) == [1, 27, 81]
    assert figures.choose_labeled_rungs([1, 3, 9], 12) == [1, 3, 9]


def test_the_map_of_overfitting_tells_trials_that_recovered_from_those_that_did_not(run: Run) -> None:
    spec, trials, _ = run
    trials = trials.assign(catastrophic_overfitting_epoch=np.nan, recovery_epoch=np.nan)
    trials.loc[:2, "catastrophic_overfitting_epoch"] = 3
    trials.loc[1, "recovery_epoch"] = 5
    figure = figures.plot_overfitting_map(trials, spec, "lambda", "h")
    judged = (trials["epochs_trained"] > 0).sum()
    expected = {"did not": judged - 3, "recovered from it": 1, "overfitted catastrophically": 2}
    assert {trace.name: len(trace.x) for trace in figure.data} == expected
    assert figures.overfitting_outcomes(trials.drop(columns="recovery_epoch"))[1] == "overfitted catastrophically"
