"""The plots of what a search cost: pure functions from frames to plotly figures."""

import html

import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures.style import BEST_COLOR, BLUE, GRAY, START_COLOR, STATUSES, blank_figure
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import planned_epochs

SPAN = ("trial", "begin", "end", "row")  # columns of `stretches`
MAX_BARS = 100  # more trials are drawn as means of neighbours
PARTS = (  # of a trial's seconds
    ("training without these", "training_seconds", BLUE),
    ("penalty", "penalty_seconds", BEST_COLOR),
    ("attack", "attack_seconds", "#E69F00"),
    ("evaluation", "eval_seconds", START_COLOR),
)


def plot_survival(trials: pd.DataFrame, spec: SearchSpec) -> go.Figure:
    """How many trials trained how many epochs: the area below was spent, that up to the dashed line saved.

    The dashed line has the trials that were stopped early at all the epochs that they would have trained, the others as
    they are; without a scheduler there is none.
    """
    figure = blank_figure("epoch", "trials that trained it")
    last = max(spec.max_epochs, int(trials["epochs_trained"].max()))
    epochs = list(range(1, last + 1))
    trained = trials["epochs_trained"]
    unstopped = trained.where(trials["status"] != "stopped", planned_epochs(trials, spec))
    counts, without = ([int((of >= epoch).sum()) for epoch in epochs] for of in (trained, unstopped))
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


def plot_timeline(trials: pd.DataFrame, epochs: pd.DataFrame) -> go.Figure:
    """When each trial ran, on which machine: a bar for each stretch of it in one process, from start to last epoch.

    Stretches of one machine that overlap lie in rows of their own, as many as ran there at once.
    """
    spans = find_stretches(epochs).merge(trials[["trial", "status"]], on="trial")
    origin = spans["begin"].min()
    gap = 0.003 * (spans["end"].max() - origin)  # between bars, or one would not be told from the next
    unit, seconds = ("hours", 3600.0) if spans["end"].max() - origin > 3 * 3600 else ("minutes", 60.0)
    figure = blank_figure(unit, "")
    for status, style in STATUSES.items():
        chosen = spans[spans["status"] == status]
        if chosen.empty:
            continue
        x: list[float | None] = []
        y: list[int | None] = []
        text: list[str] = []
        for trial, begin, end, row in zip(*(chosen[name].tolist() for name in SPAN), strict=True):
            shown = max(end - gap, (begin + end) / 2)
            x += [round((begin - origin) / seconds, 4), round((shown - origin) / seconds, 4), None]
            y += [row, row, None]
            text += [f"trial {trial}"] * 3
        figure.add_trace(
            go.Scatter(
                name=style.words,
                mode="lines",
                x=x,
                y=y,
                hovertext=text,
                hovertemplate="%{hovertext}<extra></extra>",
                line={"color": style.color, "width": 7},
            )
        )
    rows = spans.groupby("row")["host"].first()
    names = [f"{html.escape(str(host))} {rows[:row].eq(host).sum()}" for row, host in rows.items()]
    every = -(-len(names) // 12)  # labels of more rows would overprint each other
    figure.update_yaxes(
        tickformat=None,
        tickvals=list(range(len(names)))[::every],
        ticktext=names[::every],
        range=[len(names) - 0.3, -0.7],
    )
    figure.update_xaxes(rangemode="tozero")
    return figure


def find_stretches(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row per trial and process: trial, host, begin and end (seconds since 1970), and the row that it is drawn in."""
    took = epochs["train_seconds"].fillna(0) + epochs["eval_seconds"].fillna(0)
    timed = epochs.assign(begin=epochs["time"] - took)
    spans = timed.groupby(["trial", "host", "pid"], as_index=False).agg(begin=("begin", "min"), end=("time", "max"))
    spans = spans.sort_values(["host", "begin"], ignore_index=True)
    free: list[tuple[str, float]] = []  # of each row: its host, and when its last stretch ended
    rows = []
    for host, begin, end in zip(spans["host"], spans["begin"], spans["end"], strict=True):
        # Half of a second: clocks of driver and worker, and what a report takes.
        row = next((i for i, (of, until) in enumerate(free) if of == host and until <= begin + 0.5), len(free))
        free[row : row + 1] = [(host, end)]
        rows.append(row)
    return spans.assign(row=rows)


def trials_per_bar(trials: pd.DataFrame) -> int:
    """How many trials a bar of `seconds` is the mean of; the last bar may have fewer."""
    return -(-int((trials["epochs_trained"] > 0).sum()) // MAX_BARS)


def plot_seconds(trials: pd.DataFrame) -> go.Figure:
    """Device seconds per trial, split into training, penalty, attack and evaluation; of many trials the means."""
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
