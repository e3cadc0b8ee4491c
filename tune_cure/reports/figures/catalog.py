"""List of the plots in a search's report, each with its section, caption and legend, for the page and for paper."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

import pandas as pd
import plotly.graph_objects as go

from tune_cure.confirmation.searches.lead import leader_progress
from tune_cure.evaluation.names import ACCURACY_LABELS
from tune_cure.reports.figures import accuracies, cost, importance, progress, space
from tune_cure.reports.figures.legends import (
    build_legend,
    colored_glyph,
    entries_of_best,
    entries_of_statuses,
    line_mark,
)
from tune_cure.reports.figures.style import (
    BLUE,
    GRAY,
    START_COLOR,
    sample_trials,
)
from tune_cure.search.importance import MAX_TRIALS
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import describe_hyperparameter
from tune_cure.utils.formatting import format_count, format_percent, format_untrained_epochs, join_words

MAX_POINTS = 1500  # trials in a plot of points
MAX_LINES = 300  # trials in a plot of lines
MIN_BEGUN, MIN_LEADS = 4, 3  # trials, and changes of the best so far, for a plot of its rise
STRONG_SHARE, MIN_STRONG = 0.1, 5  # of the trials: how many lines of the parallel coordinates are emphasized
MIN_TRIALS = 8  # that ran to their end, for a smoothed surface
TITLES = {
    "curves": "PGD accuracy by epoch",
    "progress": "Best so far",
    "tradeoff": "Clean against PGD accuracy",
    "importance": "What mattered",
    "slices": "PGD accuracy against each hyperparameter",
    "overfitting": "Curvature and catastrophic overfitting",
    "cost": "What it cost",
}
"""The sections of the report that hold plots, with their titles."""


@dataclass(frozen=True)
class Plot:
    """A figure of the report.

    Attributes:
        name: Its name on the page and the name of its files.
        section: The section of `TITLES` that it belongs to.
        figure: The figure itself.
        caption: What it shows, as HTML.
        legend: Its legend, as HTML; empty if it has none.
        small: True if several of its kind stand side by side.
        min_width: The width in pixels below which it cannot be read, and scrolls; 0 for any.
    """

    name: str
    section: str
    figure: go.Figure
    caption: str
    legend: str = ""
    small: bool = False
    min_width: int = 0


def build_plots(result: SearchResult, shares: importance.Shares | None = None) -> list[Plot]:
    """Return the plots for which the search has enough trials, in the order of the report.

    Args:
        result: The search.
        shares: `importance.explain` of the search; None to compute it here.

    Returns:
        The plots. The list is empty until a trial has been judged.
    """
    if result.best is None:
        return []
    best, shares = result.best.trial, importance.explain(result) if shares is None else shares
    return [
        *_plots_of_trials(result, best),
        *_plots_of_importance(result, best, shares),
        *_plots_of_surface(result, best, next(iter(shares.values()), {})),
        *_plots_of_slices(result, best),
        *_plots_of_overfitting(result, best),
        *_plots_of_cost(result),
    ]


def build_overview(result: SearchResult) -> list[Plot]:
    """Return the two plots that say most of a search, curves and trade-off; none until a trial has been judged."""
    if result.best is None:
        return []
    return [plot for plot in _plots_of_trials(result, result.best.trial) if not plot.small]


def sampling_note(result: SearchResult) -> str:
    """Return which trials are drawn, as HTML; empty if all are."""
    trials = len(result.trials)
    if trials <= MAX_LINES:
        return ""
    points = f"{min(trials, MAX_POINTS):,} in plots of points and " if trials > MAX_POINTS else ""
    return (
        f"Of {trials:,} trials, {points}{MAX_LINES} in plots of lines are drawn, since a browser is slow with more. "
        "These are the trials of start_from and those with unusual ends as far as there is room, the best trials, and "
        "others spread evenly over the search. So the trials drawn are better than all trials on average. The Pareto "
        "front is that of all trials, and its trials are drawn. The surface over two hyperparameters and the plots of "
        "cost show all trials, and trials.csv has them all."
    )


def slices_legend(result: SearchResult) -> str:
    """Return the legend that all plots of the section "slices" share, as HTML."""
    judged = sample_trials(result.leaders, result.trials, MAX_POINTS).dropna(subset=["pgd_accuracy_best"])
    return build_legend([*entries_of_best("ring", result, judged), *entries_of_statuses(judged)])


def _plots_of_trials(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    few = sample_trials(result.leaders, trials, MAX_LINES)
    judged = few.dropna(subset=["pgd_accuracy_best"])
    epochs = result.epochs[result.epochs["trial"].isin(few["trial"])]
    caption = _curves_caption(spec, int(trials["pgd_accuracy_best"].isna().sum()))
    legend = build_legend([*entries_of_best("line", result, judged), *entries_of_statuses(judged)])
    yield Plot("curves", "curves", accuracies.plot_curves(few, epochs, spec, best), caption, legend)
    yield from _plots_of_progress(result)
    yield _plot_of_tradeoff(result, best)


def _plot_of_tradeoff(result: SearchResult, best: int) -> Plot:
    spec, trials = result.spec, result.trials
    many = sample_trials(result.leaders, trials, MAX_POINTS, set(accuracies.find_front(trials)["trial"]))
    at_rim = accuracies.count_at_rim(trials, best)
    return Plot(
        "tradeoff",
        "tradeoff",
        accuracies.plot_tradeoff(trials, spec, best, many),
        "Each point is a trial at the epoch of its best PGD accuracy. Better trials lie further up and to the right. "
        "The Pareto front joins the trials that no other trial beats in both accuracies."
        + _rim_note(at_rim, are_all_drawn=len(many) == len(trials)),
        build_legend(
            [
                (line_mark(accuracies.FRONT_COLOR, "dashed"), "Pareto front"),
                *entries_of_best("ring", result, many),
                *entries_of_statuses(many.dropna(subset=["pgd_accuracy_best"])),
            ]
        ),
    )


def _rim_note(at_rim: int, *, are_all_drawn: bool) -> str:
    if not at_rim:
        return ""
    lie = "other trial lies" if at_rim == 1 else "other trials lie"
    are = "is" if at_rim == 1 else "are"
    drawn = f" and {are} drawn at the rim" if are_all_drawn else "; those of them that are drawn are at the rim"
    return f" The axes cover the trials that ran to their end; {at_rim:,} {lie} beyond{drawn}."


def _plots_of_progress(result: SearchResult) -> Iterator[Plot]:
    """Yield the rise of the best so far; nothing for few trials, or if it hardly changed."""
    frame = leader_progress(result)
    if len(frame) < MIN_LEADS or frame["trials"].iloc[-1] < MIN_BEGUN:
        return
    frames, metric = {result.spec.name: frame}, _metric_title(result.spec)
    text = "in the order in which they first reported"
    yield Plot("best_by_trials", "progress", progress.plot_by_trials(frames, metric), f"By trials, {text}.", small=True)
    yield Plot(
        "best_by_seconds", "progress", progress.plot_by_hours(frames, metric), "By device time of all trials.",
        small=True,
    )  # fmt: skip


def _metric_title(spec: SearchSpec) -> str:
    """Return the title of an axis of the search's first metric."""
    return f"{ACCURACY_LABELS[spec.search.metrics[0].removesuffix('_best')]} accuracy"


