"""Summary of a search in words: what was searched, what won, by how much, at what cost, and how far to trust it."""

import math
from html import escape
from typing import Any

from tune_cure.confirmation.searches.chance import ChanceFinding, find_chance
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import ACCURACY_LABELS
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.reports import headline
from tune_cure.search import ranking, trial_table
from tune_cure.search.budget import replay_budget
from tune_cure.search.patience import describe_early_end, is_search_over
from tune_cure.search.proposals.auto_sampler import resolve_sampler
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import describe_metric
from tune_cure.search.space.radii import format_setting
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_norm,
    format_percent,
    format_radius,
    format_untrained_epochs,
    join_words,
)


def summarize_search(
    result: SearchResult, environment: dict[str, Any], confirmation: Confirmation | None = None
) -> str:
    """Return the report's section "Summary" as HTML.

    Args:
        result: The search.
        environment: The content of environment.json; empty if there is none.
        confirmation: What has been confirmed; None for nothing.
    """
    spec, summary, finding = result.spec, result.summary, find_chance(result)
    paragraphs = [
        _describe_search(spec, environment),
        _describe_ends(result),
        _describe_winner(result, finding),
        "" if finding else _compare_with_start(summary),
        _describe_pareto_front(spec, summary),
        _describe_constraints(spec, summary),
        _describe_cost(spec, summary),
    ]
    text = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs if paragraph)
    caveat = headline.caveat(result, confirmation)
    return f'{headline.tiles(result, confirmation, finding)}<div class="columns"><div>{text}</div>{caveat}</div>'


def _describe_search(spec: SearchSpec, environment: dict[str, Any]) -> str:
    source = environment.get("data") or f"the data set {spec.data.dataset}"
    names = join_words(f"<code>{escape(key)}</code>" for key in spec.space)
    metrics = join_words(describe_metric(name) for name in spec.search.metrics)
    sampler, _ = resolve_sampler(spec)
    return (
        f"The search looked for the values of {format_count(len(spec.space), 'hyperparameter')} ({names}) that "
        f"{_describe_aim(spec)}. Its images: "
        f"{escape(str(source))}. The sampler <code>{escape(sampler)}</code> proposed the values. Trials "
        f"were compared by {metrics} on validation images; {'more' if spec.search.mode == 'max' else 'less'} is better."
    )


def _describe_aim(spec: SearchSpec) -> str:
    """Return what the values sought do to the network, by the first metric, as HTML."""
    network = f"<code>{escape(spec.model.name)}</code>"
    if ranking.rescoring_decides(spec):
        return f"make {network} most robust against adversarial images"
    label = ACCURACY_LABELS[spec.search.metrics[0].removesuffix("_best")]
    return f"give {network} the {'highest' if spec.search.mode == 'max' else 'lowest'} {label} accuracy"


def _describe_ends(result: SearchResult) -> str:
    """Return how many trials ended in which way, and whether the search is over."""
    summary = result.summary
    counts = summary["trials_by_status"]
    ends = [f"{counts[status]:,} {words}" for status, words in STATUS_WORDS.items() if status in counts]
    begun, planned = summary["trials"], summary["trials_planned"]
    budget = replay_budget(result)
    if not begun:
        return f"No trial has begun yet; {budget.words or f'{planned:,}'} {'is' if budget.words else 'are'} planned."
    text = f"Of {format_count(begun, 'trial')}, {join_words(ends)}."
    text += f" They have spent {100 * budget.share:.0f}% of {budget.words}." if budget.words else ""
    unfinished = headline.count_unfinished(summary)
    missing = [f"{format_count(unfinished, 'trial')} unfinished"] if unfinished else []
    missing += [f"{planned - begun:,} of {planned:,} not begun"] if planned > begun else []
    if not missing and (is_search_over(result) or not budget.words):
        return text
    missing = missing or ["its budget is not spent"]
    if is_search_over(result):
        return f"{text} The search ended early, with {join_words(missing)}: {describe_early_end(result)}."
    return f"<strong>The search is not over: {join_words(missing)}.</strong> {text}"


