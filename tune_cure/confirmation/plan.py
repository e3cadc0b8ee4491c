"""Plan of a confirmation: which networks are trained and judged, and what of it is done already.

A search reports its winner's accuracy on the images that chose the winner, for one seed. A confirmation trains each
candidate anew: with several seeds, for the whole schedule. It judges on the test set the last weights, and those of the
best epoch, which images that are held out of the training choose. Nothing is chosen by the test set, so its numbers are
not optimistic. A search does not read the test set.

Each pair of candidate and seed is a job with a folder of its own. A job saves its state after every epoch and every
attack, so the same command continues where it was interrupted. A later command with more seeds or candidates adds to
what is there; one with fewer names what its tables leave out.

The columns of confirm.csv call a candidate "contender", as version 0.1.0 did.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cure.confirmation.candidates import Candidate
from tune_cure.confirmation.job_config import JobConfig, read_job_config
from tune_cure.confirmation.outcomes import Weights, read_outcomes, read_status
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import format_radius, join_words
from tune_cure.utils.yaml_config import by_path, differences

if TYPE_CHECKING:
    from tune_cure.data.splits import Splits  # imports torch, which the reader of saved confirmations does not need

AS_IS = 0
"""Stands in the place of a seed for a network that was not trained here. Seeds of a confirmation begin at 1."""

RunKey = tuple[str, int, float]
"""Candidate, seed and radius of one judged network; the seed is `AS_IS` where it was not trained here."""

# Names of a confirmation's folders. A folder with another name, which a page or a terminal might obey, is none.
CANDIDATE_FOLDER = re.compile(r"[A-Za-z0-9_.-]+")
SEED_FOLDER = re.compile(r"seed-[0-9]{1,18}")
OUTCOME_FOLDER = re.compile(r"([A-Za-z0-9_.:]+)-([0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?)-([0-9]+)")
"""The name of a folder with the outcomes at a radius: norm, radius, number of images. See `Job.outcome_folder`."""


@dataclass(frozen=True)
class Plan:
    """Settings of a confirmation, the same for all candidates.

    Attributes:
        seeds: The seeds of the training runs. The seed of the search is not among them.
        epsilons: The radii to judge at, in pixel units. The radius of the search's evaluation comes first.
        examples: The number of test images to judge on, stratified by class.
        train_images: The number of training images to train on, stratified by class.
        autoattack: True if AutoAttack judges the networks, too.
        held_out: The number of the search's validation images that are not trained on and choose the best epoch. 0
            judges the last weights alone, and training may use all images.
    """

    seeds: tuple[int, ...]
    epsilons: tuple[float, ...]
    examples: int
    train_images: int
    autoattack: bool
    held_out: int = 0


@dataclass(frozen=True)
class Job:
    """One candidate, trained with one seed and judged at every radius of the plan; a trained network is judged alone.

    Attributes:
        candidate: The configuration, or the trained network.
        seed: The seed of the training run; `AS_IS` for a trained network.
        data: The data set, without a limit on its training images.
        model: The network.
        evaluation: The search's evaluation. Its norm counts; the radii are those of the plan.
        plan: The settings of the confirmation.
        folder: The job's folder: confirm/CANDIDATE/seed-SEED in the search's folder; for a trained network
            confirm/CANDIDATE/DIGEST, so that other weights have another folder.
        cpus: The number of CPU cores to use.
    """

    candidate: Candidate
    seed: int
    data: DataSpec
    model: ModelConfig
    evaluation: EvaluationConfig
    plan: Plan
    folder: Path
    cpus: int

    @property
    def name(self) -> str:
        """The job in words: its candidate and its seed."""
        return self.candidate.name if self.candidate.trained else f"{self.candidate.name}, seed {self.seed}"

    @property
    def training(self) -> TrainingConfig:
        """The hyperparameters that the network is trained with."""
        assert self.candidate.config is not None, f"{self.name} is trained already"
        return self.candidate.config

    @property
    def named_parts(self) -> list[str]:
        """Words that may name parts of the user's own: those of the hyperparameters, and the network's name."""
        candidate = self.candidate
        words = [] if candidate.config is None else [*candidate.config.model_dump().values()]
        named = [self.model.name, (candidate.trained or "").rpartition("@")[2]]
        return [word for word in (*words, *named) if isinstance(word, str)]

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Which of its weights are judged; the last ones come first."""
        return ("last", "best") if self.plan.held_out and self.candidate.trained is None else ("last",)

    @property
    def config(self) -> JobConfig:
        """The content of the job's config.yaml."""
        return JobConfig(
            contender=self.candidate.description,
            seed=self.seed,
            train_images=self.plan.train_images,
            held_out=self.plan.held_out,
            evaluation=self.evaluation if self.plan.held_out else None,
            data=self.data,
            model=self.model,
            training=self.training,
        )

    def outcome_folder(self, epsilon: float, weights: Weights = "last") -> Path:
        """Return the folder of the outcomes at a radius: NORM-EPSILON-EXAMPLES, or best-NORM-EPSILON-EXAMPLES."""
        prefix = "best-" if weights == "best" else ""
        return self.folder / f"{prefix}{self.evaluation.norm}-{epsilon:.6g}-{self.plan.examples}"

    def status(self) -> dict[str, Any]:
        """Return what the job is doing: `stage` and its details; empty before the job has begun."""
        return read_status(self.folder / run_files.JOB_STATUS)

    @property
    def is_trained(self) -> bool:
        """True if its network is there: trained here and saved, or trained elsewhere."""
        return self.candidate.trained is not None or (self.folder / run_files.JOB_MODEL).exists()

    @property
    def is_done(self) -> bool:
        """True if its network is trained, and judged as the plan asks."""
        return self.is_trained and all(
            self.is_judged_at(epsilon, weights) for epsilon in self.plan.epsilons for weights in self.weights
        )

    def is_judged_at(self, epsilon: float, weights: Weights = "last") -> bool:
        """Return whether its last or best weights are judged as the plan asks at one radius."""
        file = self.outcome_folder(epsilon, weights) / run_files.OUTCOMES
        if not file.exists() or not self.plan.autoattack:
            return file.exists()
        return "autoattack" in read_outcomes(file, self.plan.examples)

    @property
    def is_judged(self) -> bool:
        """True if there are outcomes of the network at one radius at least."""
        return any((self.outcome_folder(epsilon) / run_files.OUTCOMES).exists() for epsilon in self.plan.epsilons)


