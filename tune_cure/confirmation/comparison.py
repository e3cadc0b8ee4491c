"""Searches side by side: a row for each, which of two found the better winner, and what cannot be compared.

Each function takes the searches by their names (`named`) and returns a table; columns are described in docs/columns.md.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.evaluation.metrics import standard_error
from tune_cure.search import run_files
from tune_cure.search.event_schemas import STATUSES
from tune_cure.search.patience import is_search_over
from tune_cure.search.ranking import UNSOUND_STATUSES, rank_trials, rescoring_decides
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import judged_examples
from tune_cure.training.config import HYPERPARAMETERS
from tune_cure.utils import environment, significance
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_count, format_value, join_words

Searches = Mapping[str, SearchResult]
CONFIRMED_ATTACKS = ("clean", "pgd_50_10", "autoattack")  # of a confirmation


def _data_set(spec: SearchSpec) -> str:
    said = spec.data.dataset + (f" from {spec.data.root}" if spec.data.dataset == "image_folder" else "")
    return said + (f" at {spec.data.image_size} pixels" if spec.data.image_size else "")


def _network(spec: SearchSpec) -> str:
    return spec.model.name + (f" of width {spec.model.width}" if spec.model.width else "")


DECISIVE_SETTINGS: dict[str, Callable[[SearchSpec], str]] = {
    "data set": _data_set,
    "metric": lambda spec: f"{spec.search.metrics[0]} ({spec.search.mode})",
    "evaluation": lambda spec: f"{spec.evaluation} on {format_count(judged_examples(spec), 'image')}",
}
"""Settings of which a difference means that accuracies are of different things, in words."""
SECONDARY_SETTINGS: dict[str, Callable[[SearchSpec], str]] = {
    "validation images": lambda spec: f"{spec.data.num_validation:,} by split_seed {spec.data.split_seed}",
    "training images": lambda spec: "all" if spec.data.train_examples is None else f"{spec.data.train_examples:,}",
    "network": _network,
    "epochs of a whole trial": lambda spec: str(spec.max_epochs),
    "further metrics": lambda spec: ", ".join(spec.search.metrics[1:]) or "none",
    "constraints": lambda spec: ", ".join(spec.search.constraints) or "none",
    "trials planned": lambda spec: str(spec.search.trials),
}
"""Settings of which a difference is worth knowing, in words."""
CONSEQUENCES = {  # of such a difference, where it is not plain
    "validation images": "the networks were chosen on different images",
    "trials planned": "the best of more trials looks better by luck alone",
}


class ComparisonError(TuneCureError):
    """Searches that cannot be compared."""


def name_searches(results: Sequence[SearchResult]) -> dict[str, SearchResult]:
    """The searches by the names of their folders, with as much of the path before as it takes to tell them apart.

    Raises:
        ComparisonError: There are fewer than two, or one is there twice.
    """
    paths = [result.directory.resolve() for result in results]
    if len(paths) < 2:
        raise ComparisonError(f"two folders or more are needed, but found {len(paths)}")
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ComparisonError(f"{results[number].directory}: is given twice")
    length = next(
        length for length in itertools.count(1) if len({path.parts[-length:] for path in paths}) == len(paths)
    )
    return {str(Path(*path.parts[-length:])): result for path, result in zip(paths, results, strict=True)}


def build_comparison_table(searches: Searches) -> pd.DataFrame:
    """A row per search: what it was, what it took, what won and by how much."""
    keys = list(dict.fromkeys(key for result in searches.values() for key in result.spec.space))
    return pd.DataFrame([_row(name, result, keys) for name, result in searches.items()])


def _row(name: str, result: SearchResult, keys: list[str]) -> dict[str, Any]:
    spec, summary, trials = result.spec, result.summary, result.trials
    ends = summary["trials_by_status"]
    row: dict[str, Any] = {
        "search": name,
        "folder": str(result.directory),
        "over": is_search_over(result),
        "dataset": spec.data.dataset,
        "network": _network(spec),
        "epochs": spec.max_epochs,
        "sampler": spec.search.sampler,
        "scheduler": spec.search.scheduler,
        "metric": spec.search.metrics[0],
        "mode": spec.search.mode,
        "evaluation": str(spec.evaluation),
        "examples": judged_examples(spec),
        "trials_planned": spec.search.trials,
        "trials_ended": len(trials) - ends.get("unfinished", 0),
        **{f"trials_{status}": ends.get(status, 0) for status in (*STATUSES, "unfinished")},
    }
    row |= _winner(result) | _gain(result) | _cost(result)
    row |= _confirmed(result, row["trial"])
    values = result.best.hyperparameters if result.best else {}
    return row | {f"best_{key}": _value(spec, values, key) if result.best else None for key in keys}


def _winner(result: SearchResult) -> dict[str, Any]:
    columns = ("trial", "status", "origin", "objective", "objective_se", "best_epoch", "pgd_accuracy_best",
               "pgd_accuracy_best_se", "clean_accuracy_best", "fresh_pgd_accuracy", "fresh_pgd_accuracy_se",
               "fresh_clean_accuracy", "fresh_examples", "rescoring")  # fmt: skip
    if result.best is None:
        return dict.fromkeys(columns)
    row = result.best.row
    found = {name: row[name] for name in columns if name in row} | {"objective_se": _error(result, row["objective"])}
    found["rescoring"] = None if pd.isna(row["fresh_pgd_accuracy"]) else str(result.spec.rescoring)
    return {name: found[name] for name in columns}


def _error(result: SearchResult, objective: float) -> float:
    """The standard error of an objective: every metric is an accuracy on the same number of images."""
    return standard_error(objective, judged_examples(result.spec))


def _gain(result: SearchResult) -> dict[str, Any]:
    """The winner's objective against that of the first start_from; a positive gain is an improvement."""
    found: dict[str, Any] = dict.fromkeys(("start_from_objective", "start_from_objective_se", "gain", "gain_se"))
    baseline, best = result.summary["baseline"], result.best
    if best is None or baseline is None or baseline["objective"] is None:
        return found
    before, now = baseline["objective"], best.row["objective"]
    errors = [_error(result, before), _error(result, now)]
    found |= {
        "start_from_objective": before,
        "start_from_objective_se": errors[0],
        "gain": _sign(result) * (now - before),
    }
    if baseline["trial"] != best.trial:  # else it is none, for certain
        found["gain_se"] = math.hypot(*errors)
    return found


