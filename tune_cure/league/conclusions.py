"""Conclusions from a league's standings, in words: who wins, what tuning was worth, and what cannot be said."""

import pandas as pd

from tune_cure.confirmation.answers import chance_warnings, divergence_warnings, find_at_chance, find_doubt
from tune_cure.confirmation.candidates import list_sound_trials
from tune_cure.confirmation.seed_words import warn_of_few_seeds
from tune_cure.evaluation.names import UNTARGETED_LABEL
from tune_cure.league.folder import LeagueConfig
from tune_cure.league.standings import Standings
from tune_cure.utils.formatting import (
    format_count,
    format_percent,
    format_points,
    format_radius,
    format_seconds,
    join_words,
)
from tune_cure.utils.significance import mean_and_deviation


def who_wins(standings: Standings) -> list[str]:
    """Return who wins, in sentences; the first gives the answer.

    A method wins if it is better than each other one. A method with signs of masked gradients is not crowned, and
    neither is one that is not clearly above chance: one fixed answer withstands any attack. None is crowned before all
    have been judged. Methods without a winner to judge have no place, and do not keep others from winning.
    """
    if not standings.order:
        return ["Nobody wins: no winner of a search has been judged yet."]
    first, leading = standings.order[0], standings.leading
    others = [name for name in standings.order if name not in leading]
    if len(leading) == 1 and not others:
        sentences = [f"Nobody wins: {first} alone has been judged; it has {describe_accuracy(standings, first)}."]
    elif len(leading) == 1:
        sentences = [
            f"{first} {_crown(standings)}: it has {describe_accuracy(standings, first)}, and is better than "
            f"{'each of the others' if len(others) > 1 else others[0]}.",
            _describe_lead(standings, others[0]),
        ]
    else:
        accuracies = ", ".join(f"{name} {_percent(standings, name)}" for name in leading)
        sentences = [
            f"Nobody wins: {first} is first, but cannot be told from {join_words(leading[1:], 'or')}.",
            f"Their accuracies {_measure(standings, first)}: {accuracies}.",
        ]
        if others:
            sentences.append(f"{first} is better than {join_words(others)}.")
    doubtful = [name for name in leading if name in standings.flags]
    sentences += [f"Flagged: {name}: {sign}." for name in doubtful for sign in standings.flags[name]]
    sentences += [
        f"{name} is not clearly above chance: one fixed answer withstands any attack as well."
        for name in leading
        if _is_at_chance(standings, name)
    ]
    return sentences


def _is_at_chance(standings: Standings, name: str) -> bool:
    """Return whether a method's winner is not clearly above chance, without attack or under attack."""
    return any(name in find_at_chance(standings.confirmation, attack) for attack in ("clean", standings.attack))


def _crown(standings: Standings) -> str:
    """Return what the method is that is better than each other one."""
    if standings.awaited or standings.confirmation.num_judged < standings.confirmation.num_planned:
        return "leads so far"
    first = standings.order[0]
    return (
        "leads, but is not named the winner" if first in standings.flags or _is_at_chance(standings, first) else "wins"
    )


def _describe_lead(standings: Standings, second: str) -> str:
    pairs = standings.pairs
    row = pairs[pairs["first"].eq(standings.order[0]) & pairs["second"].eq(second)].iloc[0]
    return (
        f"The next one, {second}, has {_percent(standings, second)}: {format_points(row['difference'])} points for "
        f"{row['first']} (simultaneous 95% interval {format_interval(row)})."
    )


def format_interval(row: "pd.Series[float]") -> str:
    """Return the interval of a row with `low` and `high`, in percentage points: +0.5 to +2.1."""
    return f"{format_points(row['low'])} to {format_points(row['high'])}"


def format_reversed_interval(row: "pd.Series[float]") -> str:
    """Return the interval of second minus first, of a row that has that of first minus second."""
    return format_interval(pd.Series({"low": 0.0 - row["high"], "high": 0.0 - row["low"]}))


def describe_accuracy(standings: Standings, candidate: str) -> str:
    """Return the accuracy that a candidate is ranked by, with attack, radius, seeds and images, in words."""
    return f"{_percent(standings, candidate)} {_measure(standings, candidate)}"


def _percent(standings: Standings, candidate: str) -> str:
    values = standings.runs(candidate)[standings.attack].to_numpy(dtype=float)
    return format_percent(*mean_and_deviation(values))


