"""Start of a Ray on this machine, or connection to a cluster: quiet, without telemetry, closed to other machines."""

import atexit
import gc
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray

from tune_cure.ray_backend import cluster, ray_internals
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.resources import this_machine
from tune_cure.utils.errors import first_line
from tune_cure.utils.signals import keep_handlers

SNAPSHOTS = "TUNE_GLOBAL_CHECKPOINT_S"  # seconds between two of Tune's snapshots of all trials, which are never read
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass
class _Ray:
    """The Ray that this process uses.

    Attributes:
        url: URL of its dashboard; empty if there is none.
        folder: The folder of its session, with logs and sockets; None if another process has started it.
        keeps_logs: Whether that folder is left when this Ray ends.
        is_abandoned: Whether it was left running for a thread that uses it.
    """

    url: str = ""
    folder: Path | None = None
    keeps_logs: bool = False
    is_abandoned: bool = False


_logger = logging.getLogger(__name__)

REMOVAL_SECONDS = 2.0  # to remove the folder of a session: Ray's agents end a moment after Ray
_current = _Ray()


def start_ray(
    address: str | None = None,
    *,
    dashboard_host: str = dashboard.LOOPBACK,
    verbose: bool = False,
    setup: Callable[[], None] | None = None,
    modules: Sequence[Path] = (),
) -> None:
    """Start a Ray on this machine, or join the cluster at `address`, for the searches that follow.

    A Ray that is started listens on the loopback address alone. Only the dashboard does so at `dashboard_host`. Where
    packages of the dashboard are missing, Ray starts without it, and a warning says so.

    Args:
        address: Address of the Ray cluster to join; None starts a Ray on this machine.
        dashboard_host: Address at which the dashboard of a Ray that is started listens.
        verbose: Show what Ray and Optuna say.
        setup: Called in each process that runs trials when it starts; registers parts that are not of this package.
        modules: Files and package folders that the machines of a cluster get, so that they can be imported there.

    Raises:
        ClusterError: The cluster cannot be joined.
        DashboardError: The dashboard cannot, or must not, be opened at `dashboard_host`.
    """
    _quieten(verbose)
    _current.folder, _current.keeps_logs, _current.is_abandoned = None, False, False
    os.environ[SNAPSHOTS] = "inf"
    options: dict[str, Any] = {"log_to_driver": verbose, "configure_logging": verbose}
    if setup is not None:
        options["runtime_env"] = {"worker_process_setup_hook": setup}
    if address is not None:
        with keep_handlers():
            context = _join(address, options, modules)
        _current.url = _url(context.dashboard_url, None)
        return
    ray_internals.listen_on_loopback()
    dashboard.check(dashboard_host)
    dashboard.make_token()
    missing = ray_internals.find_dashboard_fault()
    if missing:
        _logger.warning("without Ray's dashboard: %s (pip install 'ray[default]')", missing)
    machine = this_machine()  # Ray would count GPUs that this torch cannot use, too
    with keep_handlers(), ray_internals.any_port_for_the_log_agent():
        context = ray.init(
            address="local",
            num_cpus=machine.cpus,
            num_gpus=machine.gpus,
            include_dashboard=not missing,
            dashboard_host=dashboard_host,
            **options,
        )
    _current.url = _url(context.dashboard_url, dashboard_host)
    _current.folder = Path(context.address_info["session_dir"])


def dashboard_url() -> str:
    """Return the URL of the dashboard of the Ray that `start_ray` has started or joined; empty if there is none."""
    return _current.url


def _join(address: str, options: dict[str, Any], modules: Sequence[Path]) -> Any:
    """Join the cluster at `address`, send its machines this package and `modules`, and return Ray's context."""
    cluster.check_address(address)
    package = str(Path(__file__).parent.parent)
    options["runtime_env"] = {**options.get("runtime_env", {}), "py_modules": [package, *map(str, modules)]}
    try:
        return ray.init(address=address, **options)
    except ConnectionError as error:
        raise cluster.ClusterError(f"--address {address}: {first_line(error)}") from error
    except (RuntimeError, ray.exceptions.RayError) as error:  # other versions, in several lines, or another token
        raise cluster.ClusterError(f"--address {address}: {' '.join(str(error).split())}") from error


def _quieten(verbose: bool) -> None:
    """Turn telemetry off unless the user has turned it on, and what Ray and Optuna print unless `verbose`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    if verbose:
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray_internals.hide_worker_deaths()
    warnings.filterwarnings("ignore", module="ray")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def _url(address: str | None, host: str | None) -> str:
    """Return the URL of a dashboard. Ray's `address` of it names the loopback although it listens at `host`."""
    if address and host and host not in dashboard.EVERYWHERE:
        port = address.rpartition(":")[2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"http://{address}" if address else ""


def is_running() -> bool:
    """Return whether this process is connected to a Ray."""
    return bool(ray.is_initialized())


def stop_ray() -> None:
    """End the Ray that this process has started, or leave the cluster that it has joined; not if it was abandoned.

    The folder of its session is removed, unless `keep_logs` was called.
    """
    if _current.is_abandoned:
        return
    gc.collect()
    is_collecting = gc.isenabled()
    gc.disable()  # Ray ends the process if another thread collects a handle of Ray's meanwhile
    try:
        with keep_handlers():
            ray.shutdown(wait_for_processes=True)
    finally:
        if is_collecting:
            gc.enable()
    _current.url = ""
    if _current.folder and not _current.keeps_logs:
        _remove_session(_current.folder)
        _current.folder = None


def _remove_session(folder: Path) -> None:
    """Remove the folder of a session that has ended, and Ray's link to it, which later sessions could not replace."""
    latest = folder.with_name("session_latest")
    if latest.is_symlink() and latest.readlink() == folder:
        latest.unlink(missing_ok=True)
    deadline = time.monotonic() + REMOVAL_SECONDS
    while folder.exists() and time.monotonic() < deadline:  # the last of Ray's processes may still write into it
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def keep_logs() -> None:
    """Let `stop_ray` leave the folder of the session with Ray's logs: something has failed."""
    _current.keeps_logs = True


def kept_logs() -> Path | None:
    """Return the folder of Ray's logs if `keep_logs` was called for the Ray that this process has started last."""
    logs = _current.folder / "logs" if _current.folder and _current.keeps_logs else None
    return logs if logs and logs.is_dir() else None  # not where somebody has removed them, which ends a search, too


def is_abandoned() -> bool:
    """Return whether Ray was left running for a thread that uses it."""
    return _current.is_abandoned


def abandon_ray() -> None:
    """Let Ray end with this process and not before, because a thread still uses it.

    Where `ray.shutdown` comes before the thread's next call of Ray, Ray ends the whole process on the spot.
    """
    _current.is_abandoned = True
    atexit.unregister(ray.shutdown)
