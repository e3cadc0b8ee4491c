"""Searches whose candidates train in a second, and confirmations of them that were never run."""

import dataclasses
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tests.support.journals import write_search
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.plan import Job, Plan, plan_jobs
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import ATTACKS
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load
from tune_cure.utils.files import replace_arrays

NUM_IMAGES = 400

PLAN = Plan(seeds=(1,), epsilons=(0.15,), examples=30, train_images=200, autoattack=False)


def write_quick_search(directory: Path, *overrides: str) -> SearchResult:
    """Write the folder of a search whose configurations train in a second."""
    write_search(directory, 8)
    changed = ["training.epochs=2", "model={name: small_cnn, width: 4}", "asha.grace_period=1", *overrides]
    (directory / run_files.SPEC).write_text(load(directory / "space.yaml", changed).to_yaml())
    return SearchResult(directory)


def write_outcomes(
    job: Job,
    share: float,
    *,
    autoattack: bool = True,
    num_images: int = NUM_IMAGES,
    chance: float | None = None,
    seconds: float = 3.0,
    version: str | None = "0.2.0",
) -> None:
    """Write what a finished job leaves: a share of its images withstood every attack, the first of a fixed order.

    `version` is that of AutoAttack; with None it is not recorded, as tune-cure 0.2.0 did not.
    """
    folder = job.outcome_folder(0.15)
    folder.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(num_images)
    noise = np.random.default_rng(job.seed + zlib.crc32(job.candidate.name.encode())).random(num_images) < 0.02
    right = (order < share * num_images) ^ noise
    names = ATTACKS if autoattack else ATTACKS[:4]
    numbers = {"zero_gradient": 0.0, "seconds": 1.0} | ({} if chance is None else {"chance": chance})
    versions = {"autoattack_version": version if autoattack else ""} if version is not None else {}
    replace_arrays(folder / run_files.OUTCOMES, {**dict.fromkeys(names, right), **numbers, **versions})
    model = {"model": {}, "weights": {"w": torch.ones(1)}, "epoch": 2, "train_seconds": seconds}
    torch.save(model, job.folder / run_files.JOB_MODEL)


def write_best_outcomes(job: Job, num_more: int, best_epoch: int) -> None:
    """Write what the best weights of a finished job withstood: what the last ones did, and `num_more` images besides.

    Args:
        job: The job, whose last weights have outcomes.
        num_more: The number of images; negative for fewer.
        best_epoch: The best epoch.
    """
    arrays = read_outcomes(job.outcome_folder(0.15) / run_files.OUTCOMES, job.plan.examples)
    for name in ATTACKS:
        if name in arrays:
            changed = np.flatnonzero(arrays[name] == (num_more < 0))[: abs(num_more)]
            arrays[name][changed] = num_more > 0
    folder = job.outcome_folder(0.15, "best")
    folder.mkdir()
    replace_arrays(folder / run_files.OUTCOMES, arrays)
    model = torch.load(job.folder / run_files.JOB_MODEL, weights_only=True)
    torch.save({**model, "best_epoch": best_epoch}, job.folder / run_files.JOB_MODEL)


def judge_at(jobs: Sequence[Job], epsilon: float) -> list[Job]:
    """Return the jobs with a further radius, at which those that have outcomes get the same ones.

    Args:
        jobs: The jobs.
        epsilon: The radius, in pixel units.
    """
    more = [dataclasses.replace(job, plan=dataclasses.replace(job.plan, epsilons=(0.15, epsilon))) for job in jobs]
    for job in more:
        for weights in job.weights:
            if job.outcome_folder(0.15, weights).exists():
                shutil.copytree(job.outcome_folder(0.15, weights), job.outcome_folder(epsilon, weights))
    return more


def plan_quick_jobs(
    directory: Path,
    baselines: Sequence[str] = ("start_from", "fgsm"),
    *,
    held_out: int = 0,
    autoattack: bool = True,
) -> list[Job]:
    """Write a quick search and return the jobs of its confirmation: two leaders and the baselines with three seeds."""
    result = write_quick_search(directory)
    plan = dataclasses.replace(PLAN, seeds=(1, 2, 3), examples=NUM_IMAGES, autoattack=autoattack, held_out=held_out)
    return plan_jobs(result, choose_candidates(result, 2, baselines), plan)


def finish(jobs: list[Job], **shares: float) -> Confirmation:
    """Write what the jobs leave when they finish, and return their confirmation.

    Args:
        jobs: The jobs.
        shares: The share of images that withstood every attack, by the name of the candidate or by its kind; 0.5 if
            not given.
    """
    for job in jobs:
        write_outcomes(job, shares.get(job.candidate.name, shares.get(job.candidate.kind, 0.5)))
    return Confirmation(jobs)
