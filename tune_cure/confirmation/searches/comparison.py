"""Comparison of searches: a row for each, which of two found the better winner, and what cannot be compared.

The functions take the searches by their names (`name_searches`). docs/columns.md describes the columns of their tables.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.confirmation.searches.chance import find_chance
from tune_cure.confirmation.searches.lead import find_lasting_lead
from tune_cure.confirmation.verdicts import summarize_seeds
from tune_cure.evaluation.names import ATTACKS, COMPARED_ATTACKS, label_attacks
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.search import run_files
from tune_cure.search.budget import describe_budget
from tune_cure.search.event_schemas import STATUSES
from tune_cure.search.patience import is_search_over
from tune_cure.search.proposals.auto_sampler import resolve_sampler
from tune_cure.search.ranking import UNSOUND_STATUSES, rescoring_decides
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import judged_examples
from tune_cure.training.config import HYPERPARAMETERS, hyperparameter_value
from tune_cure.training.delta import DELTA, SAME_AS
from tune_cure.training.presets import METHOD
from tune_cure.utils import environment, significance
from tune_cure.utils.csv_tables import read_csv
from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.formatting import format_count, format_value, join_words

Searches = Mapping[str, SearchResult]


def _data_set(spec: SearchSpec) -> str:
    source = f" from {spec.data.root}" if spec.data.dataset == "image_folder" else ""
    size = f" at {spec.data.image_size} pixels" if spec.data.image_size else ""
    return f"{spec.data.dataset}{source}{size}"


def _network(spec: SearchSpec) -> str:
    return spec.model.name + (f" of width {spec.model.width}" if spec.model.width else "")


DECISIVE_SETTINGS: dict[str, Callable[[SearchSpec], str]] = {
    "data set": _data_set,
    "metric": lambda spec: f"{spec.search.metrics[0]} ({spec.search.mode})",
    "evaluation": lambda spec: f"{spec.evaluation} on {format_count(judged_examples(spec), 'image')}",
}
"""Settings by name, each with a function that returns it in words. If one differs, accuracies are not comparable."""
SECONDARY_SETTINGS: dict[str, Callable[[SearchSpec], str]] = {
    "validation images": lambda spec: f"{spec.data.num_validation:,} by split_seed {spec.data.split_seed}",
    "training images": lambda spec: "all" if spec.data.train_examples is None else f"{spec.data.train_examples:,}",
    "mirroring": lambda spec: {None: "as the data set has it", True: "on", False: "off"}[spec.data.flip],
    "network": _network,
    "epochs of a whole trial": lambda spec: str(spec.max_epochs),
    "further metrics": lambda spec: ", ".join(spec.search.metrics[1:]) or "none",
    "constraints": lambda spec: ", ".join(spec.search.constraints) or "none",
    "trials planned": lambda spec: describe_budget(spec) or str(spec.search.trials),
}
"""Other settings whose difference a reader should know, in the same form."""
CONSEQUENCES = {
    "validation images": "the networks were chosen on different images",
    "trials planned": "the best of more trials looks better by luck alone",
}
"""Consequence of a difference in a setting, if it is not obvious."""


class ComparisonError(TuneCureError):
    """Searches that cannot be compared."""


def name_searches(results: Sequence[SearchResult]) -> dict[str, SearchResult]:
    """Return the searches by the names of their folders.

    If folders have the same name, all names include as many of the folders above as it takes to tell them apart.

    Raises:
        ComparisonError: There are fewer than two searches, or one is given twice.
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
    """Return a row per search: its settings, its cost, its winner, and the winner's gain over `start_from`."""
    keys = list(dict.fromkeys(key for result in searches.values() for key in result.spec.space))
    return pd.DataFrame([_row(name, result, keys) for name, result in searches.items()])


