"""A search on Ray Tune: Tune runs the trials, an Optuna study proposes them, a rule stops the weak ones early.

The journal is the truth. After an interruption the study and the rule are rebuilt from it, and unfinished trials go on
from their last checkpoint. Ray starts afresh; its own snapshots are never read.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial

from tune_cure.ray_backend import cluster, ray_internals, rescoring, session
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.gpus.sharing import plan_devices
from tune_cure.ray_backend.guard import DeadRayError, GuardedCall, RayWatch, Stoppable
from tune_cure.ray_backend.journal_callback import JournalCallback
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.monitoring.metrics import TrialGauges
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.ray_backend.schedulers import RuleScheduler
from tune_cure.ray_backend.trainable import CureTrainable
from tune_cure.search import run_files
from tune_cure.search.journal import SEARCH_EVENTS, Event, Journal, TrialCounts
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.results import SearchResult
from tune_cure.search.resume import refuse_other_search
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.search.stopping import FULL_DISK_ERROR, SearchStopper
from tune_cure.search.storage.run_storage import LocalStorage, RunStorage
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils.environment import is_installed
from tune_cure.utils.files import replace_text
from tune_cure.utils.signals import WorkLeftBehindError, on_ctrl_c

if TYPE_CHECKING:
    from tune_cure.ray_backend.monitoring.tensorboard import TensorBoard

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Options of a search that do not change what it searches.

    Attributes:
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        dashboard_host: Address at which the dashboard of a Ray that is started listens; its other ports are on the
            loopback.
        resume: Continue the search in the run's folder instead of starting one.
        record: What the journal of the search to resume says, as `resume.prepare` returns it, or an empty one; the
            search adds its events. None reads the journal of a search to resume.
        verbose: Show what Ray and Optuna say.
        seconds: How long the search may take; None is without limit.
        epoch_seconds: What an epoch of training is expected to take, for the budget of training.
    """

    address: str | None = None
    dashboard_host: str = dashboard.LOOPBACK
    resume: bool = False
    record: SearchRecord | None = None
    verbose: bool = False
    seconds: float | None = None
    epoch_seconds: float = 0.0


