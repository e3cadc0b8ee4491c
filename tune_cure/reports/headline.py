"""The top of a search's report: the number to believe, the next command, other numbers, and how far to trust them."""

import itertools
import re
import shlex
from dataclasses import dataclass
from html import escape
from statistics import NormalDist
from typing import Any

import numpy as np

from tune_cure.confirmation.candidates import has_penalty, list_sound_trials
from tune_cure.confirmation.searches.chance import ChanceFinding
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import UNTARGETED_LABEL
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.search import ranking, run_files
from tune_cure.search.patience import is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import describe_metric
from tune_cure.search.trial_table import judged_examples
from tune_cure.utils import environment, significance
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_radius,
    path_word,
    quote_path,
)

SWITCHES = ("--no-autoattack", "--check", "--dry-run", "--verbose", "--quiet")
"""Flags of `confirm` without a value."""
LISTS = ("--baselines", "--candidates", "--epsilons")
"""Flags of `confirm` with any number of values."""


@dataclass(frozen=True)
class ConfirmedAccuracy:
    """The winner's accuracy on the test set, under the strongest attack that judged it at the search's radius.

    Attributes:
        attack: The attack as people write it.
        mean: The mean over the seeds, a fraction.
        deviation: The sample standard deviation over the seeds; NaN for one seed.
        seeds: The number of seeds.
        examples: The number of test images.
        is_doubtful: Whether a run has signs of masked gradients by which the attack may have failed.
    """

    attack: str
    mean: float
    deviation: float
    seeds: int
    examples: int
    is_doubtful: bool

    def __str__(self) -> str:
        return format_percent(self.mean, self.deviation)


def find_confirmed_accuracy(result: SearchResult, confirmation: Confirmation | None) -> ConfirmedAccuracy | None:
    """Return the confirmed accuracy of a search's leading trial; None if that trial was not confirmed."""
    if confirmation is None or result.best is None:
        return None
    table, evaluation, winner = confirmation.table, result.spec.evaluation, f"trial-{result.best.trial}"
    runs = table[table["contender"].eq(winner) & table["norm"].eq(evaluation.norm)]
    runs = runs[np.isclose(runs["epsilon"], evaluation.epsilon)]
    for attack in ("autoattack", "pgd_50_10"):
        accuracies = runs.dropna(subset=[attack])
        if len(accuracies):
            mean, deviation = significance.mean_and_deviation(accuracies[attack].to_numpy(dtype=float))
            label, examples = confirmation.attack_labels[attack], int(accuracies["examples"].min())
            is_doubtful = winner in confirmation.find_overrated(attack)
            return ConfirmedAccuracy(label, mean, deviation, len(accuracies), examples, is_doubtful)
    return None


def tiles(result: SearchResult, confirmation: Confirmation | None, finding: ChanceFinding | None) -> str:
    """Return the numbers that a reader looks for first: the number to believe and the next command, then others.

    Args:
        result: The search.
        confirmation: What has been confirmed; None for nothing.
        finding: What to say if no trial is clearly above chance; None if one is.
    """
    spec, summary = result.spec, result.summary
    best, planned = summary["best"], summary["trials_planned"]
    first = ""
    others: dict[str, str] = {}
    if best:
        number, words = ("at chance", finding.claim) if finding else _number_to_believe(result, confirmation)
        first = f'<div class="first"><dt>{words}</dt><dd>{number}</dd>{_next_step(result, confirmation, finding)}</div>'
        of_trial = _validation_accuracies(spec, best)
        others |= {title: accuracy for title, accuracy in of_trial.items() if accuracy != number}
    if not finding and (difference := difference_to_start(summary)):
        others["PGD accuracy compared with start_from"] = difference
    others["trials ended, of those planned"] = f"{summary['trials'] - count_unfinished(summary):,} of {planned:,}"
    if spec.search.scheduler == "none":
        others["epochs trained"] = f"{summary['epochs']:,}"
    else:
        most = summary["epochs_without_early_stopping"]
        others["epochs trained, of those needed without early stopping"] = f"{summary['epochs']:,} of {most:,}"
    others["wall time"] = format_duration(summary["wall_seconds"])
    items = "".join(f"<div><dt>{words}</dt><dd>{number}</dd></div>" for words, number in others.items())
    return f'<dl class="tiles">{first}{items}</dl>'


