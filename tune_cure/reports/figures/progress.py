"""Plots of the best result so far, of one search or of several: pure functions from data frames to plotly figures."""

from collections.abc import Iterable, Mapping
from html import escape

import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.style import (
    BEST_COLOR,
    BLUE,
    GRAY,
    ORANGE,
    PINK,
    SKY_BLUE,
    START_COLOR,
    accuracy_range,
    blank_figure,
)

COLORS = (BLUE, BEST_COLOR, START_COLOR, PINK, ORANGE, SKY_BLUE, GRAY)
DASHES = ("solid", "8,4", "2,3", "10,3,2,3", "16,5")  # lengths in pixels, as SVG takes them
MAX_MINUTES_HOURS = 3.0  # up to so many device hours, a plot shows minutes


def plot_by_epochs(frames: Mapping[str, pd.DataFrame], metrics: str) -> go.Figure:
    """Draw the leader's objective of each search against the number of epochs trained in all its trials.

    Args:
        frames: `lead.leader_progress` of each search by its name: columns `epochs`, `device_hours`,
            `trials`, `objective`, `trial`. At least one has rows.
        metrics: The title of the vertical axis.
    """
    return _plot_steps(frames, "epochs", 1, "epochs trained", metrics)


def plot_by_trials(frames: Mapping[str, pd.DataFrame], metrics: str) -> go.Figure:
    """Draw the leader's objective against the number of trials that had reported; arguments as in `plot_by_epochs`."""
    return _plot_steps(frames, "trials", 1, "trials", metrics)


def plot_by_hours(frames: Mapping[str, pd.DataFrame], metrics: str) -> go.Figure:
    """Draw the leader's objective of each search against device time; arguments as in `plot_by_epochs`."""
    longest = max(float(frame["device_hours"].iloc[-1]) for frame in frames.values() if len(frame))
    unit, parts = ("hours", 1) if longest > MAX_MINUTES_HOURS else ("minutes", 60)
    return _plot_steps(frames, "device_hours", parts, f"device {unit}", metrics)


def _plot_steps(frames: Mapping[str, pd.DataFrame], column: str, factor: int, x: str, y: str) -> go.Figure:
    """Draw a line of steps for each search, with `factor` times the column on the horizontal axis."""
    figure = blank_figure(x, escape(y))
    for number, (name, frame) in enumerate(frames.items()):
        color, dash = line_style(number)
        figure.add_trace(
            go.Scatter(
                name=escape(name),
                mode="lines",
                x=(factor * frame[column].astype(float)).round(4).tolist(),
                y=frame["objective"].astype(float).tolist(),
                hovertext=[f"trial {trial}" for trial in frame["trial"]],
                hovertemplate=f"{escape(name)}: %{{y:.1%}} after %{{x:.4g}}, %{{hovertext}}<extra></extra>",
                line={"color": color, "dash": plotly_dash(dash), "width": 2.5, "shape": "hv"},
            )
        )
    longest = factor * max(float(frame[column].iloc[-1]) for frame in frames.values() if len(frame))
    objectives = pd.concat([frame["objective"] for frame in frames.values()]).astype(float)
    figure.update_xaxes(range=[0, 1.03 * longest])
    figure.update_yaxes(range=accuracy_range(objectives))
    return figure


def line_style(number: int) -> tuple[str, str]:
    """Return the color and the dashes of the line of a search; the first 35 differ in one of the two."""
    return COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]


def plotly_dash(dash: str) -> str:
    """Return the dashes of a line as plotly takes them."""
    return dash if dash == "solid" else ",".join(f"{pixels}px" for pixels in dash.split(","))


def line_legend(names: Iterable[str]) -> str:
    """Return the legend of both plots as HTML."""
    items = []
    for number, name in enumerate(names):
        color, dash = line_style(number)
        dashes = "" if dash == "solid" else f' stroke-dasharray="{dash}"'
        line = f'<line x1="0" y1="5" x2="40" y2="5" stroke="{color}" stroke-width="3"{dashes}/>'
        items.append(f'<li><svg width="40" height="10" aria-hidden="true">{line}</svg> {escape(name)}</li>')
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'