def _row(name: str, result: SearchResult, keys: list[str]) -> dict[str, Any]:
    spec, summary, trials = result.spec, result.summary, result.trials
    num_by_status = summary["trials_by_status"]
    row: dict[str, Any] = {
        "search": name,
        "folder": str(result.directory),
        "over": is_search_over(result),
        "dataset": spec.data.dataset,
        "network": _network(spec),
        "epochs": spec.max_epochs,
        "sampler": resolve_sampler(spec)[0],
        "scheduler": spec.search.scheduler,
        "metric": spec.search.metrics[0],
        "mode": spec.search.mode,
        "evaluation": str(spec.evaluation),
        "examples": judged_examples(spec),
        "trials_planned": summary["trials_planned"],
        "trials_ended": len(trials) - num_by_status.get("unfinished", 0),
        **{f"trials_{status}": num_by_status.get(status, 0) for status in (*STATUSES, "unfinished")},
    }
    row |= _winner(result) | _gain(result) | _cost(result)
    row |= _confirmed_accuracies(result, row["trial"])
    values = result.best.hyperparameters if result.best else {}
    return row | {f"best_{key}": _value(spec, values, key) if result.best else None for key in keys}


def _winner(result: SearchResult) -> dict[str, Any]:
    columns = ("trial", "status", "origin", "objective", "objective_se", "best_epoch", "pgd_accuracy_best",
               "pgd_accuracy_best_se", "clean_accuracy_best", "fresh_pgd_accuracy", "fresh_pgd_accuracy_se",
               "fresh_clean_accuracy", "fresh_examples", "rescoring")  # fmt: skip
    if result.best is None:
        return dict.fromkeys(columns)
    row = result.best.row
    values = {name: row[name] for name in columns if name in row} | {"objective_se": _error(result, row["objective"])}
    values["rescoring"] = None if pd.isna(row["fresh_pgd_accuracy"]) else str(result.spec.rescoring)
    return {name: values[name] for name in columns}


def _error(result: SearchResult, objective: float) -> float:
    """Return the standard error of an objective. Every metric is an accuracy on the same number of images."""
    return standard_error(objective, judged_examples(result.spec))


def _gain(result: SearchResult) -> dict[str, Any]:
    """Return the winner's objective compared with that of the first `start_from`. A positive gain is an improvement."""
    columns: dict[str, Any] = dict.fromkeys(("start_from_objective", "start_from_objective_se", "gain", "gain_se"))
    baseline, best = result.summary["baseline"], result.best
    if best is None or baseline is None or baseline["objective"] is None:
        return columns
    before, now = baseline["objective"], best.row["objective"]
    errors = [_error(result, before), _error(result, now)]
    columns |= {
        "start_from_objective": before,
        "start_from_objective_se": errors[0],
        "gain": _sign(result) * (now - before),
    }
    if baseline["trial"] != best.trial:  # otherwise the gain is exactly zero
        columns["gain_se"] = math.hypot(*errors)
    return columns


def _sign(result: SearchResult) -> int:
    return 1 if result.spec.search.mode == "max" else -1


def _cost(result: SearchResult) -> dict[str, Any]:
    lead = find_lasting_lead(result)
    return {
        "epochs_trained": result.summary["epochs"],
        "device_hours": result.summary["trial_seconds"] / 3600,
        "wall_hours": result.summary["wall_seconds"] / 3600,
        "epochs_until_led": lead[0] if lead else None,
        "device_hours_until_led": lead[1] if lead else None,
    }


