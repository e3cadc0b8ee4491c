"""Plots of a league: pure functions from its standings to plotly figures."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.progress import line_style, plotly_dash
from tune_cure.reports.figures.style import (
    BEST_COLOR,
    BLUE,
    GRAY,
    SKY_BLUE,
    START_COLOR,
    accuracy_range,
    blank_figure,
    log_axis,
)
from tune_cure.utils.formatting import format_duration

WINNER_COLOR, PRESET_COLOR = BLUE, GRAY


def plot_costs(costs: pd.DataFrame, label: str) -> go.Figure:
    """Draw accuracy against training time: a numbered disc for each winner, an open one for its untuned preset.

    Args:
        costs: `Standings.costs`; the number of a disc is the rank of its method.
        label: The attack, as people write it.
    """
    figure = blank_figure("seconds of training", f"{escape(label)} accuracy")
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys(costs["method"]), 1)}
    front = costs[costs["front"]].drop_duplicates(["train_seconds", "robust"]).sort_values("train_seconds")
    figure.add_trace(
        go.Scatter(
            name="Pareto front",
            mode="lines",
            x=front["train_seconds"].tolist(),
            y=front["robust"].tolist(),
            line={"color": SKY_BLUE, "width": 2, "dash": "dash", "shape": "hv"},
            hoverinfo="skip",
        )
    )
    for _, group in costs.groupby("method", sort=False):
        if len(group) == 2:
            figure.add_trace(_link(group))
    for kind, color, symbol in (("preset", PRESET_COLOR, "circle-open"), ("winner", WINNER_COLOR, "circle")):
        rows = costs[costs["kind"].eq(kind)]
        numbers = [str(ranks[name]) for name in rows["method"]]
        figure.add_trace(
            go.Scatter(
                name=kind,
                mode="markers+text",
                x=rows["train_seconds"].tolist(),
                y=rows["robust"].tolist(),
                text=numbers,
                textfont={"color": "#ffffff" if kind == "winner" else color, "size": 11},
                marker={"symbol": symbol, "color": color, "size": 19, "line": {"width": 1.5}},
                cliponaxis=False,
                hovertext=[_hover_text(row) for _, row in rows.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_xaxes(**log_axis(float(costs["train_seconds"].min()), float(costs["train_seconds"].max())))
    figure.update_yaxes(range=accuracy_range(costs["robust"]))
    return figure


def _hover_text(row: "pd.Series[Any]") -> str:
    took = format_duration(row["train_seconds"])
    return f"<b>{escape(row['candidate'])}</b>: {100 * row['robust']:.1f}%, {took}"


def _link(group: pd.DataFrame) -> go.Scatter:
    """Return the line from a preset to the winner of the same method."""
    return go.Scatter(
        name="tuning",
        mode="lines",
        x=group["train_seconds"].tolist(),
        y=group["robust"].tolist(),
        line={"color": "rgba(128,128,128,.5)", "width": 1},
        hoverinfo="skip",
    )


def plot_intervals(rows: pd.DataFrame, title: str) -> go.Figure:
    """Draw differences with their intervals, a row for each, the first at the top; a line marks no difference.

    Args:
        rows: Columns `name`, `difference`, `low`, `high` (fractions) and `verdict`.
        title: The title of the horizontal axis.
    """
    figure = blank_figure(title, "")
    shown = rows[::-1]
    colors = {"better": START_COLOR, "worse": BEST_COLOR}
    figure.add_trace(
        go.Scatter(
            name="difference",
            mode="markers",
            x=shown["difference"].tolist(),
            y=[escape(name) for name in shown["name"]],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (shown["high"] - shown["difference"]).tolist(),
                "arrayminus": (shown["difference"] - shown["low"]).tolist(),
                "color": GRAY,
                "thickness": 1.5,
                "width": 4,
            },
            marker={"size": 9, "color": [colors.get(verdict, GRAY) for verdict in shown["verdict"]]},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": "rgba(128,128,128,.8)", "width": 1, "dash": "dot"})
    figure.update_layout(margin_r=24)
    figure.update_xaxes(tickformat="+.0%")
    figure.update_yaxes(**_named_rows(shown["name"]))
    return figure


def _named_rows(names: Iterable[str]) -> dict[str, Any]:
    """Return a vertical axis with a row for each name, from below, also for names that are numbers."""
    categories = [escape(name) for name in names]
    return {
        "tickformat": None,
        "ticklabelstandoff": 6,
        "type": "category",
        "categoryorder": "array",
        "categoryarray": categories,
        "range": [-0.6, len(categories) - 0.4],
    }


def plot_curves(curves: Mapping[str, Sequence[pd.DataFrame]]) -> go.Figure:
    """Draw the PGD accuracy of the winners' trainings by epoch, with a line for each seed.

    Args:
        curves: For each method a frame for each seed, with the columns `epoch` and `pgd_accuracy`.
    """
    figure = blank_figure("epoch", "PGD accuracy")
    for number, (name, frames) in enumerate(curves.items()):
        color, dash = line_style(number)
        for frame in frames:
            figure.add_trace(
                go.Scatter(
                    name=escape(name),
                    mode="lines",
                    x=frame["epoch"].tolist(),
                    y=frame["pgd_accuracy"].astype(float).tolist(),
                    line={"color": color, "dash": plotly_dash(dash), "width": 1.8},
                    opacity=0.85,
                    hovertemplate=f"{escape(name)}: %{{y:.1%}} after epoch %{{x}}<extra></extra>",
                )
            )
    every = pd.concat([frame for frames in curves.values() for frame in frames])
    figure.update_xaxes(range=[0.6, float(every["epoch"].max()) + 0.4])
    figure.update_yaxes(range=accuracy_range(every["pgd_accuracy"].astype(float)))
    return figure


def plot_trials(trials: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Draw the best PGD accuracy of each trial that ran to its end as a point, with a row for each method.

    Args:
        trials: For each method its trials: columns `trial` and `pgd_accuracy_best`.
    """
    figure = blank_figure("PGD accuracy on validation images", "")
    names = list(trials)[::-1]
    figure.add_trace(
        go.Scatter(
            name="trial",
            mode="markers",
            x=[float(value) for name in names for value in trials[name]["pgd_accuracy_best"]],
            y=[escape(name) for name in names for _ in range(len(trials[name]))],
            hovertext=[f"trial {number}" for name in names for number in trials[name]["trial"]],
            hovertemplate="%{y}, %{hovertext}: %{x:.1%}<extra></extra>",
            marker={"size": 8, "color": BLUE, "opacity": 0.55},
        )
    )
    every = pd.concat([frame["pgd_accuracy_best"].astype(float) for frame in trials.values()])
    figure.update_layout(margin_r=24)
    figure.update_xaxes(tickformat=".0%", range=accuracy_range(every))
    figure.update_yaxes(**_named_rows(names))
    return figure
