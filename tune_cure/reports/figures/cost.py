"""Plots of what a search cost: pure functions from data frames to plotly figures.

`trials` and `epochs` are the frames of `SearchResult`; docs/columns.md describes their columns.
"""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.style import BEST_COLOR, BLUE, GRAY, ORANGE, START_COLOR, STATUS_STYLES, blank_figure
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import planned_epochs, were_ended_by_budget
from tune_cure.utils.formatting import STATUS_WORDS

MAX_BARS = 100  # with more trials, each bar is the mean of neighboring trials
MAX_ROW_LABELS = 12  # on the vertical axis of the timeline: more would overlap
MIN_STEPS, MIN_STEP = 2, 0.1  # of the line of survival: their number, and the share of the trials in each
MIN_STRETCHES = 4  # of a timeline
MAX_USUAL_IDLE = 0.1  # share of the workers' time: starts, and the wait for the last trial
MIN_PAUSE = 0.5  # seconds: differences between the workers' clocks, and the time that a report takes
PARTS = (
    ("training without these", "training_seconds", BLUE),
    ("penalty", "penalty_seconds", BEST_COLOR),
    ("attack", "attack_seconds", ORANGE),
    ("evaluation", "eval_seconds", START_COLOR),
)
"""The parts of a trial's device seconds: label, column and color."""


