"""Start of a Ray on this machine, or connection to a cluster: quiet, without telemetry, closed to other machines."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import ray

from tune_cure.ray_backend import cluster, ray_internals
from tune_cure.ray_backend.monitoring import dashboard

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
_dashboards = {"url": ""}  # of the Ray that this process uses


def start_ray(
    address: str | None = None,
    *,
    dashboard_host: str = dashboard.LOOPBACK,
    verbose: bool = False,
    setup: Callable[[], None] | None = None,
) -> None:
    """Start a Ray on this machine, or join the cluster at `address`, for the searches that follow.

    A Ray that is started listens on the loopback address alone. Only the dashboard does so at `dashboard_host`.

    Args:
        address: Address of the Ray cluster to join; None starts a Ray on this machine.
        dashboard_host: Address at which the dashboard of a Ray that is started listens.
        verbose: Show what Ray and Optuna say.
        setup: Called in each process that runs trials when it starts; registers parts that are not of this package.

    Raises:
        ClusterError: The cluster cannot be joined.
        DashboardError: The dashboard cannot, or must not, be opened at `dashboard_host`.
    """
    _quieten(verbose)
    ray_internals.survive_memory_kills()
    os.environ[SNAPSHOTS] = "inf"
    options: dict[str, Any] = {"log_to_driver": verbose, "configure_logging": verbose}
    if setup is not None:
        options["runtime_env"] = {"worker_process_setup_hook": setup}
    if address is not None:
        context = _join(address, options)
        _dashboards["url"] = _url(context.dashboard_url, None)
        return
    ray_internals.listen_on_loopback()
    dashboard.check(dashboard_host)
    with ray_internals.any_port_for_the_log_agent():
        context = ray.init(address="local", include_dashboard=True, dashboard_host=dashboard_host, **options)
    if dashboard.TOKEN.exists():  # Ray makes the file readable for all users of the machine
        dashboard.TOKEN.chmod(0o600)
    _dashboards["url"] = _url(context.dashboard_url, dashboard_host)


def dashboard_url() -> str:
    """Return the URL of the dashboard of the Ray that `start_ray` has started or joined; empty if there is none."""
    return _dashboards["url"]


def _join(address: str, options: dict[str, Any]) -> Any:
    """Join the cluster at `address`, send its machines this package, and return Ray's context."""
    cluster.check_address(address)
    package = str(Path(__file__).parent.parent)
    options["runtime_env"] = {**options.get("runtime_env", {}), "py_modules": [package]}
    try:
        return ray.init(address=address, **options)
    except ConnectionError as error:
        raise cluster.ClusterError(f"--address {address}: {str(error).splitlines()[0]}") from error


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
    """End the Ray that this process has started, or leave the cluster that it has joined."""
    ray.shutdown()