def run(
    spec: SearchSpec,
    output: RunStorage | Path,
    options: RunOptions = RunOptions(),
    *,
    on_event: Callable[[Event], None] | None = None,
    on_ready: Callable[[ResourcePlan, str], None] = lambda devices, url: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Run a search until it ends, Ctrl-C interrupts it, or its stopper ends it.

    Args:
        spec: What to search.
        output: Where the run's files are kept; a path is that of a local folder, which must exist.
        options: How to run it.
        on_event: Is told of every event of the journal as it is written.
        on_ready: Is told, once Ray is up, of the devices and the dashboard's address, which is empty if there is none.
        on_interrupt: Is called at once at a first Ctrl-C, by the handler of the signal.

    Raises:
        ResumeError: The folder holds another search, or this one before it has ended, and is not to be resumed.
        DeviceError: Not even one trial fits into the devices.
        ClusterError: The cluster cannot be joined, or one of its machines does not see the run's folder.
        LostFolderError: The run's folder was deleted or moved away meanwhile.
        KeyboardInterrupt: Ctrl-C was pressed twice; as WorkLeftBehindError where Ray goes on until this process ends.
    """
    search = begin(spec, output if isinstance(output, RunStorage) else LocalStorage(output), options, on_event)

    def interrupt() -> None:
        search.stopper.interrupt()
        if search.stopper.num_interrupts == 1:
            on_interrupt()

    with ray_session(options, own_part_files(spec), [search], interrupt):
        _run_on_ray(search, options, on_ready, interrupt)
    if search.stopper.num_interrupts > 1:
        raise WorkLeftBehindError if session.is_abandoned() else KeyboardInterrupt
    return search.stopper.conclude(search.counts, search.record)


@contextmanager
def ray_session(
    options: RunOptions, modules: list[Path], searches: "Collection[Search]", interrupt: Callable[[], None]
) -> Iterator[None]:
    """Have Ray inside the context, and end the searches in order: at Ctrl-C, a full disk or a lost folder, too.

    Args:
        options: How to run them.
        modules: Files of the user's own parts, for the machines of a cluster.
        searches: The searches that run; more may be added inside the context.
        interrupt: Called at Ctrl-C.

    Raises:
        DeadRayError: Ray has died before there is any search.
        WorkLeftBehindError: Ctrl-C was pressed twice while something was measured, and Ray goes on.
    """
    is_started = not ray.is_initialized()
    try:
        if is_started:
            session.start_ray(
                options.address,
                dashboard_host=options.dashboard_host,
                verbose=options.verbose,
                modules=modules if options.address else (),
            )
        yield
    except WorkLeftBehindError:
        raise
    except KeyboardInterrupt:  # while Ray starts, or a trial's memory is measured
        interrupt()
    except DeadRayError as error:
        for search in searches:
            search.stopper.end("ray", str(error))
        if not searches:  # of a league that has not begun any
            raise
    except Exception as error:  # of any kind: what cannot write to the run's folder fails in its own way
        faults = [_is_fault_of_disk(error, search) for search in searches]  # each of them is ended
        if not any(faults):
            session.keep_logs()
            raise
    finally:
        with on_ctrl_c(interrupt):
            for search in searches:
                if search.tensorboard:
                    search.tensorboard.close()
            if is_started:
                session.stop_ray()


@dataclass(frozen=True)
class Search:
    """The parts of a search that run in this process.

    Attributes:
        spec: What is searched.
        storage: Where the run's files are kept.
        record: What the journal says. Its history is the events of trials before this session.
        journal: The journal, which tells the record of each event, and `listeners` of each event of a trial.
        listeners: What is told of events.
        counts: How many trials have begun and ended.
        tensorboard: Writes the events as TensorBoard files; None without the package for that.
        stopper: Ends the search early.
    """

    spec: SearchSpec
    storage: RunStorage
    record: SearchRecord
    journal: Journal
    listeners: list[Callable[[Event], None]]
    counts: TrialCounts
    tensorboard: "TensorBoard | None"
    stopper: SearchStopper

    def make_proposer(self) -> StudyProposer:
        """Return what proposes the trials, from the events so far."""
        return StudyProposer(self.spec, self.journal, self.record.history, self.stopper, run_storage=self.storage)

    def make_recorder(self) -> TrialRecorder:
        """Return what records the trials; checkpoints that an earlier session has left without use are deleted."""
        recorder = TrialRecorder(self.spec, self.journal, self.stopper, self.storage.delete_file)
        recorder.delete_useless(self.record.history)
        return recorder

    @property
    def leaders(self) -> rescoring.Leaders:
        """The leading trials, for their second judgement."""
        return rescoring.Leaders(self.spec, self.journal, self.record, self.storage)


def begin(
    spec: SearchSpec, storage: RunStorage, options: RunOptions, on_event: Callable[[Event], None] | None
) -> Search:
    """Write the spec and the journal's first line into the run's folder, and return the parts of the search."""
    folder = storage.folder
    if not options.resume:
        refuse_other_search(folder, spec)
    replace_text(folder / run_files.SPEC, spec.to_yaml())
    record = options.record
    if record is None:
        record = SearchRecord(Journal(folder).load(repair=True)) if options.resume else SearchRecord()
    tensorboard, counts = _open_tensorboard(folder), TrialCounts(record.history)
    listeners: list[Callable[[Event], None]] = [counts.take, _keep_logs_of_failures]
    listeners += [*([tensorboard.on_event] if tensorboard else []), *([on_event] if on_event else [])]

    def tell(event: Event) -> None:
        record.take(event)
        if event["event"] not in SEARCH_EVENTS:
            for listener in listeners:
                listener(event)

    journal = Journal(folder, storage.copy_while_running(tell))
    journal.path.touch()
    if options.resume:
        journal.append("resume", None)
    stopper = SearchStopper(spec, folder, options.seconds, record.history, epoch_seconds=options.epoch_seconds)
    return Search(spec, storage, record, journal, listeners, counts, tensorboard, stopper)


def _open_tensorboard(folder: Path) -> "TensorBoard | None":
    """Return what writes the events as TensorBoard files; None without the package for that."""
    if not is_installed("tensorboardX"):
        return None
    from tune_cure.ray_backend.monitoring.tensorboard import TensorBoard

    return TensorBoard(folder)


def _keep_logs_of_failures(event: Event) -> None:
    if event["event"] == "retry" or (event["event"] == "end" and event["status"] == "failed"):
        session.keep_logs()


def _run_on_ray(
    search: Search,
    options: RunOptions,
    on_ready: Callable[[ResourcePlan, str], None],
    interrupt: Callable[[], None],
) -> None:
    """Run the trials that are left, then judge the leaders again."""
    spec, stopper, storage = search.spec, search.stopper, search.storage
    if options.address is not None and storage.checkpoint_uri is None:
        cluster.check_folder(storage.folder)
    broadcast = None if options.address is None else DataBroadcast(spec.data)
    plan = plan_devices(spec, broadcast)
    on_ready(plan, session.dashboard_url())
    search.listeners.append(TrialGauges(spec.name).on_event)
    proposer = search.make_proposer()
    if search.counts.count_left(spec.search.trials):
        tuner = _make_tuner(search, proposer, plan, broadcast, verbose=options.verbose)
        GuardedCall(tuner.fit, stopper, interrupt).run()
    if stopper.is_over(search.counts) and not stopper.outcome:
        rescore = partial(rescoring.run, [search.leaders], plan, broadcast, stopper.stop_all)
        GuardedCall(rescore, stopper, interrupt).run()
    if stopper.outcome == "time" and stopper.is_cut_short(search.counts, search.record):
        search.journal.append("pause", None, reason=stopper.reason)


def _is_full_disk(error: Exception) -> bool:
    """Return whether the operating system, or SQLite, has raised an error because the disk is full."""
    return bool(FULL_DISK_ERROR.search(str(error))) or "disk is full" in str(error)


def _is_fault_of_disk(error: Exception, search: Search) -> bool:
    """Return whether a full disk, or a run's folder that cannot be written to, is behind an error; end the search so.

    An error that comes after the stopper has found such a fault is a consequence of it.
    """
    if isinstance(error, OSError | optuna.exceptions.StorageInternalError) and _is_full_disk(error):
        search.stopper.end("disk", f"the disk of {search.storage.folder} is full")
    elif fault := search.stopper.watch.find_fault():
        search.stopper.end("disk", fault)
    if search.stopper.outcome == "disk":
        _logger.debug("an error after the disk's fault: %s", error)
    return search.stopper.outcome == "disk"


def _make_tuner(
    search: Search, proposer: StudyProposer, plan: ResourcePlan, broadcast: DataBroadcast | None, *, verbose: bool
) -> tune.Tuner:
    """Return Tune's controller of the trials that are left."""
    spec, storage = search.spec, search.storage
    recorder, backoff = search.make_recorder(), MemoryBackoff(plan.concurrent)
    root, is_local = Path(storage.checkpoint_root), storage.checkpoint_uri is None
    parameters = {"spec": spec, "plan": plan, "reused": reuses_processes(plan)}
    return make_tuner(
        with_parameters(CureTrainable, broadcast, **parameters),
        plan,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearcher(proposer, backoff),
            scheduler=RuleScheduler(EarlyStopper(spec, search.record.history, search.stopper.budget), backoff),
            num_samples=search.counts.count_left(spec.search.trials),
            max_concurrent_trials=plan.concurrent,
            reuse_actors=reuses_processes(plan),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=storage.unused_name(run_files.TRIALS),
            storage_path=storage.checkpoint_uri or str(storage.folder),
            failure_config=tune.FailureConfig(max_failures=spec.search.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            stop=TuneStopper(search.stopper),
            callbacks=[JournalCallback(recorder, root, RayWatch(), may_tune_delete=is_local)],
            verbose=1 if verbose else 0,
        ),
    )


def reuses_processes(plan: ResourcePlan) -> bool:
    """Return whether one process runs several trials, one after another.

    On CUDA each trial gets a fresh process: whether one that changes networks gives its memory back is not measured.
    """
    return plan.gpus_per_trial == 0


def make_tuner(
    trainable: Any, plan: ResourcePlan, *, tune_config: tune.TuneConfig, run_config: tune.RunConfig
) -> tune.Tuner:
    """Return Tune's controller of trials of a trainable, each of which gets its devices."""
    trainable = tune.with_resources(trainable, {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial})
    trainable.__qualname__ = CureTrainable.__name__  # the name that the dashboard shows
    ray_internals.survive_memory_kills()
    return tune.Tuner(trainable, tune_config=tune_config, run_config=run_config)


def with_parameters(trainable: type[tune.Trainable], broadcast: DataBroadcast | None, **parameters: Any) -> Any:
    """Return a trainable with arguments of its `setup`.

    `tune.with_parameters` puts each into Ray's object store. If Ray then dies in order, as after SIGTERM to all
    processes, this process tries to write to the store what became of them, and Ray ends it at once: no tables are
    written, and no line says how to continue. So they travel with the class, except for what is in the store already.
    """

    class WithParameters(trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any], **more: Any) -> None:
            super().setup(config, **parameters, **more)

    return WithParameters if broadcast is None else tune.with_parameters(WithParameters, broadcast=broadcast)


class TuneStopper(tune.Stopper):  # type: ignore[misc]
    """Tune stopper around the stopper of a search or of a league: stops everything, never a single trial."""

    def __init__(self, stopper: Stoppable) -> None:
        self.stopper = stopper

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: single trials are the scheduler's to stop."""
        return False

    def stop_all(self) -> bool:
        """Return True once everything must stop. Tune asks at each turn of its loop."""
        return self.stopper.stop_all()


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.config['trial']:05d}"