def plot_survival(trials: pd.DataFrame, spec: SearchSpec) -> go.Figure:
    """Draw how many trials trained each epoch.

    The area below the line is the number of epochs trained. A dashed line shows the same search without early
    stopping: the trials that were stopped have all their planned epochs, the others are unchanged. The area between
    the lines is what early stopping saved. Trials that ended because the budget was spent are unchanged, too. Without a
    scheduler there is no dashed line.

    Args:
        trials: Columns `status`, `reason`, `epochs_trained`, and `epochs` if it is searched.
        spec: The search.
    """
    figure = blank_figure("epoch", "trials that trained it")
    last = max(spec.max_epochs, int(trials["epochs_trained"].max()))
    epochs = list(range(1, last + 1))
    trained = trials["epochs_trained"]
    were_stopped = trials["status"].eq("stopped") & ~were_ended_by_budget(trials)
    unstopped = trained.where(~were_stopped, planned_epochs(trials, spec))
    counts, without = (_count_reaching(lengths, epochs) for lengths in (trained, unstopped))
    edges = [0.5, *(epoch + 0.5 for epoch in epochs)]
    figure.add_trace(
        go.Scatter(
            name="trained",
            mode="lines",
            x=edges,
            y=[*counts, counts[-1]],
            line={"color": BLUE, "width": 2, "shape": "hv"},
            fill="tozeroy",
            fillcolor="rgba(0, 114, 178, 0.25)",
            hovertemplate="%{y} trials<extra></extra>",
        )
    )
    if spec.search.scheduler != "none":
        figure.add_trace(
            go.Scatter(
                name="without early stopping",
                mode="lines",
                x=edges,
                y=[*without, without[-1]],
                line={"color": GRAY, "width": 2, "dash": "dash", "shape": "hv"},
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(range=[0.5, last + 0.5])
    figure.update_yaxes(rangemode="tozero", tickformat="d")
    return figure


def _count_reaching(lengths: "pd.Series[int]", epochs: list[int]) -> list[int]:
    """Return, for each epoch, how many of the trials with these numbers of epochs trained it."""
    return [len(lengths) - int(shorter) for shorter in np.searchsorted(np.sort(lengths.to_numpy()), epochs)]


def plot_timeline(trials: pd.DataFrame, epochs: pd.DataFrame) -> go.Figure:
    """Draw when each trial ran and on which machine, with a bar for each stretch of a trial in one process.

    Stretches on one machine that overlap lie in different rows.

    Args:
        trials: Columns `trial`, `status`.
        epochs: Columns `trial`, `host`, `pid`, `time`, `train_seconds`, `eval_seconds`.
    """
    spans = find_stretches(epochs).merge(trials[["trial", "status"]], on="trial")
    origin, end = spans["begin"].min(), spans["end"].max()
    gap = 0.003 * (end - origin)  # between bars, so that one can be told from the next
    unit, seconds = ("hours", 3600.0) if end - origin > 3 * 3600 else ("minutes", 60.0)
    spans["end"] = (spans["end"] - gap).clip(lower=(spans["begin"] + spans["end"]) / 2)
    spans[["left", "right"]] = (spans[["begin", "end"]] - origin) / seconds
    figure = blank_figure(unit, "")
    for status, style in STATUS_STYLES.items():
        chosen = spans[spans["status"] == status]
        if len(chosen):
            figure.add_trace(_timeline_bars(chosen, STATUS_WORDS[status], style.color))
    hosts = spans.groupby("row")["host"].first()
    labels = [f"{html.escape(str(host))} {hosts[:row].eq(host).sum()}" for row, host in hosts.items()]
    step = -(-len(labels) // MAX_ROW_LABELS)
    figure.update_yaxes(
        tickformat=None,
        tickvals=list(range(len(labels)))[::step],
        ticktext=labels[::step],
        range=[len(labels) - 0.3, -0.7],
    )
    figure.update_xaxes(rangemode="tozero")
    return figure


def _timeline_bars(spans: pd.DataFrame, name: str, color: str) -> go.Scatter:
    """Return bars as one trace of thick lines with a gap after each; `spans`: `trial`, `left`, `right`, `row`."""
    x: list[float | None] = []
    y: list[int | None] = []
    text: list[str] = []
    columns = (spans[column].tolist() for column in ("trial", "left", "right", "row"))
    for trial, left, right, row in zip(*columns, strict=True):
        x += [round(left, 4), round(right, 4), None]
        y += [row, row, None]
        text += [f"trial {trial}"] * 3
    return go.Scatter(
        name=name,
        mode="lines",
        x=x,
        y=y,
        hovertext=text,
        hovertemplate="%{hovertext}<extra></extra>",
        line={"color": color, "width": 7},
    )


def find_stretches(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per trial and process: `trial`, `host`, `pid`, `begin`, `end` and `row`.

    `begin` and `end` are seconds since 1970. `row` is the row of the timeline: each machine has as many rows as
    trials ran there at once.

    Args:
        epochs: Columns `trial`, `host`, `pid`, `time` (when the epoch ended), `train_seconds`, `eval_seconds`.
    """
    duration = epochs["train_seconds"].fillna(0) + epochs["eval_seconds"].fillna(0)
    timed = epochs.assign(begin=epochs["time"] - duration)
    spans = timed.groupby(["trial", "host", "pid"], as_index=False).agg(begin=("begin", "min"), end=("time", "max"))
    spans = spans.sort_values(["host", "begin"], ignore_index=True)
    last: list[tuple[str, float]] = []  # for each row: its host, and when its last stretch ended
    rows = []
    for host, begin, end in zip(spans["host"], spans["begin"], spans["end"], strict=True):
        is_free = (row for row, (owner, until) in enumerate(last) if owner == host and until <= begin + MIN_PAUSE)
        row = next(is_free, len(last))
        last[row : row + 1] = [(host, end)]
        rows.append(row)
    return spans.assign(row=rows)


def has_several_steps(trials: pd.DataFrame) -> bool:
    """Return whether the line of survival has at least `MIN_STEPS` steps: a single one is told in a sentence.

    A step is an epoch before the last after which at least `MIN_STEP` of the trials ended.

    Args:
        trials: Column `epochs_trained`.
    """
    trained = trials["epochs_trained"]
    shares = trained[trained > 0].value_counts(normalize=True)
    return int((shares[shares.index < trained.max()] >= MIN_STEP).sum()) >= MIN_STEPS


def is_eventful(spans: pd.DataFrame) -> bool:
    """Return whether a timeline shows what no other plot does: several machines, or workers that were idle.

    Args:
        spans: `find_stretches` of the search.
    """
    if len(spans) < MIN_STRETCHES:
        return False
    return bool(spans["host"].nunique() > 1 or idle_share(spans) > MAX_USUAL_IDLE)


def idle_share(spans: pd.DataFrame) -> float:
    """Return the share of the workers' time, from the first stretch to the end of the last, in which no trial ran.

    Args:
        spans: `find_stretches` of the search; a row of the timeline counts as a worker.
    """
    duration = float(spans["end"].max() - spans["begin"].min())
    if not duration:
        return 0.0
    return 1 - float((spans["end"] - spans["begin"]).sum()) / (duration * spans["row"].nunique())


def trials_per_bar(trials: pd.DataFrame) -> int:
    """Return the number of trials whose mean a bar of `plot_seconds` shows. The last bar may have fewer."""
    return -(-int((trials["epochs_trained"] > 0).sum()) // MAX_BARS)


def plot_seconds(trials: pd.DataFrame) -> go.Figure:
    """Draw the device seconds of each trial as a bar in the parts of `PARTS`; with many trials, their means.

    Args:
        trials: Columns `trial`, `epochs_trained`, `train_seconds`, `attack_seconds`, `penalty_seconds`,
            `eval_seconds`. Attack and penalty are parts of training.
    """
    figure = blank_figure("trial", "seconds")
    trained = trials[trials["epochs_trained"] > 0]
    parts = trained.assign(
        training_seconds=trained["train_seconds"] - trained["attack_seconds"] - trained["penalty_seconds"]
    )
    size = trials_per_bar(trials)
    groups = [parts.iloc[start : start + size] for start in range(0, len(parts), size)]
    first, last = ([int(group["trial"].iloc[at]) for group in groups] for at in (0, -1))
    for name, column, color in PARTS:
        figure.add_trace(
            go.Bar(
                name=name,
                x=first,
                y=[round(float(group[column].mean()), 3) for group in groups],
                width=0.9 * size,
                hovertext=[
                    f"trial {a}" if a == b else f"mean of trials {a} to {b}" for a, b in zip(first, last, strict=True)
                ],
                hovertemplate=f"%{{hovertext}}: %{{y:.3g}} s<extra>{name}</extra>",
                marker={"color": color},
            )
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(tickformat=None, rangemode="tozero")
    return figure


def plot_replay(table: pd.DataFrame, trade_off: pd.DataFrame) -> go.Figure:
    """Draw what each pair of ASHA's numbers loses against what it saves, in the mean over other orders of trials.

    Args:
        table: A row per pair: columns `epochs_saved_mean` and `regret_mean`, fractions.
        trade_off: Its rows that no other pair beats, with the column `recommended`.
    """
    figure = blank_figure("epochs saved", "regret")
    looks = {
        "other pairs": (table.drop(trade_off.index), "circle", GRAY, 8),
        "worth choosing from": (trade_off, "diamond", BLUE, 9),
        "recommended": (trade_off[trade_off["recommended"]], "circle-open", BEST_COLOR, 18),
    }
    for name, (rows, symbol, color, size) in looks.items():
        figure.add_trace(
            go.Scatter(
                name=name,
                mode="markers",
                x=rows["epochs_saved_mean"].astype(float).tolist(),
                y=rows["regret_mean"].astype(float).tolist(),
                marker={"symbol": symbol, "color": color, "size": size, "line": {"width": 2}},
            )
        )
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(rangemode="tozero", tickformat=".0%")
    return figure
