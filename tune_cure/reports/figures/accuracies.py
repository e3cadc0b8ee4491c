"""The plots of what trials and training runs reached: pure functions from frames to plotly figures."""

import html
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.style import (
    BEST_COLOR,
    BLUE,
    OTHERS_COLOR,
    START_COLOR,
    STATUSES,
    accuracy_range,
    add_points,
    blank_figure,
    hover_text,
    log_axis,
    point_positions,
    value_axis,
)
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import pareto_front

FRONT_COLOR = "#56B4E9"
RUNG_COLOR = "rgba(128, 128, 128, 0.8)"
MIN_LABEL_GAP = 0.1  # of the axis' width: closer rungs would overprint each other's labels on a telephone
MAX_TICKED_EPOCHS = 15  # up to here every epoch gets its tick


def plot_curves(trials: pd.DataFrame, epochs: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
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
    figure = blank_figure("epoch", "PGD accuracy")
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
                marker={"symbol": STATUSES[str(status)].symbol, "color": STATUSES[str(status)].color, "size": 7},
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
    figure.update_yaxes(range=accuracy_range(judged["pgd_accuracy"]))
    return figure


def plot_tradeoff(trials: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """Clean against PGD accuracy, one point per trial, both at its epoch of best PGD accuracy, and the Pareto front.

    The front is of trials that ended well and keep the constraints.
    """
    figure = blank_figure("clean accuracy", "PGD accuracy")
    reached = trials.dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    sound = reached[~reached["status"].isin(UNSOUND_STATUSES) & reached["feasible"].ne(False)]
    points = sound[["clean_accuracy_best", "pgd_accuracy_best"]].astype(float)
    on_front = pd.Series(pareto_front(points.to_numpy().tolist(), "max"), index=points.index, dtype=bool)
    front = points[on_front].drop_duplicates().sort_values("clean_accuracy_best")
    figure.add_trace(
        go.Scatter(
            name="Pareto front",
            mode="lines",
            x=front["clean_accuracy_best"].tolist(),
            y=front["pgd_accuracy_best"].tolist(),
            line={"color": FRONT_COLOR, "width": 2, "dash": "dash", "shape": "vh"},
            hoverinfo="skip",
        )
    )
    add_points(figure, reached, spec, "clean_accuracy_best", "pgd_accuracy_best", best)
    figure.update_xaxes(range=accuracy_range(reached["clean_accuracy_best"]), tickformat=".0%")
    figure.update_yaxes(range=accuracy_range(reached["pgd_accuracy_best"]))
    return figure


def plot_curvature(trials: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """PGD accuracy against the mean penalty, one point per trial that has one, both of its last judged epoch."""
    figure = blank_figure("curvature (mean penalty before lambda)", "PGD accuracy")
    measured = trials.dropna(subset=["pgd_accuracy", "curvature"])
    measured = measured[measured["curvature"] > 0]
    add_points(figure, measured, spec, "curvature", "pgd_accuracy", best)
    figure.update_xaxes(**log_axis(float(measured["curvature"].min()), float(measured["curvature"].max())))
    figure.update_yaxes(range=accuracy_range(measured["pgd_accuracy"]))
    return figure


def plot_overfitting_map(trials: pd.DataFrame, spec: SearchSpec, x: str, y: str) -> go.Figure:
    """Where in the plane of two hyperparameters training overfitted catastrophically, and where it did not."""
    figure = blank_figure(x, y)
    trials = trials[trials["epochs_trained"] > 0].dropna(subset=[x, y])
    for found, style in ((False, STATUSES["completed"]), (True, STATUSES["catastrophic_overfitting"])):
        rows = trials[trials["catastrophic_overfitting_epoch"].notna() == found]
        words = "overfitted catastrophically" if found else "did not"
        figure.add_trace(
            go.Scatter(
                name=words,
                mode="markers",
                **point_positions(rows, spec, x, y),
                hovertext=[hover_text(row, spec) for _, row in rows.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
                marker={"symbol": style.symbol, "color": style.color, "size": 9, "opacity": 0.85},
            )
        )
    figure.update_xaxes(**value_axis(spec.space[x]))
    figure.update_yaxes(tickformat=None, **value_axis(spec.space[y]))
    return figure


LINE_STYLES = ((START_COLOR, "square", "■"), (BLUE, "circle", "●"), (BEST_COLOR, "diamond", "◆"))


def plot_log(log: pd.DataFrame, columns: Mapping[str, str], y: str, *, errors: bool = False) -> go.Figure:
    """Columns of one run's log by epoch: a line for each.

    Args:
        log: A row per epoch.
        columns: The columns, by what they are called.
        y: What they have in common: the axis' title.
        errors: Draw the standard error of each value, from its column `_se`.
    """
    figure = blank_figure("epoch", y)
    for (name, column), (color, symbol, _) in zip(columns.items(), LINE_STYLES, strict=False):
        rows = log.dropna(subset=[column])
        bars = {"error_y": {"array": rows[f"{column}_se"].tolist(), "thickness": 1, "width": 2}} if errors else {}
        figure.add_trace(
            go.Scatter(
                name=name,
                mode="lines+markers",
                x=rows["epoch"].tolist(),
                y=rows[column].astype(float).tolist(),
                line={"color": color, "width": 2},
                marker={"symbol": symbol, "size": 6},
                hovertemplate=f"{name} %{{y:.4g}}<extra>epoch %{{x}}</extra>",
                **bars,
            )
        )
    if not errors:  # not accuracies
        figure.update_yaxes(tickformat=None)
    return figure


def log_legend(columns: Mapping[str, str]) -> str:
    """The HTML legend of `lines`."""
    items = [
        f'<li><span class="glyph" style="color:{color}" aria-hidden="true">{glyph}</span> {html.escape(name)}</li>'
        for name, (color, _, glyph) in zip(columns, LINE_STYLES, strict=False)
    ]
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def choose_labeled_rungs(rungs: Sequence[int], width: float) -> list[int]:
    """Those of `rungs` that can carry a label on an axis of `width` epochs without overprinting the one before."""
    chosen: list[int] = []
    for rung in rungs:
        if not chosen or rung - chosen[-1] >= MIN_LABEL_GAP * width:
            chosen.append(rung)
    return chosen


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
        line={"color": OTHERS_COLOR, "width": 1.2},
    )


def _thick_line(line: pd.DataFrame, number: int, *, is_best: bool) -> go.Scatter:
    name = f"{'best' if is_best else 'start_from'}: trial {number}"
    return go.Scatter(
        name=name,
        mode="lines+markers",
        x=[int(epoch) for epoch in line["epoch"]],
        y=[float(accuracy) for accuracy in line["pgd_accuracy"]],
        hovertemplate=name + ", epoch %{x}: PGD %{y:.1%}<extra></extra>",
        line={"color": BEST_COLOR if is_best else START_COLOR, "width": 3, "dash": "solid" if is_best else "dash"},
        marker={"size": 5},
    )


def _add_rungs(figure: go.Figure, spec: SearchSpec, width: float) -> None:
    with_label = choose_labeled_rungs(spec.rungs, width)
    for rung in spec.rungs:
        label = {"text": "rung", "yref": "paper", "y": 1.0, "yanchor": "bottom", "showarrow": False}
        figure.add_vline(
            x=rung,
            line={"dash": "dot", "width": 1.5, "color": RUNG_COLOR},
            layer="below",
            annotation={**label, "font": {"size": 11}, "xanchor": "center"} if rung in with_label else None,
        )
