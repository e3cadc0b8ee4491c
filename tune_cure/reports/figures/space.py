"""The plots of a search's space: what trials reached where in it. Pure functions from frames to plotly figures."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

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
from tune_cure.utils.formatting import format_value

GRID = 40  # points along each axis of a contour
BANDWIDTH = 0.1  # of a contour's smoothing, in widths of the space
NEAR = 0.4  # the sum of weights (a trial at the point has 1) below which a contour says nothing
PRIOR = 1.0  # weight of the mean of all: a single trial at the edge makes no mountain


def plot_hyperparameter(trials: pd.DataFrame, spec: SearchSpec, key: str, best: int | None) -> go.Figure:
    """PGD accuracy of each trial's best epoch against the searched hyperparameter `key`, over the searched range."""
    figure = blank_figure(key, "PGD accuracy")
    distribution = spec.space[key]
    reached = trials.dropna(subset=["pgd_accuracy_best"])
    add_points(figure, reached, spec, key, "pgd_accuracy_best", best)
    figure.update_xaxes(**value_axis(distribution))
    figure.update_yaxes(range=accuracy_range(reached["pgd_accuracy_best"]))
    return figure


def plot_importance(shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Bars of `importance.fanova`: for each of what was explained (by its words), the share of each hyperparameter."""
    figure = blank_figure("share of the variance", "")
    names = list(next(iter(shares.values())))[::-1]  # the most important on top
    for (words, of), color in zip(shares.items(), (BLUE, START_COLOR), strict=False):
        figure.add_trace(
            go.Bar(
                name=words,
                orientation="h",
                y=[html.escape(name) for name in names],
                x=[of.get(name, 0.0) for name in names],
                marker={"color": color},
                hovertemplate="%{y}: %{x:.0%}<extra>" + html.escape(words) + "</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(tickformat=None, ticklabelstandoff=6)
    return figure


def plot_parallel_coordinates(
    trials: pd.DataFrame, strong: Sequence[int], spec: SearchSpec, best: int | None
) -> go.Figure:
    """Parallel coordinates: a line per judged trial through its hyperparameters and accuracies, some of them strong.

    A line has a gap where a hyperparameter makes no difference.
    """
    figure = blank_figure("", "")
    shown = trials.dropna(subset=["pgd_accuracy_best"])
    accuracies = {"clean": "clean_accuracy_best", "PGD": "pgd_accuracy_best"}
    axes = {key: _places(shown[key], of) for key, of in spec.space.items()}
    around = {column: accuracy_range(shown[column].astype(float)) for column in accuracies.values()}
    ranges = {column: (max(low, 0.0), min(high, 1.0)) for column, (low, high) in around.items()}
    for name, column in accuracies.items():
        low, high = ranges[column]
        axes[name] = (shown[column].astype(float) - low) / (high - low)
    at = pd.DataFrame(axes, index=shown.index)
    groups = {
        "other trials": (~shown["trial"].isin(strong), OTHERS_COLOR, 1.0),
        f"the best {len(strong)}": (shown["trial"].isin(strong) & (shown["trial"] != best), BLUE, 1.6),
        "best": (shown["trial"] == best, BEST_COLOR, 3.0),
    }
    for name, (chosen, color, width) in groups.items():
        x: list[int | None] = []
        y: list[float | None] = []
        for row in at[chosen].itertuples(index=False):
            x += [*range(len(axes)), None]
            y += [*(None if pd.isna(of) else round(of, 4) for of in row), None]
        if x:
            line = {"color": color, "width": width}
            figure.add_trace(go.Scatter(name=name, mode="lines", x=x, y=y, line=line, hoverinfo="skip"))
    for index, name in enumerate(axes):
        figure.add_vline(x=index, line={"width": 1, "color": "rgba(128, 128, 128, 0.8)"}, layer="below")
        labels = (
            _ends(spec.space[name]) if name in spec.space else [f"{100 * of:.0f}%" for of in ranges[accuracies[name]]]
        )
        for height, label in zip(np.linspace(0, 1, len(labels)), labels, strict=True):
            figure.add_annotation(
                x=index, y=height, text=html.escape(label), showarrow=False, font={"size": 11}, xshift=3, xanchor="left"
            )
    figure.update_xaxes(
        range=[-0.25, len(axes) - 0.6], tickvals=list(range(len(axes))), ticktext=[html.escape(name) for name in axes]
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[-0.05, 1.05], showticklabels=False, showgrid=False, title=None)
    return figure


def _ends(distribution: Distribution) -> list[str]:
    return [
        format_value(float(of) if distribution.kind != "choice" and distribution.kind != "int" else of)
        for of in distribution.values
    ]


def _places(values: "pd.Series[Any]", distribution: Distribution) -> "pd.Series[Any]":
    """Where values lie in their range; NaN where there is none."""
    return values.map(distribution.place, na_action="ignore").astype(float)


def plot_contour(
    trials: pd.DataFrame, points: pd.DataFrame, spec: SearchSpec, x: str, y: str, best: int | None
) -> go.Figure:
    """The smoothed PGD accuracy of `trials` over the plane of two numeric hyperparameters, and `points`, some of them.

    A sample that prefers the best trials (`plotting.sample`) is for the points alone: the mean of it lies too high.
    """
    figure = blank_figure(x, y)
    judged = trials.dropna(subset=["pgd_accuracy_best", x, y])
    axes = {key: np.linspace(0, 1, GRID) for key in (x, y)}
    places = np.stack([_places(judged[key], spec.space[key]) for key in (x, y)], axis=1)
    surface = smooth_values(places, judged["pgd_accuracy_best"].to_numpy(dtype=float), axes[x], axes[y])
    figure.add_trace(
        go.Contour(
            x=_values(axes[x], spec.space[x]),
            y=_values(axes[y], spec.space[y]),
            z=[[None if np.isnan(of) else round(float(of), 4) for of in row] for row in surface],
            colorscale="Cividis",
            connectgaps=False,
            contours={"coloring": "heatmap", "showlines": True},
            line={"width": 0.5, "color": "rgba(255,255,255,.5)"},
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0, "len": 0.9},
            hovertemplate=f"{html.escape(x)} %{{x:.3g}}, {html.escape(y)} %{{y:.3g}}: PGD %{{z:.1%}}<extra></extra>",
        )
    )
    add_points(figure, points.dropna(subset=["pgd_accuracy_best", x, y]), spec, x, y, best)
    figure.for_each_trace(_outlined, selector={"type": "scatter"})
    figure.update_xaxes(**value_axis(spec.space[x]))
    figure.update_yaxes(tickformat=None, **value_axis(spec.space[y]))
    return figure


def _outlined(trace: go.Scatter) -> None:
    """Sets filled points off from the surface below them."""
    if not trace.marker.symbol.endswith("-open"):
        trace.update(marker={"line": {"width": 1, "color": "white"}, "opacity": 1})


def _values(places: "np.ndarray[Any, Any]", distribution: Distribution) -> list[float]:
    """The inverse of `Distribution.place` for a numeric hyperparameter."""
    low, high = map(float, distribution.values)
    if distribution.kind == "loguniform":
        return [float(low * (high / low) ** of) for of in places]
    return [float(low + (high - low) * of) for of in places]


def smooth_values(
    places: "np.ndarray[Any, Any]", values: "np.ndarray[Any, Any]", x: "np.ndarray[Any, Any]", y: "np.ndarray[Any, Any]"
) -> "np.ndarray[Any, Any]":
    """Nadaraya-Watson regression with a Gaussian kernel: the mean of the values, weighted by nearness.

    The mean of all values counts as one more value everywhere.

    Args:
        places: Where the values are, shape (N, 2), in the unit square.
        values: Shape (N,).
        x: The columns of the grid.
        y: Its rows.

    Returns:
        Shape (rows, columns); NaN where no value is near.
    """
    across = np.exp(-0.5 * ((x[:, None] - places[None, :, 0]) / BANDWIDTH) ** 2)
    along = np.exp(-0.5 * ((y[:, None] - places[None, :, 1]) / BANDWIDTH) ** 2)
    weights = along @ across.T
    means = ((along * values) @ across.T + PRIOR * values.mean()) / (weights + PRIOR)
    return np.where(weights >= NEAR, means, np.nan)
