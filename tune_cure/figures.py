"""The plots of a search's report: pure functions from the frames of `results` to plotly figures.

The figures name no text, axis or background colour that would suit only one of light and dark: report.css gives these,
by the reader's preference. Colours of data are of the Okabe-Ito palette (its yellow darkened, to be seen on white),
which colour-blind readers can tell apart and which reads on both; every colour goes with a symbol of its own.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tune_cure.spec import Distribution, SearchSpec
from tune_cure.words import STATUS_WORDS, value

BEST_COLOUR = "#D55E00"
START_COLOUR = "#009E73"
OTHERS_COLOUR = "rgba(128, 128, 128, 0.45)"
RUNG_COLOUR = "rgba(128, 128, 128, 0.8)"
MIN_LABEL_GAP = 0.1  # of the axis' width: closer rungs would overprint each other's labels on a telephone
MAX_TICKED_EPOCHS = 15  # up to here every epoch gets its tick


@dataclass(frozen=True)
class Status:
    """How a status is said and shown; `glyph` is the plots' `symbol` as a character, for legends and tables."""

    words: str
    colour: str
    symbol: str
    glyph: str


STATUSES = {
    name: Status(STATUS_WORDS[name], colour, symbol, glyph)
    for name, colour, symbol, glyph in (
        ("completed", "#0072B2", "circle", "●"),
        ("stopped", "#8A8A8A", "triangle-down", "▼"),
        ("unfinished", "#56B4E9", "circle-open", "○"),
        ("catastrophic_overfitting", "#CC79A7", "x", "✖"),
        ("diverged", "#E69F00", "diamond", "◆"),
        ("failed", "#908928", "cross", "✚"),
    )
}