def _validation_accuracies(spec: SearchSpec, best: dict[str, Any]) -> dict[str, str]:
    """Return the leading trial's accuracies on validation images by their titles, the objective first."""
    pgd = format_percent(best["pgd_accuracy_best"], best["pgd_accuracy_best_se"])
    clean = format_percent(best["clean_accuracy_best"])
    if not ranking.ranks_by_another_metric(spec):
        return {"best validation PGD accuracy": pgd, "clean accuracy of that trial": clean}
    accuracies = {_name_objective(spec): _format_objective(spec, best), "its best validation PGD accuracy": pgd}
    if spec.search.metrics[0] != "clean_accuracy_best":
        accuracies["its clean accuracy at the epoch of the best PGD accuracy"] = clean
    return accuracies


def _name_objective(spec: SearchSpec) -> str:
    """Return the first metric as the title of a number."""
    return describe_metric(spec.search.metrics[0]).removeprefix("the ")


def _format_objective(spec: SearchSpec, best: dict[str, Any]) -> str:
    return format_percent(best["objective"], standard_error(best["objective"], judged_examples(spec)))


def _number_to_believe(result: SearchResult, confirmation: Confirmation | None) -> tuple[str, str]:
    """Return the most trustworthy accuracy of the leading trial, and what it is, as HTML.

    It is the confirmed one, else that of the second judgement, else the search's own objective, with a warning.
    """
    spec, best = result.spec, result.summary["best"]
    trial = f"trial {best['trial']}"
    if confirmed := find_confirmed_accuracy(result, confirmation):
        at = format_radius(spec.evaluation.epsilon, spec.evaluation.norm)
        words = (
            f"{confirmed.attack} accuracy of {trial} on {confirmed.examples:,} test images at {at}: mean of "
            f"{format_count(confirmed.seeds, 'seed')}{' ± their standard deviation' * (confirmed.seeds > 1)}. "
        )
        weak = {
            "AutoAttack": "Believe this number.",
            UNTARGETED_LABEL: "AutoAttack's targeted parts need four classes.",
        }
        if confirmed.is_doubtful:
            weak[confirmed.attack] = "It has signs of masked gradients and may be less robust than that."
        return str(confirmed), words + weak.get(confirmed.attack, "AutoAttack was left out, and would lower it.")
    if best["fresh_pgd_accuracy"] is not None:
        words = (
            f"accuracy of {trial} under {spec.rescoring} on {best['fresh_examples']:,.0f} validation images that the "
            "search had not used ± one standard error. Believe this number until the winner is confirmed."
        )
        return format_percent(best["fresh_pgd_accuracy"], best["fresh_pgd_accuracy_se"]), words
    compared = len(ranking.rank_trials(result.trials, spec))
    best_word, better = ("best", "better") if spec.search.mode == "max" else ("lowest", "lower")
    chosen = f", the {best_word} of {compared:,}: it looks {better} than it is" if compared > 1 else ""
    if best["status"] in ranking.UNSOUND_STATUSES:
        chosen = f", which {STATUS_WORDS[best['status']]} later"
    of_trial = f"of {trial}{chosen}. It is not confirmed on test images yet."
    if ranking.ranks_by_another_metric(spec):
        return _format_objective(spec, best), f"{_name_objective(spec)}, on validation images, {of_trial}"
    number = format_percent(best["pgd_accuracy_best"], best["pgd_accuracy_best_se"])
    return number, f"validation PGD accuracy {of_trial}"