def _measure(standings: Standings, candidate: str) -> str:
    runs = standings.runs(candidate)
    at = format_radius(standings.epsilon, runs["norm"].iloc[0])
    seeds = format_count(len(runs), "seed")
    return f"under {standings.label} at {at} ({seeds}, {runs['examples'].max():,} test images)"


def what_tuning_was_worth(standings: Standings) -> list[str]:
    """Return to which methods tuning was worth something, in sentences; empty if no preset was judged."""
    table = standings.tuning
    if table.empty:
        return []
    phrases = {
        "better": "Tuning helped {}.",
        "worse": "Tuning hurt {}: on test images the untuned preset is better.",
        "cannot tell": "Whether tuning helped {} cannot be told.",
        "the preset won": "The untuned preset of {} won its search.",
    }
    is_told = table["verdict"].isin(["better", "worse"])
    doubts = {
        row["first"]: doubt
        for _, row in table[is_told].iterrows()
        if (doubt := find_doubt(standings.confirmation, row, standings.attack))
    }
    sentences = []
    for verdict, phrase in phrases.items():
        rows = table[table["verdict"].eq(verdict) & ~table["first"].isin(list(doubts))]
        is_measured = verdict in ("better", "worse")
        names = [
            f"{row['first']} ({format_points(row['difference'])} points, {format_interval(row)})"
            if is_measured
            else row["first"]
            for _, row in rows.iterrows()
        ]
        if names:
            sentences.append(phrase.format(join_words(names, "or" if verdict == "cannot tell" else "and")))
    return sentences + [f"Whether tuning helped {name} cannot be told, because {why}." for name, why in doubts.items()]


def what_cannot_be_said(standings: Standings, config: LeagueConfig) -> list[str]:
    """Return the limits of the standings, a sentence or two each."""
    limits = []
    confirmation, pairs = standings.confirmation, standings.pairs
    if confirmation.num_judged < confirmation.num_planned:
        planned = format_count(confirmation.num_planned, "run")
        limits.append(f"The league is not over: {confirmation.num_judged} of {planned} have been judged so far.")
    limits += [f"{name} has no place: {_explain_unjudged(standings, name)}." for name in standings.unjudged]
    if is_open := int(pairs["verdict"].eq("cannot tell").sum()):
        limits.append(
            f"{is_open} of {format_count(len(pairs), 'pair')} of methods cannot be told apart: those that share a "
            "letter in the table. That does not mean that they are equal; their intervals say how far apart they may "
            "be."
        )
    limits += _on_seeds(standings)
    if standings.order and standings.attack != "autoattack":
        limits.append(f"AutoAttack has not judged all winners: {standings.label} may overrate a method.")
    elif standings.label == UNTARGETED_LABEL:
        limits.append("AutoAttack's targeted parts need four classes, and were left out.")
    limits += chance_warnings(confirmation) + divergence_warnings(confirmation)
    limits += [
        f"{name} is flagged: {sign}."
        for name, signs in standings.flags.items()
        if name not in standings.leading
        for sign in signs
    ]
    return [*limits, *_scope(standings, config)]


def _explain_unjudged(standings: Standings, method: str) -> str:
    result = standings.results.get(method)
    if result is None or result.trials.empty:
        return "its search has not begun"
    if list_sound_trials(result):
        return "its winner has not been judged yet"
    return "no trial of its search has come to a sound end"


def _on_seeds(standings: Standings) -> list[str]:
    """Return what the seeds do not allow to say."""
    if not standings.order:
        return []
    return warn_of_few_seeds((len(standings.runs(name)) for name in standings.order), standings.spread, "methods")


def _scope(standings: Standings, config: LeagueConfig) -> list[str]:
    """Return for what the standings hold; empty without searches."""
    if not standings.results:
        return []
    budget = ""
    if config.budget is not None:
        spent = (
            f"{format_seconds(config.budget)} of training"
            if config.budget_by == "seconds"
            else format_count(round(config.budget), "epoch")
        )
        budget = f" {spent} for each search,"
    spec = next(iter(standings.results.values())).spec
    return [
        f"All this holds for {spec.data.dataset}, the network {spec.model.name},{budget} and the ranges that were "
        "searched; with another budget or longer schedules the order may be another."
    ]
