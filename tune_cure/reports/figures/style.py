"""Common parts of a search's plots: colors, symbols, axes, hover text, and the sample drawn of many trials.

The figures set no color of text, axes or background: report.css does, since these depend on the reader's light or dark
mode. The colors of data are the Okabe-Ito palette, which color-blind readers can tell apart; its yellow is darkened so
that it shows on white. Every color goes with a symbol of its own.
"""

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.radii import LEVELS, format_setting, is_in_255ths
from tune_cure.utils.formatting import STATUS_WORDS, format_percent

BEST_COLOR = "#D55E00"
START_COLOR = "#009E73"
OTHERS_COLOR = "rgba(128, 128, 128, 0.45)"
BLUE = "#0072B2"
SKY_BLUE = "#56B4E9"
ORANGE = "#E69F00"
PINK = "#CC79A7"
GRAY = "#8A8A8A"
MAX_LARGE_POINTS = 300  # a plot of more points draws them smaller
MIN_MARGIN = 0.05  # of an accuracy axis on each side, so that noise does not look like an effect
MAX_LOG_TICKS = 6
MAX_RADIUS_TICKS = 4  # their labels are long: 12/255


@dataclass(frozen=True)
class StatusStyle:
    """Look of the trials of one status.

    Attributes:
        color: The color of their points and lines.
        symbol: Plotly's name of their symbol.
        glyph: The same symbol as a character, for legends and tables.
    """

    color: str
    symbol: str
    glyph: str


STATUS_STYLES = {
    "completed": StatusStyle(BLUE, "circle", "●"),
    "stopped": StatusStyle(GRAY, "triangle-down", "▼"),
    "unfinished": StatusStyle(SKY_BLUE, "circle-open", "○"),
    "catastrophic_overfitting": StatusStyle(PINK, "x", "✖"),
    "diverged": StatusStyle(ORANGE, "diamond", "◆"),
    "failed": StatusStyle("#908928", "cross", "✚"),
}
"""By the statuses of `formatting.STATUS_WORDS`, in the same order."""


def blank_figure(x: str, y: str) -> go.Figure:
    """Return a figure without traces.

    Args:
        x: Title of the horizontal axis, plain text.
        y: Title of the vertical axis, HTML. The axis shows fractions as percentages.
    """
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
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#888888", "activecolor": BLUE},
            "xaxis": {**axis, "title": {"text": html.escape(x), "standoff": 8}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8}, "tickformat": ".0%"},
        }
    )


