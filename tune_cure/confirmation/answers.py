"""Answers that a confirmation gives in words: whether the penalty helped, what it cost, and what is at chance."""

from typing import Any

import pandas as pd

from tune_cure.confirmation.candidates import find_hyperparameters, has_penalty
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.chance import is_clearly_above
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.search.results import SearchResult
from tune_cure.training.config import TrainingConfig
from tune_cure.utils.formatting import (
    format_count,
    format_percent,
    format_points,
    format_radius,
    format_seconds,
    join_words,
)

PENALTY_NAMES = {"cure": "CURE", "gradalign": "GradAlign"}
"""Penalties as people write them; any other goes by its own name."""


def answer(confirmation: Confirmation, result: SearchResult) -> list[str]:
    """Return what a confirmation says of the winner, in sentences; the first says whether its penalty helped.

    A verdict goes by the strongest attack that judged both networks, at the search's radius. There is none if the
    better network is not clearly above chance: one fixed answer withstands any attack, and is not robust. There is none
    either if it has signs of masked gradients by which the attack may have failed.

    Args:
        confirmation: The outcomes.
        result: The search.
    """
    winner = confirmation.winner
    config = None if winner is None or confirmation.table.empty else _config(result, winner)
    if winner is None or config is None:
        return []
    comparisons = confirmation.comparisons()
    return [
        *_on_penalty(confirmation, comparisons, winner, config),
        *_on_pgd(confirmation, comparisons, winner),
        *_on_robust_overfitting(confirmation, winner),
    ]


def _on_pgd(confirmation: Confirmation, comparisons: pd.DataFrame, winner: str) -> list[str]:
    """Return the sentences on winner and PGD adversarial training; none without a run of both."""
    baselines = confirmation.table.loc[confirmation.table["kind"].eq("baseline"), "contender"].unique()
    pgd = [name for name in baselines if name.partition("-of-")[0] == "pgd"]
    row = _strongest(confirmation, comparisons, winner, pgd[0]) if pgd else None
    if row is None:
        return []
    unknown = "it cannot be told which is better"
    verdict = unknown if row["verdict"] == "cannot tell" else f"it is {row['verdict']}"
    if doubt := find_doubt(confirmation, row, row["metric"]):
        verdict = f"{unknown}, because {doubt}"
    elif verdict == unknown and (row["low"] > 0 or row["high"] < 0):
        verdict += ", adjusted for all pairs compared"
    difference, times = _difference(confirmation, row), _times(confirmation, winner, pgd[0])
    return [f"Against PGD adversarial training ({pgd[0]}), {verdict}: {difference}. {times}"]


def _on_robust_overfitting(confirmation: Confirmation, winner: str) -> list[str]:
    """Return a sentence on the winner's best and last weights; none if only the last ones were judged."""
    table = confirmation.robust_overfitting()
    rows = table[table["contender"].eq(winner) & table["epsilon"].eq(confirmation.table["epsilon"].iloc[0])]
    if rows.empty:
        return []
    row = rows.iloc[0]  # the strongest attack comes first
    runs = confirmation.table[confirmation.table["contender"].eq(winner)]
    left_out = ["Runs that diverged are left out."] if runs["diverged"].any() else []
    epochs, last = row["best_epochs"], row["epochs"]
    if set(epochs) == {last}:
        return [f"Best and last weights of {winner} are the same: in each run, the last epoch was the best.", *left_out]
    times = f"epoch {join_words(map(str, epochs))} of {last}, chosen on {row['held_out']:,} held-out images"
    label = confirmation.attack_labels[row["metric"]]
    return [
        f"Robust overfitting of {winner}: under {label}, its best weights ({times}) "
        f"have {format_percent(row['best'])} and its last ones {format_percent(row['last'])}, a difference of "
        f"{format_points(row['difference'])} points (95% interval {format_points(row['low'])} to "
        f"{format_points(row['high'])}).",
        *left_out,
    ]


def _config(result: SearchResult, name: str) -> TrainingConfig | None:
    """Return how the leader of this name is trained; None if the search has no such trial."""
    hyperparameters = find_hyperparameters(result, name)
    return None if hyperparameters is None else result.spec.training_config(hyperparameters)


def _on_penalty(
    confirmation: Confirmation, comparisons: pd.DataFrame, winner: str, config: TrainingConfig
) -> list[str]:
    """Return the sentences on the winner's penalty."""
    if not has_penalty(config):
        return [f"The winner, {winner}, trains without a penalty."]
    penalty = PENALTY_NAMES.get(config.regularizer, f"the penalty {config.regularizer}")
    row = _strongest(confirmation, comparisons, *confirmation.question) if confirmation.question else None
    if row is None:
        return [f"Whether {penalty} helped is not known: {_explain_missing(confirmation, winner)}"]
    unknown = f"Whether {penalty} helped cannot be told"
    verdict = {
        "better": f"{_capitalize(penalty)} helped",
        "worse": f"{_capitalize(penalty)} did not help, it hurt",
        "cannot tell": unknown,
    }[row["verdict"]]
    if doubt := find_doubt(confirmation, row, row["metric"]):
        verdict = f"{unknown}, because {doubt}"
    difference = _difference(confirmation, row, ", the same without it,")
    seeds = format_count(int(row["seeds"]), "seed")
    return [
        f"{verdict}: {difference}, with {seeds} and {row['examples']:,} test images.",
        _times(confirmation, winner, row["second"]),
    ]