def _sign(result: SearchResult) -> int:
    return 1 if result.spec.search.mode == "max" else -1


def _cost(result: SearchResult) -> dict[str, Any]:
    led = find_lasting_lead(result)
    return {
        "epochs_trained": result.summary["epochs"],
        "device_hours": result.summary["trial_seconds"] / 3600,
        "wall_hours": result.summary["wall_seconds"] / 3600,
        "epochs_until_led": led[0] if led else None,
        "device_hours_until_led": led[1] if led else None,
    }


def _confirmed(result: SearchResult, trial: Any) -> dict[str, Any]:
    """What the winner reached on the test set at the search's radius, where it was confirmed: means over seeds."""
    found: dict[str, Any] = {"confirmed_seeds": 0, "confirmed_examples": None}
    found |= {f"confirmed_{name}{of}": None for name in CONFIRMED_ATTACKS for of in ("", "_sd")}
    file = result.directory / run_files.CONFIRMED
    if trial is None or not file.is_file():
        return found
    if not file.resolve().is_relative_to(result.directory.resolve()):
        raise ComparisonError(f"{file}: is a link that leads out of the run's folder")
    try:
        frame = pd.read_csv(file)
        frame = frame[frame["contender"].eq(f"trial-{trial}") & frame["norm"].eq(result.spec.evaluation.norm)]
        frame = frame.astype(dict.fromkeys(("epsilon", "examples", *CONFIRMED_ATTACKS), float))
    except (ValueError, KeyError) as error:  # pandas' own errors are ValueErrors
        raise ComparisonError(f"{file}: is no table of a confirmation: {error}") from error
    frame = frame[np.isclose(frame["epsilon"], result.spec.evaluation.epsilon)]
    if frame.empty:
        return found
    found |= {"confirmed_seeds": len(frame), "confirmed_examples": int(frame["examples"].min())}
    for name in CONFIRMED_ATTACKS:
        mean, deviation = significance.mean_and_deviation(frame[name].to_numpy())
        found |= {f"confirmed_{name}": mean, f"confirmed_{name}_sd": deviation}
    return found


