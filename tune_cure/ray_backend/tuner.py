"""A SearchSpec under way: Ray Tune runs the trials, an Optuna study proposes them, a scheduler stops the weak.

The journal (see `journal`) is the truth. After an interruption the study and the scheduler are rebuilt from it,
unfinished trials go on from their last checkpoint, and Ray starts afresh: its own snapshots are never read.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from pyarrow import fs
from ray import tune
from ray.tune.experiment import Trial

from tune_cure.ray_backend import cluster, gpu_memory, rescoring, session
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.guard import GuardedCall
from tune_cure.ray_backend.journal_callback import JournalCallback
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.monitoring.metrics import TrialGauges
from tune_cure.ray_backend.monitoring.tensorboard import TensorBoard
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.ray_backend.remote_storage import RemoteStorage
from tune_cure.ray_backend.resources import MeasuredMemory, ResourcePlan, plan_resources
from tune_cure.ray_backend.schedulers import RuleScheduler
from tune_cure.ray_backend.trainable import CureTrainable
from tune_cure.search import run_files
from tune_cure.search.journal import Event, Journal, TrialCounts
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.results import SearchResult
from tune_cure.search.resume import refuse_other_search
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import FULL_DISK_ERROR, SearchStopper
from tune_cure.utils.files import replace_text

_logger = logging.getLogger(__name__)


def run(
    spec: SearchSpec,
    output: Path,
    *,
    address: str | None = None,
    dashboard_host: str = dashboard.LOOPBACK,
    remote: RemoteStorage | None = None,
    resume: bool = False,
    history: list[Event] | None = None,
    verbose: bool = False,
    seconds: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_ready: Callable[[ResourcePlan, str], None] = lambda devices, url: None,
) -> SearchResult:
    """Runs a search to its end, until Ctrl-C, or as long as `Endings` lets it.

    Args:
        spec: What to search.
        output: The run's folder; it must exist.
        address: Of a Ray cluster to join; a Ray of this machine alone is started if None.
        dashboard_host: Where the dashboard of a Ray that is started listens; all its other ports are on the loopback.
        remote: Where checkpoints are kept, and the run's files copied to at intervals; None: all is in `output`.
        resume: Continue the search in `output` instead of starting one.
        history: The events of trials in the journal of the search to resume, as `resume.prepare` returns them; the
            journal is read if None.
        verbose: Let Ray speak.
        seconds: How long the trials may take; without limit if None.
        on_event: Told of every line of the journal as it is written.
        on_ready: Told, once Ray is up, of the devices and of the dashboard's address (empty if there is none).

    Raises:
        ResumeError: `output` holds another search, or this one before it has ended, and `resume` is false.
        DeviceError: Not even one trial fits into the devices.
        ClusterError: The cluster cannot be joined, or one of its machines does not see `output`.
    """
    output = output.resolve()  # the same for all processes, which work in folders of their own
    if not resume:
        refuse_other_search(output, spec)
    replace_text(output / run_files.SPEC, spec.to_yaml())
    if not resume:
        history = []
    elif history is None:
        history = Journal(output).load(repair=True).trial_events
    board, counts = TensorBoard(output), TrialCounts(history)
    listeners = [counts.take, board.on_event, *([on_event] if on_event else [])]

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    journal = Journal(output, remote.copies(output, tell) if remote else tell)
    journal.path.touch()
    if resume:
        Journal(output).append("resume", None)  # those who follow the trials need not hear of it
    endings = SearchStopper(spec, output, seconds, history)
    started = not ray.is_initialized()
    if started:
        session.start_ray(address, dashboard_host=dashboard_host, verbose=verbose)
    try:
        if address is not None and not remote:
            cluster.check_folder(output)
        shipment = None if address is None else DataBroadcast(spec.data)
        plan = _plan(spec, shipment)
        on_ready(plan, session.dashboard_url())
        listeners.append(TrialGauges(spec.name).on_event)
        storage_uri = remote.uri if remote else None
        proposer = StudyProposer(spec, journal, history, endings, storage_uri=storage_uri)
        if counts.num_ended < spec.search.trials:
            tuner = _tuner(spec, output, plan, proposer, history, verbose, shipment, remote, counts)
            GuardedCall(tuner.fit, endings).run()
        if not endings.outcome and endings.is_over(counts):
            rescore = partial(
                rescoring.run, spec, journal, plan, shipment, remote, is_stopped=lambda: bool(endings.outcome)
            )
            GuardedCall(rescore, endings).run()
    except KeyboardInterrupt:  # while Ray starts, or a trial's memory is measured
        endings.end("interrupted", "")
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        if not _is_of_full_disk(error):
            raise
        endings.end("disk", f"the disk of {output} is full")
    finally:
        board.close()
        if started:
            ray.shutdown()
    return endings.conclude(counts)


def _plan(spec: SearchSpec, shipment: DataBroadcast | None) -> ResourcePlan:
    """The devices that Ray has; where that decides how many trials share a GPU, a trial's memory is measured first."""
    plan = plan_resources(spec, cluster.machines())
    if spec.resources.gpus_per_trial != "auto" or not plan.gpus_per_trial:
        return plan
    # Its process ends with the task: nothing of it stays on the GPU.
    task = ray.remote(num_gpus=1, num_cpus=spec.resources.cpus_per_trial, max_calls=1)(gpu_memory.measure)
    try:
        measured: MeasuredMemory = ray.get(task.remote(spec, shipment))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    return plan_resources(spec, plan.machines, measured)


