import itertools
from pathlib import Path

import pytest

from tests.support.journals import BEST, write_search
from tune_cure.reports.figures import accuracies, space as space_plots, style as plotting
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load
from tune_cure.utils.formatting import STATUS_WORDS


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    write_search(tmp_path)
    return SearchResult(tmp_path)


def test_every_status_has_its_own_symbol() -> None:
    assert list(plotting.STATUS_STYLES) == list(STATUS_WORDS)
    assert len({style.symbol for style in plotting.STATUS_STYLES.values()}) == len(plotting.STATUS_STYLES)
    assert len({style.glyph for style in plotting.STATUS_STYLES.values()}) == len(plotting.STATUS_STYLES)


def test_few_trials_are_all_drawn(result: SearchResult) -> None:
    assert plotting.sample_trials(result.leaders, result.trials, 24) is result.trials


def test_a_sample_has_the_best_trials_start_from_unusual_ends_and_an_even_spread(result: SearchResult) -> None:
    drawn = plotting.sample_trials(result.leaders, result.trials, 16)["trial"].tolist()
    assert len(drawn) == 16
    assert drawn == sorted(drawn)
    assert {0, 5, 9, 13} <= set(drawn)  # start_from, and what overfitted, diverged and failed
    assert BEST in drawn
    assert set(result.leaders["trial"].head(6)) <= set(drawn)
    assert max(b - a for a, b in itertools.pairwise(drawn)) <= 4


def test_a_sample_has_what_it_is_to_have_in_any_case(result: SearchResult) -> None:
    asked = set(range(3, 15))
    for limit in (16, 10):
        drawn = plotting.sample_trials(result.leaders, result.trials, limit, asked)["trial"].tolist()
        assert asked <= set(drawn)
        assert len(drawn) in (16, len(asked | {0, 5}))


def test_error_bars_are_drawn_only_on_the_accuracy_that_they_are_of(result: SearchResult) -> None:
    trials, spec = result.trials, result.spec
    finished = space_plots.finished_trials(trials, "lambda", "h")
    with_errors = accuracies.plot_tradeoff(trials, spec, BEST).data[-1]
    assert list(with_errors.error_y.array) == trials.loc[trials["trial"] == BEST, "pgd_accuracy_best_se"].tolist()
    for figure in (
        space_plots.plot_contour(
            finished, trials, spec, "lambda", "h", BEST
        ),  # a hyperparameter is on the vertical axis
        accuracies.plot_curvature(trials, spec, BEST),  # the accuracy of the last epoch, not of the best
    ):
        rings = [trace for trace in figure.data if trace.name in ("best", "start_from")]
        assert len(rings) == 2
        assert all(trace.error_y.array is None for trace in rings)


def test_a_single_value_has_a_logarithmic_axis_around_it() -> None:
    low, high = plotting.log_axis(0.1, 0.1)["range"]
    assert low < -1 < high


def test_the_axis_of_a_radius_of_pictures_has_ticks_in_255ths(tmp_path: Path) -> None:
    spec = write_search(tmp_path)
    for space, labels in (
        ("{uniform: [6/255, 12/255]}", ["6/255", "8/255", "10/255", "12/255"]),
        ("{loguniform: [1/255, 16/255]}", ["1/255", "2/255", "5/255", "10/255"]),
        ("{choice: [4/255, 8/255]}", ["4/255", "8/255"]),
    ):
        overrides = ["data={dataset: cifar10, validation: 5000}", f"space.epsilon={space}", "start_from=[]"]
        spec = load(tmp_path / "space.yaml", overrides)
        axis = plotting.value_axis(spec, "epsilon")
        assert list(axis["ticktext"]) == labels
        if axis["type"] == "linear":
            assert axis["tickvals"] == pytest.approx([6 / 255, 8 / 255, 10 / 255, 12 / 255])
            assert axis["range"] == pytest.approx([5.64 / 255, 12.36 / 255])
        elif axis["type"] == "log":
            assert 10 ** axis["range"][0] < 1 / 255 < 16 / 255 < 10 ** axis["range"][1]


def test_the_hover_text_of_a_trial_without_accuracy_says_never_judged(result: SearchResult) -> None:
    row = result.trials.set_index("trial", drop=False).loc[1].copy()
    row["best_epoch"] = None
    assert "never judged" in plotting.hover_text(row, result.spec)
