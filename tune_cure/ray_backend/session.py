"""Ray, started on this machine or joined: quiet, sending nothing to anybody, and closed to other machines."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import ray
from ray._private import ray_constants

from tune_cure.ray_backend import cluster
from tune_cure.ray_backend.monitoring import dashboard

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
        options["runtime_env"] = {"py_modules": [str(Path(__file__).parent.parent)], "env_vars": asked}
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
