import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from tests.support.journals import BEST, write_search
from tune_cure.reports.figures import accuracies as figures, catalog, cost, files, space, static
from tune_cure.reports.figures.catalog import Plot
from tune_cure.reports.figures.style import STATUS_STYLES, blank_figure
from tune_cure.search.results import SearchResult
from tune_cure.search.space.distributions import Distribution


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("run")
    write_search(folder)
    return SearchResult(folder)


@pytest.fixture(scope="module")
def drawn(result: SearchResult) -> list[Plot]:
    return catalog.build_plots(result)


@pytest.mark.parametrize("third", range(3))
def test_every_figure_of_the_report_is_written_as_svg_and_png(third: int, drawn: list[Plot], tmp_path: Path) -> None:
    plots = drawn[third::3]
    assert plots
    folder = files.write_figures(tmp_path, plots)
    assert {path.name for path in folder.iterdir()} == {f"{plot.name}.{of}" for plot in plots for of in ("svg", "png")}
    for plot in plots:
        ElementTree.parse(folder / f"{plot.name}.svg")
        inches = static.SMALL if plot.small else static.WIDE
        with Image.open(folder / f"{plot.name}.png") as image:
            assert image.size == tuple(round(side * static.DOTS_PER_INCH) for side in inches)
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_every_symbol_of_the_report_can_be_drawn() -> None:
    styles = [*STATUS_STYLES.values(), *figures.OVERFITTING_STYLES.values()]
    symbols = {style.symbol for style in styles} | {symbol for _, symbol, _ in figures.LINE_STYLES}
    assert {symbol.removesuffix("-open") for symbol in symbols} <= static.MARKERS.keys()


def test_a_trial_that_recovered_from_overfitting_is_drawn(result: SearchResult, tmp_path: Path) -> None:
    trials = result.trials.assign(catastrophic_overfitting_epoch=3.0, recovery_epoch=5.0).head(3)
    figure = figures.plot_overfitting_map(trials, result.spec, "lambda", "h")
    folder = files.write_figures(tmp_path, [Plot("map", "overfitting", figure, "")])
    ElementTree.parse(folder / "map.svg")
    with Image.open(folder / "map.png") as image:
        colors = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    assert (colors.max(axis=1) - colors.min(axis=1)).max() > 50  # the symbols are pink, all else is gray


def test_open_symbols_have_an_edge(result: SearchResult) -> None:
    figure = blank_figure("x", "y")
    figure.add_trace(go.Scatter(name="a", mode="markers", x=[1], y=[1], marker={"symbol": "circle-open", "size": 9}))
    figure.update_traces(marker_color="red")
    assert static.draw_figure(figure, static.SMALL).axes[0].get_lines()[0].get_markeredgewidth() > 0


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    figure = blank_figure("$\\frac{$", "$x^2$ & 1")
    figure.add_trace(
        go.Scatter(name="$\\frac{$", mode="lines", x=[1, 2], y=[0.5, 1.0], line={"color": "red", "width": 1})
    )
    folder = files.write_figures(tmp_path, [Plot("x", "curves", figure, "")])
    assert "$\\frac{$" in (folder / "x.svg").read_text()


def test_the_same_run_gives_the_same_files(drawn: list[Plot], tmp_path: Path) -> None:
    folder = files.write_figures(tmp_path, drawn[:2])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.write_figures(tmp_path, drawn[:2])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_points_and_axes_are_those_of_the_plotly_figure(result: SearchResult) -> None:
    source = figures.plot_tradeoff(result.trials, result.spec, BEST)
    axes = static.draw_figure(source, static.WIDE).axes[0]
    assert axes.get_xlim() == pytest.approx(tuple(source.layout.xaxis.range))
    assert axes.get_ylabel() == "PGD accuracy"
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]  # the others are error bars
    for trace, line in zip(source.data, lines, strict=True):
        assert line.get_label() == trace.name
        np.testing.assert_allclose(line.get_xdata(), trace.x)
        np.testing.assert_allclose(line.get_ydata(), trace.y)


def test_logarithmic_and_category_axes_keep_their_scale(result: SearchResult) -> None:
    spec, trials = result.spec, result.trials
    logarithmic = static.draw_figure(space.plot_hyperparameter(trials, spec, "lambda", BEST), static.SMALL).axes[0]
    assert logarithmic.get_xscale() == "log"
    assert logarithmic.get_xlim()[0] < 0.003 < 10 < logarithmic.get_xlim()[1]
    category = static.draw_figure(space.plot_hyperparameter(trials, spec, "momentum", BEST), static.SMALL).axes[0]
    assert [label.get_text() for label in category.get_xticklabels()] == ["0", "0.9"]
    assert {x for line in category.get_lines() for x in line.get_xdata()} <= {0.0, 1.0}


def test_a_trial_whose_choice_the_search_space_does_not_list_lies_beyond_the_axis(result: SearchResult) -> None:
    momentum = Distribution.model_validate({"choice": [0.9, 0.95]})
    spec = result.spec.model_copy(update={"space": {**result.spec.space, "momentum": momentum}})
    figure = static.draw_figure(space.plot_hyperparameter(result.trials, spec, "momentum", BEST), static.SMALL)
    axes = figure.axes[0]
    assert axes.get_xlim() == (-0.5, 1.5)
    places = {float(x) for line in axes.lines for x in line.get_xdata()}
    assert {0.0, 2.0} <= places  # 0.9, and 0 beside the axis
    assert 1.0 not in places


def test_stacked_bars_lie_on_each_other(result: SearchResult) -> None:
    source = cost.plot_seconds(result.trials)
    axes = static.draw_figure(source, static.WIDE).axes[0]
    tops = [container[0].get_y() + container[0].get_height() for container in axes.containers]
    assert tops == pytest.approx(np.cumsum([trace.y[0] for trace in source.data]))


def test_html_of_the_page_becomes_plain_text_on_paper() -> None:
    figure = blank_figure("a < b", "")
    figure.add_trace(
        go.Scatter(name="x &amp; y", mode="lines", x=[0, 1], y=[0, None], line={"color": "#000000", "width": 1})
    )
    axes = static.draw_figure(figure, static.SMALL).axes[0]
    assert axes.get_xlabel() == "a < b"
    assert axes.get_lines()[0].get_label() == "x & y"


def test_a_plot_takes_the_name_of_its_file(tmp_path: Path) -> None:
    figure = blank_figure("x", "y")
    figure.add_trace(go.Scatter(name="a", mode="lines", x=[0, 1], y=[0, 1], line={"color": "#000000", "width": 1}))
    folder = files.write_figures(tmp_path, [Plot("one", "curves", figure, "")])
    assert sorted(path.name for path in folder.iterdir()) == ["one.png", "one.svg"]
