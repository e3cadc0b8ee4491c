"""Which plots a search's report has: each with what is to be said of it, for the page and for paper alike."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tune_cure.reports.figures import accuracies as figures, cost, space as figures_space
from tune_cure.reports.figures.style import BEST_COLOR, BLUE, GRAY, START_COLOR, STATUSES, sample_trials
from tune_cure.search.importance import MAX_TRIALS, fanova
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import HYPERPARAMETERS
from tune_cure.utils.formatting import format_count, format_untrained_epochs, join_words

MAX_POINTS = 1500  # trials in a plot of points
MAX_LINES = 300  # trials in a plot of lines
TOP_SHARE, MIN_STRONG = 0.1, 5  # of trials, drawn strong among the lines
MIN_TRIALS = 8  # for a smoothed surface
TITLES = {
    "curves": "PGD accuracy by epoch",
    "tradeoff": "Clean against PGD accuracy",
    "importance": "What mattered",
    "slices": "PGD accuracy against each hyperparameter",
    "overfitting": "Curvature and catastrophic overfitting",
    "cost": "What it cost",
}


@dataclass(frozen=True)
class Plot:
    """A figure, the section of the report that it is in (of `TITLES`), its caption and legend (both HTML)."""

    name: str
    section: str
    figure: go.Figure
    caption: str
    legend: str = ""
    small: bool = False


def build_plots(result: SearchResult) -> list[Plot]:
    """The plots that the search has enough for, in their order; none before a trial has been judged."""
    if result.best is None:
        return []
    return [plot for make in (_reached, _space, _overfitting, _cost) for plot in make(result, result.best.trial)]


def sampling_note(result: SearchResult) -> str:
    """What to say where not all trials are drawn."""
    trials = len(result.trials)
    if trials <= MAX_LINES:
        return ""
    points = f"{min(trials, MAX_POINTS):,} in plots of points, " if trials > MAX_POINTS else ""
    return (
        f"Of {trials:,} trials, {points}{MAX_LINES} in plots of lines are drawn, for a browser's sake: those of "
        "start_from and with unusual ends as far as there is room, the best ones, and others spread evenly, so "
        "they are better than all are. The surface over two hyperparameters and the plots of cost are of all trials, "
        "and trials.csv has them all."
    )


def describe_hyperparameter(spec: SearchSpec, key: str) -> str:
    """What a hyperparameter is."""
    return type(spec.training_config({})).model_fields[HYPERPARAMETERS[key]].description or ""


def status_glyph(status: str) -> str:
    """The symbol of a status, in its color."""
    style = STATUSES[status]
    return _mark(style.glyph, style.color)


def _mark(character: str, color: str) -> str:
    return f'<span class="glyph" style="color:{color}" aria-hidden="true">{character}</span>'


def _stroke(color: str, style: str = "solid") -> str:
    return f'<span class="line" style="border-top:2px {style} {color}"></span>'


def _reached(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    few = sample_trials(result.leaders, trials, MAX_LINES)
    judged = few.dropna(subset=["pgd_accuracy_best"])
    epochs = result.epochs[result.epochs["trial"].isin(few["trial"])]
    caption = _curves_caption(spec, int(trials["pgd_accuracy_best"].isna().sum()))
    legend = _legend([*_special("line", result, judged), *_statuses(judged)])
    yield Plot("curves", "curves", figures.plot_curves(few, epochs, spec, best), caption, legend)
    many = sample_trials(result.leaders, trials, MAX_POINTS)
    yield Plot(
        "tradeoff",
        "tradeoff",
        figures.plot_tradeoff(many, spec, best),
        "Each trial at the epoch of its best PGD accuracy; the better, the further up and right. The Pareto front "
        "joins those that none beats in both.",
        _legend(
            [
                (_stroke(figures.FRONT_COLOR, "dashed"), "Pareto front"),
                *_special("ring", result, many),
                *_statuses(many.dropna(subset=["pgd_accuracy_best"])),
            ]
        ),
    )


def _space(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    many = sample_trials(result.leaders, trials, MAX_POINTS)
    rated = _importance(result)
    ranking = list(next(iter(rated.values()), {}))
    if rated:
        legend = _legend((_mark("■", color), words) for words, color in zip(rated, (BLUE, START_COLOR), strict=False))
        figure, caption = figures_space.plot_importance(rated), _importance_caption(result, rated)
        yield Plot("importance", "importance", figure, caption, legend)
    few = sample_trials(result.leaders, trials, MAX_LINES)
    strong = result.leaders["trial"].head(max(MIN_STRONG, round(TOP_SHARE * len(few)))).tolist()
    yield Plot(
        "parallel",
        "importance",
        figures_space.plot_parallel_coordinates(few, strong, spec, best),
        "A line is a trial: through its value of each hyperparameter, from the bottom to the top of the searched "
        "range, to the accuracies that it reached. Where the strong lines lie close together, the value matters.",
        _legend(
            [
                (_stroke(color), words)
                for color, words in (
                    (BEST_COLOR, f"best: trial {best}"),
                    (BLUE, f"the best {len(strong)}"),
                    ("#8A8A8A", "other trials"),
                )
            ]
        ),
    )
    numeric = [key for key in spec.space if spec.space[key].kind != "choice"]
    wanted = [key for key in dict.fromkeys(["lambda", "h", *ranking, *numeric]) if key in numeric][:2]
    if len(wanted) == 2 and len(trials.dropna(subset=["pgd_accuracy_best", *wanted])) >= MIN_TRIALS:
        yield Plot(
            "contour",
            "importance",
            figures_space.plot_contour(trials, many, spec, wanted[0], wanted[1], best),
            f"PGD accuracy over <code>{escape(wanted[0])}</code> and <code>{escape(wanted[1])}</code>, the mean of the "
            "trials around a place (Gaussian, a tenth of the range wide), whatever their other hyperparameters. Blank: "
            "no trial is near.",
            _legend([*_special("ring", result, many), *_statuses(many.dropna(subset=["pgd_accuracy_best"]))]),
        )
    for key in spec.space:
        caption = f"<code>{escape(key)}</code>: {escape(describe_hyperparameter(spec, key))}"
        yield Plot(
            f"slice_{key}", "slices", figures_space.plot_hyperparameter(many, spec, key, best), caption, small=True
        )


def slices_legend(result: SearchResult) -> str:
    """The legend of all the plots of section slices."""
    judged = sample_trials(result.leaders, result.trials, MAX_POINTS).dropna(subset=["pgd_accuracy_best"])
    return _legend([*_special("ring", result, judged), *_statuses(judged)])


def _importance(result: SearchResult) -> dict[str, dict[str, float]]:
    """The shares of `importance.fanova` by what they explain."""
    spec, trials = result.spec, result.trials
    found = {"the best PGD accuracy of any epoch": fanova(trials, trials["pgd_accuracy_best"].astype(float), spec)}
    rung = spec.rungs[0] if spec.rungs else 0
    if rung:
        at = result.epochs[result.epochs["epoch"] == rung].set_index("trial")["pgd_accuracy"]
        words = f"PGD accuracy after epoch {rung}, the first rung"
        found[words] = fanova(trials, trials["trial"].map(at), spec)
    return {words: shares for words, shares in found.items() if shares}


def _importance_caption(result: SearchResult, rated: dict[str, dict[str, float]]) -> str:
    names = set().union(*rated.values())
    text = "How much of the variance over the space a hyperparameter explains by itself (functional ANOVA on a random "
    text += "forest, Hutter et al. 2014); the rest is due to combinations, and to noise that the forest has learnt."
    if result.spec.rungs:
        text += (
            " Take it with care: trials that were stopped early had less time, so what lets a trial <em>start</em> "
            "fast looks important to the best accuracy; at the first rung all had trained alike, but what pays off "
            "late cannot be seen there. And the sampler has looked more closely where it was good."
        )
    if left_out := [key for key in result.spec.space if key not in names]:
        text += f" Not rated, for they make no difference in some trials: {escape(join_words(left_out))}."
    if len(result.trials) > MAX_TRIALS:
        text += f" From at most {MAX_TRIALS:,} trials, spread evenly."
    return text


def _overfitting(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    many = sample_trials(result.leaders, trials, MAX_POINTS)
    if (many["curvature"].fillna(0) > 0).any():
        yield Plot(
            "curvature",
            "overfitting",
            figures.plot_curvature(many, spec, best),
            "The mean penalty of a trial's last epoch of training, before lambda, against its PGD accuracy after it. "
            "A flatter loss (further left) is what the penalty asks for; whether it is more robust, too, is to be "
            "seen here. Trials without a penalty have none.",
            _legend([*_special("ring", result, many), *_statuses(many.dropna(subset=["pgd_accuracy", "curvature"]))]),
        )
    plane = [key for key in dict.fromkeys(["epsilon", "lambda", *spec.space]) if key in spec.space][:2]
    if trials["catastrophic_overfitting_epoch"].notna().any() and len(plane) == 2:
        legend = [
            (status_glyph("catastrophic_overfitting"), "overfitted catastrophically"),
            (status_glyph("completed"), "did not"),
        ]
        yield Plot(
            "catastrophic_overfitting",
            "overfitting",
            figures.plot_overfitting_map(many, spec, plane[0], plane[1]),
            f"Trials by <code>{escape(plane[0])}</code> and <code>{escape(plane[1])}</code>. One that was stopped "
            "early may have had too few epochs to overfit.",
            _legend(legend),
        )


def _cost(result: SearchResult, best: int) -> Iterator[Plot]:
    spec, trials = result.spec, result.trials
    legend = [(_stroke(BLUE), "trained"), (_stroke(GRAY, "dashed"), "without early stopping")]
    shown = legend[: 1 if spec.search.scheduler == "none" else 2]
    yield Plot("budget", "cost", cost.plot_survival(trials, spec), _budget_caption(result), _legend(shown))
    yield Plot(
        "seconds",
        "cost",
        cost.plot_seconds(trials),
        f"{_seconds_are_of(trials)} The penalty's own part of the backward pass is counted with the penalty; the "
        "attack's are those of making adversarial images.",
        _legend([(_mark("■", color), words) for words, _, color in cost.PARTS]),
    )
    yield Plot(
        "timeline",
        "cost",
        cost.plot_timeline(trials, result.epochs),
        "A bar is a trial on the machine that ran it; trials that ran there at once lie one below the other.",
        _legend(_statuses(trials[trials["epochs_trained"] > 0])),
    )


def _seconds_are_of(trials: pd.DataFrame) -> str:
    size = cost.trials_per_bar(trials)
    return "Seconds of a trial's device." + f" Each bar is the mean of {size} trials, in their order." * (size > 1)


def _budget_caption(result: SearchResult) -> str:
    content = result.summary
    spent, most = content["epochs"], content["epochs_without_early_stopping"]
    text = "How many trials trained an epoch: the area below the line is what was spent"
    trained = f"The {format_count(content['trials'], 'trial')} trained {format_count(spent, 'epoch')}"
    if result.spec.search.scheduler == "none":
        text += f". {trained}."
    else:
        text += ", the area from there up to the dashed line what early stopping saved, the further epochs of the "
        text += f"trials that it stopped. {trained}; without early stopping they would have trained {most:,}, so "
        text += f"{1 - spent / most:.0%} were saved." if most else "none were saved."
    if left := content["epochs_not_trained"]:
        text += f" Not trained for other reasons than early stopping: {format_untrained_epochs(left)}."
    return text


def _curves_caption(spec: SearchSpec, num_hidden: int) -> str:
    caption = "Every line is a trial; its last symbol says how it ended."
    if spec.rungs:
        rungs = f"epoch{'s' * (len(spec.rungs) > 1)} {join_words(map(str, spec.rungs))}"
        caption += f" Dotted lines are the rungs, after {rungs}, where weaker trials are stopped."
    if num_hidden:
        caption += f" Not shown: {format_count(num_hidden, 'trial')} without any accuracy."
    return caption


def _special(mark: str, result: SearchResult, shown: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The legend's entries of the best trial and those of start_from, and of lines of the others."""
    assert result.best is not None
    best = result.best.trial
    starts = shown.loc[shown["origin"] == "start_from", "trial"].drop_duplicates()
    rivals = [str(number) for number in starts if number != best]
    yield f'<span class="{mark} best"></span>', f"best: trial {best}" + " (start_from)" * (best in set(starts))
    if rivals:
        yield f'<span class="{mark} start"></span>', f"start_from: trial {', '.join(rivals)}"
    if mark == "line" and len(shown) > len(rivals) + 1:
        yield '<span class="line others"></span>', "other trials"


def _statuses(shown: pd.DataFrame) -> list[tuple[str, str]]:
    return [(status_glyph(status), STATUSES[status].words) for status in STATUSES if status in set(shown["status"])]


def _legend(entries: Iterable[tuple[str, Any]]) -> str:
    items = "".join(f"<li>{mark}{words}</li>" for mark, words in entries)
    return f'<ul class="legend" aria-label="legend">{items}</ul>'
