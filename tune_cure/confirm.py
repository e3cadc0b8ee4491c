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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import yaml
from torch import nn

from tune_cure import cluster, cpus, models, ray_session, robustness
from tune_cure.config import ModelConfig, TrainingConfig
from tune_cure.contenders import Contender
from tune_cure.data import DataSpec, Examples, Splits
from tune_cure.devices import Devices, allot
from tune_cure.evaluation import EvaluationConfig
from tune_cure.files import FolderError, read_tensors, replace_bytes, replace_tensors, replace_text
from tune_cure.reading import by_path, differences, parse
from tune_cure.results import SearchResult
from tune_cure.shipping import Shipment
from tune_cure.trainable import shared_data
from tune_cure.training import Trainer

FOLDER = "confirm"
CONFIG, LAST, MODEL, STATUS, OUTCOMES = "config.yaml", "last.pt", "model.pt", "status.json", "outcomes.npz"
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """How contenders are confirmed.

    Attributes:
        seeds: Of the training runs, none of them that of the search; the same for every contender.
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
    """One contender with one seed."""

    contender: Contender
    seed: int
    data: DataSpec
    model: ModelConfig
    evaluation: EvaluationConfig
    plan: Plan
    folder: Path
    cpus: int

    def described(self) -> dict[str, Any]:
        """What its weights depend on, as written into its folder."""
        return {
            "contender": self.contender.description,
            "seed": self.seed,
            "train_images": self.plan.train_images,
            "data": self.data.model_dump(mode="json", exclude={"root"}),
            "model": self.model.model_dump(mode="json"),
            "training": self.contender.config.model_dump(mode="json", by_alias=True),
        }

    def judged(self, epsilon: float) -> Path:
        """The folder of what was found at a radius."""
        return self.folder / f"{self.evaluation.norm}-{epsilon:.6g}-{self.plan.examples}"

    @property
    def is_judged(self) -> bool:
        """Whether there are outcomes of it, at one radius at least."""
        return any((self.judged(epsilon) / OUTCOMES).exists() for epsilon in self.plan.epsilons)

    def status(self) -> dict[str, Any]:
        """What it is doing: `stage` and details of it; empty before it has begun."""
        file = self.folder / STATUS
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def jobs(result: SearchResult, contenders: list[Contender], plan: Plan) -> list[Job]:
    """A job for each contender and seed, seeds together: early ends leave whole seeds to compare.

    Raises:
        FolderError: A job's folder holds another one.
    """
    spec = result.spec
    data = spec.data.model_copy(update={"train_examples": None})
    directory = result.directory.resolve() / FOLDER
    found = [
        Job(one, seed, data, spec.model, spec.evaluation, plan, directory / one.name / f"seed-{seed}",
            spec.resources.cpus_per_trial)
        for seed in plan.seeds
        for one in contenders
    ]  # fmt: skip
    for job in found:
        _check(job)
    return found


def _check(job: Job) -> None:
    file = job.folder / CONFIG
    if not file.exists():
        return
    before, now = (by_path(of) for of in (parse(file.read_text(encoding="utf-8")), job.described()))
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


def run(
    pending: list[Job],
    result: SearchResult,
    *,
    address: str | None = None,
    verbose: bool = False,
    on_ready: Callable[[Devices], None] = lambda devices: None,
    on_status: Callable[[Job, dict[str, Any]], None] = lambda job, status: None,
) -> dict[str, str]:
    """Trains and judges what is not yet there.

    Args:
        pending: The jobs.
        result: The search that they are of: its resources count.
        address: Of a Ray cluster to join; a Ray of this machine alone is started if None.
        verbose: Let Ray speak.
        on_ready: Told of the devices, once Ray is up.
        on_status: Told of a job's `status` whenever it has changed.

    Returns:
        By the folders of jobs that failed, why.

    Raises:
        DeviceError: Not even one job fits into the devices.
    """
    with _ray(address, verbose):
        directory = result.directory.resolve()
        if address is not None:
            cluster.check_folder(directory)
        shipment = None if address is None else Shipment(pending[0].data)
        devices = allot(result.spec, cluster.machines())
        on_ready(devices)
        task = ray.remote(
            num_cpus=devices.cpus_per_trial, num_gpus=devices.gpus_per_trial, max_retries=result.spec.search.retries
        )(work)
        running = {task.remote(job, devices.device, shipment): job for job in pending}
        failures: dict[str, str] = {}
        seen: dict[Path, dict[str, Any]] = {}
        while running:
            done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for job in pending:
                if (status := job.status()) and seen.get(job.folder) != status:
                    seen[job.folder] = status
                    on_status(job, status)
            for reference in done:
                job = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:  # of the task, its process, its machine or their memory
                    failures[str(job.folder)] = str(error).strip().splitlines()[-1]
                    on_status(job, {"stage": "failed", "reason": failures[str(job.folder)]})
        return failures


@contextmanager
def _ray(address: str | None, verbose: bool) -> Iterator[None]:
    started = not ray.is_initialized()
    if started:
        ray_session.start_ray(address, verbose=verbose)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def work(job: Job, device_name: str = "cpu", shipment: Shipment | None = None) -> None:
    """Trains and judges one job, from where it was left; in a worker process."""
    device = torch.device(device_name)
    cpus.take(job.cpus)
    splits = shared_data(job.data, device.type, shipment)
    job.folder.mkdir(parents=True, exist_ok=True)
    replace_text(job.folder / CONFIG, yaml.safe_dump(job.described(), sort_keys=False))
    network = _trained(job, splits, device)
    test = splits.test.subset(job.plan.examples, seed=0).to(device)
    for epsilon in job.plan.epsilons:
        _judge(job, network, test, epsilon)
    _tell(job, "done")


def _tell(job: Job, stage: str, **details: Any) -> None:
    replace_text(job.folder / STATUS, json.dumps({"stage": stage, **details}) + "\n")


def _trained(job: Job, splits: Splits, device: torch.device) -> nn.Module | None:
    """The network after the whole schedule; None if it diverged."""
    file, config = job.folder / MODEL, job.contender.config
    if not file.exists():
        images = all_training_images(splits).subset(job.plan.train_images, seed=0)
        _train(job, config, replace(splits, train=images), device)
    saved = read_tensors(file, device)
    return models.rebuild(saved).to(device) if saved["weights"] else None


def _train(job: Job, config: TrainingConfig, splits: Splits, device: torch.device) -> None:
    trainer = Trainer(config, splits, model=job.model, evaluation=job.evaluation, device=device, seed=job.seed)
    last = job.folder / LAST
    seconds, diverged = 0.0, False
    if last.exists():
        saved = read_tensors(last, device)
        trainer.load_state_dict(saved["trainer"])
        seconds = saved["seconds"]
    while trainer.epoch < config.epochs and not diverged:
        _tell(job, "training", epoch=trainer.epoch, epochs=config.epochs)
        row = trainer.train_epoch()
        seconds, diverged = seconds + row["train_seconds"], row["diverged"]
        replace_tensors(last, {"trainer": trainer.state_dict(), "seconds": seconds})
    weights = {name: value.detach().cpu() for name, value in trainer.judged_model.state_dict().items()}
    diverged = diverged or not all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    content = {"model": trainer.architecture, "weights": {} if diverged else weights, "epoch": trainer.epoch}
    replace_tensors(job.folder / MODEL, {**trainer.images, **content, "train_seconds": seconds})
    last.unlink()


def _judge(job: Job, network: nn.Module | None, test: Examples, epsilon: float) -> None:
    """Writes what each test image came to at a radius; a network that diverged has none of them right."""
    folder = job.judged(epsilon)
    if (folder / OUTCOMES).exists() and (not job.plan.autoattack or "autoattack" in np.load(folder / OUTCOMES)):
        return
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    if network is None:
        names = robustness.NAMES if job.plan.autoattack else robustness.WITHOUT_AUTOATTACK
        found = {name: np.zeros(len(test), dtype=bool) for name in names}
        numbers = {"zero_gradient": 0.0}
    else:
        _tell(job, "judging", epsilon=epsilon, attack="clean")
        outcomes = robustness.judge(
            network,
            test,
            job.evaluation.model_copy(update={"epsilon": epsilon}),
            autoattack=job.plan.autoattack,
            folder=folder,
            on_progress=lambda attack, accuracy: _tell(
                job, "judging", epsilon=epsilon, attack=attack, accuracy=accuracy
            ),
        )
        found = outcomes.correct
        numbers = {"zero_gradient": outcomes.zero_gradient}
    write_arrays(folder / OUTCOMES, {**found, **numbers, "seconds": time.perf_counter() - started})


def write_arrays(file: Path, content: dict[str, Any]) -> None:
    """Writes arrays by name, in one step, for `np.load`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    replace_bytes(file, buffer.getvalue())