def sample_trials(ranked: pd.DataFrame, trials: pd.DataFrame, limit: int, always: Collection[int] = ()) -> pd.DataFrame:
    """Return about `limit` of the trials in their order: a browser is slow with tens of thousands of points.

    Up to a quarter are trials of `start_from` and trials with unusual ends. The trials of `always` are added. Half of
    the rest are the best trials, the other half are spread evenly over the search.

    Args:
        ranked: The judged trials, best first: `SearchResult.leaders`.
        trials: All trials: `SearchResult.trials`.
        limit: The number of trials to draw. Fewer trials are returned as they are.
        always: Numbers of trials that the sample has in any case.
    """
    if len(trials) <= limit:
        return trials
    rare = trials[(trials["origin"] == "start_from") | ~trials["status"].isin(["completed", "stopped"])]
    kept = {*rare["trial"].head(limit // 4), *always}
    kept |= set(ranked["trial"].head(max(0, limit - len(kept)) // 2))
    others = trials.loc[~trials["trial"].isin(kept), "trial"]
    free = max(0, limit - len(kept))
    kept |= set(others.iloc[[index * len(others) // free for index in range(free)]])
    return trials[trials["trial"].isin(kept)]


def add_points(
    figure: go.Figure,
    trials: pd.DataFrame,
    spec: SearchSpec,
    x: str,
    y: str,
    best: int | None,
    rim: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Add a trace of points for each status, and rings around the best trial and those of `start_from`.

    The rings have error bars if `y` is the accuracy whose standard error the trials have.

    Args:
        figure: The figure to add to.
        trials: Rows of `SearchResult.trials`. A row without a value in column `x` is left out: its hyperparameter
            has no effect in that trial.
        spec: The search.
        x: The column of the horizontal axis.
        y: The column of the vertical axis.
        best: The number of the best trial; None if there is none.
        rim: The two ends of the axis of a column; a point beyond them is drawn at the nearer end. None for no column.
    """
    trials = trials.dropna(subset=[x])
    rim = rim or {}
    for status, style in STATUS_STYLES.items():
        rows = trials[trials["status"] == status]
        if len(rows):
            figure.add_trace(
                go.Scatter(
                    name=STATUS_WORDS[status],
                    mode="markers",
                    cliponaxis=not rim,  # points at the rim would be cut in half
                    **point_positions(rows, spec, x, y, rim),
                    hovertext=[hover_text(row, spec) for _, row in rows.iterrows()],
                    hovertemplate="%{hovertext}<extra></extra>",
                    marker={
                        "symbol": style.symbol,
                        "color": style.color,
                        "size": 9 if len(trials) <= MAX_LARGE_POINTS else 5,
                        "opacity": 0.85,
                    },
                )
            )
    rings = {
        "start_from": (trials[trials["origin"] == "start_from"], "square-open", START_COLOR),
        "best": (trials[trials["trial"] == best], "circle-open", BEST_COLOR),
    }
    for name, (rows, symbol, color) in rings.items():
        if len(rows):
            errors = rows["pgd_accuracy_best_se"].tolist() if y == "pgd_accuracy_best" else None
            figure.add_trace(_rings(name, point_positions(rows, spec, x, y, rim), errors, symbol, color))


def _rings(name: str, places: dict[str, list[Any]], errors: list[float] | None, symbol: str, color: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        mode="markers",
        **places,
        error_y=errors and {"array": errors, "color": color, "thickness": 1.5, "width": 4},
        hoverinfo="skip",  # the point inside the ring answers
        marker={"symbol": symbol, "color": color, "size": 16, "line": {"width": 2.5}},
    )


def point_positions(
    rows: pd.DataFrame, spec: SearchSpec, x: str, y: str, rim: Mapping[str, Sequence[float]] | None = None
) -> dict[str, list[Any]]:
    """Return the `x` and `y` of a trace with a point per row: choices as text, all other values as numbers.

    `rim` is that of `add_points`.
    """

    def values(column: str) -> list[Any]:
        if column in spec.space and spec.space[column].kind == "choice":
            return [format_setting(spec, column, value) for value in rows[column]]
        low, high = (rim or {}).get(column, (-math.inf, math.inf))
        return [min(max(float(value), low), high) for value in rows[column]]

    return {"x": values(x), "y": values(y)}


def hover_text(row: "pd.Series[Any]", spec: SearchSpec) -> str:
    """Return what the page shows of a trial under the pointer, as HTML."""
    origin = " (start_from)" if row["origin"] == "start_from" else ""
    lines = [
        f"<b>trial {row['trial']}{origin}</b>, {STATUS_WORDS[row['status']]}",
        "never judged"
        if pd.isna(row["best_epoch"])
        else f"PGD {format_percent(row['pgd_accuracy_best'], row['pgd_accuracy_best_se'])}, "
        f"clean {format_percent(row['clean_accuracy_best'])}, epoch {row['best_epoch']:.0f}",
        *(f"{html.escape(key)} {html.escape(format_setting(spec, key, row[key]))}" for key in spec.space),
    ]
    return "<br>".join(lines)


def accuracy_range(values: "pd.Series[Any]") -> list[float]:
    """Return the two ends of an axis around these accuracies (fractions)."""
    if values.empty:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    margin = max(MIN_MARGIN, 0.08 * (high - low))
    return [max(low - margin, -0.02), min(high + margin, 1.02)]


def value_axis(spec: SearchSpec, key: str) -> dict[str, Any]:
    """Return the axis of a searched hyperparameter. It covers the whole searched range, with or without trials."""
    distribution, in_255ths = spec.space[key], is_in_255ths(spec, key)
    if distribution.kind == "choice":
        names = [format_setting(spec, key, choice) for choice in distribution.values]
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
        return _in_255ths(log_axis(LEVELS * low, LEVELS * high)) if in_255ths else log_axis(low, high)
    if in_255ths:
        places = _even_ticks(LEVELS * low, LEVELS * high)
        labels = [f"{place:g}" for place in places]
        ends = _widen(LEVELS * low, LEVELS * high)
        return _in_255ths({"type": "linear", "range": ends, "tickvals": places, "ticktext": labels})
    ticks = {"tickformat": "d", **({"dtick": 1} if high - low <= 10 else {})} if distribution.kind == "int" else {}
    return {"type": "linear", "range": _widen(low, high), "nticks": 6, **ticks}


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Return a logarithmic axis from `low` to `high`. If these are equal, it reaches from half to twice the value."""
    low, high = (low, high) if low < high else (low / 2, high * 2)
    ticks = _log_ticks(low, high)
    labels = [f"{tick:g}" for tick in ticks]
    ends = _widen(math.log10(low), math.log10(high))
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": labels}


def _in_255ths(axis: dict[str, Any]) -> dict[str, Any]:
    """Return the axis of a radius from that of 255 times the radius; its labels are then in 1/255."""
    is_log = axis["type"] == "log"
    ends = [end - math.log10(LEVELS) if is_log else end / LEVELS for end in axis["range"]]
    ticks, labels = [tick / LEVELS for tick in axis["tickvals"]], [f"{label}/{LEVELS}" for label in axis["ticktext"]]
    return {**axis, "range": ends, "tickvals": ticks, "ticktext": labels}


def _even_ticks(low: float, high: float) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten from `low` to `high`: at most `MAX_RADIUS_TICKS`."""
    steps = (step * 10.0**decade for decade in range(-3, 3) for step in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= MAX_RADIUS_TICKS - 1)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _widen(low: float, high: float) -> list[float]:
    return [low - 0.06 * (high - low), high + 0.06 * (high - low)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, … within the range if these are few; else powers of ten, at most `MAX_LOG_TICKS` of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high]
    coarse = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    return fine if len(fine) <= MAX_LOG_TICKS else coarse[:: math.ceil(len(coarse) / MAX_LOG_TICKS)]
