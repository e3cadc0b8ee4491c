"""Leading configurations retrained over several seeds and judged on the test set, beside baselines.

What a search reports of its winner was measured on the images that chose it, with one seed. Here each configuration is
trained anew on all training images, those that the search held out included, for its whole schedule, and its last
weights are judged: nothing is chosen, so nothing is flattered. The test set is read here for the first time.

Each (configuration, seed) is a task of Ray that saves its state after every epoch and every attack in a folder of its
own, so the same command goes on where an interrupted one stopped, and another one with more seeds or configurations
adds to what is there.
"""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tune_cure.confirmation.candidates import Candidate
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.utils.files import FolderError, replace_bytes
from tune_cure.utils.yaml_config import by_path, differences, parse


@dataclass(frozen=True)
class Plan:
    """How candidates are confirmed.

    Attributes:
        seeds: Of the training runs, none of them that of the search; the same for every candidate.
        epsilons: The radii to judge at, in pixel units; that of the search's evaluation first.
        examples: How many test images to judge on, stratified.
        train_images: How many training images to train on, stratified.
        autoattack: Whether AutoAttack is run, too.
    """

    seeds: tuple[int, ...]
    epsilons: tuple[float, ...]
    examples: int
    train_images: int
    autoattack: bool


@dataclass(frozen=True)
class Job:
    """One candidate with one seed."""

    candidate: Candidate
    seed: int
    data: DataSpec
    model: ModelConfig
    evaluation: EvaluationConfig
    plan: Plan
    folder: Path
    cpus: int

    def describe(self) -> dict[str, Any]:
        """What its weights depend on, as written into its folder."""
        return {
            "contender": self.candidate.description,
            "seed": self.seed,
            "train_images": self.plan.train_images,
            "data": self.data.model_dump(mode="json", exclude={"root"}),
            "model": self.model.model_dump(mode="json"),
            "training": self.candidate.config.model_dump(mode="json", by_alias=True),
        }

    def outcome_folder(self, epsilon: float) -> Path:
        """The folder of what was found at a radius."""
        return self.folder / f"{self.evaluation.norm}-{epsilon:.6g}-{self.plan.examples}"

    @property
    def is_judged(self) -> bool:
        """Whether there are outcomes of it, at one radius at least."""
        return any((self.outcome_folder(epsilon) / run_files.OUTCOMES).exists() for epsilon in self.plan.epsilons)

    def status(self) -> dict[str, Any]:
        """What it is doing: `stage` and details of it; empty before it has begun."""
        file = self.folder / run_files.JOB_STATUS
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def plan_jobs(result: SearchResult, candidates: list[Candidate], plan: Plan) -> list[Job]:
    """A job for each candidate and seed, seeds together: early ends leave whole seeds to compare.

    Raises:
        FolderError: A job's folder holds another one.
    """
    spec = result.spec
    data = spec.data.model_copy(update={"train_examples": None})
    directory = result.directory.resolve() / run_files.CONFIRM
    found = [
        Job(one, seed, data, spec.model, spec.evaluation, plan, directory / one.name / f"seed-{seed}",
            spec.resources.cpus_per_trial)
        for seed in plan.seeds
        for one in candidates
    ]  # fmt: skip
    for job in found:
        _check(job)
    return found


def _check(job: Job) -> None:
    file = job.folder / run_files.JOB_CONFIG
    if not file.exists():
        return
    before, now = (by_path(of) for of in (parse(file.read_text(encoding="utf-8")), job.describe()))
    # What an earlier version did not know, it did as is the default now.
    before = by_path({"training": TrainingConfig().model_dump(mode="json", by_alias=True)}) | before
    change = next(((key, a, b) for key, a, b in differences(before, now) if key != "contender"), None)
    if change:
        key, was, wanted = change
        raise FolderError(f"{file}: {key} was {was} there, and is {wanted} now; move {job.folder.parent.parent} away")


def all_training_images(splits: Splits) -> Examples:
    """Those that the search trained on, and those that it held out."""
    indices = torch.cat([splits.train.indices, splits.validation.indices]).sort().values
    return replace(splits.train, indices=indices)


def write_arrays(file: Path, content: dict[str, Any]) -> None:
    """Writes arrays by name, in one step, for `np.load`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    replace_bytes(file, buffer.getvalue())
