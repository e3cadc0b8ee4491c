import re
from pathlib import Path

import pytest

from tests.support.journals import BEST, VALUES, epoch, write_search, write_trial
from tests.support.spaces import tiny
from tune_cure.reports.figures import catalog, cost
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load


def build_by_name(directory: Path) -> dict[str, catalog.Plot]:
    return {plot.name: plot for plot in catalog.build_plots(SearchResult(directory))}


def test_a_search_of_some_trials_has_every_plot(tmp_path: Path) -> None:
    write_search(tmp_path)
    slices = ["slice_lambda", "slice_h", "slice_lr_max", "slice_momentum"]
    of_trials = ["curves", "best_by_trials", "best_by_seconds", "tradeoff"]
    of_ends = ["curvature", "catastrophic_overfitting", "budget", "seconds", "timeline"]
    names = [*of_trials, "importance", "parallel", "contour", *slices, *of_ends]
    assert list(build_by_name(tmp_path)) == [name for name in names if name != "contour"]  # of 5 finished trials
    (tmp_path / "whole").mkdir()
    write_search(tmp_path / "whole", stops=False)
    assert list(build_by_name(tmp_path / "whole")) == [name for name in names if name != "budget"]  # all train alike
    assert {plot.section for plot in catalog.build_plots(SearchResult(tmp_path))} == set(catalog.TITLES)


@pytest.mark.parametrize("num_trials", [1, 3])
def test_few_trials_have_only_the_plots_that_need_few(tmp_path: Path, num_trials: int) -> None:
    write_search(tmp_path, num_trials)
    plots_by_name = build_by_name(tmp_path)
    assert {"curves", "tradeoff", "parallel", "seconds"} <= set(plots_by_name)
    assert not {"importance", "contour", "catastrophic_overfitting"} & set(plots_by_name)
    assert not {"budget", "timeline", "best_by_trials"} & set(plots_by_name)  # which would say nothing


@pytest.mark.parametrize(
    ("num_trials", "names"),
    [
        (1, ["best: trial 0"]),
        (3, ["best: trial 2", "the best 3"]),
        (24, [f"best: trial {BEST}", "the best 5", "other trials"]),
    ],
)
def test_the_legend_of_the_parallel_coordinates_names_the_lines_that_are_drawn(
    num_trials: int, names: list[str], tmp_path: Path
) -> None:
    write_search(tmp_path, num_trials)
    legend = build_by_name(tmp_path)["parallel"].legend
    assert re.findall(r"</span>([^<]+)</li>", legend) == names


def test_there_are_no_plots_before_a_trial_is_judged(tmp_path: Path) -> None:
    write_search(tmp_path, 2, judged=False)
    assert catalog.build_plots(SearchResult(tmp_path)) == []


def test_the_map_of_overfitting_is_over_epsilon_and_lambda_if_both_are_searched(tmp_path: Path) -> None:
    space = "space={lambda: {loguniform: [0.003, 10]}, epsilon: {uniform: [0.01, 0.1]}}"
    spec = load_space(tmp_path, space, "start_from=[]")
    journal = Journal(tmp_path)
    journal.path.touch()
    for number in range(6):  # 5 overfits
        write_trial(journal, spec, number, finished=True, judged=True)
    text = journal.path.read_text().replace('"h": ', '"epsilon": ')
    journal.path.write_text(text)
    figure = build_by_name(tmp_path)["catastrophic_overfitting"].figure
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("epsilon", "lambda")
    did_not, did = figure.data
    assert (len(did_not.x), len(did.x)) == (5, 1)


def load_space(directory: Path, *overrides: str) -> SearchSpec:
    write_search(directory, 0)
    spec = load(directory / "space.yaml", overrides)
    (directory / run_files.SPEC).write_text(spec.to_yaml())
    return spec


def test_a_note_says_which_trials_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_search(tmp_path)
    assert catalog.sampling_note(SearchResult(tmp_path)) == ""
    monkeypatch.setattr(catalog, "MAX_LINES", 12)
    monkeypatch.setattr(catalog, "MAX_POINTS", 16)
    note = catalog.sampling_note(SearchResult(tmp_path))
    assert "Of 24 trials, 16 in plots of points and 12 in plots of lines are drawn" in note
    assert "The tables" not in note  # the page's tables have the first trials alone
    drawn = build_by_name(tmp_path)
    points = [trace for trace in drawn["tradeoff"].figure.data if trace.mode == "markers"][:-2]
    assert sum(len(trace.x) for trace in points) <= 16
    ends = [trace for trace in drawn["curves"].figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in ends) <= 12


def test_the_pareto_front_is_that_of_all_trials_and_drawn_however_few_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(tmp_path, "search.trials=13", "search.scheduler=none")
    journal, front_of = Journal(tmp_path), {3: (0.6, 0.6), 5: (0.3, 0.8), 8: (0.1, 0.9)}
    others = dict.fromkeys((2, 11), (0.2, 0.2))  # beyond the axes
    for number in range(13):
        pgd, clean = (front_of | others).get(number, (0.4 + 0.01 * number, 0.55))
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, pgd, pgd, clean_accuracy=clean)
        journal.append("end", number, status="stopped" if number in (2, 11) else "completed", reason="")
    whole = catalog.build_overview(SearchResult(tmp_path))[-1]
    monkeypatch.setattr(catalog, "MAX_POINTS", 4)
    plot = catalog.build_overview(SearchResult(tmp_path))[-1]
    front, *points = plot.figure.data
    assert (front.x, front.y) == (whole.figure.data[0].x, whole.figure.data[0].y) and len(front.x) == 3
    drawn = {place for trace in points for place in zip(trace.x, trace.y, strict=True)}
    assert set(zip(front.x, front.y, strict=True)) <= drawn
    assert len(drawn) < 8
    assert plot.figure.layout.xaxis.range == whole.figure.layout.xaxis.range
    (at_rim,) = re.findall(r"their end; (\d+ other trials lie beyond) and are drawn at the rim", whole.caption)
    assert f"{at_rim}; those of them that are drawn are at the rim." in plot.caption


