"""A search in words: what was searched, what won, by how much, at what cost, and how far to trust it."""

import math
from html import escape
from statistics import NormalDist
from typing import Any

import pandas as pd

from tune_cure.evaluation.metrics import standard_error
from tune_cure.reports.figures.style import STATUSES
from tune_cure.search import ranking, trial_table
from tune_cure.search.patience import is_search_over, replay_patience
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    format_count,
    format_duration,
    format_points,
    format_untrained_epochs,
    format_value,
    join_words,
)

METRIC_WORDS = {
    "pgd_accuracy_best": "the best PGD accuracy of any epoch",
    "pgd_accuracy": "the PGD accuracy after the last epoch",
    "fgsm_accuracy": "the FGSM accuracy after the last epoch",
    "clean_accuracy": "the clean accuracy after the last epoch",
    "clean_accuracy_best": "the clean accuracy at the epoch of the best PGD accuracy",
    "fgsm_accuracy_best": "the FGSM accuracy at the epoch of the best PGD accuracy",
}


def summarize_search(result: SearchResult, environment: dict[str, Any]) -> str:
    """The whole of it as HTML; `environment` is the content of environment.json."""
    spec, content = result.spec, result.summary
    paragraphs = [_searched(spec, environment), _ended(result), _won(result), _against_baseline(content)]
    paragraphs += [_front(spec, content), _constrained(spec, content)]
    paragraphs.append(_took(spec, content))
    text = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs if paragraph)
    return (
        _tiles(spec, content) + f'<div class="columns"><div>{text}</div>{_caveat(spec, result.trials, content)}</div>'
    )


def _tiles(spec: SearchSpec, content: dict[str, Any]) -> str:
    """The numbers that a reader looks for first."""
    best, planned = content["best"], content["trials_planned"]
    tiles = {}
    if best:
        tiles["best validation PGD accuracy"] = percent(best["pgd_accuracy_best"], best["pgd_accuracy_best_se"])
        tiles["clean accuracy of that trial"] = percent(best["clean_accuracy_best"])
    if difference := _difference(content):
        tiles["PGD against start_from"] = difference
    tiles["trials ended, of those planned"] = f"{content['trials'] - _unfinished(content):,} of {planned:,}"
    if spec.search.scheduler == "none":
        tiles["epochs trained"] = f"{content['epochs']:,}"
    else:
        most = content["epochs_without_early_stopping"]
        tiles["epochs trained, of those without early stopping"] = f"{content['epochs']:,} of {most:,}"
    tiles["wall time"] = format_duration(content["wall_seconds"])
    items = "".join(f"<div><dt>{words}</dt><dd>{number}</dd></div>" for words, number in tiles.items())
    return f'<dl class="tiles">{items}</dl>'


def _took(spec: SearchSpec, content: dict[str, Any]) -> str:
    text = f"This took {format_count(content['epochs'], 'epoch')} of training"
    if spec.search.scheduler != "none":
        most, begun = content["epochs_without_early_stopping"], format_count(content["trials"], "trial")
        text += f", of {most:,} that the {begun} would have taken without early stopping"
    text += f", and {format_duration(content['wall_seconds'])} by the clock "
    text += f"({format_duration(content['trial_seconds'])} in all trials together)."
    if left := content["epochs_not_trained"]:
        text += f" Not trained, but not for early stopping: {format_untrained_epochs(left)}."
    return text


def _searched(spec: SearchSpec, environment: dict[str, Any]) -> str:
    source = environment.get("data") or f"the data set {spec.data.dataset}"
    names = join_words([f"<code>{escape(key)}</code>" for key in spec.space])
    metric = join_words(METRIC_WORDS[name] for name in spec.search.metrics)
    return (
        f"The search looked for values of {format_count(len(spec.space), 'hyperparameter')}, {names}, with which "
        f"<code>{escape(spec.model.name)}</code> becomes most robust against adversarial images. Its images: "
        f"{escape(str(source))}. The sampler <code>{escape(spec.search.sampler)}</code> proposed the values; trials "
        f"were compared by {metric} on validation images ({'more' if spec.search.mode == 'max' else 'less'} is better)."
    )


def _ended(result: SearchResult) -> str:
    content = result.summary
    counts = content["trials_by_status"]
    said = [f"{counts[status]:,} {style.words}" for status, style in STATUSES.items() if status in counts]
    begun, planned = content["trials"], content["trials_planned"]
    if not begun:
        return f"No trial has begun yet, of {planned:,} planned."
    text = f"Of {format_count(begun, 'trial')}, {join_words(said)}."
    left = [f"{format_count(_unfinished(content), 'trial')} unfinished"] if _unfinished(content) else []
    left += [f"{planned - begun:,} of {planned:,} not begun"] if planned > begun else []
    if not left:
        return text
    if is_search_over(result):
        return f"{text} The search ended early, with {join_words(left)}: {replay_patience(result).words}."
    return f"<strong>The search is not over: {join_words(left)}.</strong> {text}"


def _won(result: SearchResult) -> str:
    spec, best = result.spec, result.summary["best"]
    if best is None:
        return "<strong>No trial has been judged yet</strong>, so there is no winner and nothing to plot."
    clean_error = standard_error(best["clean_accuracy_best"], trial_table.judged_examples(spec))
    said = join_words(
        [f"<code>{escape(k)}</code> {escape(format_value(v))}" for k, v in best["hyperparameters"].items()]
    )
    text = (
        f"<strong>Trial {best['trial']} {'won' if is_search_over(result) else 'leads'}</strong> with {said}. "
        f"After epoch "
        f"{best['best_epoch']:.0f} it reached a PGD accuracy of <strong>"
        f"{percent(best['pgd_accuracy_best'], best['pgd_accuracy_best_se'])} points</strong> (standard error) and "
        f"a clean accuracy of {percent(best['clean_accuracy_best'], clean_error)} points. {_threat(spec)}"
    )
    if best["status"] in ranking.UNSOUND_STATUSES:  # these rank last: no trial ended well
        text += (
            f" <strong>It {STATUSES[best['status']].words} later, and no other trial ended well: what it scored "
            "before is not what its hyperparameters give.</strong>"
        )
    return text


