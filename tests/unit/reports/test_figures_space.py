from pathlib import Path

import numpy as np
import pytest

from tests.support.journals import BEST, write_search
from tune_cure.reports.figures import accuracies as figures_accuracies, space as figures_space
from tune_cure.search.results import SearchResult
from tune_cure.search.space.distributions import Distribution


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    write_search(tmp_path)
    return SearchResult(tmp_path)


def test_a_smoothed_surface_of_equal_values_is_flat_and_blank_where_no_value_is_near() -> None:
    grid = np.linspace(0, 1, 11)
    surface = figures_space.smooth_values(np.array([[0.1, 0.1], [0.2, 0.1]]), np.array([0.4, 0.4]), grid, grid)
    assert surface[1, 1] == pytest.approx(0.4)
    assert np.isnan(surface[10, 10])
    assert np.nanmax(np.abs(surface - 0.4)) < 1e-12


def test_a_smoothed_surface_is_a_kernel_mean_with_the_overall_mean_as_one_more_value() -> None:
    places, values = np.array([[0.5, 0.5], [0.6, 0.5], [0.5, 0.7]]), np.array([0.2, 0.8, 0.5])
    surface = figures_space.smooth_values(places, values, np.array([0.45]), np.array([0.55]))
    distances = ((places - [0.45, 0.55]) ** 2).sum(axis=1)
    weights = np.append(np.exp(-distances / (2 * figures_space.BANDWIDTH**2)), figures_space.PRIOR)
    assert surface[0, 0] == pytest.approx(np.average(np.append(values, values.mean()), weights=weights))


def test_rows_of_a_surface_are_the_second_axis() -> None:
    surface = figures_space.smooth_values(
        np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0])
    )
    assert surface[1, 0] > 0.7 > 0.3 > surface[0, 1]


def test_a_line_runs_through_every_axis_and_has_a_gap_where_a_hyperparameter_has_no_effect(
    result: SearchResult,
) -> None:
    trials = result.trials
    trials["h"] = trials["h"].where(trials["trial"] != BEST)
    figure = figures_space.plot_parallel_coordinates(trials, [BEST, 0], result.spec, BEST)
    others, strong, best = figure.data
    assert (others.name, strong.name, best.name) == ("other trials", "the best 2", "best")
    axes = [*result.spec.space, "clean", "PGD"]
    assert list(figure.layout.xaxis.ticktext) == axes
    assert len(best.x) == len(axes) + 1
    assert best.y[axes.index("h")] is None
    assert best.y[axes.index("lambda")] == pytest.approx(
        np.log(trials.set_index("trial").loc[BEST, "lambda"] / 0.003) / np.log(10 / 0.003), abs=1e-4
    )
    drawn = sum(list(trace.x).count(0) for trace in figure.data)
    assert drawn == trials["pgd_accuracy_best"].notna().sum()


def test_many_axes_need_a_width_at_which_they_can_be_read(result: SearchResult) -> None:
    spec = result.spec
    assert len(spec.space) == 4
    assert figures_space.least_width_of_parallel_coordinates(spec) == 0
    distribution = next(iter(spec.space.values()))
    wide = spec.model_copy(update={"space": {f"key_{index}": distribution for index in range(13)}})
    assert figures_space.least_width_of_parallel_coordinates(wide) > 60 * 15


def test_a_contour_covers_the_searched_ranges_on_their_scales(result: SearchResult) -> None:
    figure = figures_space.plot_contour(result.trials, result.trials, result.spec, "lambda", "h", BEST)
    surface = figure.data[0]
    assert (surface.x[0], surface.x[-1]) == pytest.approx((0.003, 10))
    assert (surface.y[0], surface.y[-1]) == pytest.approx((0.1, 2.0))
    assert np.diff(np.log(surface.x)) == pytest.approx(np.log(10 / 0.003) / (figures_space.GRID - 1))
    assert figure.layout.xaxis.type == "log"
    values = [of for row in surface.z for of in row if of is not None]
    reached = result.trials["pgd_accuracy_best"]
    assert reached.min() <= min(values) <= max(values) <= reached.max()


@pytest.mark.parametrize(("distribution", "format_of_ticks"), [
    ({"int": [1, 40]}, "d"), ({"uniform": [0.1, 2.0]}, None), ({"loguniform": [0.1, 2.0]}, None),
])  # fmt: skip
def test_the_vertical_axis_of_a_plane_of_two_hyperparameters_is_not_of_percentages(
    distribution: dict[str, list[float]], format_of_ticks: str | None, result: SearchResult
) -> None:
    spec = result.spec.model_copy(
        update={"space": {**result.spec.space, "h": Distribution.model_validate(distribution)}}
    )
    for figure in (
        figures_space.plot_contour(result.trials, result.trials, spec, "lambda", "h", BEST),
        figures_accuracies.plot_overfitting_map(result.trials, spec, "lambda", "h"),
    ):
        assert figure.layout.yaxis.tickformat == format_of_ticks


def test_importance_has_a_bar_per_hyperparameter_and_explained_quantity() -> None:
    shares = {"the best": {"lambda": 0.6, "h": 0.1}, "the first rung": {"h": 0.3}}
    best, rung = figures_space.plot_importance(shares).data
    assert list(best.y) == ["h", "lambda"]  # the most important on top
    assert list(best.x) == [0.1, 0.6]
    assert list(rung.x) == [0.3, 0.0]