def _confirmed_accuracies(result: SearchResult, trial: Any) -> dict[str, Any]:
    """Return the winner's means over seeds on the test set at the search's radius; None in each if not confirmed."""
    columns: dict[str, Any] = {"confirmed_seeds": 0, "confirmed_examples": None, "confirmed_autoattack_parts": None}
    columns |= {f"confirmed_{attack}{suffix}": None for attack in COMPARED_ATTACKS for suffix in ("", "_sd")}
    columns |= {f"confirmed_{attack}_seeds": 0 for attack in COMPARED_ATTACKS}
    file = result.directory / run_files.CONFIRMED
    if trial is None or not file.is_file():
        return columns
    if not file.resolve().is_relative_to(result.directory.resolve()):
        raise ComparisonError(f"{file}: is a link that leads out of the run's folder")
    try:
        runs = read_csv(file)
        runs = runs[runs["contender"].eq(f"trial-{trial}") & runs["norm"].eq(result.spec.evaluation.norm)]
        runs = runs.astype(dict.fromkeys(("epsilon", "examples", *COMPARED_ATTACKS), float))
        shares = runs[list(COMPARED_ATTACKS)]
        if (
            not (shares.isna() | shares.ge(0) & shares.le(1)).all(axis=None)
            or not runs["examples"].between(1, 2**31).all()
        ):
            raise ValueError("an accuracy is not between 0 and 1, or there are no images")
    except (OSError, ValueError, TypeError, KeyError) as error:  # pandas' own errors are ValueErrors
        raise ComparisonError(f"{file}: is no table of a confirmation: {first_line(error)}") from error
    runs = runs[np.isclose(runs["epsilon"], result.spec.evaluation.epsilon)]
    if runs.empty:
        return columns
    columns |= {"confirmed_seeds": len(runs), "confirmed_examples": int(runs["examples"].min())}
    for attack in COMPARED_ATTACKS:
        columns |= summarize_seeds(f"confirmed_{attack}", runs[attack])
    measured = [attack for attack in ATTACKS if attack in runs and runs[attack].notna().any()]
    if "autoattack" in measured:
        columns["confirmed_autoattack_parts"] = label_attacks(measured)["autoattack"]
    return columns


def _value(spec: SearchSpec, values: dict[str, Any], key: str) -> Any:
    """Return a hyperparameter's value in a trial, searched or fixed; None if it had no effect there."""
    return values.get(key) if key in spec.space else hyperparameter_value(spec.training_config(values), key)