def _value(spec: SearchSpec, values: dict[str, Any], key: str) -> Any:
    """What a hyperparameter was in a trial, whether searched or fixed; None where it made no difference."""
    return values.get(key) if key in spec.space else getattr(spec.training_config(values), HYPERPARAMETERS[key])


def leader_progress(result: SearchResult) -> pd.DataFrame:
    """The leader's objective after so many epochs and device hours, wherever it changed, and at the end.

    The leader is that of `results.ranked`, had the search ended there; of the trials only those count that ended as
    soundly as the best: what the others scored before they failed is no result. Columns: epochs, device_hours,
    objective, trial.
    """
    columns = ["epochs", "device_hours", "objective", "trial"]
    order, epochs = rank_trials(result.trials, result.spec), result.epochs
    if order.empty:
        return pd.DataFrame(columns=columns)
    classes = pd.DataFrame(
        {"unsound": order["status"].isin(UNSOUND_STATUSES), "infeasible": order["feasible"].eq(False)}
    )
    counted = set(order.loc[classes.eq(classes.iloc[0]).all(axis=1), "trial"])
    epochs = epochs.sort_values(["time", "trial", "epoch"], kind="stable")
    hours = (epochs["train_seconds"].fillna(0) + epochs["eval_seconds"].fillna(0)).cumsum() / 3600
    sign, judged = _sign(result), epochs["pgd_accuracy"].notna()
    current: dict[int, float] = {}  # the objective of each trial, so turned that more is better
    best: list[tuple[float, int]] = []  # a heap of these, the best and of equals the first on top
    rows: list[tuple[int, float, float, int]] = []
    lines = zip(hours, epochs["trial"], sign * epochs["objective"], judged, strict=True)
    for number, (spent, trial, objective, is_judged) in enumerate(lines, 1):
        if is_judged and trial in counted:
            current[trial] = objective
            heapq.heappush(best, (-objective, trial))
        while best and current[best[0][1]] != -best[0][0]:  # what that trial has no more
            heapq.heappop(best)
        if best and (number == len(epochs) or not rows or rows[-1][2:] != (sign * -best[0][0], best[0][1])):
            rows.append((number, spent, sign * -best[0][0], best[0][1]))
    return pd.DataFrame(rows, columns=columns)


def find_lasting_lead(result: SearchResult) -> tuple[int, float] | None:
    """After how many epochs and device hours the winner took the lead that it kept; None if judging again put it first.

    What it led before, until another did, is no find: the first trial to report leads, whatever it has.
    """
    frame = leader_progress(result)
    if result.best is None or not (leads := frame["trial"].eq(result.best.trial)).iloc[-1]:
        return None
    row = frame[leads[::-1].cummin()[::-1]].iloc[0]
    return int(row["epochs"]), float(row["device_hours"])


def compare_winners(searches: Searches) -> pd.DataFrame:
    """A row per pair: the difference of the winners with its 95% interval and the verdict, or why there is none.

    Both were judged on the same images at best, and then the difference is more certain than these errors say, which
    are those of accuracies on images of their own. With more than one pair, p-values are adjusted after Holm.
    """
    rows = [_compare(*pair) for pair in itertools.combinations(searches.items(), 2)]
    told = [row for row in rows if not row["reason"]]
    adjusted = significance.holm([row["p_value"] for row in told])
    for row, p_value in zip(told, adjusted, strict=True):
        better = row["difference"] * _sign(searches[row["first"]])
        row |= {"p_value_holm": p_value, "verdict": significance.verdict(better, p_value)}
    columns = [
        "first",
        "second",
        "measure",
        "difference",
        "low",
        "high",
        "p_value",
        "p_value_holm",
        "verdict",
        "reason",
    ]
    return pd.DataFrame(rows, columns=columns)


