"""Plots of what trials and training runs reached: pure functions from data frames to plotly figures.

`trials` and `epochs` are the frames of `SearchResult`; docs/columns.md describes their columns.
"""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.style import (
    BEST_COLOR,
    BLUE,
    OTHERS_COLOR,
    PINK,
    SKY_BLUE,
    START_COLOR,
    STATUS_STYLES,
    StatusStyle,
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
from tune_cure.utils.formatting import STATUS_WORDS

FRONT_COLOR = SKY_BLUE
RUNG_COLOR = "rgba(128, 128, 128, 0.8)"
MIN_LABEL_GAP = 0.1  # of the axis: on a narrow screen, labels of closer rungs would overlap
MAX_TICKED_EPOCHS = 15  # up to here every epoch has a tick
MIN_FINISHED = 2  # trials that ran to their end, for axes that cover these alone


def plot_curves(trials: pd.DataFrame, epochs: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """Draw PGD accuracy by epoch, with a line for each trial and a dotted line for each rung of ASHA.

    Each line ends with the symbol of the trial's status. The best trial and those of `start_from` are drawn thick.

    Args:
        trials: Columns `trial`, `status`, `origin`.
        epochs: Columns `trial`, `epoch`, `pgd_accuracy`; epochs without an accuracy are left out.
        spec: The search.
        best: The number of the best trial; None if there is none.
    """
    judged = epochs.dropna(subset=["pgd_accuracy"]).astype({"pgd_accuracy": float})
    curves = {int(str(number)): curve for number, curve in judged.groupby("trial")}
    starts = [int(number) for number in trials.loc[trials["origin"] == "start_from", "trial"]]
    figure = blank_figure("epoch", "PGD accuracy")
    thin = [number for number in curves if number != best and number not in starts]
    if thin:
        figure.add_trace(_thin_lines([curves[number] for number in thin]))
    for status, group in trials[trials["trial"].isin(curves)].groupby("status", sort=False):
        ends = [curves[int(number)].iloc[-1] for number in group["trial"]]
        figure.add_trace(_curve_ends(str(status), ends))
    for number in [*(start for start in starts if start != best), best]:
        if number in curves:
            assert number is not None
            figure.add_trace(_thick_line(curves[number], number, is_best=number == best))
    right = max([spec.max_epochs, *judged["epoch"]])
    _add_rungs(figure, spec, right)
    figure.update_layout(margin_t=26)  # for the rungs' labels
    figure.update_xaxes(range=[0.6, right + 0.4], **({"dtick": 1} if right <= MAX_TICKED_EPOCHS else {}))
    figure.update_yaxes(range=accuracy_range(judged["pgd_accuracy"]))
    return figure


def find_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that no other trial beats in both accuracies of `plot_tradeoff`: its Pareto front.

    Only trials that ended soundly and keep the constraints are compared.
    """
    reached = trials.dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    sound = reached[~reached["status"].isin(UNSOUND_STATUSES) & reached["feasible"].ne(False)]
    points = sound[["clean_accuracy_best", "pgd_accuracy_best"]].astype(float)
    return sound[np.array(pareto_front(points.to_numpy().tolist(), "max"), dtype=bool)]


def plot_tradeoff(
    trials: pd.DataFrame, spec: SearchSpec, best: int | None, drawn: pd.DataFrame | None = None
) -> go.Figure:
    """Draw PGD accuracy against clean accuracy, with points for trials and the Pareto front of all of them.

    Both accuracies are those of the trial's epoch of best PGD accuracy. The axes are those of `tradeoff_ranges`, and
    trials beyond them are drawn at the rim. The front is that of `find_front`.

    Args:
        trials: Columns `trial`, `status`, `origin`, `feasible`, `clean_accuracy_best`, `pgd_accuracy_best`,
            `pgd_accuracy_best_se`, `best_epoch`, and those of the hyperparameters.
        spec: The search.
        best: The number of the best trial; None if there is none.
        drawn: The rows of `trials` that get a point; None is all.
    """
    figure = blank_figure("clean accuracy", "PGD accuracy")
    front = find_front(trials)[["clean_accuracy_best", "pgd_accuracy_best"]].astype(float)
    front = front.drop_duplicates().sort_values("clean_accuracy_best")
    rim = tradeoff_ranges(trials, best)
    figure.add_trace(
        go.Scatter(
            name="Pareto front",
            mode="lines",
            x=front["clean_accuracy_best"].clip(*rim["clean_accuracy_best"]).tolist(),
            y=front["pgd_accuracy_best"].clip(*rim["pgd_accuracy_best"]).tolist(),
            line={"color": FRONT_COLOR, "width": 2, "dash": "dash", "shape": "vh"},
            hoverinfo="skip",
        )
    )
    reached = (trials if drawn is None else drawn).dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    add_points(figure, reached, spec, "clean_accuracy_best", "pgd_accuracy_best", best, rim)
    figure.update_xaxes(range=rim["clean_accuracy_best"], tickformat=".0%")
    figure.update_yaxes(range=rim["pgd_accuracy_best"])
    return figure


def tradeoff_ranges(trials: pd.DataFrame, best: int | None) -> dict[str, list[float]]:
    """Return the ends of the axes of `plot_tradeoff` by column: around the best and the finished trials.

    With fewer than `MIN_FINISHED` of these, the axes are around all judged trials.
    """
    reached = trials.dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    finished = reached[(reached["status"] == "completed") | (reached["trial"] == best)]
    shown = finished if len(finished) >= MIN_FINISHED else reached
    return {column: accuracy_range(shown[column]) for column in ("clean_accuracy_best", "pgd_accuracy_best")}


def count_at_rim(trials: pd.DataFrame, best: int | None) -> int:
    """Return how many trials lie beyond the axes of `plot_tradeoff`, which draws them at its rim."""
    reached = trials.dropna(subset=["pgd_accuracy_best", "clean_accuracy_best"])
    ranges = tradeoff_ranges(trials, best).items()
    is_beyond = [~reached[column].astype(float).between(low, high) for column, (low, high) in ranges]
    return int((is_beyond[0] | is_beyond[1]).sum())


def plot_curvature(trials: pd.DataFrame, spec: SearchSpec, best: int | None) -> go.Figure:
    """Draw PGD accuracy against the mean penalty, with a point for each trial that has a penalty above zero.

    Args:
        trials: Columns as in `plot_tradeoff`, and `curvature` and `pgd_accuracy`, both of the last judged epoch.
        spec: The search.
        best: The number of the best trial; None if there is none.
    """
    figure = blank_figure("curvature (mean penalty before lambda)", "PGD accuracy")
    measured = trials.dropna(subset=["pgd_accuracy", "curvature"])
    measured = measured[measured["curvature"] > 0]
    add_points(figure, measured, spec, "curvature", "pgd_accuracy", best)
    figure.update_xaxes(**log_axis(float(measured["curvature"].min()), float(measured["curvature"].max())))
    figure.update_yaxes(range=accuracy_range(measured["pgd_accuracy"]))
    return figure


OVERFITTING_STYLES = {
    "overfitted catastrophically": STATUS_STYLES["catastrophic_overfitting"],
    "recovered from it": StatusStyle(PINK, "circle-x-open", "⊗"),
    "did not": STATUS_STYLES["completed"],
}
"""The look of a trial's point, by what became of the trial."""


def overfitting_outcomes(trials: pd.DataFrame) -> pd.Series:
    """Return for each trial which of `OVERFITTING_STYLES` became of it.

    Args:
        trials: Column `catastrophic_overfitting_epoch`, and `recovery_epoch` where trials may recover.
    """
    overfitted, recovered, did_not = OVERFITTING_STYLES
    outcomes = pd.Series(did_not, index=trials.index)
    outcomes[trials["catastrophic_overfitting_epoch"].notna()] = overfitted
    if "recovery_epoch" in trials:
        outcomes[trials["recovery_epoch"].notna()] = recovered
    return outcomes


def plot_overfitting_map(trials: pd.DataFrame, spec: SearchSpec, x: str, y: str) -> go.Figure:
    """Draw which trials overfitted catastrophically, over the plane of two hyperparameters.

    Args:
        trials: Columns `x`, `y`, `epochs_trained`, those of `overfitting_outcomes`, and those of the hover text.
        spec: The search.
        x: The hyperparameter of the horizontal axis.
        y: The hyperparameter of the vertical axis.
    """
    figure = blank_figure(x, y)
    trials = trials[trials["epochs_trained"] > 0].dropna(subset=[x, y])
    outcomes = overfitting_outcomes(trials)
    for name, style in reversed(OVERFITTING_STYLES.items()):
        rows = trials[outcomes == name]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                name=name,
                mode="markers",
                **point_positions(rows, spec, x, y),
                hovertext=[hover_text(row, spec) for _, row in rows.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
                marker={"symbol": style.symbol, "color": style.color, "size": 9, "opacity": 0.85},
            )
        )
    figure.update_xaxes(**value_axis(spec, x))
    figure.update_yaxes(tickformat=None).update_yaxes(**value_axis(spec, y))
    return figure


LINE_STYLES = ((START_COLOR, "square", "■"), (BLUE, "circle", "●"), (BEST_COLOR, "diamond", "◆"))
"""Color, symbol and glyph of the lines of a training run."""


def plot_log(log: pd.DataFrame, columns: Mapping[str, str], y: str, *, errors: bool = False) -> go.Figure:
    """Draw columns of a training run's log by epoch, with a line for each column.

    Args:
        log: A row per epoch: `epoch` and the columns named in `columns`.
        columns: The columns to draw by the names of their lines; at most as many as `LINE_STYLES`.
        y: Title of the vertical axis.
        errors: True if the columns are accuracies with a standard error each, in the columns that end in `_se`.
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
    if not errors:  # these columns are not fractions
        figure.update_yaxes(tickformat=None)
    return figure


def log_legend(columns: Mapping[str, str]) -> str:
    """Return the legend of `plot_log` as HTML."""
    items = [
        f'<li><span class="glyph" style="color:{color}" aria-hidden="true">{glyph}</span> {html.escape(name)}</li>'
        for name, (color, _, glyph) in zip(columns, LINE_STYLES, strict=False)
    ]
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def choose_labeled_rungs(rungs: Sequence[int], width: float) -> list[int]:
    """Return the rungs that get a label on an axis of `width` epochs, so that no label overlaps the one before."""
    chosen: list[int] = []
    for rung in rungs:
        if not chosen or rung - chosen[-1] >= MIN_LABEL_GAP * width:
            chosen.append(rung)
    return chosen


def _curve_ends(status: str, ends: "Sequence[pd.Series]") -> go.Scatter:
    """Return the last points of the curves of all trials with one status."""
    style, words = STATUS_STYLES[status], STATUS_WORDS[status]
    return go.Scatter(
        name=words,
        mode="markers",
        x=[int(end["epoch"]) for end in ends],
        y=[float(end["pgd_accuracy"]) for end in ends],
        hovertext=[f"trial {int(end['trial'])} {words}" for end in ends],
        hovertemplate="%{hovertext}<br>epoch %{x}: PGD %{y:.1%}<extra></extra>",
        marker={"symbol": style.symbol, "color": style.color, "size": 7},
    )


def _thin_lines(curves: Iterable[pd.DataFrame]) -> go.Scatter:
    """Return many curves as one trace with a gap between them: hundreds of traces would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for curve in curves:
        x += [*map(int, curve["epoch"]), None]
        y += [*map(float, curve["pgd_accuracy"]), None]
        text += [f"trial {curve['trial'].iloc[0]}"] * (len(curve) + 1)
    return go.Scatter(
        name="other trials",
        mode="lines",
        x=x,
        y=y,
        hovertext=text,
        hovertemplate="%{hovertext}, epoch %{x}: PGD %{y:.1%}<extra></extra>",
        line={"color": OTHERS_COLOR, "width": 1.2},
    )


def _thick_line(curve: pd.DataFrame, number: int, *, is_best: bool) -> go.Scatter:
    name = f"{'best' if is_best else 'start_from'}: trial {number}"
    return go.Scatter(
        name=name,
        mode="lines+markers",
        x=[int(epoch) for epoch in curve["epoch"]],
        y=[float(accuracy) for accuracy in curve["pgd_accuracy"]],
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
