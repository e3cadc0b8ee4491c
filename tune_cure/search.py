"""A SearchSpec under way: Ray Tune runs the trials, an Optuna study proposes them, a scheduler stops the weak.

The journal (see `journal`) is the truth. After an interruption the study and the scheduler are rebuilt from it,
unfinished trials go on from their last checkpoint, and Ray starts afresh: its own snapshots are never read.
"""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import ray
from pyarrow import fs
from ray import tune
from ray._private import ray_constants
from ray.tune.experiment import Trial

from tune_cure import cluster, dashboard, memory, rescoring, stopping
from tune_cure.devices import Devices, Measured, allot
from tune_cure.endings import FULL, Endings
from tune_cure.files import replace_text, to_disk
from tune_cure.gauges import Gauges
from tune_cure.journal import CHECKPOINT_FILE, OBJECTIVE, RUNG, Event, Journal, reason_of
from tune_cure.keeping import Keeper
from tune_cure.ray_watch import RayWatch
from tune_cure.remote import Remote
from tune_cure.results import SPEC, SearchResult
from tune_cure.shipping import Shipment
from tune_cure.spec import SearchSpec
from tune_cure.study import StudySearch
from tune_cure.tensorboard import TensorBoard
from tune_cure.trainable import CureTrainable
from tune_cure.training import EPOCH_METRICS

_logger = logging.getLogger(__name__)

