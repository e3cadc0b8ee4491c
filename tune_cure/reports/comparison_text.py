"""Comparison of searches in words, for the terminal and for the page."""

from typing import Any

import pandas as pd

from tune_cure.confirmation.searches.comparison import (
    DECISIVE_SETTINGS,
    SECONDARY_SETTINGS,
    Searches,
    build_comparison_table,
)
from tune_cure.evaluation.names import ATTACK_LABELS, COMPARED_ATTACKS, UNTARGETED_LABEL
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_value,
    join_words,
    note_missing_seeds,
)

DASH = "–"
ERRORS_NOTE = "±: one standard error; for test accuracies the standard deviation over seeds"


def side_by_side(searches: Searches) -> dict[str, list[str]]:
    """Return the lines of the comparison by their titles, with a cell per search.

    Lines whose cells are all empty are left out.
    """
    specs = [result.spec for result in searches.values()]
    rows = [row for _, row in build_comparison_table(searches).iterrows()]
    settings = DECISIVE_SETTINGS | {name: SECONDARY_SETTINGS[name] for name in ("network", "epochs of a whole trial")}
    lines = {
        "trials ended": [_trials_ended(row) for row in rows],
        "how they ended": [_ends(row) for row in rows],
        **{name: [describe(spec) for spec in specs] for name, describe in settings.items()},
        "sampler": [row["sampler"] for row in rows],
        "scheduler": [_scheduler(spec) for spec in specs],
        "winner": [_winner(row) for row in rows],
        "its objective": [_accuracy(row, "objective") for row in rows],
        "PGD accuracy": [_accuracy(row, "pgd_accuracy_best") for row in rows],
        "clean accuracy": [format_percent(row["clean_accuracy_best"]) for row in rows],
        "judged again: attacked": [_accuracy(row, "fresh_pgd_accuracy") for row in rows],
        "judged again: clean": [format_percent(row["fresh_clean_accuracy"]) for row in rows],
        "judged again by": [_second_judgment(row) for row in rows],
        "start_from": [_accuracy(row, "start_from_objective") for row in rows],
        "gain over start_from": [_gain(row) for row in rows],
        "epochs trained": [f"{row['epochs_trained']:,}" for row in rows],
        "device time": [format_duration(3600 * row["device_hours"]) for row in rows],
        "wall time": [format_duration(3600 * row["wall_hours"]) for row in rows],
        "winner led for good after": [_lead(row) for row in rows],
        **{f"test set: {ATTACK_LABELS[name]}": [_confirmed(row, name) for row in rows] for name in COMPARED_ATTACKS},
        "test set: seeds": [_seeds(row) for row in rows],
    }
    if all(row["metric"] == "pgd_accuracy_best" for row in rows):
        del lines["PGD accuracy"]  # it is the objective
    keys = [name for name in rows[0].index if name.startswith("best_") and name != "best_epoch"]
    lines |= {f"winner's {key.removeprefix('best_')}": [_value(row[key]) for row in rows] for key in keys}
    return {title: cells for title, cells in lines.items() if set(cells) != {DASH}}


def _trials_ended(row: "pd.Series[Any]") -> str:
    text = f"{row['trials_ended']} of {row['trials_planned']}"
    return text if row["over"] else f"{text}, unfinished"


def _ends(row: "pd.Series[Any]") -> str:
    ends = [f"{row[f'trials_{status}']} {words}" for status, words in STATUS_WORDS.items() if row[f"trials_{status}"]]
    return join_words(ends) or DASH


def _scheduler(spec: SearchSpec) -> str:
    if spec.search.scheduler == "none":
        return "none"
    factor = "" if spec.search.scheduler == "median" else f", reduction factor {spec.asha.reduction_factor:g}"
    return f"{spec.search.scheduler}, grace period {spec.asha.grace_period}{factor}"


def _winner(row: "pd.Series[Any]") -> str:
    if pd.isna(row["trial"]):
        return "none judged yet"
    origin = " (start_from)" if row["origin"] == "start_from" else ""
    return f"trial {row['trial']:.0f}{origin}, {STATUS_WORDS[row['status']]}"


def _accuracy(row: "pd.Series[Any]", name: str) -> str:
    return format_percent(row[name], row[f"{name}_se"])


def _second_judgment(row: "pd.Series[Any]") -> str:
    examples = row["fresh_examples"]
    return DASH if pd.isna(examples) else f"{row['rescoring']} on {format_count(int(examples), 'image')}"


def _gain(row: "pd.Series[Any]") -> str:
    if pd.isna(row["gain"]):
        return DASH
    if pd.isna(row["gain_se"]):
        return "none: it won"
    return f"{format_points(row['gain'])} ± {100 * row['gain_se']:.1f} points"


def _lead(row: "pd.Series[Any]") -> str:
    if pd.isna(row["epochs_until_led"]):
        return DASH if pd.isna(row["trial"]) else "not before it was judged again"
    epochs = format_count(int(row["epochs_until_led"]), "epoch")
    return f"{epochs}, {format_duration(3600 * row['device_hours_until_led'])}"


def _confirmed(row: "pd.Series[Any]", attack: str) -> str:
    name = f"confirmed_{attack}"
    accuracy = format_percent(row[name], row[f"{name}_sd"])
    accuracy += note_missing_seeds(row[f"{name}_seeds"], row["confirmed_seeds"])
    is_partial = attack == "autoattack" and row["confirmed_autoattack_parts"] == UNTARGETED_LABEL
    return f"{accuracy} ({UNTARGETED_LABEL})" if is_partial else accuracy


def _seeds(row: "pd.Series[Any]") -> str:
    if not row["confirmed_seeds"]:
        return DASH
    return f"{row['confirmed_seeds']} on {format_count(int(row['confirmed_examples']), 'image')}"


def _value(value: Any) -> str:
    return DASH if not isinstance(value, str) and pd.isna(value) else format_value(value)


def format_verdict(row: "pd.Series[Any]") -> str:
    """Return a row of `comparison.compare_winners` as a sentence."""
    pair = f"{row['first']} against {row['second']}"
    if row["reason"]:
        return f"{pair}: no verdict: {row['reason']}"
    return f"{pair}, {format_measure(row)}: {row['verdict']} ({format_difference(row)})"


def format_measure(row: "pd.Series[Any]") -> str:
    """Return the accuracy that a verdict of `comparison.compare_winners` goes by."""
    return "robust accuracy judged again" if row["measure"] == "fresh_pgd_accuracy" else str(row["measure"])


def format_difference(row: "pd.Series[Any]") -> str:
    """Return the difference behind a verdict with its interval: +3.0 points, 95% interval +1.0 to +5.0."""
    interval = f"{format_points(row['low'])} to {format_points(row['high'])}"
    return f"{format_points(row['difference'])} points, 95% interval {interval}"


def verdict_basis(verdicts: pd.DataFrame) -> str:
    """Return how far to trust the verdicts of `comparison.compare_winners`; empty if there are none."""
    given = verdicts[verdicts["reason"] == ""]
    if given.empty:
        return ""
    pairs = f" for all {len(given)} pairs together (Holm 1979)" if len(given) > 1 else ""
    text = (
        f"Verdicts hold at 5%{pairs}. Their standard errors are those of accuracies measured on different images; on "
        "the same images the difference is usually more certain. Verdicts do not say how much seeds differ."
    )
    if (given["measure"] != "fresh_pgd_accuracy").any():
        text += (
            " An accuracy that was not judged again is the best of many on the images that chose it, so it looks too "
            "good."
        )
    return text