def _front(spec: SearchSpec, content: dict[str, Any]) -> str:
    if len(spec.search.metrics) == 1 or not content["pareto_front"]:
        return ""
    metrics = join_words(METRIC_WORDS[name] for name in spec.search.metrics)
    numbers = join_words(map(str, content["pareto_front"]))
    return (
        f"Trials are ranked by {METRIC_WORDS[spec.search.metrics[0]]}. The Pareto front of {metrics}, the trials that "
        f"none beats in one without falling behind in another: <strong>{numbers}</strong>."
    )


def _constrained(spec: SearchSpec, content: dict[str, Any]) -> str:
    if not spec.search.constraints:
        return ""
    constraints = join_words(f"<code>{escape(text)}</code>" for text in spec.search.constraints)
    kept = content["trials_feasible"]
    text = f"{format_count(kept, 'trial')} {'keeps' if kept == 1 else 'keep'} {constraints}; the others rank behind."
    return text if kept else f"<strong>No trial keeps {constraints}.</strong>"


def _threat(spec: SearchSpec) -> str:
    of = spec.evaluation
    return (
        f"PGD accuracy is the share of {trial_table.judged_examples(spec):,} validation images that stay correctly "
        f"classified under a PGD attack of {format_count(of.steps, 'step')} and "
        f"{format_count(of.restarts, 'random start')} within "
        f"an {'L∞' if of.norm == 'linf' else 'L2'} radius of {of.epsilon:.4g} ({255 * of.epsilon:.3g}/255)."
    )


def _against_baseline(content: dict[str, Any]) -> str:
    best, baseline = content["best"], content["baseline"]
    if baseline is None or best is None:
        return ""
    if baseline["trial"] == best["trial"]:
        nothing = "nothing has beaten it" if isinstance(content["metric"], str) else "nothing ranks before it"
        return f"Trial {best['trial']} is the <code>start_from</code> configuration: {nothing}."
    if baseline["pgd_accuracy_best"] is None:
        return f"Trial {baseline['trial']}, the <code>start_from</code> configuration, has no accuracy to compare with."
    reached = percent(baseline["pgd_accuracy_best"], baseline["pgd_accuracy_best_se"])
    error = math.hypot(best["pgd_accuracy_best_se"], baseline["pgd_accuracy_best_se"])
    return (
        f"The <code>start_from</code> configuration, trial {baseline['trial']}, reached {reached} points; it "
        f"{STATUSES[baseline['status']].words}. The difference is {_difference(content)}, with a standard error of "
        f"{100 * error:.1f} had each been judged on images of its own; they were judged on the same ones, which "
        "usually makes it smaller."
    )


def _caveat(spec: SearchSpec, trials: pd.DataFrame, content: dict[str, Any]) -> str:
    best, compared = content["best"], len(ranking.rank_trials(trials, spec))
    if best is None:
        return ""
    text = "The test set is still untouched: the winner's accuracy on it, over several seeds, is yet to be measured."
    chosen = f"The winner is the best of {compared:,} trials, chosen on the very validation images that it was scored "
    chosen += "on, as its best epoch was, so it looks better than it is. "
    decisive = ranking.rescoring_decides(spec)
    if decisive:
        # Blom's approximation of the expected largest of n standard normal values.
        luck = NormalDist().inv_cdf((compared - 0.375) / (compared + 0.25))
        chosen += (
            f"Had all {compared:,} been equally good and their errors independent, the best would look about "
            f"{luck:.1f} standard errors, {100 * luck * best['pgd_accuracy_best_se']:.1f} points, better than it is. "
        )
    if best["fresh_pgd_accuracy"] is not None:
        chosen += (
            f"Judged again by {spec.rescoring} on "
            f"{best['fresh_examples']:,.0f} validation images that the search had not looked at, it has "
            f"<strong>{percent(best['fresh_pgd_accuracy'], best['fresh_pgd_accuracy_se'])} points</strong>. "
        )
        chosen += (
            "That is the number to believe; it also decided among the leaders. "
            if decisive
            else f"That is the robust accuracy to believe; who won was decided by {spec.search.metrics[0]}. "
        )
    text = chosen * (compared > 1) + text
    return f'<aside class="caveat"><strong>How far to trust this.</strong> {text}</aside>'


def percent(fraction: float, error: float | None = None) -> str:
    """A fraction in percent, with its standard error in points; a dash where there is none."""
    if pd.isna(fraction):
        return "–"
    return f"{100 * fraction:.1f}%" + ("" if error is None else f" ± {100 * error:.1f}")


def _difference(content: dict[str, Any]) -> str:
    """The winner's PGD accuracy less that of start_from; empty where these are one, or one is missing."""
    best, baseline = content["best"], content["baseline"]
    if not best or not baseline or baseline["pgd_accuracy_best"] is None or best["trial"] == baseline["trial"]:
        return ""
    return f"{format_points(best['pgd_accuracy_best'] - baseline['pgd_accuracy_best'])} points"


def _unfinished(content: dict[str, Any]) -> int:
    return int(content["trials_by_status"].get("unfinished", 0))
