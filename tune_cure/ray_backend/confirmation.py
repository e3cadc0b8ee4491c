"""Ray tasks of a confirmation: each trains one network and judges it on the test set."""

import functools
import json
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from torch import nn

from tune_cure.confirmation.outcomes import Weights, read_trained
from tune_cure.confirmation.plan import Job, Plan, files_of_parts
from tune_cure.confirmation.trained_networks import load_trained
from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation import autoattack_version, robustness
from tune_cure.evaluation.chance import chance_level
from tune_cure.evaluation.metrics import BATCH_SIZE
from tune_cure.evaluation.names import judging_attacks
from tune_cure.models import checkpoints
from tune_cure.ray_backend import cluster, session
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.gpus.memory import wait_for_memory
from tune_cure.ray_backend.gpus.sharing import plan_devices
from tune_cure.ray_backend.guard import DeadRayError, GuardedCall
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.ray_backend.tasks import LimitedTasks
from tune_cure.ray_backend.trainable import shared_data
from tune_cure.ray_backend.worker_errors import describe
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.training.run import COLUMNS as EPOCH_COLUMNS
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu as cpus
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import (
    FolderError,
    read_tensors,
    replace_arrays,
    replace_bytes,
    replace_tensors,
    replace_text,
)
from tune_cure.utils.signals import WorkLeftBehindError

POLL_SECONDS = 1.0