def files_of_parts(spec: SearchSpec, jobs: Iterable[Job]) -> list[Path]:
    """Return the files that the own parts of a search and of the candidates of jobs need, as `own_part_files` does."""
    return own_part_files(spec, also=(name for job in jobs for name in job.named_parts))


def count_held_out(result: SearchResult, splits: "Splits", weights: str | None, directory: Path | None = None) -> int:
    """Return how many images are held out to choose the best epoch: those that the search has judged its epochs on.

    Args:
        result: The search.
        splits: Its images.
        weights: `last` holds out none, `both` some. None goes on as the confirmation was begun; version 0.1.0 held out
            none. A new one holds out some.
        directory: The confirmation's folder; None is that of the search.

    Raises:
        FolderError: The config.yaml of a job that was begun is damaged.
    """
    begun = sorted((directory or result.directory / run_files.CONFIRM).glob(f"*/seed-*/{run_files.JOB_CONFIG}"))
    if weights is None and begun:
        return read_job_config(begun[0].parent).held_out
    return 0 if weights == "last" else min(result.spec.evaluation.examples, len(splits.validation))


def plan_jobs(
    result: SearchResult, candidates: Sequence[Candidate], plan: Plan, directory: Path | None = None
) -> list[Job]:
    """Return a job for each candidate and seed, and one for each trained network.

    All candidates of a seed come before those of the next seed: if the confirmation ends early, they have seeds in
    common and can be compared. Trained networks come with the first seed.

    Args:
        result: The search, whose data, network, evaluation and resources the jobs use.
        candidates: What is retrained or judged.
        plan: The settings of the confirmation.
        directory: The confirmation's folder; None is that of the search.

    Raises:
        FolderError: A job's folder holds a network that was trained otherwise.
    """
    directory = (directory or result.directory / run_files.CONFIRM).resolve()
    jobs = [
        _plan_job(result, candidate, plan, directory, AS_IS if candidate.trained else seed)
        for seed in plan.seeds
        for candidate in candidates
        if candidate.trained is None or seed == plan.seeds[0]
    ]
    for job in jobs:
        _check_folder(job)
    return jobs