def _explain_missing(confirmation: Confirmation, winner: str) -> str:
    """Return why winner and ablation cannot be compared, and what to do, as the end of a sentence."""
    if not confirmation.table["contender"].eq(winner).any():
        return f"no run of the winner, {winner}, has been judged yet."
    if confirmation.question:
        return f"no seed of both {winner} and {confirmation.question[1]} has been judged yet."
    return "no run without it has been judged. tune-cure confirm with the baseline ablation measures it."


def find_doubt(confirmation: Confirmation, row: "pd.Series[Any]", attack: str) -> str:
    """Return why the better one of a comparison may not be better, in words; empty if nothing speaks against it.

    It is not clearly above chance, or its gradients may be masked in a way that the attack does not settle.

    Args:
        confirmation: The outcomes.
        row: The comparison: first, second and difference.
        attack: The attack that it goes by.
    """
    pair = row["first"], row["second"]
    better = pair[0] if row["difference"] >= 0 else pair[1]
    for name in ("clean", attack):
        at_chance = find_at_chance(confirmation, name)
        if better in at_chance:
            who = f"neither {pair[0]} nor {pair[1]} is" if at_chance.issuperset(pair) else f"{better} is not"
            return f"{who} clearly above chance {_under(confirmation, name)}"
    if better in confirmation.find_overrated(attack):
        return f"{better} has signs of masked gradients and may be less robust than it seems"
    return ""


def _under(confirmation: Confirmation, attack: str) -> str:
    return "without attack" if attack == "clean" else f"under {confirmation.attack_labels[attack]}"


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _strongest(
    confirmation: Confirmation, comparisons: pd.DataFrame, first: str, second: str
) -> "pd.Series[Any] | None":
    """Return the comparison of two candidates under the strongest attack, at the search's radius; None if none."""
    epsilon = confirmation.table["epsilon"].iloc[0]  # the plan has it first
    rows = comparisons[
        comparisons["first"].eq(first) & comparisons["second"].eq(second) & comparisons["epsilon"].eq(epsilon)
    ]
    return None if rows.empty else rows.iloc[0]  # the strongest attack comes first


def _difference(confirmation: Confirmation, row: "pd.Series[Any]", explanation: str = "") -> str:
    """Return the accuracies of a comparison and their difference, in words; `explanation` follows the second name."""
    table = confirmation.table
    runs = table[table["epsilon"].eq(row["epsilon"])].pivot(index="seed", columns="contender", values=row["metric"])
    means = runs[[row["first"], row["second"]]].dropna().mean()
    at = format_radius(row["epsilon"], table["norm"].iloc[0])
    label = confirmation.attack_labels[row["metric"]]
    return (
        f"{row['first']} has {format_percent(means[row['first']])} and {row['second']}{explanation} "
        f"{format_percent(means[row['second']])} under {label} at {at}, a difference of "
        f"{format_points(row['difference'])} points (95% interval {format_points(row['low'])} to "
        f"{format_points(row['high'])})"
    )


def _times(confirmation: Confirmation, first: str, second: str) -> str:
    """Return how long the shortest training runs of two candidates took, as a sentence."""
    shortest = confirmation.shortest_trainings()
    seconds, other = float(shortest[first]), float(shortest[second])
    ratio = f", {seconds / other:.1f} times as long" if other else ""
    took = f"The shortest training run of {first} took {format_seconds(seconds)}"
    return f"{took}, that of {second} {format_seconds(other)}{ratio}."


def chance_warnings(confirmation: Confirmation) -> list[str]:
    """Return a sentence for each way in which candidates are not clearly above chance."""
    table = confirmation.table
    chance = table["chance"].max()
    if pd.isna(chance):  # judged by version 0.1.0
        return []
    level = f"{format_percent(float(chance))}, which one fixed answer reaches, attacked or not"
    warnings = []
    if names := find_at_chance(confirmation, "clean"):
        warnings.append(
            f"Not clearly above chance without attack: {_name(confirmation, names)}. Chance is {level}. These networks "
            "have not learned the task, and comparing their robustness says nothing."
        )
    attack = next((name for name in reversed(COMPARED_ATTACKS) if table[name].notna().any()), "clean")
    if robust := find_at_chance(confirmation, attack) - names:
        under = _under(confirmation, attack)
        warnings.append(f"Not clearly above chance {under}: {_name(confirmation, robust)}. Chance is {level}.")
    return warnings


def divergence_warnings(confirmation: Confirmation) -> list[str]:
    """Return a sentence for each run that diverged."""
    runs = confirmation.table[confirmation.table["diverged"]].drop_duplicates(["contender", "seed"])
    return [
        f"{name}, seed {seed}, diverged. All its images count as misclassified."
        for name, seed in zip(runs["contender"], runs["seed"], strict=True)
    ]


def _name(confirmation: Confirmation, names: set[str]) -> str:
    """Return candidates in the order of the table."""
    return join_words(name for name in confirmation.table["contender"].unique() if name in names)


def find_at_chance(confirmation: Confirmation, attack: str) -> set[str]:
    """Return the candidates of which no run is clearly above chance under an attack, at the search's radius.

    Runs that diverged, and runs without a recorded chance level, are left out.
    """
    table = confirmation.table
    runs = table[table["epsilon"].eq(table["epsilon"].iloc[0]) & ~table["diverged"]].dropna(subset=["chance", attack])
    is_above = [
        is_clearly_above(row[attack], row["examples"], row["chance"], num_compared=len(runs))
        for row in runs.to_dict("records")
    ]
    return set(runs["contender"]) - set(runs.loc[is_above, "contender"])