def curves(trials: pd.DataFrame, epochs: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """PGD accuracy by epoch: a line per trial that ends with the symbol of its end, and ASHA's rungs.

    Args:
        trials: The frame of `results.trials`.
        epochs: The frame of `results.epochs`.
        spec: The search.
        best: The number of the winning trial.
    """
    judged = epochs.dropna(subset=["pgd_accuracy"]).astype({"pgd_accuracy": float})
    lines = {int(str(number)): line for number, line in judged.groupby("trial")}
    starts = [int(number) for number in trials.loc[trials["origin"] == "start_from", "trial"]]
    figure = _figure("epoch", "PGD accuracy")
    thin = [number for number in lines if number != best and number not in starts]
    if thin:
        figure.add_trace(_thin_lines([lines[number] for number in thin]))
    for status, group in trials[trials["trial"].isin(lines)].groupby("status", sort=False):
        ends = [lines[int(number)].iloc[-1] for number in group["trial"]]
        figure.add_trace(
            go.Scatter(
                name=STATUSES[str(status)].words,
                mode="markers",
                x=[int(end["epoch"]) for end in ends],
                y=[float(end["pgd_accuracy"]) for end in ends],
                hovertext=[f"trial {int(end['trial'])} {STATUSES[str(status)].words}" for end in ends],
                hovertemplate="%{hovertext}<br>epoch %{x}: PGD %{y:.1%}<extra></extra>",
                marker={"symbol": STATUSES[str(status)].symbol, "color": STATUSES[str(status)].colour, "size": 7},
            )
        )
    for number in [*(start for start in starts if start != best), best]:
        if number in lines:
            assert number is not None
            figure.add_trace(_thick_line(lines[number], number, is_best=number == best))
    right = max([spec.max_epochs, *judged["epoch"]])
    _add_rungs(figure, spec, right)
    figure.update_layout(margin_t=26)  # for the rungs' labels
    figure.update_xaxes(range=[0.6, right + 0.4], **({"dtick": 1} if right <= MAX_TICKED_EPOCHS else {}))
    figure.update_yaxes(range=_accuracy_range(judged["pgd_accuracy"]))
    return figure


def hyperparameter(trials: pd.DataFrame, spec: SearchSpec, key: str, best: int | None) -> go.Figure:
    """PGD accuracy of each trial's best epoch against the searched hyperparameter `key`, over the searched range."""
    figure = _figure(key, "PGD accuracy")
    distribution = spec.space[key]
    reached = trials.dropna(subset=["pgd_accuracy_best"])
    _add_points(figure, reached, spec, key, "pgd_accuracy_best", best)
    figure.update_xaxes(**_value_axis(distribution))
    figure.update_yaxes(range=_accuracy_range(reached["pgd_accuracy_best"]))
    return figure


def accuracies(trials: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """Clean against PGD accuracy, one point per trial, both at the epoch of its best PGD accuracy."""
    figure = _figure("clean accuracy", "PGD accuracy")
    reached = trials.dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    _add_points(figure, reached, spec, "clean_accuracy_best", "pgd_accuracy_best", best)
    figure.update_xaxes(range=_accuracy_range(reached["clean_accuracy_best"]), tickformat=".0%")
    figure.update_yaxes(range=_accuracy_range(reached["pgd_accuracy_best"]))
    return figure


LINE_STYLES = ((START_COLOUR, "square", "■"), ("#0072B2", "circle", "●"), (BEST_COLOUR, "diamond", "◆"))


def lines(log: pd.DataFrame, columns: Mapping[str, str], y: str, *, errors: bool = False) -> go.Figure:
    """Columns of one run's log by epoch: a line for each.

    Args:
        log: A row per epoch.
        columns: The columns, by what they are called.
        y: What they have in common: the axis' title.
        errors: Draw the standard error of each value, from its column `_se`.
    """
    figure = _figure("epoch", y)
    for (name, column), (colour, symbol, _) in zip(columns.items(), LINE_STYLES, strict=False):
        rows = log.dropna(subset=[column])
        bars = {"error_y": {"array": rows[f"{column}_se"].tolist(), "thickness": 1, "width": 2}} if errors else {}
        figure.add_trace(
            go.Scatter(
                name=name,
                mode="lines+markers",
                x=rows["epoch"].tolist(),
                y=rows[column].astype(float).tolist(),
                line={"color": colour, "width": 2},
                marker={"symbol": symbol, "size": 6},
                hovertemplate=f"{name} %{{y:.4g}}<extra>epoch %{{x}}</extra>",
                **bars,
            )
        )
    if not errors:  # not accuracies
        figure.update_yaxes(tickformat=None)
    return figure


def lines_legend(columns: Mapping[str, str]) -> str:
    """The HTML legend of `lines`."""
    items = [
        f'<li><span class="glyph" style="color:{colour}" aria-hidden="true">{glyph}</span> {html.escape(name)}</li>'
        for name, (colour, _, glyph) in zip(columns, LINE_STYLES, strict=False)
    ]
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def labelled(rungs: Sequence[int], width: float) -> list[int]:
    """Those of `rungs` that can carry a label on an axis of `width` epochs without overprinting the one before."""
    chosen: list[int] = []
    for rung in rungs:
        if not chosen or rung - chosen[-1] >= MIN_LABEL_GAP * width:
            chosen.append(rung)
    return chosen


def _figure(x: str, y: str) -> go.Figure:
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


def _thin_lines(lines: Iterable[pd.DataFrame]) -> go.Scatter:
    """Many lines as one trace, which stays quick with hundreds: a gap separates each from the next."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for line in lines:
        x += [*map(int, line["epoch"]), None]
        y += [*map(float, line["pgd_accuracy"]), None]
        text += [f"trial {line['trial'].iloc[0]}"] * (len(line) + 1)
    return go.Scatter(
        name="other trials",
        mode="lines",
        x=x,
        y=y,
        hovertext=text,
        hovertemplate="%{hovertext}, epoch %{x}: PGD %{y:.1%}<extra></extra>",
        line={"color": OTHERS_COLOUR, "width": 1.2},
    )


def _thick_line(line: pd.DataFrame, number: int, *, is_best: bool) -> go.Scatter:
    name = f"{'best' if is_best else 'start_from'}: trial {number}"
    return go.Scatter(
        name=name,
        mode="lines+markers",
        x=[int(epoch) for epoch in line["epoch"]],
        y=[float(accuracy) for accuracy in line["pgd_accuracy"]],
        hovertemplate=name + ", epoch %{x}: PGD %{y:.1%}<extra></extra>",
        line={"color": BEST_COLOUR if is_best else START_COLOUR, "width": 3, "dash": "solid" if is_best else "dash"},
        marker={"size": 5},
    )


def _add_rungs(figure: go.Figure, spec: SearchSpec, width: float) -> None:
    with_label = labelled(spec.rungs, width)
    for rung in spec.rungs:
        label = {"text": "rung", "yref": "paper", "y": 1.0, "yanchor": "bottom", "showarrow": False}
        figure.add_vline(
            x=rung,
            line={"dash": "dot", "width": 1.5, "color": RUNG_COLOUR},
            layer="below",
            annotation={**label, "font": {"size": 11}, "xanchor": "center"} if rung in with_label else None,
        )


def _add_points(figure: go.Figure, frame: pd.DataFrame, spec: SearchSpec, x: str, y: str, best: int | None) -> None:
    """A trace of points for each status, and rings around the best trial and those of start_from."""
    frame = frame.dropna(subset=[x])  # trials in which this hyperparameter makes no difference have none
    is_choice = x in spec.space and spec.space[x].kind == "choice"

    def places(rows: pd.DataFrame) -> dict[str, Any]:
        return {"x": [value(at) if is_choice else float(at) for at in rows[x]], "y": rows[y].astype(float).tolist()}

    for status, style in STATUSES.items():
        rows = frame[frame["status"] == status]
        if len(rows):
            figure.add_trace(
                go.Scatter(
                    name=style.words,
                    mode="markers",
                    **places(rows),
                    hovertext=[_hover(row, spec) for _, row in rows.iterrows()],
                    hovertemplate="%{hovertext}<extra></extra>",
                    marker={"symbol": style.symbol, "color": style.colour, "size": 9, "opacity": 0.85},
                )
            )
    rings = {
        "start_from": (frame[frame["origin"] == "start_from"], "square-open", START_COLOUR),
        "best": (frame[frame["trial"] == best], "circle-open", BEST_COLOUR),
    }
    for name, (rows, symbol, colour) in rings.items():
        if len(rows):
            error = rows["pgd_accuracy_best_se"].tolist()
            figure.add_trace(
                go.Scatter(
                    name=name,
                    mode="markers",
                    **places(rows),
                    error_y={"array": error, "color": colour, "thickness": 1.5, "width": 4},
                    hoverinfo="skip",  # the point within the ring answers
                    marker={"symbol": symbol, "color": colour, "size": 16, "line": {"width": 2.5}},
                )
            )


def _hover(row: "pd.Series[Any]", spec: SearchSpec) -> str:
    started = " (start_from)" if row["origin"] == "start_from" else ""
    lines = [
        f"<b>trial {row['trial']}{started}</b>, {STATUSES[row['status']].words}",
        f"PGD {row['pgd_accuracy_best']:.1%} ± {100 * row['pgd_accuracy_best_se']:.1f}, "
        f"clean {row['clean_accuracy_best']:.1%}, epoch {row['best_epoch']:.0f}",
        *(f"{html.escape(key)} {html.escape(value(row[key]))}" for key in spec.space),
    ]
    return "<br>".join(lines)


def _accuracy_range(values: "pd.Series[Any]") -> list[float]:
    """The axis around these fractions; never so narrow that noise would look like an effect."""
    if values.empty:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    margin = max(0.05, 0.08 * (high - low))
    return [max(low - margin, -0.02), min(high + margin, 1.02)]


def _value_axis(distribution: Distribution) -> dict[str, Any]:
    """The axis of a searched hyperparameter: all of its range, whether or not a trial was there."""
    if distribution.kind == "choice":
        names = [value(choice) for choice in distribution.values]
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
        ends = math.log10(low), math.log10(high)
        ticks = _log_ticks(low, high)
        labels = [f"{tick:g}" for tick in ticks]
        return {"type": "log", "range": _widened(*ends), "tickvals": ticks, "ticktext": labels}
    whole = {"tickformat": "d", **({"dtick": 1} if high - low <= 10 else {})} if distribution.kind == "int" else {}
    return {"type": "linear", "range": _widened(low, high), "nticks": 6, **whole}


def _widened(low: float, high: float) -> list[float]:
    return [low - 0.06 * (high - low), high + 0.06 * (high - low)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … within the range if that gives few, else powers of ten, thinned to at most six."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high]
    coarse = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    return fine if len(fine) <= 6 else coarse[:: math.ceil(len(coarse) / 6)]