def _plan_job(result: SearchResult, candidate: Candidate, plan: Plan, directory: Path, seed: int) -> Job:
    """Return the job of a candidate and a seed in the confirmation's folder `directory`."""
    spec = result.spec
    return Job(
        candidate=candidate,
        seed=seed,
        data=spec.data.model_copy(update={"train_examples": None}),
        model=candidate.model or spec.model,
        evaluation=spec.evaluation,
        plan=plan,
        folder=directory / candidate.name / (candidate.digest or f"seed-{seed}"),
        cpus=spec.resources.cpus_per_trial,
    )


def _check_folder(job: Job) -> None:
    """Refuse a folder whose config.yaml describes other weights than the job's."""
    if not (job.folder / run_files.JOB_CONFIG).exists():
        return
    before, now = by_path(read_job_config(job.folder).dump()), by_path(job.config.dump())
    change = next(((key, old, new) for key, old, new in differences(before, now) if key != "contender"), None)
    if change:
        key, old, new = change
        is_own = key.partition(".")[0] in ("model", "training")  # the others are the same for all candidates
        move = job.folder.parent if is_own else job.folder.parent.parent
        advice = f"move {move} away"
        if is_own and job.candidate.kind == "candidate":
            advice += ", or give the candidate another name: NAME=FILE"
        raise FolderError(f"{job.folder / run_files.JOB_CONFIG}: {key} was {old} there, and is {new} now; {advice}")


def find_left_out(jobs: Sequence[Job]) -> list[RunKey]:
    """Return what has been judged in the confirmation's folder and is part of none of its jobs.

    An earlier command asked for more seeds, candidates or radii. Only what was judged on the same number of images
    counts; the rest is not comparable with these jobs.

    Args:
        jobs: All jobs of a plan, finished or not; empty for none.
    """
    if not jobs:
        return []
    asked = {(job.candidate.name, job.seed, job.outcome_folder(at).name) for job in jobs for at in job.plan.epsilons}
    alike = f"{jobs[0].evaluation.norm}-*-{jobs[0].plan.examples}"
    runs = set()
    for file in jobs[0].folder.parent.parent.glob(f"*/*/{alike}/{run_files.OUTCOMES}"):
        name, run, outcomes = file.parts[-4:-1]
        seed = int(run.removeprefix("seed-")) if SEED_FOLDER.fullmatch(run) else AS_IS
        match = OUTCOME_FOLDER.fullmatch(outcomes)
        if match and CANDIDATE_FOLDER.fullmatch(name) and (name, seed, outcomes) not in asked:
            runs.add((name, seed, float(match[2])))
    return sorted(runs)


def explain_left_out(left_out: Iterable[RunKey], norm: str) -> list[str]:
    """Return a sentence that names what `find_left_out` found; none if it found nothing.

    Args:
        left_out: What it found.
        norm: The norm of the attacks.
    """
    seeds: dict[tuple[str, float], list[int]] = {}
    for name, seed, epsilon in left_out:
        seeds.setdefault((name, epsilon), []).append(seed)
    texts = []
    for (name, epsilon), own in seeds.items():
        numbers = f" with seed{'s' * (len(own) > 1)} {join_words(map(str, own))}" if own != [AS_IS] else ""
        texts.append(f"{name}{numbers} at {format_radius(epsilon, norm)}")
    if not texts:
        return []
    return [
        "Judged in the same folder, but not asked for by the command, and therefore in no table and no verdict: "
        f"{'; '.join(texts)}."
    ]
