"""Plots of a search's space: which values reached what. Pure functions from data frames to plotly figures.

`trials` is the frame of `SearchResult`; docs/columns.md describes its columns.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from tune_cure.reports.figures.style import (
    BEST_COLOR,
    BLUE,
    OTHERS_COLOR,
    START_COLOR,
    accuracy_range,
    add_points,
    blank_figure,
    value_axis,
)
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.space.radii import format_setting
from tune_cure.utils.formatting import format_percent

GRID = 40  # points along each axis of a contour
BANDWIDTH = 0.1  # standard deviation of a contour's smoothing, as a share of the searched range
MIN_WEIGHT = 0.4  # a contour is blank where the trials' weights (1 for a trial at the point itself) sum to less
PRIOR = 1.0  # weight of the mean of all trials, so that a single trial at the edge makes no mountain
ACCURACY_AXES = {"clean": "clean_accuracy_best", "PGD": "pgd_accuracy_best"}
"""The last axes of the parallel coordinates, with their columns."""
AXIS_WIDTH = 72  # pixels of an axis with its labels
MAX_AXES_OF_A_PHONE = 6


def plot_hyperparameter(trials: pd.DataFrame, spec: SearchSpec, key: str, best: int | None) -> go.Figure:
    """Draw the best PGD accuracy of each trial against one hyperparameter, over the whole searched range.

    Args:
        trials: Columns `key`, `trial`, `status`, `origin`, `pgd_accuracy_best`, `pgd_accuracy_best_se`,
            `clean_accuracy_best`, `best_epoch`, and those of the other hyperparameters.
        spec: The search.
        key: The hyperparameter.
        best: The number of the best trial; None if there is none.
    """
    figure = blank_figure(key, "PGD accuracy")
    reached = trials.dropna(subset=["pgd_accuracy_best"])
    add_points(figure, reached, spec, key, "pgd_accuracy_best", best)
    figure.update_xaxes(**value_axis(spec, key))
    figure.update_yaxes(range=accuracy_range(reached["pgd_accuracy_best"]))
    return figure


def plot_importance(shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Draw the share of the variance that each hyperparameter explains, as bars.

    Args:
        shares: For each explained quantity (in words) the result of `importance.fanova`: a share of 1 by
            hyperparameter. At most two quantities; the first one sets the order.
    """
    figure = blank_figure("share of the variance", "")
    names = list(next(iter(shares.values())))[::-1]  # plotly draws from the bottom: the most important is on top
    for (words, share), color in zip(shares.items(), (BLUE, START_COLOR), strict=False):
        figure.add_trace(
            go.Bar(
                name=words,
                orientation="h",
                y=[html.escape(name) for name in names],
                x=[share.get(name, 0.0) for name in names],
                marker={"color": color},
                hovertemplate="%{y}: %{x:.0%}<extra>" + html.escape(words) + "</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(tickformat=None, ticklabelstandoff=6)
    return figure


def least_width_of_parallel_coordinates(spec: SearchSpec) -> int:
    """Return the width in pixels at which the labels of all axes can be read; 0 if they are few enough for a phone."""
    axes = len(spec.space) + len(ACCURACY_AXES)
    return AXIS_WIDTH * axes if axes > MAX_AXES_OF_A_PHONE else 0


def plot_parallel_coordinates(
    trials: pd.DataFrame, strong: Sequence[int], spec: SearchSpec, best: int | None
) -> go.Figure:
    """Draw each judged trial as a line through its hyperparameters and accuracies.

    A line has a gap where a hyperparameter has no effect.

    Args:
        trials: Columns `trial`, `clean_accuracy_best`, `pgd_accuracy_best`, and those of the hyperparameters.
        strong: The numbers of the trials whose lines are emphasized.
        spec: The search.
        best: The number of the best trial; None if there is none.
    """
    figure = blank_figure("", "")
    shown = trials.dropna(subset=["pgd_accuracy_best"])
    around = {column: accuracy_range(shown[column].astype(float)) for column in ACCURACY_AXES.values()}
    ranges = {column: (max(low, 0.0), min(high, 1.0)) for column, (low, high) in around.items()}
    heights = _axis_heights(shown, spec, ranges)
    groups = {
        "other trials": (~shown["trial"].isin(strong), OTHERS_COLOR, 1.0),
        f"the best {len(strong)}": (shown["trial"].isin(strong) & (shown["trial"] != best), BLUE, 1.6),
        "best": (shown["trial"] == best, BEST_COLOR, 3.0),
    }
    for name, (chosen, color, width) in groups.items():
        if chosen.any():
            figure.add_trace(_parallel_lines(heights[chosen], name, color, width))
    labels = {key: _range_labels(spec, key) for key in spec.space}
    labels |= {
        name: [format_percent(end, digits=0) for end in ranges[column]] for name, column in ACCURACY_AXES.items()
    }
    _add_parallel_axes(figure, labels)
    return figure


def _axis_heights(shown: pd.DataFrame, spec: SearchSpec, ranges: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Return where each trial crosses each axis, from 0 (bottom) to 1 (top); NaN where it has no value."""
    heights = {key: _normalize(shown[key], distribution) for key, distribution in spec.space.items()}
    for name, column in ACCURACY_AXES.items():
        low, high = ranges[column]
        heights[name] = (shown[column].astype(float) - low) / (high - low)
    return pd.DataFrame(heights, index=shown.index)


def _parallel_lines(heights: pd.DataFrame, name: str, color: str, width: float) -> go.Scatter:
    """Return the lines of several trials as one trace, with a gap after each."""
    x: list[int | None] = []
    y: list[float | None] = []
    for row in heights.itertuples(index=False):
        x += [*range(len(heights.columns)), None]
        y += [*(None if pd.isna(height) else round(height, 4) for height in row), None]
    return go.Scatter(name=name, mode="lines", x=x, y=y, line={"color": color, "width": width}, hoverinfo="skip")


def _add_parallel_axes(figure: go.Figure, labels: Mapping[str, Sequence[str]]) -> None:
    """Add a vertical line for each axis, with the labels spread evenly along it."""
    for index, texts in enumerate(labels.values()):
        figure.add_vline(x=index, line={"width": 1, "color": "rgba(128, 128, 128, 0.8)"}, layer="below")
        for height, text in zip(np.linspace(0, 1, len(texts)), texts, strict=True):
            figure.add_annotation(
                x=index, y=height, text=html.escape(text), showarrow=False, font={"size": 11}, xshift=3, xanchor="left"
            )
    figure.update_xaxes(
        range=[-0.25, len(labels) - 0.6],
        tickvals=list(range(len(labels))),
        ticktext=[html.escape(name) for name in labels],
        showgrid=False,
    )
    figure.update_yaxes(range=[-0.05, 1.05], showticklabels=False, showgrid=False, title=None)


def _range_labels(spec: SearchSpec, key: str) -> list[str]:
    """Return the labels of an axis: the choices, or the two ends of the range."""
    is_exact = spec.space[key].kind in ("choice", "int")
    return [format_setting(spec, key, value if is_exact else float(value)) for value in spec.space[key].values]


def _normalize(values: "pd.Series[Any]", distribution: Distribution) -> "pd.Series[Any]":
    """Return where values lie in their range, from 0 to 1; NaN where there is no value."""
    return values.map(distribution.position, na_action="ignore").astype(float)


def finished_trials(trials: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the trials that ran to their end and have both hyperparameters.

    What a trial reached that was stopped early says when it was stopped, and would lower the surface around it.
    """
    return trials[trials["status"] == "completed"].dropna(subset=["pgd_accuracy_best", x, y])


def plot_contour(
    trials: pd.DataFrame, points: pd.DataFrame, spec: SearchSpec, x: str, y: str, best: int | None
) -> go.Figure:
    """Draw the smoothed PGD accuracy of the finished trials over the plane of two numeric hyperparameters.

    Args:
        trials: `finished_trials` of the search: columns `x`, `y`, `pgd_accuracy_best`. The surface is made from all of
            them. A sample that prefers the best trials (`style.sample_trials`) would raise it.
        points: The trials drawn as points: columns as in `plot_hyperparameter`.
        spec: The search.
        x: The hyperparameter of the horizontal axis.
        y: The hyperparameter of the vertical axis.
        best: The number of the best trial; None if there is none.
    """
    figure = blank_figure(x, y)
    judged = trials.dropna(subset=["pgd_accuracy_best", x, y])
    grid = np.linspace(0, 1, GRID)
    places = np.stack([_normalize(judged[key], spec.space[key]) for key in (x, y)], axis=1)
    surface = smooth_values(places, judged["pgd_accuracy_best"].to_numpy(dtype=float), grid, grid)
    figure.add_trace(
        go.Contour(
            x=_denormalize(grid, spec.space[x]),
            y=_denormalize(grid, spec.space[y]),
            z=[[None if np.isnan(height) else round(float(height), 4) for height in row] for row in surface],
            colorscale="Cividis",
            connectgaps=False,
            contours={"coloring": "heatmap", "showlines": True},
            line={"width": 0.5, "color": "rgba(255,255,255,.5)"},
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0, "len": 0.9},
            hovertemplate=f"{html.escape(x)} %{{x:.3g}}, {html.escape(y)} %{{y:.3g}}: PGD %{{z:.1%}}<extra></extra>",
        )
    )
    add_points(figure, points.dropna(subset=["pgd_accuracy_best", x, y]), spec, x, y, best)
    figure.for_each_trace(_outline, selector={"type": "scatter"})
    figure.update_xaxes(**value_axis(spec, x))
    figure.update_yaxes(tickformat=None).update_yaxes(**value_axis(spec, y))
    return figure


def _outline(trace: go.Scatter) -> None:
    """Give filled points a white edge, so that they stand out from the surface."""
    if not trace.marker.symbol.endswith("-open"):
        trace.update(marker={"line": {"width": 1, "color": "white"}, "opacity": 1})


def _denormalize(places: NDArray[Any], distribution: Distribution) -> list[float]:
    """Return the inverse of `Distribution.position` for a numeric hyperparameter."""
    low, high = map(float, distribution.values)
    if distribution.kind == "loguniform":
        return [float(low * (high / low) ** place) for place in places]
    return [float(low + (high - low) * place) for place in places]


def smooth_values(places: NDArray[Any], values: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of the values weighted by a Gaussian kernel: Nadaraya-Watson regression.

    The mean of all values counts everywhere as one more value with weight `PRIOR`.

    Args:
        places: Where the values are, shape (N, 2), in the unit square.
        values: Shape (N,).
        x: The columns of the grid, shape (columns,), in the unit interval.
        y: The rows of the grid, shape (rows,), in the unit interval.

    Returns:
        Shape (rows, columns); NaN where no value is near.
    """
    across = np.exp(-0.5 * ((x[:, None] - places[None, :, 0]) / BANDWIDTH) ** 2)
    along = np.exp(-0.5 * ((y[:, None] - places[None, :, 1]) / BANDWIDTH) ** 2)
    weights = along @ across.T
    means = ((along * values) @ across.T + PRIOR * values.mean()) / (weights + PRIOR)
    return np.where(weights >= MIN_WEIGHT, means, np.nan)