def compare_winners(searches: Searches) -> pd.DataFrame:
    """Return a row per pair of searches: the difference of the winners and the verdict, or the reason for none.

    The interval is that of accuracies measured on different images. If both searches used the same images, the
    difference is usually more certain. With more than one pair, p-values are adjusted after Holm (1979).

    Columns: first, second, measure, difference (first minus second, a fraction), low and high (its 95% interval),
    p_value, p_value_holm, verdict, reason (why there is no verdict; empty if there is one).
    """
    rows = [_compare(*pair) for pair in itertools.combinations(searches.items(), 2)]
    comparable = [row for row in rows if not row["reason"]]
    adjusted = significance.holm([row["p_value"] for row in comparable])
    for row, p_value in zip(comparable, adjusted, strict=True):
        better = row["difference"] * _sign(searches[row["first"]])
        row |= {"p_value_holm": p_value, "verdict": significance.verdict(better, p_value)}
    columns = ["first", "second", "measure", "difference", "low", "high", "p_value", "p_value_holm", "verdict",
               "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


NamedSearch = tuple[str, SearchResult]


def _compare(first: NamedSearch, second: NamedSearch) -> dict[str, Any]:
    """Return a row of `compare_winners`, without what depends on the other pairs."""
    row: dict[str, Any] = {"first": first[0], "second": second[0], "verdict": ""}
    row["reason"] = _find_obstacle(first, second)
    if row["reason"]:
        return row
    results = (first[1], second[1])
    winners = [result.best.row for result in results if result.best]
    if _judged_again_alike(*results):
        row["measure"] = "fresh_pgd_accuracy"
        values = [(winner["fresh_pgd_accuracy"], winner["fresh_pgd_accuracy_se"]) for winner in winners]
    else:
        row["measure"] = first[1].spec.search.metrics[0]
        objectives = [winner["objective"] for winner in winners]
        values = [(value, _error(result, value)) for value, result in zip(objectives, results, strict=True)]
    difference = significance.unpaired_difference(*values[0], *values[1])
    better, search = first if difference.estimate * _sign(first[1]) >= 0 else second
    if find_chance(search):
        return row | {"reason": f"no trial of {better} is clearly above chance"}
    row |= {"difference": difference.estimate, "low": difference.low, "high": difference.high}
    return row | {"p_value": difference.p_value}


def _find_obstacle(first: NamedSearch, second: NamedSearch) -> str:
    """Return why two searches get no verdict; empty if they get one."""
    for name, describe in DECISIVE_SETTINGS.items():
        if describe(first[1].spec) != describe(second[1].spec):
            return f"different {name}"
    for name, result in (first, second):
        if result.best is None:
            return f"no trial of {name} has been judged yet"
        if result.best.row["status"] in UNSOUND_STATUSES:
            return f"no trial of {name} came to a sound end"
        if not result.best.row["feasible"]:
            return f"no trial of {name} keeps its constraints"
    return ""


def _judged_again_alike(first: SearchResult, second: SearchResult) -> bool:
    """Return whether both winners were chosen by accuracies under the same second attack on as many images."""
    num_examples = [result.best.row["fresh_examples"] for result in (first, second) if result.best]
    return bool(
        rescoring_decides(first.spec)
        and first.spec.rescoring == second.spec.rescoring
        and num_examples[0] == num_examples[1]
    )


def comparison_warnings(searches: Searches) -> list[str]:
    """Return what a reader should know before comparing the searches, a line for each fact."""
    warnings = []
    for setting, describe in (DECISIVE_SETTINGS | SECONDARY_SETTINGS).items():
        descriptions = {name: describe(result.spec) for name, result in searches.items()}
        if len(set(descriptions.values())) > 1:
            consequence = CONSEQUENCES.get(setting, "")
            if setting in DECISIVE_SETTINGS:
                consequence = "no verdict between these"
            warnings.append(f"different {setting}: {_group(descriptions)}" + (f": {consequence}" * bool(consequence)))
    warnings += _warn_of_second_judgment(searches)
    devices = {name: environment.read(result.directory).devices or "not recorded" for name, result in searches.items()}
    if len(set(devices.values())) > 1:
        warnings.append(f"different devices: {_group(devices)}: hours cannot be compared")
    for name, result in searches.items():
        if not is_search_over(result):
            ended = int(result.trials["status"].ne("unfinished").sum())
            planned = result.summary["trials_planned"]
            warnings.append(f"{name} is unfinished: {ended} of {planned} trials have ended, and its winner may change")
        warnings += [f"{name} was continued with other settings: {change}" for change in result.summary["changes"]]
    return warnings


def _warn_of_second_judgment(searches: Searches) -> list[str]:
    """Return a warning if the winners were judged again in different ways, or only some of them were."""
    descriptions: dict[str, str] = {}
    for name, result in searches.items():
        if result.best is not None:
            examples = result.best.row["fresh_examples"]
            descriptions[name] = "not"
            if pd.notna(examples):
                descriptions[name] = f"{result.spec.rescoring} on {format_count(int(examples), 'image')}"
    if len(set(descriptions.values())) < 2:
        return []
    consequence = "these numbers cannot be compared, and verdicts go by those of the search itself"
    return [f"winners judged again differently: {_group(descriptions)}: {consequence}"]


def _group(descriptions: Mapping[str, str]) -> str:
    """Return settings with the searches that have them: tpe (a and b); random (c)."""
    return "; ".join(
        f"{description} ({join_words(name for name, other in descriptions.items() if other == description)})"
        for description in dict.fromkeys(descriptions.values())
    )


def compare_spaces(searches: Searches) -> pd.DataFrame:
    """Return a row per hyperparameter that any search searches, or that searches fix to different values.

    Columns: hyperparameter, a column per search with its range or value in words, differs.
    """
    rows = []
    with_delta = any(DELTA in result.spec.space for result in searches.values())
    for key in [METHOD, *HYPERPARAMETERS, *[DELTA] * with_delta]:
        ranges = {name: _range(result.spec, key) for name, result in searches.items()}
        differs = len(set(ranges.values())) > 1
        if differs or any(key in result.spec.space for result in searches.values()):
            rows.append({"hyperparameter": key, **ranges, "differs": differs})
    return pd.DataFrame(rows)


def _range(spec: SearchSpec, key: str) -> str:
    if key in spec.space:
        return str(spec.space[key])
    searched = [name for name in SAME_AS.get(key, ()) if name in spec.space]
    if searched:
        return f"searched as {' and '.join(searched)}"
    return f"fixed: {format_value(hyperparameter_value(spec.training_config({}), key))}"
