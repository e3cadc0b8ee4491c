"""Checks of a confirmation before its first epoch: what would fail after hours is said at once."""

import importlib.util
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tune_cure.confirmation.candidates import Candidate
from tune_cure.confirmation.plan import Job, Plan, count_held_out
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import NORM_LABELS
from tune_cure.models import checkpoints
from tune_cure.search.results import SearchResult
from tune_cure.training.trainer import Trainer
from tune_cure.utils.errors import TuneCureError, first_line

LEAST_IMAGES = 2
REHEARSED_IMAGES = 4
OUTCOME_BYTES = 16
"""Bytes of the outcomes of one image: one for each attack, and again in one file for all attacks."""


class ConfirmError(TuneCureError):
    """A request that cannot be confirmed."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on the disk of one run.

    Attributes:
        state: The state of the training, while it trains.
        model: The network.
    """

    state: int
    model: int


def at_most(number: int | None, most: int, flag: str, images: str) -> int:
    """Return a number of images that a command line asks for; None asks for all there are.

    Args:
        number: The number.
        most: How many images there are.
        flag: The flag that it was given by.
        images: What images these are, in words.

    Raises:
        ConfirmError: There are fewer, or fewer than two, of which no spread is known.
    """
    chosen = most if number is None else number
    if chosen > most:
        raise ConfirmError(f"{flag} {chosen}: there are {most:,} {images}")
    if chosen < LEAST_IMAGES:
        raise ConfirmError(f"{flag} {chosen}: at least {LEAST_IMAGES} {images} are needed")
    return chosen


def make_plan(
    result: SearchResult,
    splits: Splits,
    *,
    seeds: int,
    examples: int | None,
    train_images: int | None,
    autoattack: bool,
    epsilons: Sequence[float] = (),
    weights: str | None = None,
    directory: Path | None = None,
    more_images: str = "",
) -> Plan:
    """Return the settings of a confirmation that a search, its images and its attacks allow.

    Args:
        result: The search; the plan's seeds follow its own, and its evaluation's radius comes first.
        splits: All its images.
        seeds: The number of training runs of each candidate.
        examples: Test images to judge on; None is all.
        train_images: Training images to use; None is all.
        autoattack: Whether AutoAttack is to judge.
        epsilons: Further radii to judge at.
        weights: As `plan.count_held_out` takes it.
        directory: The confirmation's folder; None is that of the search.
        more_images: What makes more images available for training, in words; empty for nothing.

    Raises:
        ConfirmError: There are fewer images, or an attack cannot judge.
        FolderError: The config.yaml of a job that was begun is damaged.
    """
    spec, held_out = result.spec, count_held_out(result, splits, weights, directory)
    besides = f" besides {held_out:,} that choose the best epoch{more_images}" if held_out else ""
    available = len(splits.all_training_images()) - held_out
    plan = Plan(
        seeds=tuple(spec.search.seed + 1 + number for number in range(seeds)),
        epsilons=distinct_radii([spec.evaluation.epsilon, *epsilons]),
        examples=at_most(examples, len(splits.test), "--examples", "test images"),
        train_images=at_most(train_images, available, "--train-images", f"training images{besides}"),
        autoattack=autoattack,
        held_out=held_out,
    )
    check_attacks(plan.epsilons, spec.evaluation, autoattack=autoattack)
    return plan