def _is_of_full_disk(error: Exception) -> bool:
    return bool(FULL_DISK_ERROR.search(str(error))) or "disk is full" in str(error)  # the latter is SQLite's


def _tuner(
    spec: SearchSpec,
    output: Path,
    plan: ResourcePlan,
    proposer: StudyProposer,
    history: list[Event],
    verbose: bool,
    shipment: DataBroadcast | None,
    remote: RemoteStorage | None,
    counts: TrialCounts,
) -> tune.Tuner:
    # A CUDA process that changes networks was not measured to give its memory back: there, a fresh one each.
    reused = plan.gpus_per_trial == 0
    trainable = tune.with_resources(
        tune.with_parameters(CureTrainable, spec=spec, device=plan.device, reused=reused, shipment=shipment),
        {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial},
    )
    trainable.__qualname__ = CureTrainable.__name__  # what the dashboard calls it
    files = remote.files if remote else fs.LocalFileSystem()
    store = fs.SubTreeFileSystem(remote.path if remote else str(output), files)
    recorder = TrialRecorder(spec, proposer.journal, proposer.stopper, store.delete_file)
    recorder.delete_useless(history)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearcher(proposer),
            scheduler=RuleScheduler(EarlyStopper(spec, history)),
            num_samples=spec.search.trials - counts.num_ended,
            max_concurrent_trials=plan.concurrent,
            reuse_actors=reused,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_unused_name(remote.exists if remote else lambda name: (output / name).exists(), run_files.TRIALS),
            storage_path=remote.uri if remote else str(output),
            failure_config=tune.FailureConfig(max_failures=spec.search.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            stop=_Stopper(proposer.stopper),
            callbacks=[JournalCallback(recorder, Path(store.base_path))],
            verbose=1 if verbose else 0,
        ),
    )


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Tune's view of `Endings`: stops the whole search, never a single trial."""

    def __init__(self, endings: SearchStopper) -> None:
        self.endings = endings

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: single trials are the scheduler's to stop."""
        return False

    def stop_all(self) -> bool:
        """Return True once everything must stop. Tune asks at each turn of its loop."""
        return self.endings.stop_all()


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.config['trial']:05d}"


def _unused_name(exists: Callable[[str], bool], name: str) -> str:
    """`name`, or `name-2` and so on: every session of a search gives its trials a folder of their own."""
    taken = 1
    unused = name
    while exists(unused):
        taken += 1
        unused = f"{name}-{taken}"
    return unused
