"""Rescoring: the leaders of a search judged by a stronger attack on validation images that no trial was judged on.

The best of many trials looks better than it is on the images that it was chosen by. On other images it does not.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation import autoattack_version
from tune_cure.evaluation.robustness import judge
from tune_cure.models import checkpoints as models
from tune_cure.ray_backend import session
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.gpus.memory import wait_for_memory
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.ray_backend.tasks import LimitedTasks
from tune_cure.ray_backend.trainable import shared_data
from tune_cure.ray_backend.worker_errors import describe
from tune_cure.search import ranking, run_files, trial_table
from tune_cure.search.journal import Journal
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.search.storage.run_storage import RunStorage
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils import cpu
from tune_cure.utils.files import FolderError, read_tensors

_logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def fresh_examples(spec: SearchSpec, splits: Splits) -> Examples:
    """Return validation images that no trial is judged on: `rescore.examples` of them, stratified, or all there are."""
    judged_on = splits.validation.subset(spec.evaluation.examples, seed=0)
    return splits.validation.without(judged_on).subset(spec.rescore.examples, seed=0)


@dataclass(frozen=True)
class Leaders:
    """The leading trials of a search.

    Attributes:
        spec: The search.
        journal: Its journal.
        record: What the journal says.
        storage: Where its checkpoints are kept.
    """

    spec: SearchSpec
    journal: Journal
    record: SearchRecord
    storage: RunStorage


def run(
    searches: Sequence[Leaders],
    plan: ResourcePlan,
    broadcast: DataBroadcast | None,
    is_stopped: Callable[[], bool],
) -> None:
    """Judge the leaders that were not judged yet, each in a Ray task, and record the metrics in the journals.

    Args:
        searches: The leaders of each search.
        plan: The CPUs and GPUs that a task takes.
        broadcast: The data for machines that lack it; None if all is on one machine.
        is_stopped: Returns whether to stop before all are judged. Asked twice a second.
    """
    task = ray.remote(num_cpus=plan.cpus_per_trial, num_gpus=plan.gpus_per_trial)(_judge)
    submissions = (
        ((leaders, number, epoch), partial(task.remote, leaders.spec, checkpoint, plan, broadcast))
        for leaders in searches
        for number, epoch, checkpoint in _find_checkpoints(leaders)
    )
    tasks = LimitedTasks(submissions, plan.concurrent)
    while tasks.left and not is_stopped():
        for (leaders, number, epoch), reference in tasks.wait(POLL_SECONDS):
            tasks.settle(reference)
            try:
                metrics = ray.get(reference)
            except ray.exceptions.RayError as error:  # the search is over, and its results stand without this
                session.keep_logs()
                _warn(number, describe(error))
                continue
            if metrics["examples"]:
                attack = trial_table.rescoring_attack(leaders.spec)
                leaders.journal.append("leader", number, epoch=epoch, attack=attack, **metrics)


def _find_checkpoints(leaders: Leaders) -> Iterator[tuple[int, int, str]]:
    """Yield the number and best epoch of each leader to judge, and the path or URI of its checkpoint."""
    spec, record = leaders.spec, leaders.record
    trials = ranking.select_finalists(record.build_trial_table(spec), spec)
    trials = trials[trials["fresh_pgd_accuracy"].isna()]
    paths = {event["trial"]: event["path"] for event in record.events if event["event"] == "checkpoint"}
    for number, epoch in zip(trials["trial"], trials["best_epoch"], strict=True):
        try:
            checkpoint = leaders.storage.locate_checkpoint(paths[number]) if number in paths else None
        except FolderError as error:
            _warn(number, error)
        else:
            if checkpoint:
                yield int(number), int(epoch), checkpoint


def _warn(number: int, reason: object) -> None:
    _logger.warning("trial %d could not be judged again (--resume tries it once more): %s", number, reason)


def _judge(spec: SearchSpec, checkpoint: str, plan: ResourcePlan, broadcast: DataBroadcast | None) -> dict[str, Any]:
    """Return the metrics of a leader, and on how many images they were measured. Runs in a worker process.

    Args:
        spec: The search.
        checkpoint: The path or URI of the checkpoint that holds the leader's best weights.
        plan: The search's use of the devices.
        broadcast: The data for machines that lack it; None if all is on one machine.
    """
    device = torch.device(plan.device)
    cpu.configure_cpu(spec.resources.cpus_per_trial)
    import_sent_parts(spec.parts)
    if waited := wait_for_memory(plan):
        print(f"{checkpoint}: {waited}", flush=True)
    examples = fresh_examples(spec, shared_data(spec.data, device.type, broadcast))
    if not len(examples):
        return {"examples": 0}
    with tune.Checkpoint(checkpoint).as_directory() as folder:  # copied from an object store
        saved = read_tensors(Path(folder) / run_files.CHECKPOINT, device)
    network = models.rebuild(saved["best_model"], device=device, trust_code=True)
    version = {} if spec.rescoring.attack == "pgd" else {autoattack_version.KEY: autoattack_version.installed_version()}
    return {"examples": len(examples), **judge(network, examples, spec.rescoring), **version}