def distinct_radii(radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii that have folders of their own (`Job.outcome_folder`): 0.0313725 has that of 8/255."""
    distinct: dict[str, float] = {}
    for radius in radii:
        distinct.setdefault(f"{radius:.6g}", radius)
    return tuple(distinct.values())


def check_attacks(epsilons: Sequence[float], evaluation: EvaluationConfig, *, autoattack: bool) -> None:
    """Refuse radii and attacks with which no network can be judged.

    Args:
        epsilons: The radii, in pixel units.
        evaluation: The threat model, of which the norm counts.
        autoattack: Whether AutoAttack is to judge.

    Raises:
        ConfirmError: A radius is not in the pixels' range, AutoAttack does not know the norm, or it is not installed.
    """
    largest = max(epsilons)
    if evaluation.norm == "linf" and largest > 1:
        raise ConfirmError(f"--epsilons: must be at most 1 with norm linf, but found {largest:g}")
    if not autoattack:
        return
    if evaluation.norm not in NORM_LABELS:
        known = " and ".join(NORM_LABELS)
        raise ConfirmError(f"AutoAttack knows the norms {known}, but not {evaluation.norm}; use --no-autoattack")
    if importlib.util.find_spec("pyautoattack") is None:
        raise ConfirmError(
            "AutoAttack is not installed here: pip install pyautoattack, or leave it out with --no-autoattack"
        )


def rehearse(jobs: Sequence[Job], splits: Splits) -> dict[str, Sizes]:
    """Train each candidate whose runs are left for one step on a few images, on the CPU, and rebuild its network.

    Args:
        jobs: The jobs.
        splits: The images.

    Returns:
        The bytes that a run of each candidate takes on the disk, by the candidate's name.

    Raises:
        ConfirmError: A candidate cannot be trained or rebuilt.
    """
    few = replace(splits, train=splits.train.subset(REHEARSED_IMAGES, seed=0))
    sizes: dict[str, Sizes] = {}
    for job in jobs:
        if not job.is_done and job.candidate.name not in sizes and job.candidate.trained is None:
            try:
                sizes[job.candidate.name] = _rehearse(job, few)
            except Exception as error:  # parts of the user's own can raise anything
                problem = f"{job.candidate.name} cannot be trained: {first_line(error)}"
                raise ConfirmError(problem + _how_to_omit(job.candidate)) from error
    return sizes


def _how_to_omit(candidate: Candidate) -> str:
    flags = {"baseline": "--baselines", "candidate": "--candidates"}
    return f"; leave it out of {flags[candidate.kind]}" if candidate.kind in flags else ""


def _rehearse(job: Job, few: Splits) -> Sizes:
    """Make one step of a candidate, and save and rebuild what it trained."""
    config = job.training.model_copy(update={"batch_size": REHEARSED_IMAGES, "amp": "off"})
    trainer = Trainer(config, few, model=job.model, evaluation=job.evaluation, seed=job.seed)
    trainer.train_epoch()
    state, model = io.BytesIO(), io.BytesIO()
    torch.save(trainer.state_dict(), state)
    torch.save({"model": trainer.architecture, "weights": trainer.judged_model.state_dict()}, model)
    torch.load(io.BytesIO(state.getvalue()), weights_only=True)
    with torch.random.fork_rng(devices=[]):  # a network that is built draws its first weights
        checkpoints.rebuild(torch.load(io.BytesIO(model.getvalue()), weights_only=True), trust_code=True)
    attack, size = trainer.terms.attack, tuple(few.train.images.shape[1:])
    remembered = [attack.memory_bytes((count, *size)) for count in (len(few.train), job.plan.train_images)]
    return Sizes(state.tell() + remembered[1] - remembered[0], model.tell())


def check_disk(folder: Path, jobs: Sequence[Job], sizes: dict[str, Sizes], concurrent: int) -> None:
    """Refuse a disk without room for the runs that are left.

    Args:
        folder: The search's folder.
        jobs: The jobs.
        sizes: What `rehearse` returned.
        concurrent: The number of runs at a time.

    Raises:
        ConfirmError: There is too little room.
    """
    left = [job for job in jobs if job.candidate.name in sizes and not job.is_done]
    if not left:
        return
    outcomes = sum(len(job.weights) * len(job.plan.epsilons) * OUTCOME_BYTES * job.plan.examples for job in left)
    models = sum(len(job.weights) * sizes[job.candidate.name].model for job in left)
    # A state is replaced by a new one that is complete, so two of them lie on the disk for a moment. Where the best
    # weights are judged, it holds them, too, which it did not in the rehearsal.
    best = [(len(job.weights) - 1) * sizes[job.candidate.name].model for job in left]
    state = max(sizes[job.candidate.name].state + more for job, more in zip(left, best, strict=True))
    states = 2 * min(concurrent, len(left)) * state
    needed, free = outcomes + models + states, shutil.disk_usage(folder).free
    if needed > free:
        takes, left_free = (f"{number / 2**20:,.0f} MiB" for number in (needed, free))
        raise ConfirmError(f"{folder}: the runs take about {takes} on this disk, but {left_free} are free")