def test_the_surface_is_the_mean_of_all_finished_trials_however_few_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_search(tmp_path, stops=False)
    surface, *points = build_by_name(tmp_path)["contour"].figure.data
    monkeypatch.setattr(catalog, "MAX_POINTS", 12)
    of_a_sample, *fewer = build_by_name(tmp_path)["contour"].figure.data
    assert of_a_sample.z == surface.z
    assert sum(len(trace.x) for trace in fewer) < sum(len(trace.x) for trace in points)


def test_the_surface_leaves_out_what_stopped_trials_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_search(tmp_path)
    monkeypatch.setattr(catalog, "MIN_TRIALS", 5)
    trials = SearchResult(tmp_path).trials
    finished = trials.loc[trials["status"] == "completed", "pgd_accuracy_best"]
    plot = build_by_name(tmp_path)["contour"]
    heights = [height for row in plot.figure.data[0].z for height in row if height is not None]
    assert finished.min() <= min(heights) <= max(heights) <= finished.max()
    assert trials["pgd_accuracy_best"].min() < finished.min()
    assert "the 5 trials that ran to their end" in plot.caption


def test_a_single_step_of_survival_is_a_sentence_and_not_a_plot(tmp_path: Path) -> None:
    spec = load_space(tmp_path, "asha.grace_period=3", "asha.reduction_factor=4")
    journal = Journal(tmp_path)
    for number in (0, 3, 6, 2):  # 3 and 6 are stopped after epoch 3
        write_trial(journal, spec, number, finished=True, judged=True)
    assert "budget" not in build_by_name(tmp_path)
    assert "The 4 trials trained 30 epochs; without early stopping" in catalog.budget_note(SearchResult(tmp_path))


def test_the_best_so_far_is_drawn_against_trials_and_against_time(tmp_path: Path) -> None:
    write_search(tmp_path)
    plots, result = build_by_name(tmp_path), SearchResult(tmp_path)
    for name, title in (("best_by_trials", "trials"), ("best_by_seconds", "device minutes")):
        line = plots[name].figure.data[0]
        assert plots[name].figure.layout.xaxis.title.text == title
        assert plots[name].figure.layout.yaxis.title.text == "PGD accuracy"
        assert list(line.y) == sorted(line.y)
        assert line.y[-1] == result.trials["pgd_accuracy_best"].max()
    assert plots["best_by_trials"].figure.data[0].x[-1] == len(result.trials)
    seconds = result.epochs["train_seconds"].sum() + result.epochs["eval_seconds"].sum()
    assert plots["best_by_seconds"].figure.data[0].x[-1] == pytest.approx(seconds / 60, abs=1e-3)


def test_the_budget_compares_the_epochs_trained_with_those_without_early_stopping(tmp_path: Path) -> None:
    write_search(tmp_path)
    frame = SearchResult(tmp_path).trials
    trained, stopped = frame["epochs_trained"].sum(), frame[frame["status"] == "stopped"]
    most = trained + 12 * len(stopped) - stopped["epochs_trained"].sum()
    note = catalog.budget_note(SearchResult(tmp_path))
    assert f"The 24 trials trained {trained} epochs; without early stopping they would have trained {most}, so" in note
    assert f"so {1 - trained / most:.0%} were saved" in note
    left = "6 epochs (overfitted catastrophically), 9 epochs (diverged) and 10 epochs (failed)"
    assert f"Not trained for other reasons than early stopping: {left}." in note


def test_without_a_scheduler_no_saving_is_reported(tmp_path: Path) -> None:
    load_space(tmp_path, "search.scheduler=none")
    journal, spec = Journal(tmp_path), load(tmp_path / run_files.SPEC)
    for number in (0, 5, 9):  # 5 overfits, 9 diverges
        write_trial(journal, spec, number, finished=True, judged=True)
    plot, note = build_by_name(tmp_path)["budget"], catalog.budget_note(SearchResult(tmp_path))
    assert "The 3 trials trained 21 epochs. Not trained for other reasons than early stopping: 6 epochs (over" in note
    assert "saved" not in note
    assert "saved" not in plot.caption
    assert "without early stopping" not in plot.legend
    assert [trace.name for trace in plot.figure.data] == ["trained"]


def test_the_caption_says_if_a_bar_is_the_mean_of_several_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_search(tmp_path)
    assert "mean" not in build_by_name(tmp_path)["seconds"].caption
    monkeypatch.setattr(cost, "MAX_BARS", 10)
    plot = build_by_name(tmp_path)["seconds"]
    assert "Each bar is the mean of 3 trials, in their order." in plot.caption
    assert len(plot.figure.data[0].x) == 8


def test_the_legend_names_the_best_and_start_from(tmp_path: Path) -> None:
    write_search(tmp_path)
    legend = build_by_name(tmp_path)["tradeoff"].legend
    assert f"best: trial {BEST}" in legend
    assert "start_from: trial 0" in legend
    assert "overfitted catastrophically" in legend
