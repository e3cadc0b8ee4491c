"""A SearchSpec under way: Ray Tune runs the trials, an Optuna study proposes them, ASHA stops the weak.

The journal (see `journal`) is the truth. After an interruption the study is brought into line with it, ASHA's rungs
are rebuilt from the recorded epochs, unfinished trials go on from their last checkpoint, and Ray starts afresh: its
own snapshots are never read.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from tune_cure import cluster, memory
from tune_cure.devices import Devices, Measured, allot
from tune_cure.journal import OBJECTIVE, Event, Journal
from tune_cure.remote import Remote
from tune_cure.shipping import Shipment
from tune_cure.spec import SearchSpec
from tune_cure.study import StudySearch
from tune_cure.trainable import CureTrainable
from tune_cure.training import EPOCH_METRICS

SNAPSHOTS = "TUNE_GLOBAL_CHECKPOINT_S"  # how often Tune writes down all trials, which nobody ever reads
LOST_WORKERS = 5  # how often a trial goes on elsewhere from its last checkpoint when the cluster loses its machine
TOKEN = Path("~/.ray/auth_token").expanduser()  # opens the dashboard
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
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
    remote: Remote | None = None,
    resume: bool = False,
    verbose: bool = False,
    on_event: Callable[[Event], None] | None = None,
    on_ready: Callable[[Devices, str], None] = lambda devices, dashboard: None,
) -> bool:
    """Runs a search to its end, or until Ctrl-C.

    Args:
        spec: What to search.
        output: The run's folder; it must exist.
        address: Of a Ray cluster to join; a Ray of this machine alone is started if None.
        remote: Where checkpoints are kept, and the run's files copied to at intervals; None: all is in `output`.
        resume: Continue the search in `output`, whose journal is read, rather than start one.
        verbose: Let Ray speak.
        on_event: Told of every line of the journal as it is written.
        on_ready: Told, once Ray is up, of the devices and of the dashboard's address (empty if there is none).

    Returns:
        Whether every trial came to an end; False after an interruption, with all state saved.

    Raises:
        DeviceError: Not even one trial fits into the devices.
        ClusterError: The cluster cannot be joined, or one of its machines does not see `output`.
    """
    output = output.resolve()  # the same for all processes, which work in folders of their own
    if remote:
        on_event = remote.copies(output, on_event or (lambda event: None))
    journal = Journal(output, on_event)
    history = journal.repair() if resume else []
    started = not ray.is_initialized()
    if started:
        start_ray(address, verbose=verbose)
    try:
        if address is not None and not remote:
            cluster.check_folder(output)
        shipment = None if address is None else Shipment(spec.data)
        plan = _plan(spec, shipment)
        on_ready(plan, _dashboard())
        searcher = StudySearch(spec, journal, history, remote.uri if remote else output)
        if _num_ended(journal) < spec.search.trials:
            _fit(_tuner(spec, output, plan, searcher, history, verbose, shipment, remote), journal)
    finally:
        if started:
            ray.shutdown()
    return _num_ended(journal) >= spec.search.trials


def _fit(tuner: tune.Tuner, journal: Journal) -> None:
    """Runs the search, here or, through Ray Client, on the cluster."""
    if not cluster.by_client():
        tuner.fit()
        return
    with cluster.Follower(journal), contextlib.suppress(KeyboardInterrupt):
        try:
            tuner.fit()
        finally:
            ray.shutdown()  # ends what runs on the cluster


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


def _num_ended(journal: Journal) -> int:
    return len({event["trial"] for event in journal.read() if event["event"] == "end"})


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
    trainable = tune.with_resources(
        tune.with_parameters(CureTrainable, spec=spec, shipment=shipment),
        {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Asha(spec, history),
            num_samples=spec.search.trials - _num_ended(searcher.journal),
            max_concurrent_trials=plan.concurrent,
            # A CUDA process that changes networks was not measured to give its memory back: there, a fresh one each.
            reuse_actors=plan.gpus_per_trial == 0,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_unused_name(remote.exists if remote else lambda name: (output / name).exists(), "trials"),
            storage_path=remote.uri if remote else str(output),
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS if shipment else 0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            callbacks=[JournalCallback(searcher.journal, Path(remote.path) if remote else output)],
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


def _quieten(verbose: bool) -> None:
    for name, value in {}.items() if verbose else QUIET.items():
        os.environ.setdefault(name, value)
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    if not verbose:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="ray")
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def start_ray(address: str | None = None, *, verbose: bool = False) -> None:
    """Joins the Ray cluster at `address`, or starts one of this machine alone, with no port open to other machines."""
    _quieten(verbose)
    os.environ[SNAPSHOTS] = "inf"
    options: dict[str, Any] = {"log_to_driver": verbose, "configure_logging": verbose}
    if address is not None:
        cluster.check_address(address)
        # All machines run this code, and where Tune runs there and not here (Ray Client), it is as quiet as here.
        asked = {name: value for name, value in os.environ.items() if name in (*QUIET, SNAPSHOTS)}
        options["runtime_env"] = {"py_modules": [str(Path(__file__).parent)], "env_vars": asked}
    if address is None:
        # Ray takes the loopback address for its node, and so for all its ports, only where it cannot form a cluster.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that it starts
        ray_constants.ENABLE_RAY_CLUSTER = False
        options |= {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        if address is None:
            raise
        raise cluster.ClusterError(f"--address {address}: {str(error).splitlines()[0]}") from error
    if TOKEN.exists():  # Ray writes it for all to read
        TOKEN.chmod(0o600)


def _dashboard() -> str:
    if cluster.by_client():
        return ""
    url = ray._private.worker.get_dashboard_url()
    return f"http://{url}" if url else ""


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Ray's ASHA, whose rungs know trials by their number in the study and so can be rebuilt from the journal.

    Ray restores empty rungs; a trial that goes on at epoch 9 would then enter its late score into the first rung and
    get younger trials stopped by it. Here the recorded epochs are replayed first.

    The trials of start_from are never stopped: what the winner is compared with must have had its full schedule.
    """

    def __init__(self, spec: SearchSpec, history: list[Event]) -> None:
        super().__init__(
            metric=OBJECTIVE,
            mode=spec.search.mode,
            max_t=spec.max_epochs,
            grace_period=spec.asha.grace_period,
            reduction_factor=spec.asha.reduction_factor,
            brackets=spec.asha.brackets,
        )
        self.seed, self.starts = spec.search.seed, len(spec.start_from)
        for event in history:
            if event["event"] == "trial":
                self._add(event["trial"])
            elif event["event"] == "epoch":
                result = {"training_iteration": event["epoch"], OBJECTIVE: event[OBJECTIVE]}
                super().on_trial_result(None, _Numbered(event["trial"]), result)

    def _add(self, number: int) -> None:
        # Ray draws the bracket from numpy's global state: for the moment, make that the trial's own.
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed((self.seed, number))  # noqa: NPY002
        super().on_trial_add(None, _Numbered(number))
        np.random.set_state(state)  # noqa: NPY002

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Gives a trial its bracket."""
        self._add(trial.config["trial"])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        number = trial.config["trial"]
        decision: str = super().on_trial_result(tune_controller, _Numbered(number), result)
        return decision if number >= self.starts else self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enters a finished trial's last result into its rung."""
        super().on_trial_complete(tune_controller, _Numbered(trial.config["trial"]), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forgets a trial's bracket."""
        super().on_trial_remove(tune_controller, _Numbered(trial.config["trial"]))


class _Numbered(SimpleNamespace):
    """As much of a Tune trial as ASHA looks at."""

    def __init__(self, number: int) -> None:
        super().__init__(trial_id=number)


class JournalCallback(tune.Callback):  # type: ignore[misc]
    """Writes what happens to the trials into the journal, in the order that makes each line true when it is written."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal, self.folder = journal, folder  # the run's, with the checkpoints

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has its worker: from now on it keeps its last checkpoint alone."""
        # Told so any earlier, Tune would write the state of all trials down after each checkpoint of any.
        trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep = 1

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is over."""
        metrics = {name: result.get(name) for name in (*EPOCH_METRICS, OBJECTIVE)}
        worker = {"host": result["hostname"], "pid": result["pid"]}
        self._write("epoch", trial, **metrics, ended=_status(result) if result["done"] else "", **worker)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """A checkpoint lies on disk."""
        path = Path(checkpoint.path)
        inside = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        self._write("checkpoint", trial, epoch=trial.last_result["training_iteration"], path=str(inside))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial is over, its last checkpoint written, the study told."""
        self._write("end", trial, status=_status(trial.last_result), reason="")
        _forget_averages(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's process raised an exception or died."""
        self._write("end", trial, status="failed", reason=_reason(trial))
        _forget_averages(trial)

    def _write(self, event: str, trial: Trial, **details: Any) -> None:
        self.journal.append(event, trial.config["trial"], **details)


def _forget_averages(trial: Trial) -> None:
    """Drops what Tune keeps of each metric of a trial that is over, which nobody reads: 50 KB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def _status(result: dict[str, Any]) -> str:
    """What the trial says of its end; if nothing, ASHA stopped it."""
    return result["ended"] or "stopped"


def _reason(trial: Trial) -> str:
    """The last line of the error that Ray wrote down for the trial: the exception itself, below the stacks."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the worker process died"
