"""Measurements of an exported network: by its search on validation images, by a confirmation on the test set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tune_cure.confirmation.job_config import JobConfig, read_job_config
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.plan import CANDIDATE_FOLDER, OUTCOME_FOLDER, SEED_FOLDER
from tune_cure.confirmation.searches.chance import find_chance
from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.autoattack_version import join_versions, read_version
from tune_cure.evaluation.chance import is_clearly_above
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import ACCURACY_LABELS, ATTACKS, AUTOATTACK_PARTS, COMPARED_ATTACKS, label_attacks
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.search import run_files
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import judged_examples
from tune_cure.utils import significance
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import STATUS_WORDS, format_percent
from tune_cure.utils.schema import MAX_NUMBER

OutcomeKey = tuple[str, float, int]
"""Norm, radius and number of test images."""


class ExportError(FolderError):
    """A run that has nothing to export, or a folder that cannot be exported to."""


@dataclass(frozen=True)
class Measurement:
    """An accuracy.

    Attributes:
        on: The images: validation, fresh validation or test.
        attack: The attack, as people write it.
        norm: The norm of the ball.
        epsilon: The radius of the ball, in pixel units. For clean accuracy, that of the attacks beside it.
        examples: The number of images.
        accuracy: The accuracy of the exported network, a fraction; None if only other networks were measured.
        mean: The mean over the seeds of a confirmation, a fraction; None if there was no confirmation.
        deviation: The sample standard deviation over the seeds; None for a single seed.
        seeds: The seeds of that mean; empty if there was no confirmation.
        autoattack_version: Version of AutoAttack's package by which the networks were judged; several are separated by
            commas. Empty for other attacks, and if the version of a network is not known.
    """

    on: str
    attack: str
    norm: str
    epsilon: float
    examples: int
    accuracy: float | None
    mean: float | None = None
    deviation: float | None = None
    seeds: tuple[int, ...] = ()
    autoattack_version: str = ""


def measured_by_search(spec: SearchSpec, row: "pd.Series[Any]") -> Iterator[Measurement]:
    """Yield what a search measured of its best weights.

    Args:
        spec: The search.
        row: The best trial's row of `SearchResult.trials`.
    """
    evaluation = spec.evaluation
    for name, label in ACCURACY_LABELS.items():
        if pd.notna(row[f"{name}_best"]):
            attack = _describe_pgd(evaluation) if name == "pgd_accuracy" else label
            yield Measurement(
                "validation",
                attack,
                evaluation.norm,
                evaluation.epsilon,
                judged_examples(spec),
                float(row[f"{name}_best"]),
            )
    if pd.notna(row["fresh_pgd_accuracy"]):
        again, num_examples = spec.rescoring, int(row["fresh_examples"])
        label = _describe_pgd(again) if again.attack == "pgd" else again.label
        for attack, name in (("clean", "fresh_clean_accuracy"), (label, "fresh_pgd_accuracy")):
            accuracy = float(row[name])
            version = row.get("fresh_autoattack_version") if name == "fresh_pgd_accuracy" else None
            yield Measurement(
                "fresh validation",
                attack,
                again.norm,
                again.epsilon,
                num_examples,
                accuracy,
                autoattack_version=version if isinstance(version, str) else "",
            )


def _describe_pgd(evaluation: EvaluationConfig) -> str:
    restarts = f"-{evaluation.restarts}" if evaluation.restarts > 1 else ""
    loss = "" if evaluation.loss == "cross_entropy" else f" on the {evaluation.loss} loss"
    return f"PGD-{evaluation.steps}{restarts}{loss}"


def measured_by_confirmation(result: SearchResult, candidate: str, seed: int | None) -> Iterator[Measurement]:
    """Yield what a confirmation measured of a candidate's networks.

    Args:
        result: The search.
        candidate: The name of the candidate.
        seed: The seed whose accuracies are given beside the means over all seeds; None for the means alone.
    """
    outcomes = {run_seed(run): _read_outcomes(result, run) for run in find_runs(result, candidate)}
    keys = dict.fromkeys(key for of_run in outcomes.values() for key in of_run) if seed is None else outcomes[seed]
    for key in keys:
        labels = label_attacks({attack for of_run in outcomes.values() for attack in of_run.get(key, {})})
        for attack in ATTACKS:
            accuracies = {
                run: float(of_run[key][attack].mean())
                for run, of_run in outcomes.items()
                if attack in of_run.get(key, {})
            }
            if accuracies and (seed is None or seed in accuracies):
                is_part = attack in AUTOATTACK_PARTS
                versions = [read_version(outcomes[run][key]) for run in accuracies] if is_part else []
                mean, deviation = significance.mean_and_deviation(np.array(list(accuracies.values()), dtype=float))
                yield Measurement(
                    "test",
                    labels[attack],
                    *key,
                    accuracy=None if seed is None else accuracies[seed],
                    mean=mean,
                    deviation=deviation if len(accuracies) > 1 else None,
                    seeds=tuple(accuracies),
                    autoattack_version=join_versions(versions),
                )


def find_doubts(result: SearchResult, candidate: str, status: str) -> Iterator[str]:
    """Yield reasons to doubt the measurements of a search's best model.

    Args:
        result: The search.
        candidate: The name of the model's configuration in a confirmation.
        status: How the model's trial ended.
    """
    if status in UNSOUND_STATUSES:
        yield f"Its trial {STATUS_WORDS[status]} later on: do not expect the same of another training."
    if finding := find_chance(result):
        yield f"{finding.claim}. {finding.evidence}"
    for run in find_runs(result, candidate):
        yield from (f"Trained again with seed {run_seed(run)}: {doubt}" for doubt in find_doubts_of_run(result, run))


def find_doubts_of_run(result: SearchResult, run: Path) -> Iterator[str]:
    """Yield the signs of masked gradients that a confirmation saw in a run, and whether it is at chance."""
    for (_, epsilon, examples), arrays in _read_outcomes(result, run).items():
        at, chance = f"at epsilon {epsilon:.4g}: ", float(arrays.get("chance", np.nan))
        yield from (f"{at}{sign}" for sign in gradient_masking.find_masking_signs(Outcomes.from_arrays(arrays)))
        if epsilon != result.spec.evaluation.epsilon or np.isnan(chance):
            continue
        strongest = next(attack for attack in reversed(COMPARED_ATTACKS) if attack in arrays)
        for attack, under in (("clean", "without attack"), (strongest, f"under {label_attacks(arrays)[strongest]}")):
            accuracy = float(arrays[attack].mean())
            if not is_clearly_above(accuracy, examples, chance):
                yield (
                    f"{at}its accuracy of {format_percent(accuracy)} {under} is not clearly above chance: one fixed "
                    f"answer has {format_percent(chance)}, attacked or not"
                )
                break


def find_runs(result: SearchResult, candidate: str) -> list[Path]:
    """Return the folders of a candidate's trained runs, by seed.

    Args:
        result: The search.
        candidate: The name of the candidate; * for all.
    """
    here = result.directory.resolve()
    confirmation = result.directory / run_files.CONFIRM
    models = confirmation.glob(f"{candidate}/seed-*/{run_files.JOB_MODEL}")
    runs = [file.parent for file in models if file.resolve().is_relative_to(here)]
    named = [run for run in runs if CANDIDATE_FOLDER.fullmatch(run.parent.name) and SEED_FOLDER.fullmatch(run.name)]
    return sorted(named, key=run_seed)


def run_seed(run: Path) -> int:
    """Return the seed of a run, from the name of its folder."""
    return int(run.name.removeprefix("seed-"))


def read_run_config(run: Path) -> JobConfig:
    """Return how a run was trained.

    Raises:
        ExportError: Its config.yaml is missing or damaged.
    """
    try:
        return read_job_config(run)
    except FolderError as error:
        raise ExportError(str(error)) from error


def _read_outcomes(result: SearchResult, run: Path) -> dict[OutcomeKey, dict[str, NDArray[Any]]]:
    """Return the outcomes of a run at each radius, that of the search first.

    Raises:
        ExportError: A file of outcomes is damaged.
    """
    evaluation = result.spec.evaluation
    outcomes: dict[OutcomeKey, dict[str, NDArray[Any]]] = {}
    for file in run.glob(f"*/{run_files.OUTCOMES}"):
        if match := OUTCOME_FOLDER.fullmatch(file.parent.name):
            try:
                norm, epsilon, examples = match[1], float(match[2]), int(match[3])
                if not 0 < epsilon <= MAX_NUMBER or examples < 1:
                    raise ValueError(f"{file.parent}: is no folder of outcomes")
                arrays = read_outcomes(file, examples)
            except ValueError as error:
                raise ExportError(str(error)) from error
            # The folder's name has the radius rounded to six digits.
            is_own = norm == evaluation.norm and match[2] == f"{evaluation.epsilon:.6g}"
            outcomes[norm, evaluation.epsilon if is_own else epsilon, examples] = arrays
    return dict(sorted(outcomes.items(), key=lambda item: (item[0][1] != evaluation.epsilon, *item[0])))