def _plots_of_importance(result: SearchResult, best: int, shares: dict[str, dict[str, float]]) -> Iterator[Plot]:
    spec = result.spec
    if shares:
        legend = build_legend(
            (colored_glyph("■", color), words) for words, color in zip(shares, (BLUE, START_COLOR), strict=False)
        )
        figure, caption = space.plot_importance(shares), _importance_caption(result, shares)
        yield Plot("importance", "importance", figure, caption, legend)
    few = sample_trials(result.leaders, result.trials, MAX_LINES)
    strong = result.leaders["trial"].head(max(MIN_STRONG, round(STRONG_SHARE * len(few)))).tolist()
    figure = space.plot_parallel_coordinates(few, strong, spec, best)
    drawn = {trace.name: line_mark(trace.line.color) for trace in reversed(figure.data)}
    yield Plot(
        "parallel",
        "importance",
        figure,
        "Each line is a trial. It runs through the trial's value of each hyperparameter, from the bottom to the top of "
        "the searched range, to the accuracies that it reached. A value matters where the strong lines lie close "
        "together.",
        build_legend((mark, f"best: trial {best}" if name == "best" else name) for name, mark in drawn.items()),
        min_width=space.least_width_of_parallel_coordinates(spec),
    )


def _plots_of_surface(result: SearchResult, best: int, ranked: Iterable[str]) -> Iterator[Plot]:
    """Yield the surface over lambda and h. If one of them is not searched, the next most important replaces it.

    Args:
        result: The search.
        best: The number of the best trial.
        ranked: Hyperparameters, the most important first.
    """
    spec, trials = result.spec, result.trials
    numeric = [key for key in spec.space if spec.space[key].kind != "choice"]
    plane = [key for key in dict.fromkeys(["lambda", "h", *ranked, *numeric]) if key in numeric][:2]
    if len(plane) < 2:
        return
    x, y = plane
    finished = space.finished_trials(trials, x, y)
    if len(finished) < MIN_TRIALS:
        return
    many = sample_trials(result.leaders, trials, MAX_POINTS)
    yield Plot(
        "contour",
        "importance",
        space.plot_contour(finished, many, spec, x, y, best),
        f"PGD accuracy over <code>{escape(x)}</code> and <code>{escape(y)}</code>. The color is the mean of "
        f"those of the {len(finished):,} trials that ran to their end which lie around a place, whatever their other "
        "hyperparameters (Gaussian weights, a tenth of the range wide). Blank places have no such trial near.",
        build_legend(
            [
                *entries_of_best("ring", result, many),
                *entries_of_statuses(many.dropna(subset=["pgd_accuracy_best"])),
            ]
        ),
    )