def _next_step(result: SearchResult, confirmation: Confirmation | None, finding: ChanceFinding | None) -> str:
    """Return the next command with what it does, as HTML."""
    folder = quote_path(result.directory)
    if not is_search_over(result):
        resume = f"<code>{escape(f'tune-cure search --resume {folder}')}</code> goes on with one that was interrupted."
        watch = f"<code>{escape(f'tune-cure watch {folder}')}</code> shows the search while it runs;"
        return f'<dd class="next">Next: {watch} {resume}</dd>'
    if finding:
        words = f"Next: change the space; a confirmation would compare guesses. {finding.reasons}"
        return f'<dd class="next">{escape(words)}</dd>'
    if not list_sound_trials(result):
        return '<dd class="next">Next: change the space; no trial ended well, so there is nothing to confirm.</dd>'
    confirmed = find_confirmed_accuracy(result, confirmation)
    if confirmation is None or confirmed is None:
        twice = ", with and without its penalty," if result.best and has_penalty(_config(result)) else ""
        what = f"trains the winner again with other seeds{twice} and judges it on test images"
        return _next(f"tune-cure confirm {folder}", what)
    if confirmation.num_judged < confirmation.num_planned:
        done = f"{confirmation.num_judged} of {format_count(confirmation.num_planned, 'run')} are done"
        return _next(_last_command(result), f"goes on with the confirmation: {done}")
    if confirmed.attack not in ("AutoAttack", UNTARGETED_LABEL):
        return _next(_last_command(result).replace(" --no-autoattack", ""), "adds AutoAttack")
    if confirmation.question is None and result.best and has_penalty(_config(result)):
        command = re.sub(r" --baselines(=| |$)", " --baselines ablation ", _last_command(result)).strip()
        return _next(command, "measures what the penalty is worth")
    return _next(f"tune-cure export {folder} --to winner", "writes the winner's weights, a loader and a model card")


def _last_command(result: SearchResult) -> str:
    """Return the last command line that confirmed the search, as its environment.json has it, for the folder of now.

    The folder may have another name since then, or lie on another machine.
    """
    sessions = environment.read(result.directory / run_files.CONFIRM).sessions
    try:
        words = shlex.split(str(sessions[-1].get("command", ""))) if sessions else []
    except ValueError:  # a quote without an end
        words = []
    options = _without_folder(words[words.index("confirm") + 1 :]) if "confirm" in words else []  # else: in Python
    return shlex.join(["tune-cure", "confirm", path_word(result.directory), *options])


def _without_folder(words: list[str]) -> list[str]:
    """Return the flags of a command line of `confirm` with their values."""
    kept, num_values = [], 0  # the number of words that belong to the last flag
    for word in itertools.takewhile(lambda word: word != "--", words):
        if word.startswith("--"):
            num_values = 0 if "=" in word or word in SWITCHES else len(words) if word in LISTS else 1
        elif num_values:
            num_values -= 1
        else:
            continue
        kept.append(word)
    return kept


def _config(result: SearchResult) -> Any:
    assert result.best is not None
    return result.spec.training_config(result.best.hyperparameters)


def _next(command: str, purpose: str) -> str:
    return f'<dd class="next">Next: <code>{escape(command)}</code> {escape(purpose)}.</dd>'


def caveat(result: SearchResult, confirmation: Confirmation | None) -> str:
    """Return the box "How far to trust this": what choosing the best of many trials does to its score."""
    spec, best, compared = result.spec, result.summary["best"], len(ranking.rank_trials(result.trials, result.spec))
    if best is None:
        return ""
    text = ""
    if compared > 1:
        text = (
            f"The winner is the best of {compared:,} trials. Trial and epoch were chosen on the same validation images "
            "that scored them, so the winner looks better than it is. "
        )
        confirmed = find_confirmed_accuracy(result, confirmation)
        text += _expected_luck(spec, best, compared) + _second_judgment(result, is_confirmed=confirmed is not None)
    text += _on_test_set(result, confirmation)
    return f'<aside class="caveat"><strong>How far to trust this.</strong> {text}</aside>'