def _describe_winner(result: SearchResult, finding: ChanceFinding | None) -> str:
    spec, best = result.spec, result.summary["best"]
    if best is None:
        return "<strong>No trial has been judged yet</strong>, so there is no winner and nothing to plot."
    clean_error = standard_error(best["clean_accuracy_best"], trial_table.judged_examples(spec))
    values = join_words(
        f"<code>{escape(key)}</code> {escape(format_setting(spec, key, value))}"
        for key, value in best["hyperparameters"].items()
    )
    trial = f"Trial {best['trial']}"
    place = f"<strong>{trial} {'won' if is_search_over(result) else 'leads'}</strong> with {values}."
    if finding:
        reasons = f"{escape(finding.evidence)} {escape(finding.reasons)}"
        place = f"<strong>{escape(finding.claim)}.</strong> {reasons} {trial} ranks first, with {values}."
    text = (
        f"{place} After epoch {best['best_epoch']:.0f} it reached a PGD accuracy of "
        f"<strong>{format_percent(best['pgd_accuracy_best'], best['pgd_accuracy_best_se'])}</strong> and a clean "
        f"accuracy of {format_percent(best['clean_accuracy_best'], clean_error)}; ± is one standard error. "
        f"{_describe_attack(spec)}"
    )
    if ranking.ranks_by_another_metric(spec):
        metric = describe_metric(spec.search.metrics[0])
        text += f" It ranks first by {metric}: {format_percent(best['objective'])}."
    if best["status"] in ranking.UNSOUND_STATUSES:  # these rank last: no trial ended well
        text += (
            f" <strong>It {STATUS_WORDS[best['status']]} later, and no other trial ended well. Do not expect this "
            "score from another training with these hyperparameters.</strong>"
        )
    return text


def _describe_attack(spec: SearchSpec) -> str:
    evaluation = spec.evaluation
    radius = format_radius(evaluation.epsilon, evaluation.norm)
    radius += f" in {format_norm(evaluation.norm)}" * (evaluation.norm == "linf")  # of others, the radius has the norm
    return (
        f"PGD accuracy is the share of {trial_table.judged_examples(spec):,} validation images that stay correctly "
        f"classified under a PGD attack of {format_count(evaluation.steps, 'step')} and "
        f"{format_count(evaluation.restarts, 'random start')} within {escape(radius)}."
    )


def _compare_with_start(summary: dict[str, Any]) -> str:
    """Return how the winner compares with the first configuration of `start_from`; empty if there is none."""
    best, baseline = summary["best"], summary["baseline"]
    if baseline is None or best is None:
        return ""
    if baseline["trial"] == best["trial"]:
        rank = "nothing has beaten it" if isinstance(summary["metric"], str) else "nothing ranks before it"
        return f"Trial {best['trial']} is the <code>start_from</code> configuration: {rank}."
    if baseline["pgd_accuracy_best"] is None:
        return f"Trial {baseline['trial']}, the <code>start_from</code> configuration, has no accuracy to compare with."
    reached = format_percent(baseline["pgd_accuracy_best"], baseline["pgd_accuracy_best_se"])
    error = math.hypot(best["pgd_accuracy_best_se"], baseline["pgd_accuracy_best_se"])
    difference = headline.difference_to_start(summary)
    return (
        f"The <code>start_from</code> configuration, trial {baseline['trial']}, {STATUS_WORDS[baseline['status']]} and "
        f"reached a PGD accuracy of {reached}. The winner differs from it by {difference}. The standard error of this "
        f"difference would be {100 * error:.1f} points if the two had been judged on different images. They were "
        "judged on the same images, which usually makes it smaller."
    )


def _describe_pareto_front(spec: SearchSpec, summary: dict[str, Any]) -> str:
    if len(spec.search.metrics) == 1 or not summary["pareto_front"]:
        return ""
    metrics = join_words(describe_metric(name) for name in spec.search.metrics)
    trials = join_words(map(str, summary["pareto_front"]))
    return (
        f"Trials are ranked by {describe_metric(spec.search.metrics[0])}. The Pareto front of {metrics} holds the "
        f"trials that no other trial beats in one metric without falling behind in another: <strong>{trials}</strong>."
    )


def _describe_constraints(spec: SearchSpec, summary: dict[str, Any]) -> str:
    if not spec.search.constraints:
        return ""
    constraints = join_words(f"<code>{escape(text)}</code>" for text in spec.search.constraints)
    feasible = summary["trials_feasible"]
    if not feasible:
        return f"<strong>No trial keeps {constraints}.</strong>"
    keep = "keeps" if feasible == 1 else "keep"
    return f"{format_count(feasible, 'trial')} {keep} {constraints}; the others rank behind them."


def _describe_cost(spec: SearchSpec, summary: dict[str, Any]) -> str:
    text = f"The search took {format_count(summary['epochs'], 'epoch')} of training."
    if spec.search.scheduler != "none":
        most, begun = summary["epochs_without_early_stopping"], format_count(summary["trials"], "trial")
        text += f" Without early stopping, its {begun} would have taken {most:,}."
    text += f" It lasted {format_duration(summary['wall_seconds'])} by the clock; the times of all trials add up to "
    text += f"{format_duration(summary['trial_seconds'])}."
    if untrained := summary["epochs_not_trained"]:
        text += f" Not trained for other reasons than early stopping: {format_untrained_epochs(untrained)}."
    return text