_print = ray._private.worker.print_to_stdstream
DEATH = "A worker died or was killed while executing a task"
SNAPSHOTS = "TUNE_GLOBAL_CHECKPOINT_S"  # how often Tune writes down all trials, which nobody ever reads
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def run(
    spec: SearchSpec,
    output: Path,
    *,
    address: str | None = None,
    dashboard_host: str = dashboard.LOOPBACK,
    remote: Remote | None = None,
    resume: bool = False,
    verbose: bool = False,
    seconds: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_ready: Callable[[Devices, str], None] = lambda devices, url: None,
    on_lost: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Runs a search to its end, until Ctrl-C, or as long as `Endings` lets it.

    Args:
        spec: What to search.
        output: The run's folder; it must exist.
        address: Of a Ray cluster to join; a Ray of this machine alone is started if None.
        dashboard_host: Where the dashboard of a Ray that is started listens; all its other ports are on the loopback.
        remote: Where checkpoints are kept, and the run's files copied to at intervals; None: all is in `output`.
        resume: Continue the search in `output`, whose journal is read, rather than start one.
        verbose: Let Ray speak.
        seconds: How long the trials may take; without limit if None.
        on_event: Told of every line of the journal as it is written.
        on_ready: Told, once Ray is up, of the devices and of the dashboard's address (empty if there is none).
        on_lost: Told, in another thread, that this machine's Ray has died. All state is saved, but this call will not
            return: Ray ends the process within a minute.

    Raises:
        DeviceError: Not even one trial fits into the devices.
        ClusterError: The cluster cannot be joined, or one of its machines does not see `output`.
    """
    output = output.resolve()  # the same for all processes, which work in folders of their own
    replace_text(output / SPEC, spec.to_yaml())
    board = TensorBoard(output)
    listeners = [board.on_event, *([on_event] if on_event else [])]

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    journal = Journal(output, remote.copies(output, tell) if remote else tell)
    journal.path.touch()
    history = journal.repair() if resume else []
    endings = Endings(spec, output, seconds, history)
    started = not ray.is_initialized()
    if started:
        start_ray(address, dashboard_host=dashboard_host, verbose=verbose)
    try:
        if address is not None and not remote:
            cluster.check_folder(output)
        shipment = None if address is None else Shipment(spec.data)
        plan = _plan(spec, shipment)
        on_ready(plan, dashboard_url(None if address else dashboard_host))
        listeners.append(Gauges(spec.name).on_event)
        searcher = StudySearch(spec, journal, history, endings, store=remote.uri if remote else None)
        if _num(journal, "end") < spec.search.trials:
            with RayWatch(on_lost):
                _fit(_tuner(spec, output, plan, searcher, history, verbose, shipment, remote), journal, endings)
        if not endings.outcome and _is_over(spec, journal, endings):
            rescoring.run(spec, journal, plan, shipment, remote)
    except KeyboardInterrupt:  # Tune has its own way with one; this is of the leaders' judging
        endings.end("interrupted", "")
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        if not _is_of_full_disk(error):
            raise
        endings.end("disk", f"the disk of {output} is full")
    finally:
        board.close()
        if started:
            ray.shutdown()
    if endings.outcome:
        return SearchResult(output, endings.outcome, endings.reason)
    if not _is_over(spec, journal, endings):
        return SearchResult(output, "interrupted")
    if _num(journal, "end") >= spec.search.trials:
        return SearchResult(output, "finished")
    return SearchResult(output, "patience", f"the last {spec.search.patience} trials improved nothing")


def _is_over(spec: SearchSpec, journal: Journal, endings: Endings) -> bool:
    """Whether no trial is left to run."""
    ended = _num(journal, "end")
    return ended >= spec.search.trials or (endings.exhausted and ended == _num(journal, "trial"))


def _fit(tuner: tune.Tuner, journal: Journal, endings: Endings) -> None:
    """Runs the search, here or, through Ray Client, on the cluster."""
    if not cluster.by_client():
        tuner.fit()
        return
    with cluster.Follower(journal, endings.take):
        try:
            tuner.fit()
        except KeyboardInterrupt:
            ray.shutdown()  # ends what runs on the cluster
    endings.stop_all()  # the copy of it on the cluster may have said so there


def _plan(spec: SearchSpec, shipment: Shipment | None) -> Devices:
    """The devices that Ray has; where that decides how many trials share a GPU, a trial's memory is measured first."""
    plan = allot(spec, cluster.machines())
    if spec.resources.gpus_per_trial != "auto" or not plan.gpus_per_trial:
        return plan
    # Its process ends with the task: nothing of it stays on the GPU.
    task = ray.remote(num_gpus=1, num_cpus=spec.resources.cpus_per_trial, max_calls=1)(memory.measure)
    try:
        measured: Measured = ray.get(task.remote(spec, shipment))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    return allot(spec, plan.machines, measured)


def _num(journal: Journal, event: str) -> int:
    """How many trials have such a line."""
    return len({line["trial"] for line in journal.read() if line["event"] == event})


def _is_of_full_disk(error: Exception) -> bool:
    return bool(FULL.search(str(error))) or "disk is full" in str(error)  # the latter is SQLite's


def _tuner(
    spec: SearchSpec,
    output: Path,
    plan: Devices,
    searcher: StudySearch,
    history: list[Event],
    verbose: bool,
    shipment: Shipment | None,
    remote: Remote | None,
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
    callback = JournalCallback(searcher.journal, searcher.endings, store, Keeper(spec))
    callback.discard_useless(history)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=stopping.make(spec, history),
            num_samples=spec.search.trials - _num(searcher.journal, "end"),
            max_concurrent_trials=plan.concurrent,
            reuse_actors=reused,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_unused_name(remote.exists if remote else lambda name: (output / name).exists(), "trials"),
            storage_path=remote.uri if remote else str(output),
            failure_config=tune.FailureConfig(max_failures=spec.search.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            stop=searcher.endings,
            callbacks=[callback],
            verbose=1 if verbose else 0,
        ),
    )


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


def _print_all_but_deaths(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
    """Ray's own way to print what its machines report, without the paragraph on a process that died.

    That such a trial goes on, or has failed, is said from the journal. `log_to_driver` does not silence this.
    """
    if not all(DEATH in line for line in data["lines"]):
        _print(data, *arguments, **options)


def _quieten(verbose: bool) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers unless that is asked for
    for name, value in {}.items() if verbose else QUIET.items():
        os.environ.setdefault(name, value)
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    if not verbose:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        ray._private.worker.print_to_stdstream = _print_all_but_deaths
        warnings.filterwarnings("ignore", module="ray")
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def start_ray(
    address: str | None = None,
    *,
    dashboard_host: str = dashboard.LOOPBACK,
    verbose: bool = False,
    setup: Callable[[], None] | None = None,
) -> None:
    """Joins the Ray cluster at `address`, or starts one of this machine alone, for the searches that follow.

    No port of that is open to other machines but, at a `dashboard_host` that is not the loopback, the dashboard's.

    Args:
        address: As of `run`, which calls this if nobody has before.
        dashboard_host: Likewise.
        verbose: Likewise.
        setup: Called when a process of trials starts: registers parts that are not of this package.

    Raises:
        DashboardError: The dashboard cannot, or must not, be opened there.
    """
    _quieten(verbose)
    os.environ[SNAPSHOTS] = "inf"
    options: dict[str, Any] = {"log_to_driver": verbose, "configure_logging": verbose}
    if address is not None:
        cluster.check_address(address)
        # All machines run this code, and where Tune runs there and not here (Ray Client), it is as quiet as here.
        asked = {name: value for name, value in os.environ.items() if name in (*QUIET, SNAPSHOTS)}
        options["runtime_env"] = {"py_modules": [str(Path(__file__).parent)], "env_vars": asked}
    if setup is not None:
        options["runtime_env"] = {**options.get("runtime_env", {}), "worker_process_setup_hook": setup}
    if address is None:
        # Ray takes the loopback address for its node, and so for all its ports, only where it cannot form a cluster.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that it starts
        ray_constants.ENABLE_RAY_CLUSTER = False
        dashboard.check(dashboard_host)  # a Ray that is started here asks for a token unless it is told not to
        ray._private.parameter.RayParams = _Params
        options |= {"include_dashboard": True, "dashboard_host": dashboard_host}
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        if address is None:
            raise
        raise cluster.ClusterError(f"--address {address}: {str(error).splitlines()[0]}") from error
    if dashboard.TOKEN.exists():  # Ray writes it for all to read
        dashboard.TOKEN.chmod(0o600)


class _Params(ray._private.parameter.RayParams):  # type: ignore[misc]
    """Ray's parameters, but any free port for the agent that gives the dashboard the logs.

    Its own is always the same: with two Rays on a machine the second had no logs.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"dashboard_agent_listen_port": 0, **options})


def dashboard_url(host: str | None = None) -> str:
    """Where the dashboard is, empty if there is none; Ray itself does not know of the `host` that it listens at."""
    url: str = "" if cluster.by_client() else ray._private.worker.get_dashboard_url() or ""
    if url and host and host not in dashboard.EVERYWHERE:
        url = f"{f'[{host}]' if ':' in host else host}:{url.rpartition(':')[2]}"
    return f"http://{url}" if url else ""


class JournalCallback(tune.Callback):  # type: ignore[misc]
    """Writes what happens to the trials into the journal, in the order that makes each line true when it is written.

    Checkpoints that are of no use once a trial has ended are deleted then.

    Args:
        journal: Where to.
        endings: Told of each line.
        store: The run's folder with the checkpoints.
        keeper: Knows which are of use.
    """

    def __init__(self, journal: Journal, endings: Endings, store: fs.SubTreeFileSystem, keeper: Keeper) -> None:
        self.journal, self.endings, self.store, self.keeper = journal, endings, store, keeper

    def discard_useless(self, events: Iterable[Event]) -> None:
        """Deletes what these lines of the journal make useless."""
        for path in [path for event in events for path in self.keeper.take(event)]:
            self.journal.checkpoint_file(path)  # somebody who sent a run must not have files of others deleted
            try:
                self.store.delete_file(f"{path}/{CHECKPOINT_FILE}")
            except FileNotFoundError:
                pass  # an interrupted session has done so
            except OSError as error:
                _logger.warning("%s: cannot be deleted: %s", path, error)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has its worker: from now on it keeps its last checkpoint alone."""
        # Told so any earlier, Tune would write the state of all trials down after each checkpoint of any.
        trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep = 1

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is over."""
        metrics = {name: result.get(name) for name in (*EPOCH_METRICS, OBJECTIVE, RUNG)}
        worker = {"host": result["hostname"], "pid": result["pid"]}
        self._write("epoch", trial, **metrics, ended=_status(result) if result["done"] else "", **worker)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """A checkpoint lies on disk, and will outlast a power cut; only then does Ray delete the one before."""
        path = Path(checkpoint.path)
        if (path / CHECKPOINT_FILE).exists():  # it is not, in an object store
            to_disk(path / CHECKPOINT_FILE)
        inside = path.relative_to(self.store.base_path) if path.is_relative_to(self.store.base_path) else path
        self._write("checkpoint", trial, epoch=trial.last_result["training_iteration"], path=str(inside))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial is over, its last checkpoint written, the study told."""
        status = _status(trial.last_result)
        self._write("end", trial, status=status, reason=reason_of(status, trial.last_result["training_iteration"]))
        _forget_averages(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's process raised an exception or died, and Ray will set the trial back to its last checkpoint."""
        if not self._is_of_full_disk(trial):
            self._write("retry", trial, attempt=trial.num_failures, reason=_reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Likewise, once too often."""
        if not self._is_of_full_disk(trial):
            self._write("end", trial, status="failed", reason=_reason(trial))
        _forget_averages(trial)

    def _is_of_full_disk(self, trial: Trial) -> bool:
        """Whether a trial failed for want of disk space, as all would: it is to go on once there is some."""
        is_full = bool(FULL.search(_reason(trial)))
        if is_full:
            self.endings.end("disk", "a trial found the disk full")
        return is_full

    def _write(self, event: str, trial: Trial, **details: Any) -> None:
        if self.endings.outcome == "disk":
            return  # what is written ends where it first could not be
        try:
            line = self.journal.append(event, trial.config["trial"], **details)
        except OSError as error:  # of which Ray would only log some
            self.endings.end("disk", f"{self.journal.path}: cannot be written: {error.strerror}")
        else:
            self.endings.take(line)
            self.discard_useless([line])


def _forget_averages(trial: Trial) -> None:
    """Drops what Tune keeps of each metric of a trial that is over, which nobody reads: 50 KB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def _status(result: dict[str, Any]) -> str:
    """What the trial says of its end; if nothing, the scheduler stopped it."""
    return result["ended"] or "stopped"


def _reason(trial: Trial) -> str:
    """The last line of the error that Ray wrote down for the trial: the exception itself, below the stacks."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and "worker process has died" not in lines[-1]:
        return lines[-1]
    pid = re.search(r"^\s*pid: (\d+)$", text, re.MULTILINE)
    log = f"; worker-*-{pid[1]}.err in Ray's logs may say which" if pid else ""
    return f"the worker process died: it was killed, ran out of memory or crashed{log}"