def _plots_of_slices(result: SearchResult, best: int) -> Iterator[Plot]:
    spec = result.spec
    many = sample_trials(result.leaders, result.trials, MAX_POINTS)
    for key in spec.space:
        caption = f"<code>{escape(key)}</code>: {escape(describe_hyperparameter(key))}"
        figure = space.plot_hyperparameter(many, spec, key, best)
        yield Plot(f"slice_{key}", "slices", figure, caption, small=True)


def _importance_caption(result: SearchResult, shares: dict[str, dict[str, float]]) -> str:
    text = (
        "The share of the variance over the space that each hyperparameter explains by itself (functional ANOVA on a "
        "random forest, Hutter et al. 2014). The rest is due to combinations, and to noise that the forest has learned."
    )
    if result.spec.rungs:
        text += (
            " Read this with care. Trials that were stopped early had less time, so a hyperparameter that makes a "
            "trial <em>start</em> fast looks important to the best accuracy. At the first rung all trials had trained "
            "equally long, but a gain that comes late is not visible there. The sampler has also looked more closely "
            "where results were good."
        )
    names = set().union(*shares.values())
    if left_out := [key for key in result.spec.space if key not in names]:
        text += f" Not rated, since they have no effect in some trials: {escape(join_words(left_out))}."
    if len(result.trials) > MAX_TRIALS:
        text += f" Computed from {MAX_TRIALS:,} trials at most, spread evenly over the search."
    return text


