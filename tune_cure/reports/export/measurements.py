"""What was measured of an exported network: by its search on validation images, by a confirmation on the test set."""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import ATTACK_LABELS, ATTACKS
from tune_cure.evaluation.robustness import Outcomes
from tune_cure.search import run_files
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import judged_examples
from tune_cure.training.config import TrainingConfig
from tune_cure.utils import significance
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import STATUS_WORDS
from tune_cure.utils.yaml_config import parse

OUTCOME_FOLDER = re.compile(
    r"(linf|l2)-([0-9.]+(?:e[+-][0-9]+)?)-([0-9]+)"
)  # a folder of what was found at a radius, see `Job.outcome_folder`


class ExportError(FolderError):
    """A run that has nothing to export, or a folder that cannot be exported to."""


@dataclass(frozen=True)
class Measurement:
    """An accuracy.

    Attributes:
        on: Which images: validation, fresh validation or test.
        attack: In words.
        norm: Of the ball.
        epsilon: Its radius in pixel units; of clean accuracy that of the attacks beside it.
        examples: How many images.
        accuracy: Of the exported network, a fraction; None if `mean` is of others.
        mean: Over the seeds of a confirmation.
        deviation: The sample standard deviation over them; None of a single seed.
        seeds: How many these are; 0 if there was no confirmation.
    """

    on: str
    attack: str
    norm: str
    epsilon: float
    examples: int
    accuracy: float | None
    mean: float | None = None
    deviation: float | None = None
    seeds: int = 0


def measured_by_search(spec: SearchSpec, row: "pd.Series[Any]") -> Iterator[Measurement]:
    """What a search measured of its best weights."""
    evaluation = spec.evaluation
    attacks = {"clean": "clean", "fgsm": "FGSM", "pgd": _pgd(evaluation)}
    for name, words in attacks.items():
        of = row[f"{name}_accuracy_best"]
        if pd.notna(of):
            yield Measurement(
                "validation", words, evaluation.norm, evaluation.epsilon, judged_examples(spec), float(of)
            )
    if pd.notna(row["fresh_pgd_accuracy"]):
        again = spec.rescoring
        for name, words in {"clean": "clean", "pgd": _pgd(again)}.items():
            of = float(row[f"fresh_{name}_accuracy"])
            yield Measurement("fresh validation", words, again.norm, again.epsilon, int(row["fresh_examples"]), of)


def _pgd(evaluation: EvaluationConfig) -> str:
    restarts = f"-{evaluation.restarts}" if evaluation.restarts > 1 else ""
    ascends = "" if evaluation.loss == "cross_entropy" else f" on the {evaluation.loss} loss"
    return f"PGD-{evaluation.steps}{restarts}{ascends}"


def find_doubts(result: SearchResult, candidate: str, status: str) -> Iterator[str]:
    """What makes the numbers of a search's best model doubtful: how its training ended, what a confirmation saw."""
    if status in UNSOUND_STATUSES:
        yield f"Its trial {STATUS_WORDS[status]} later on: do not expect the same of another training."
    for run in find_runs(result, candidate):
        yield from (f"Trained again with seed {run_seed(run)}: {sign}" for sign in describe_masking(result, run))


def find_runs(result: SearchResult, candidate: str) -> list[Path]:
    """The folders of trained runs, by seed. `candidate` is * for all."""
    here = result.directory.resolve()
    folder = result.directory / run_files.CONFIRM
    found = (file.parent for file in folder.glob(f"{candidate}/seed-*/{run_files.JOB_MODEL}"))
    inside = [folder for folder in found if (folder / run_files.JOB_MODEL).resolve().is_relative_to(here)]
    return sorted((folder for folder in inside if folder.name.removeprefix("seed-").isdigit()), key=run_seed)


def run_seed(run: Path) -> int:
    """The seed of a run, by its folder."""
    return int(run.name.removeprefix("seed-"))


def read_run_config(run: Path) -> dict[str, Any]:
    """What a confirmation wrote of a run, `training` as a `TrainingConfig`."""
    file = run / run_files.JOB_CONFIG
    try:
        content = parse(file.read_text(encoding="utf-8"))
        config = TrainingConfig.model_validate(content["training"])
        return {
            "contender": str(content["contender"]),
            "train_images": int(content["train_images"]),
            "training": config,
        }
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:  # of pydantic's the last, too
        raise ExportError(f"{file}: does not say how the run was trained: {str(error).splitlines()[0]}") from error


OutcomeKey = tuple[str, float, int]
"""Norm, radius and number of test images."""


def _found(result: SearchResult, run: Path) -> dict[OutcomeKey, dict[str, NDArray[Any]]]:
    """What a confirmation found of a run, the search's own radius first."""
    evaluation = result.spec.evaluation
    found: dict[OutcomeKey, dict[str, NDArray[Any]]] = {}
    for file in run.glob(f"*/{run_files.OUTCOMES}"):
        if match := OUTCOME_FOLDER.fullmatch(file.parent.name):
            try:
                norm, epsilon, examples = match[1], float(match[2]), int(match[3])
                with np.load(io.BytesIO(file.read_bytes())) as content:
                    outcomes = {name: content[name] for name in content.files}
                gradient_masking.find_masking_signs(Outcomes.from_arrays(outcomes))
            except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
                raise ExportError(f"{file}: is damaged: {error}") from error
            own = norm == evaluation.norm and match[2] == f"{evaluation.epsilon:.6g}"  # rounded, as a folder's name
            found[norm, evaluation.epsilon if own else epsilon, examples] = outcomes
    return dict(sorted(found.items(), key=lambda of: (of[0][1] != evaluation.epsilon, *of[0])))


def measured_by_confirmation(result: SearchResult, candidate: str, seed: int | None) -> Iterator[Measurement]:
    """What a confirmation found with one seed, or without one the means alone."""
    runs = {run_seed(run): _found(result, run) for run in find_runs(result, candidate)}
    chosen = dict.fromkeys(judged for found in runs.values() for judged in found) if seed is None else runs[seed]
    for judged in chosen:
        for name in ATTACKS:
            of = {run: found[judged][name].mean() for run, found in runs.items() if name in found.get(judged, {})}
            if of and (seed is None or seed in of):
                mean, deviation = significance.mean_and_deviation(np.array(list(of.values()), dtype=float))
                yield Measurement(
                    "test", ATTACK_LABELS[name], *judged, None if seed is None else float(of[seed]), mean,
                    deviation if len(of) > 1 else None, len(of),
                )  # fmt: skip


def describe_masking(result: SearchResult, run: Path) -> Iterator[str]:
    """The signs of masked gradients in a run."""
    for (_, epsilon, _), found in _found(result, run).items():
        for sign in gradient_masking.find_masking_signs(Outcomes.from_arrays(found)):
            yield f"at epsilon {epsilon:.4g}: {sign}"
