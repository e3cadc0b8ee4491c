"""Data set and threat model that trained networks are judged on, as the folders of the networks record them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tune_cure.attacks.config import is_linf
from tune_cure.confirmation.trained_networks import EXPORTED_CONFIG, EXPORTED_WEIGHTS, split_reference
from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training import run as training_run
from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.yaml_config import ProblemError, first_problem, read_mapping

Section = TypeVar("Section", DataSpec, EvaluationConfig)
LEVELS = 5
"""Folders to look in, from the file of a network upwards: that of a confirmation's run is four below the search's."""


class TaskError(TuneCureError):
    """A data set or a threat model that cannot be used."""


@dataclass(frozen=True)
class Task:
    """Data set and threat model that networks are judged on.

    Attributes:
        data: The data set, whose test images are used.
        evaluation: The threat model: its norm and its radius. The rest has no effect.
    """

    data: DataSpec
    evaluation: EvaluationConfig


def choose_task(paths: Iterable[Path], *, data: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Task:
    """Return what networks are judged on: what is asked for, and else what the first folder that tells records.

    Args:
        paths: The folders or files of the networks.
        data: What is asked for, by keys of `DataSpec`; None asks for nothing.
        evaluation: What is asked for, by keys of `EvaluationConfig`; None asks for nothing.

    Raises:
        TuneCureError: A folder is damaged, or a name or number is not possible.
    """
    data = {key: value for key, value in data.items() if value is not None}
    evaluation = {key: value for key, value in evaluation.items() if value is not None}
    recorded = next((task for path in paths if (task := find_task(path))), None)
    if recorded is not None and data.get("dataset", recorded.data.dataset) == recorded.data.dataset:
        data = recorded.data.model_dump() | {"train_examples": None} | data
        norm = evaluation.get("norm", recorded.evaluation.norm)
        if recorded.evaluation.norm in (norm, norm.lower()):
            evaluation = recorded.evaluation.model_dump() | evaluation
    else:
        data.setdefault("dataset", training_run.DEFAULT_DATASET)
    spec = _validate(DataSpec, data)
    if is_linf(evaluation):
        evaluation.setdefault("epsilon", DATASETS.resolve(spec.dataset).epsilon)
    return Task(spec, _validate(EvaluationConfig, evaluation))


def _validate(kind: type[Section], section: Mapping[str, Any]) -> Section:
    """Return a section as its configuration.

    Raises:
        TaskError: A value is not possible.
    """
    try:
        return kind.model_validate(section)
    except ValidationError as error:
        problem = first_problem(error, kind)
        raise TaskError(f"--{problem.path.replace('_', '-')}: {problem.message}") from error


def find_task(path: Path) -> Task | None:
    """Return what a network was trained for, from the folder of its search, league, training run or export.

    Args:
        path: The folder, or a file in it, at most as deep as that of a confirmation's run.

    Returns:
        The data set and the threat model; None if nothing says.

    Raises:
        TuneCureError: The folder's record is damaged.
    """
    if not path.exists():
        return None
    for folder in [path, *path.absolute().parents][:LEVELS]:
        if (folder / run_files.SPEC).is_file() and (folder / run_files.JOURNAL).is_file():
            spec = SearchResult(folder).spec
            return Task(spec.data, spec.evaluation)
        if (folder / run_files.LEAGUE).is_file() and (searches := sorted(folder.glob(f"*/{run_files.JOURNAL}"))):
            return find_task(searches[0].parent)
        if (folder / training_run.CONFIG).is_file() and (folder / training_run.BEST).is_file():
            return _task_of_training(folder / training_run.CONFIG)
        if (folder / EXPORTED_WEIGHTS).is_file() and (folder / EXPORTED_CONFIG).is_file():
            return _task_of_export(folder / EXPORTED_CONFIG)
    return None


def explain_trained_images(models: Mapping[str, str], data: DataSpec) -> list[str]:
    """Return a sentence for each network whose training images include test images.

    Args:
        models: The networks by their names, as `trained_networks.load_trained` takes them.
        data: A data set without test images of its own. `data.validation` decides which training images replace them.

    Raises:
        TuneCureError: The record of a network's folder is damaged.
    """
    sentences = []
    for name, model in models.items():
        task = find_task(split_reference(model)[0])
        if task and task.data.dataset == data.dataset and task.data.validation not in (None, data.validation):
            sentences.append(
                f"{name}: may have been trained on some of these test images: the data set has none of its own, and "
                f"with data.validation {task.data.validation} others were held out than with {data.validation}"
            )
    return sentences


def _task_of_training(file: Path) -> Task:
    try:
        run = training_run.resolve(read_mapping(file))
    except ProblemError as problem:
        raise problem.within(file) from problem
    return Task(run.data, run.evaluation)


def _task_of_export(file: Path) -> Task:
    """Return the task in an export's config.json.

    Images of unequal sides were not resized. Exports of earlier versions do not record how the data was split.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size, evaluation = content["image_size"], content["evaluation"]
        side = size[0] if size and size[0] == size[1] else None
        recorded = content["data"]
        split = {key: recorded[key] for key in ("validation", "split_seed") if key in recorded}
        data = _validate(DataSpec, {"dataset": recorded["dataset"], "image_size": side, **split})
        return Task(data, _validate(EvaluationConfig, evaluation))
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise TaskError(f"{file}: does not say what the network was trained for: {first_line(error)}") from error
