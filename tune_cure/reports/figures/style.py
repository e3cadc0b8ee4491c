"""What the plots of a search have in common: colors, symbols, axes, and which trials are drawn where there are many.

The figures name no text, axis or background color that would suit only one of light and dark: report.css gives these,
by the reader's preference. Colors of data are of the Okabe-Ito palette (its yellow darkened, to be seen on white),
which color-blind readers can tell apart and which reads on both; every color goes with a symbol of its own.
"""

import html
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.utils.formatting import STATUS_WORDS, format_percent, format_value

BEST_COLOR = "#D55E00"
START_COLOR = "#009E73"
OTHERS_COLOR = "rgba(128, 128, 128, 0.45)"
BLUE = "#0072B2"
GRAY = "#8A8A8A"
CROWD = 300  # points: more are drawn smaller


@dataclass(frozen=True)
class Status:
    """How a status is said and shown; `glyph` is the plots' `symbol` as a character, for legends and tables."""

    words: str
    color: str
    symbol: str
    glyph: str


STATUSES = {
    name: Status(STATUS_WORDS[name], color, symbol, glyph)
    for name, color, symbol, glyph in (
        ("completed", BLUE, "circle", "●"),
        ("stopped", GRAY, "triangle-down", "▼"),
        ("unfinished", "#56B4E9", "circle-open", "○"),
        ("catastrophic_overfitting", "#CC79A7", "x", "✖"),
        ("diverged", "#E69F00", "diamond", "◆"),
        ("failed", "#908928", "cross", "✚"),
    )
}


def blank_figure(x: str, y: str) -> go.Figure:
    """A figure without traces: the titles of its axes, the second of which is a fraction as a percentage."""
    axis = {"automargin": True, "zeroline": False, "showline": False, "ticks": "", "gridcolor": "rgba(128,128,128,.25)"}
    return go.Figure(
        layout={
            "template": "none",
            "autosize": True,
            "showlegend": False,  # the page's own legend wraps on narrow screens, plotly's does not
            "dragmode": False,  # on a touch screen a drag across a plot scrolls the page
            "hovermode": "closest",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": "#777777"},
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#888888", "activecolor": "#0072B2"},
            "xaxis": {**axis, "title": {"text": html.escape(x), "standoff": 8}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8}, "tickformat": ".0%"},
        }
    )


def sample_trials(ranked: pd.DataFrame, trials: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most about `most` of the trials, in their order: a browser chokes on tens of thousands of points.

    Those of start_from and all that ended in no common way as far as there is room, then half of the rest the best
    ones, half spread evenly over the search.
    """
    if len(trials) <= most:
        return trials
    rare = trials[(trials["origin"] == "start_from") | ~trials["status"].isin(["completed", "stopped"])]
    kept = set(rare["trial"].head(most // 4))
    kept |= set(ranked["trial"].head((most - len(kept)) // 2))
    others = trials.loc[~trials["trial"].isin(kept), "trial"]
    left = most - len(kept)
    kept |= set(others.iloc[[index * len(others) // left for index in range(left)]])
    return trials[trials["trial"].isin(kept)]


def add_points(figure: go.Figure, frame: pd.DataFrame, spec: SearchSpec, x: str, y: str, best: int | None) -> None:
    """Adds a trace of points for each status, and rings around the best trial and those of start_from."""
    frame = frame.dropna(subset=[x])  # trials in which this hyperparameter makes no difference have none
    for status, style in STATUSES.items():
        rows = frame[frame["status"] == status]
        if len(rows):
            figure.add_trace(
                go.Scatter(
                    name=style.words,
                    mode="markers",
                    **point_positions(rows, spec, x, y),
                    hovertext=[hover_text(row, spec) for _, row in rows.iterrows()],
                    hovertemplate="%{hovertext}<extra></extra>",
                    marker={
                        "symbol": style.symbol,
                        "color": style.color,
                        "size": 9 if len(frame) <= CROWD else 5,
                        "opacity": 0.85,
                    },
                )
            )
    rings = {
        "start_from": (frame[frame["origin"] == "start_from"], "square-open", START_COLOR),
        "best": (frame[frame["trial"] == best], "circle-open", BEST_COLOR),
    }
    for name, (rows, symbol, color) in rings.items():
        if len(rows):
            error = rows["pgd_accuracy_best_se"].tolist()
            figure.add_trace(
                go.Scatter(
                    name=name,
                    mode="markers",
                    **point_positions(rows, spec, x, y),
                    error_y={"array": error, "color": color, "thickness": 1.5, "width": 4},
                    hoverinfo="skip",  # the point within the ring answers
                    marker={"symbol": symbol, "color": color, "size": 16, "line": {"width": 2.5}},
                )
            )


def point_positions(rows: pd.DataFrame, spec: SearchSpec, x: str, y: str) -> dict[str, list[Any]]:
    """The x and y of a trace with a point per row: choices by their names, all else as numbers."""

    def along(column: str) -> list[Any]:
        is_choice = column in spec.space and spec.space[column].kind == "choice"
        return [format_value(at) if is_choice else float(at) for at in rows[column]]

    return {"x": along(x), "y": along(y)}


def hover_text(row: "pd.Series[Any]", spec: SearchSpec) -> str:
    """What is said of a trial where the pointer is."""
    started = " (start_from)" if row["origin"] == "start_from" else ""
    lines = [
        f"<b>trial {row['trial']}{started}</b>, {STATUSES[row['status']].words}",
        "never judged"
        if pd.isna(row["best_epoch"])
        else f"PGD {format_percent(row['pgd_accuracy_best'], row['pgd_accuracy_best_se'])}, "
        f"clean {format_percent(row['clean_accuracy_best'])}, epoch {row['best_epoch']:.0f}",
        *(f"{html.escape(key)} {html.escape(format_value(row[key]))}" for key in spec.space),
    ]
    return "<br>".join(lines)


def accuracy_range(values: "pd.Series[Any]") -> list[float]:
    """The axis around these fractions; never so narrow that noise would look like an effect."""
    if values.empty:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    margin = max(0.05, 0.08 * (high - low))
    return [max(low - margin, -0.02), min(high + margin, 1.02)]


def value_axis(distribution: Distribution) -> dict[str, Any]:
    """The axis of a searched hyperparameter: all of its range, whether or not a trial was there."""
    if distribution.kind == "choice":
        names = [format_value(choice) for choice in distribution.values]
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
            "range": [-0.5, len(names) - 0.5],
            "tickvals": names,
            "ticktext": [html.escape(name) for name in names],
        }
    low, high = map(float, distribution.values)
    if distribution.kind == "loguniform":
        return log_axis(low, high)
    whole = {"tickformat": "d", **({"dtick": 1} if high - low <= 10 else {})} if distribution.kind == "int" else {}
    return {"type": "linear", "range": _widened(low, high), "nticks": 6, **whole}


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis from `low` to `high`; these may be one."""
    low, high = (low, high) if low < high else (low / 2, high * 2)
    ticks = _log_ticks(low, high)
    labels = [f"{tick:g}" for tick in ticks]
    ends = _widened(math.log10(low), math.log10(high))
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": labels}


def _widened(low: float, high: float) -> list[float]:
    return [low - 0.06 * (high - low), high + 0.06 * (high - low)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … within the range if that gives few, else powers of ten, thinned to at most six."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high]
    coarse = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    return fine if len(fine) <= 6 else coarse[:: math.ceil(len(coarse) / 6)]