def run(
    pending: list[Job],
    result: SearchResult,
    *,
    address: str | None = None,
    verbose: bool = False,
    on_ready: Callable[[ResourcePlan], None] = lambda devices: None,
    on_status: Callable[[Job, dict[str, Any]], None] = lambda job, status: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Train and judge the networks of a confirmation that are not there yet.

    Args:
        pending: The jobs that are left.
        result: The search that they are of, whose resources are used.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        verbose: Show what Ray says.
        on_ready: Is told of the devices once Ray is up.
        on_status: Is told of a job's `status` whenever it has changed.
        on_interrupt: Is called at Ctrl-C, before Ray is ended, which takes seconds.

    Returns:
        The reasons of jobs that failed, by their folders. Where Ray dies, all that are left have failed.

    Raises:
        ClusterError: The cluster cannot be joined, or one of its machines does not see the run's folder.
        DeviceError: Not even one job fits into the devices.
        KeyboardInterrupt: Ctrl-C was pressed; as WorkLeftBehindError where it was pressed twice.
    """
    modules = files_of_parts(result.spec, pending) if address else []
    with _ray(address, verbose, modules):
        if address is not None:
            cluster.check_folder(result.directory.resolve())
        broadcast = None if address is None else DataBroadcast(pending[0].data)
        try:
            plan = _plan(pending, result, broadcast)
        except DeadRayError as error:
            return {str(job.folder): str(error) for job in pending}
        on_ready(plan)
        task = ray.remote(
            num_cpus=plan.cpus_per_trial, num_gpus=plan.gpus_per_trial, max_retries=result.spec.search.retries
        )(_work_with_parts)
        parts = result.spec.parts
        for job in pending:  # what an earlier command left there is not news
            (job.folder / run_files.JOB_STATUS).unlink(missing_ok=True)
        submissions = [
            (job, functools.partial(task.remote, parts, pickle.dumps(job), plan, broadcast)) for job in pending
        ]
        return _Jobs(LimitedTasks(submissions, plan.concurrent), on_status, on_interrupt).run()


def _plan(pending: list[Job], result: SearchResult, broadcast: DataBroadcast | None) -> ResourcePlan:
    """Return how the jobs that are left use Ray's devices: with gpus_per_trial `auto`, they share GPUs as trials do."""
    left = [job for job in pending if not job.is_done] or pending
    # Judging takes whole batches of test images, however few images the search has judged on.
    evaluation = result.spec.evaluation.model_copy(update={"examples": BATCH_SIZE})
    spec = result.spec.model_copy(update={"data": pending[0].data, "evaluation": evaluation})
    configs = {job.candidate.name: config for job in left if (config := job.candidate.config)}  # to be trained
    return plan_devices(spec, broadcast, num_trials=len(left), configs=configs)


class _Jobs:
    """Jobs that run in Ray tasks, until all have ended, Ctrl-C is pressed or Ray dies.

    Args:
        tasks: The tasks of the jobs.
        on_status: Is told of a job's `status` whenever it has changed.
        on_interrupt: Is called at a first Ctrl-C.

    Attributes:
        failures: The reasons of jobs that failed, by their folders.
        num_interrupts: How often Ctrl-C was pressed.
    """

    def __init__(
        self,
        tasks: LimitedTasks[Job],
        on_status: Callable[[Job, dict[str, Any]], None],
        on_interrupt: Callable[[], None],
    ) -> None:
        self.tasks, self.failures = tasks, dict[str, str]()
        self.num_interrupts = 0
        self._on_status, self._on_interrupt = on_status, on_interrupt
        self._reason: str | None = None  # why the jobs that are left are not waited for

    def run(self) -> dict[str, str]:
        """Wait for the jobs, and return the reasons of those that failed.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; as WorkLeftBehindError where it was pressed twice.
        """
        GuardedCall(self._follow, self).run()
        if self.num_interrupts:
            raise WorkLeftBehindError if self.num_interrupts > 1 else KeyboardInterrupt
        if self._reason is not None:
            left = self.tasks.left  # the thread of a call that was left behind may go on
            self.failures |= {str(job.folder): self._reason for job in left}
        return self.failures

    def end(self, outcome: str, reason: str) -> None:
        """Wait for no further job; of several calls the first one counts."""
        if self._reason is None:
            self._reason = reason

    def interrupt(self) -> None:
        """Wait for no further job because of Ctrl-C."""
        self.num_interrupts += 1
        if self.num_interrupts == 1:
            self._on_interrupt()
        self.end("interrupted", "")

    def stop_all(self) -> bool:
        """Return whether no further job is waited for."""
        return self._reason is not None

    def _follow(self) -> None:
        """Tell of each status that changes, and take note of jobs that fail, until all have ended."""
        jobs = self.tasks.left
        statuses: dict[Path, dict[str, Any]] = {}
        while self.tasks.left and not self.stop_all():
            finished = self.tasks.wait(POLL_SECONDS)
            for job in jobs:
                if (status := job.status()) and statuses.get(job.folder) != status:
                    statuses[job.folder] = status
                    self._on_status(job, status)
            for job, reference in finished:
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:  # the task, its process or its machine failed
                    session.keep_logs()
                    self.failures[str(job.folder)] = describe(error)
                    self._on_status(job, {"stage": "failed", "reason": self.failures[str(job.folder)]})
                self.tasks.settle(reference)


@contextmanager
def _ray(address: str | None, verbose: bool, modules: list[Path]) -> Iterator[None]:
    """Start or join a Ray inside the context, unless this process has one."""
    if ray.is_initialized():
        yield
        return
    session.start_ray(address, verbose=verbose, modules=modules)
    try:
        yield
    finally:
        session.stop_ray()


def _work_with_parts(parts: list[str], job: bytes, plan: ResourcePlan, broadcast: DataBroadcast | None) -> None:
    """Do the work of a job, which cannot be unpickled before the user's own parts are imported."""
    import_sent_parts(parts)
    work(pickle.loads(job), plan, broadcast)


def work(job: Job, plan: ResourcePlan | None = None, broadcast: DataBroadcast | None = None) -> None:
    """Train and judge the network of one job, from where an earlier call left it. Runs in a worker process.

    Args:
        job: The job.
        plan: The confirmation's use of the devices; None computes on the CPU.
        broadcast: The data for machines that lack it; None if all is on one machine.
    """
    device = torch.device(plan.device if plan else "cpu")
    cpus.configure_cpu(job.cpus)
    job.folder.mkdir(parents=True, exist_ok=True)
    if waited := wait_for_memory(plan, lambda: _write_status(job, "waiting")):
        print(f"{job.candidate.name}, seed {job.seed}: {waited}", flush=True)
    splits = shared_data(job.data, device.type, broadcast)
    if job.candidate.trained is None:
        replace_text(job.folder / run_files.JOB_CONFIG, job.config.to_yaml())
        if not job.is_trained:
            _train(job, hold_out(splits, job.plan), device)
    test = splits.test.subset(job.plan.examples, seed=0).to(device)
    for weights in job.weights:
        network = _load(job, weights, device)
        for epsilon in job.plan.epsilons:
            _judge(job, weights, network, test, epsilon, splits.num_classes)
    _write_status(job, "done")


def hold_out(splits: Splits, plan: Plan) -> Splits:
    """Return the images of a confirmation's training: those that choose the best epoch are its validation images."""
    images = splits.all_training_images()
    if plan.held_out:
        held_out = splits.validation.subset(plan.held_out, seed=0)
        splits, images = replace(splits, validation=held_out), images.without(held_out)
    return replace(splits, train=images.subset(plan.train_images, seed=0))


def _write_status(job: Job, stage: str, **details: Any) -> None:
    """Write what the job does now, for the process that runs the confirmation."""
    replace_text(job.folder / run_files.JOB_STATUS, json.dumps({"stage": stage, **details}) + "\n")


def _load(job: Job, weights: Weights, device: torch.device) -> nn.Module | None:
    """Return the network to judge; None if there is none because its training diverged.

    A network that was not trained here has been checked by the process that planned the job.
    """
    if job.candidate.trained is not None:
        trained = load_trained(
            job.candidate.trained, trust_code=True, dataset=job.data.dataset, norm=job.evaluation.norm
        )
        return trained.network.to(device)
    name = run_files.JOB_MODEL if weights == "last" else run_files.JOB_BEST
    saved = read_tensors(job.folder / name, device)
    return checkpoints.rebuild(saved, device=device, trust_code=True) if saved["weights"] else None


def _train(job: Job, splits: Splits, device: torch.device) -> None:
    """Train a network for its whole schedule, from the last epoch that was saved, and write it.

    Where the plan holds images out, each epoch is evaluated on them, and the best one's weights are written, too.
    """
    config = job.training
    trainer = Trainer(config, splits, model=job.model, evaluation=job.evaluation, device=device, seed=job.seed)
    last = job.folder / run_files.JOB_STATE
    seconds = 0.0
    log: list[dict[str, Any]] = []
    if last.exists():
        saved = read_tensors(last, device)
        try:
            trainer.load_state_dict(saved["trainer"])
            seconds = float(saved["seconds"])
            log = list(saved.get("log", []))  # which version 0.1.0 did not save
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise FolderError(f"{last}: the training cannot go on from it: {first_line(error)}") from error
    diverged = bool(log and log[-1].get("diverged"))  # it was ended before its network was written
    while trainer.epoch < config.epochs and not diverged:
        _write_status(job, "training", epoch=trainer.epoch, epochs=config.epochs)
        row = trainer.train_epoch()
        seconds += row["train_seconds"]
        if job.plan.held_out and not row["diverged"]:
            row |= trainer.evaluate()
        diverged = row["diverged"]
        log.append({name: row.get(name) for name in EPOCH_COLUMNS})
        replace_text(job.folder / run_files.JOB_EPOCHS, format_csv(pd.DataFrame(log, columns=list(EPOCH_COLUMNS))))
        replace_tensors(last, {"trainer": trainer.state_dict(), "seconds": seconds, "log": log})
    weights = {name: value.detach().cpu() for name, value in trainer.judged_model.state_dict().items()}
    diverged = diverged or not all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    content = {"model": trainer.architecture, "weights": {} if diverged else weights, "epoch": trainer.epoch}
    content["train_seconds"] = seconds
    if job.plan.held_out:
        replace_tensors(job.folder / run_files.JOB_BEST, trainer.best_model())
        collapsed = [row["epoch"] for row in log if row["catastrophic_overfitting"]]
        content |= {"best_epoch": trainer.best_epoch, "catastrophic_overfitting_epochs": collapsed}
    replace_tensors(job.folder / run_files.JOB_MODEL, {**trainer.images, **content})
    last.unlink()


def _judge(
    job: Job, weights: Weights, network: nn.Module | None, test: Examples, epsilon: float, num_classes: int
) -> None:
    """Write for each test image which attacks it withstands at a radius; none, for a network that diverged (None)."""
    folder = job.outcome_folder(epsilon, weights)
    file = folder / run_files.OUTCOMES
    if job.is_judged_at(epsilon, weights):
        return
    if weights == "best" and _is_last_epoch_best(job):
        folder.mkdir(exist_ok=True)
        replace_bytes(file, (job.outcome_folder(epsilon) / run_files.OUTCOMES).read_bytes())
        return
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    if network is None:
        names = judging_attacks(num_classes, autoattack=job.plan.autoattack)
        found = {name: np.zeros(len(test), dtype=bool) for name in names}
        zero_gradient, version = 0.0, autoattack_version.installed_version() if job.plan.autoattack else ""
    else:
        status = functools.partial(_write_status, job, "judging", weights=weights, epsilon=epsilon)
        status(attack="clean")
        outcomes = robustness.evaluate_robustness(
            network,
            test,
            job.evaluation.model_copy(update={"epsilon": epsilon}),
            autoattack=job.plan.autoattack,
            folder=folder,
            on_progress=lambda attack, accuracy: status(attack=attack, accuracy=accuracy),
        )
        found, zero_gradient, version = outcomes.correct, outcomes.zero_gradient, outcomes.autoattack_version
    numbers = {"zero_gradient": zero_gradient, "chance": chance_level(test.own_labels)}
    numbers["seconds"] = time.perf_counter() - started
    replace_arrays(file, {**found, **numbers, autoattack_version.KEY: version})


def _is_last_epoch_best(job: Job) -> bool:
    """Return whether the best weights are the last ones, whose outcomes they share."""
    trained = read_trained(job.folder / run_files.JOB_MODEL)
    return bool(trained["weights"]) and trained.get("best_epoch") == trained["epoch"]