def _plots_of_overfitting(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    many = sample_trials(result.leaders, trials, MAX_POINTS)
    if (many["curvature"].fillna(0) > 0).any():
        with_penalty = many.dropna(subset=["pgd_accuracy", "curvature"])
        yield Plot(
            "curvature",
            "overfitting",
            accuracies.plot_curvature(many, spec, best),
            "PGD accuracy after a trial's last epoch, against the mean penalty in that epoch, before lambda. The "
            "penalty asks for a flatter loss, which lies further left. The plot shows whether it is more robust, too. "
            "Trials without a penalty are left out.",
            build_legend([*entries_of_best("ring", result, many), *entries_of_statuses(with_penalty)]),
        )
    plane = [key for key in dict.fromkeys(["epsilon", "lambda", *spec.space]) if key in spec.space][:2]
    if trials["catastrophic_overfitting_epoch"].notna().any() and len(plane) == 2:
        x, y = plane
        outcomes = set(accuracies.overfitting_outcomes(many))
        styles = accuracies.OVERFITTING_STYLES.items()
        legend = [(colored_glyph(of.glyph, of.color), name) for name, of in styles if name in outcomes]
        yield Plot(
            "catastrophic_overfitting",
            "overfitting",
            accuracies.plot_overfitting_map(many, spec, x, y),
            f"Trials by <code>{escape(x)}</code> and <code>{escape(y)}</code>. A trial that was stopped early may have "
            "had too few epochs to overfit.",
            build_legend(legend),
        )


def _plots_of_cost(result: SearchResult) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    if cost.has_several_steps(trials):
        legend = [(line_mark(BLUE), "trained"), (line_mark(GRAY, "dashed"), "without early stopping")]
        shown = legend[: 1 if spec.search.scheduler == "none" else 2]
        caption = (
            "How many trials trained each epoch. The area below the line is what was spent."
            + " The area from there up to the dashed line is what early stopping saved: the further epochs of the "
            "trials that it stopped." * (spec.search.scheduler != "none")
        )
        yield Plot("budget", "cost", cost.plot_survival(trials, spec), caption, build_legend(shown))
    yield Plot(
        "seconds",
        "cost",
        cost.plot_seconds(trials),
        f"{_bars_caption(trials)} The penalty's own part of the backward pass counts as penalty. Making adversarial "
        "images counts as attack.",
        build_legend([(colored_glyph("■", color), words) for words, _, color in cost.PARTS]),
    )
    spans = cost.find_stretches(result.epochs)
    if not cost.is_eventful(spans):
        return
    yield Plot(
        "timeline",
        "cost",
        cost.plot_timeline(trials, result.epochs),
        "A bar is a trial on the machine that ran it. Trials that ran there at the same time lie below one another. "
        f"No trial ran in {format_percent(cost.idle_share(spans), digits=0)} of the time of these rows.",
        build_legend(entries_of_statuses(trials[trials["epochs_trained"] > 0])),
    )


def _bars_caption(trials: pd.DataFrame) -> str:
    size = cost.trials_per_bar(trials)
    return "Seconds of a trial's device." + f" Each bar is the mean of {size} trials, in their order." * (size > 1)


def budget_note(result: SearchResult) -> str:
    """Return what was trained, what early stopping saved, and what was not trained for other reasons, as HTML."""
    summary = result.summary
    spent, most = summary["epochs"], summary["epochs_without_early_stopping"]
    trained = f"The {format_count(summary['trials'], 'trial')} trained {format_count(spent, 'epoch')}"
    if result.spec.search.scheduler == "none":
        text = f"{trained}."
    else:
        text = f"{trained}; without early stopping they would have trained {most:,}, so "
        text += f"{1 - spent / most:.0%} were saved." if most else "none were saved."
    if untrained := summary["epochs_not_trained"]:
        text += f" Not trained for other reasons than early stopping: {format_untrained_epochs(untrained)}."
    return text


def _curves_caption(spec: SearchSpec, num_hidden: int) -> str:
    caption = "Each line is a trial. Its last symbol says how the trial ended."
    if spec.rungs:
        rungs = f"epoch{'s' * (len(spec.rungs) > 1)} {join_words(map(str, spec.rungs))}"
        caption += f" Dotted lines are the rungs, after {rungs}, where weaker trials are stopped."
    if num_hidden:
        caption += f" Not shown: {format_count(num_hidden, 'trial')} without any accuracy."
    return caption