def _on_test_set(result: SearchResult, confirmation: Confirmation | None) -> str:
    """Return what is known of the winner on the test set."""
    best = result.summary["best"]
    if confirmed := find_confirmed_accuracy(result, confirmation):
        best_weights = _on_best_weights(result, confirmation, confirmed)
        return (
            f"<strong>Confirmed:</strong> trained again with {format_count(confirmed.seeds, 'other seed')}, trial "
            f"{best['trial']} has <strong>{confirmed}</strong> under {confirmed.attack} on {confirmed.examples:,} test "
            f'images, which no choice was made by. {best_weights}<a href="#confirmation">The confirmation</a> has the '
            "details."
        )
    if confirmation is not None:
        names = dict.fromkeys(confirmation.table.loc[confirmation.table["kind"].eq("leader"), "contender"])
        return (
            f"A confirmation has judged {escape(', '.join(names))} on the test set, but not trial {best['trial']}, "
            "which leads now."
        )
    if any((result.directory / run_files.CONFIRM).glob("*/seed-*/*/clean.npy")):
        return "A confirmation on the test set has begun; no run of it has been judged to its end."
    return "The test set is still untouched: the winner's accuracy on it, over several seeds, is not known yet."


def _on_best_weights(result: SearchResult, confirmation: Confirmation | None, confirmed: ConfirmedAccuracy) -> str:
    """Return what the best epoch's weights of the winner have under the same attack; empty if it did not judge them."""
    assert confirmation is not None and result.best is not None
    table = confirmation.robust_overfitting()
    rows = table[table["contender"].eq(f"trial-{result.best.trial}")]
    rows = rows[np.isclose(rows["epsilon"].astype(float), result.spec.evaluation.epsilon)]
    rows = rows[rows["metric"].map(confirmation.attack_labels).eq(confirmed.attack)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    best, held_out = format_percent(row["best"]), f"which {row['held_out']:,} held-out images chose"
    if row["seeds"] < confirmed.seeds:
        runs = format_count(int(row["seeds"]), "run")
        best += f" in the {runs} with both, and the last ones {format_percent(row['last'])}"
    return f"These are the last weights; those of the best epoch, {held_out}, have {best}. "


def _expected_luck(spec: SearchSpec, best: dict[str, Any], compared: int) -> str:
    """Return by how much the best of equally good trials would look too good; empty if the metric is another one."""
    if not ranking.rescoring_decides(spec):
        return ""
    # Blom's approximation of the expected largest of n standard normal values.
    luck = NormalDist().inv_cdf((compared - 0.375) / (compared + 0.25))
    return (
        f"If all {compared:,} were equally good and their errors independent, the best would look about "
        f"{luck:.1f} standard errors ({100 * luck * best['pgd_accuracy_best_se']:.1f} points) better than it is. "
    )


def _second_judgment(result: SearchResult, *, is_confirmed: bool) -> str:
    """Return what the winner reached on fresh validation images; empty if it was not judged again."""
    spec, best = result.spec, result.summary["best"]
    if best["fresh_pgd_accuracy"] is None:
        return ""
    text = (
        f"Judged again by {spec.rescoring} on {best['fresh_examples']:,.0f} validation images that the search had not "
        f"used, it has <strong>{format_percent(best['fresh_pgd_accuracy'], best['fresh_pgd_accuracy_se'])}</strong>. "
    )
    if result.autoattack:
        text += f"{result.autoattack} "
    if ranking.rescoring_decides(spec):
        believe = "" if is_confirmed else "Believe this number. "
        if result.is_chosen_by_posterior:
            return (
                f"{text}{believe}Which of the leading trials won was decided by the posterior mean of a Gaussian "
                "process, which has this and all trials that ran to their end in it. "
            )
        return f"{text}{believe}It also decided which of the leading trials won. "
    believe = "" if is_confirmed else "Believe this robust accuracy. "
    return f"{text}{believe}Which trial won was decided by {spec.search.metrics[0]}. "


def difference_to_start(summary: dict[str, Any]) -> str:
    """Return the winner's PGD accuracy minus that of `start_from`; empty if they are one trial or one is missing."""
    best, baseline = summary["best"], summary["baseline"]
    if not best or not baseline or baseline["pgd_accuracy_best"] is None or best["trial"] == baseline["trial"]:
        return ""
    return f"{format_points(best['pgd_accuracy_best'] - baseline['pgd_accuracy_best'])} points"


def count_unfinished(summary: dict[str, Any]) -> int:
    """Return the number of trials that have begun and not ended."""
    return int(summary["trials_by_status"].get("unfinished", 0))