def _compare(one: tuple[str, SearchResult], other: tuple[str, SearchResult]) -> dict[str, Any]:
    row: dict[str, Any] = {"first": one[0], "second": other[0], "verdict": "", "reason": _incomparable(one, other)}
    if row["reason"]:
        return row
    first, second = one[1], other[1]
    assert first.best and second.best
    if _alike_judged_again(first, second):
        row["measure"] = "fresh_pgd_accuracy"
        values = [(of.row["fresh_pgd_accuracy"], of.row["fresh_pgd_accuracy_se"]) for of in (first.best, second.best)]
    else:
        row["measure"] = first.spec.search.metrics[0]
        values = [(of.best.row["objective"], _error(of, of.best.row["objective"])) for of in (first, second) if of.best]
    found = significance.unpaired_difference(*values[0], *values[1])
    return row | {"difference": found.estimate, "low": found.low, "high": found.high, "p_value": found.p_value}


def _incomparable(one: tuple[str, SearchResult], other: tuple[str, SearchResult]) -> str:
    """Why there is no verdict on two searches; empty if there is one."""
    for words, of in DECISIVE_SETTINGS.items():
        if of(one[1].spec) != of(other[1].spec):
            return f"different {words}"
    for name, result in (one, other):
        if result.best is None:
            return f"no trial of {name} has been judged yet"
        if result.best.row["status"] in UNSOUND_STATUSES:
            return f"no trial of {name} came to a sound end"
        if not result.best.row["feasible"]:
            return f"no trial of {name} keeps its constraints"
    return ""


def _alike_judged_again(one: SearchResult, other: SearchResult) -> bool:
    """Whether both winners were chosen by, and have, accuracies under the same second attack on as many images."""
    assert one.best and other.best
    examples = [result.best.row["fresh_examples"] for result in (one, other) if result.best]
    return bool(
        rescoring_decides(one.spec) and one.spec.rescoring == other.spec.rescoring and examples[0] == examples[1]
    )


def comparison_warnings(searches: Searches) -> list[str]:
    """What to know before the searches are compared, one line each."""
    said = []
    for words, of in (DECISIVE_SETTINGS | SECONDARY_SETTINGS).items():
        found = {name: of(result.spec) for name, result in searches.items()}
        if len(set(found.values())) > 1:
            consequence = "no verdict between these" if words in DECISIVE_SETTINGS else CONSEQUENCES.get(words)
            said.append(f"different {words}: {_by_value(found)}" + (f": {consequence}" if consequence else ""))
    said += _about_judging_again(searches)
    devices = {name: environment.read(result.directory).devices for name, result in searches.items()}
    if len(set(devices.values())) > 1:
        said.append(f"different devices: {_by_value(devices)}: hours cannot be compared")
    for name, result in searches.items():
        if not is_search_over(result):
            ended, planned = int(result.trials["status"].ne("unfinished").sum()), result.spec.search.trials
            said.append(f"{name} is unfinished: {ended} of {planned} trials have ended, and its winner may change")
        said += [f"{name} was continued with other settings: {change}" for change in result.summary["changes"]]
    return said


def _about_judging_again(searches: Searches) -> list[str]:
    again: dict[str, str] = {}
    for name, result in searches.items():
        if result.best is not None:
            examples = result.best.row["fresh_examples"]
            again[name] = (
                "not" if pd.isna(examples) else f"{result.spec.rescoring} on {format_count(int(examples), 'image')}"
            )
    if len(set(again.values())) < 2:
        return []
    consequence = "these numbers cannot be compared, and verdicts go by those of the search itself"
    return [f"winners judged again differently: {_by_value(again)}: {consequence}"]


def _by_value(found: Mapping[str, str]) -> str:
    """Settings in words: tpe (a and b); random (c)."""
    return "; ".join(
        f"{of} ({join_words(name for name, other in found.items() if other == of)})"
        for of in dict.fromkeys(found.values())
    )


def compare_spaces(searches: Searches) -> pd.DataFrame:
    """A row per hyperparameter that is searched in one or fixed to different values: how each search has it.

    Columns: hyperparameter, the searches' names, differs.
    """
    rows = []
    for key in HYPERPARAMETERS:
        found = {name: _range(result.spec, key) for name, result in searches.items()}
        differs = len(set(found.values())) > 1
        if differs or any(key in result.spec.space for result in searches.values()):
            rows.append({"hyperparameter": key, **found, "differs": differs})
    return pd.DataFrame(rows)


def _range(spec: SearchSpec, key: str) -> str:
    if key in spec.space:
        return str(spec.space[key])
    return f"fixed: {format_value(getattr(spec.training_config({}), HYPERPARAMETERS[key]))}"
