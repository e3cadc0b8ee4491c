"""What a comparison of searches says, in the terminal and on its page alike."""

from typing import Any

import pandas as pd

from tune_cure.confirmation.comparison import (
    CONFIRMED_ATTACKS,
    DECISIVE_SETTINGS,
    SECONDARY_SETTINGS,
    Searches,
    build_comparison_table,
)
from tune_cure.evaluation.names import ATTACK_LABELS
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_value,
    join_words,
)

DASH = "–"
ERRORS_NOTE = "±: one standard error; of test accuracies the standard deviation over seeds"


def side_by_side(searches: Searches) -> dict[str, list[str]]:
    """A line per quantity, by what it is called: a cell per search. Lines that say nothing are left out."""
    specs = [result.spec for result in searches.values()]
    rows = [row for _, row in build_comparison_table(searches).iterrows()]
    lines = {
        "trials ended": [f"{row['trials_ended']} of {row['trials_planned']}" + _state(row) for row in rows],
        "how": [_ends(row) for row in rows],
        **{words: [of(spec) for spec in specs] for words, of in DECISIVE_SETTINGS.items()},
        **{
            words: [SECONDARY_SETTINGS[words](spec) for spec in specs]
            for words in ("network", "epochs of a whole trial")
        },
        "sampler": [row["sampler"] for row in rows],
        "scheduler": [_scheduler(spec) for spec in specs],
        "winner": [_winner(row) for row in rows],
        "its objective": [_accuracy(row, "objective") for row in rows],
        "PGD accuracy": [_accuracy(row, "pgd_accuracy_best") for row in rows],
        "clean accuracy": [format_percent(row["clean_accuracy_best"]) for row in rows],
        "judged again: PGD": [_accuracy(row, "fresh_pgd_accuracy") for row in rows],
        "judged again: clean": [format_percent(row["fresh_clean_accuracy"]) for row in rows],
        "judged again by": [_rescoring(row) for row in rows],
        "start_from": [_accuracy(row, "start_from_objective") for row in rows],
        "gain over start_from": [_gain(row) for row in rows],
        "epochs trained": [f"{row['epochs_trained']:,}" for row in rows],
        "device time": [format_duration(3600 * row["device_hours"]) for row in rows],
        "by the clock": [format_duration(3600 * row["wall_hours"]) for row in rows],
        "winner led for good after": [_led(row) for row in rows],
        **{f"test set: {ATTACK_LABELS[name]}": [_confirmed(row, name) for row in rows] for name in CONFIRMED_ATTACKS},
        "test set: seeds": [_seeds(row) for row in rows],
    }
    if all(row["metric"] == "pgd_accuracy_best" for row in rows):
        del lines["PGD accuracy"]  # the objective
    keys = [name for name in rows[0].index if name.startswith("best_") and name != "best_epoch"]
    lines |= {f"winner's {key.removeprefix('best_')}": [_value(row[key]) for row in rows] for key in keys}
    return {words: cells for words, cells in lines.items() if set(cells) != {DASH}}


def _state(row: "pd.Series[Any]") -> str:
    return "" if row["over"] else ", unfinished"


def _ends(row: "pd.Series[Any]") -> str:
    said = [f"{row[f'trials_{status}']} {words}" for status, words in STATUS_WORDS.items() if row[f"trials_{status}"]]
    return join_words(said) or DASH


def _scheduler(spec: SearchSpec) -> str:
    if spec.search.scheduler == "none":
        return "none"
    factor = "" if spec.search.scheduler == "median" else f", reduction factor {spec.asha.reduction_factor:g}"
    return f"{spec.search.scheduler}, grace period {spec.asha.grace_period}{factor}"


def _winner(row: "pd.Series[Any]") -> str:
    if pd.isna(row["trial"]):
        return "none judged yet"
    note = " (start_from)" if row["origin"] == "start_from" else ""
    return f"trial {row['trial']:.0f}{note}, {STATUS_WORDS[row['status']]}"


def _accuracy(row: "pd.Series[Any]", name: str) -> str:
    return format_percent(row[name], row[f"{name}_se"])


def _rescoring(row: "pd.Series[Any]") -> str:
    examples = row["fresh_examples"]
    return DASH if pd.isna(examples) else f"{row['rescoring']} on {format_count(int(examples), 'image')}"


def _gain(row: "pd.Series[Any]") -> str:
    if pd.isna(row["gain"]):
        return DASH
    if pd.isna(row["gain_se"]):
        return "none: it won"
    return f"{format_points(row['gain'])} ± {100 * row['gain_se']:.1f} points"


def _led(row: "pd.Series[Any]") -> str:
    if pd.isna(row["epochs_until_led"]):
        return DASH if pd.isna(row["trial"]) else "not before it was judged again"
    epochs = format_count(int(row["epochs_until_led"]), "epoch")
    return f"{epochs}, {format_duration(3600 * row['device_hours_until_led'])}"


def _confirmed(row: "pd.Series[Any]", name: str) -> str:
    return format_percent(row[f"confirmed_{name}"], row[f"confirmed_{name}_sd"])


def _seeds(row: "pd.Series[Any]") -> str:
    if not row["confirmed_seeds"]:
        return DASH
    return f"{row['confirmed_seeds']} on {format_count(int(row['confirmed_examples']), 'image')}"


def _value(of: Any) -> str:
    return DASH if not isinstance(of, str) and pd.isna(of) else format_value(of)


def format_verdict(row: "pd.Series[Any]") -> str:
    """A row of `comparison.verdicts` in words."""
    pair = f"{row['first']} against {row['second']}"
    if row["reason"]:
        return f"{pair}: no verdict: {row['reason']}"
    return f"{pair}, {format_measure(row)}: {row['verdict']} ({format_difference(row)})"


def format_measure(row: "pd.Series[Any]") -> str:
    """What a verdict goes by."""
    return "PGD accuracy judged again" if row["measure"] == "fresh_pgd_accuracy" else str(row["measure"])


def format_difference(row: "pd.Series[Any]") -> str:
    """The difference behind a verdict, with its interval."""
    interval = f"{format_points(row['low'])} to {format_points(row['high'])}"
    return f"{format_points(row['difference'])} points, 95% interval {interval}"


def verdict_basis(verdicts: pd.DataFrame) -> str:
    """What the verdicts rest on; empty where there is none."""
    told = verdicts[verdicts["reason"] == ""]
    if told.empty:
        return ""
    all_ = f" for all {len(told)} pairs together (Holm 1979)" if len(told) > 1 else ""
    said = f"Verdicts hold at 5%{all_}, with the standard errors of accuracies on images of their own: on the same "
    said += "images the difference is usually more certain than that. They say nothing of how much seeds differ."
    if (told["measure"] != "fresh_pgd_accuracy").any():
        said += " Numbers not judged again are of the best of many on the images that chose it, and look too good."
    return said
