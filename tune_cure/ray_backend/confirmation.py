"""Runs the jobs of a confirmation as tasks of Ray: each trains one network and judges it on the test set."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torch import nn

from tune_cure.confirmation.plan import Job
from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation import robustness
from tune_cure.evaluation.names import ATTACKS, WITHOUT_AUTOATTACK
from tune_cure.models import checkpoints
from tune_cure.ray_backend import cluster, session
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.resources import ResourcePlan, plan_resources
from tune_cure.ray_backend.trainable import shared_data
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training.config import TrainingConfig
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu as cpus
from tune_cure.utils.files import read_tensors, replace_arrays, replace_tensors, replace_text

POLL_SECONDS = 1.0


def run(
    pending: list[Job],
    result: SearchResult,
    *,
    address: str | None = None,
    verbose: bool = False,
    on_ready: Callable[[ResourcePlan], None] = lambda devices: None,
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
        broadcast = None if address is None else DataBroadcast(pending[0].data)
        devices = plan_resources(result.spec, cluster.machines())
        on_ready(devices)
        task = ray.remote(
            num_cpus=devices.cpus_per_trial, num_gpus=devices.gpus_per_trial, max_retries=result.spec.search.retries
        )(work)
        running = {task.remote(job, devices.device, broadcast): job for job in pending}
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
        session.start_ray(address, verbose=verbose)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def work(job: Job, device_name: str = "cpu", broadcast: DataBroadcast | None = None) -> None:
    """Trains and judges one job, from where it was left; in a worker process."""
    device = torch.device(device_name)
    cpus.configure_cpu(job.cpus)
    splits = shared_data(job.data, device.type, broadcast)
    job.folder.mkdir(parents=True, exist_ok=True)
    replace_text(job.folder / run_files.JOB_CONFIG, job.config.to_yaml())
    network = _trained(job, splits, device)
    test = splits.test.subset(job.plan.examples, seed=0).to(device)
    for epsilon in job.plan.epsilons:
        _judge(job, network, test, epsilon)
    _tell(job, "done")


def _tell(job: Job, stage: str, **details: Any) -> None:
    replace_text(job.folder / run_files.JOB_STATUS, json.dumps({"stage": stage, **details}) + "\n")


def _trained(job: Job, splits: Splits, device: torch.device) -> nn.Module | None:
    """The network after the whole schedule; None if it diverged."""
    file, config = job.folder / run_files.JOB_MODEL, job.candidate.config
    if not file.exists():
        images = splits.all_training_images().subset(job.plan.train_images, seed=0)
        _train(job, config, replace(splits, train=images), device)
    saved = read_tensors(file, device)
    return checkpoints.rebuild(saved, trust_code=True).to(device) if saved["weights"] else None


def _train(job: Job, config: TrainingConfig, splits: Splits, device: torch.device) -> None:
    trainer = Trainer(config, splits, model=job.model, evaluation=job.evaluation, device=device, seed=job.seed)
    last = job.folder / run_files.JOB_STATE
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
    replace_tensors(job.folder / run_files.JOB_MODEL, {**trainer.images, **content, "train_seconds": seconds})
    last.unlink()


def _judge(job: Job, network: nn.Module | None, test: Examples, epsilon: float) -> None:
    """Writes what each test image came to at a radius; a network that diverged has none of them right."""
    folder = job.outcome_folder(epsilon)
    file = folder / run_files.OUTCOMES
    if file.exists() and (not job.plan.autoattack or "autoattack" in np.load(file)):
        return
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    if network is None:
        names = ATTACKS if job.plan.autoattack else WITHOUT_AUTOATTACK
        found = {name: np.zeros(len(test), dtype=bool) for name in names}
        numbers = {"zero_gradient": 0.0}
    else:
        _tell(job, "judging", epsilon=epsilon, attack="clean")
        outcomes = robustness.evaluate_robustness(
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
    replace_arrays(file, {**found, **numbers, "seconds": time.perf_counter() - started})
