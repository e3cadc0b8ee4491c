"""Everything that this package uses of Ray beyond its documented interface, with what is done where Ray lacks it.

No other module uses a private name of Ray. The tests named test_ray_internals.py, with and without a Ray that runs,
name each use and fail when Ray changes it; one of them is a search that finishes without these names.
"""

import functools
import importlib
import ipaddress
import logging
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
RECONNECT_VARIABLE = "RAY_ENABLE_AUTO_CONNECT"
VITAL_PROCESSES = ("gcs_server", "raylet")  # without one of these no trial goes on
DEATH_REPORT = "A worker died or was killed while executing a task"

# The message of ray.exceptions.ActorDiedError is the only place that says how an actor died, and in which process.
WORKER_DEATH = "worker process has died"
WORKER_PID = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
MEMORY_DEATH = "the node running low on memory"  # in the message of ray.exceptions.OutOfMemoryError
FAILURE = re.compile(
    r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE
)  # before each failure in a trial's error file

_logger = logging.getLogger(__name__)


def _find(module: str, name: str) -> Any:
    """Return a private name of one of Ray's modules, None if Ray has it no more."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def listen_on_loopback() -> None:
    """Make the Ray that is started next use the loopback address for all its ports.

    Ray does so only on systems where it cannot form clusters. It decides that when it is imported, from an environment
    variable, and keeps the answer in the constant that is changed here.

    Without the name: the variable alone, which works where it is set before Ray is imported. A warning says so if the
    ports will be open to other machines; they ask for a token in any case.
    """
    os.environ[LOOPBACK_VARIABLE] = "0"  # for the processes that Ray starts
    if _find("ray._private.ray_constants", "ENABLE_RAY_CLUSTER") is not None:
        importlib.import_module("ray._private.ray_constants").ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]
    if not ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        _logger.warning(
            "Ray's ports are open to other machines that have the token in ~/.ray/auth_token; "
            "to close them, set %s=0 before the command",
            LOOPBACK_VARIABLE,
        )


@contextmanager
def any_port_for_the_log_agent() -> Iterator[None]:
    """Let a Ray that is started inside the context take any free port for its agent, which serves the logs.

    Ray's default is one fixed port: a second Ray on the machine would have no logs in its dashboard. `ray.init` has no
    argument for the port.

    Without the name: the fixed port.
    """
    parameters = _find("ray._private.parameter", "RayParams")
    if parameters is None:
        yield
        return

    module = importlib.import_module("ray._private.parameter")
    module.RayParams = functools.partial(parameters, dashboard_agent_listen_port=0)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.RayParams = parameters  # type: ignore[attr-defined]


def find_dashboard_fault() -> str:
    """Return why Ray cannot start its dashboard, such as a package that is missing; empty if it can.

    `ray.init` raises an exception where it is asked for a dashboard that it cannot start.

    Without the name: empty, so that Ray itself says what is missing.
    """
    find_error = _find("ray._private.utils", "get_dashboard_dependency_error")
    error = find_error() if find_error is not None else None
    return str(error) if error else ""


def hide_worker_deaths() -> None:
    """Keep Ray from printing a paragraph on each process that died; the view says in a line what becomes of the trial.

    `log_to_driver=False` does not silence these.

    Without the name: Ray prints the paragraph.
    """
    print_lines = _find("ray._private.worker", "print_to_stdstream")
    if print_lines is None or hasattr(print_lines, "hides_worker_deaths"):
        return

    def print_other_lines(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
        if not all(DEATH_REPORT in line for line in data["lines"]):
            print_lines(data, *arguments, **options)

    print_other_lines.hides_worker_deaths = True  # type: ignore[attr-defined]
    importlib.import_module("ray._private.worker").print_to_stdstream = print_other_lines  # type: ignore[attr-defined]


def vital_processes() -> list[Any]:
    """Return the processes of Ray that this process has started, as Popen objects, and without which no trial goes on.

    Those of a cluster that was joined are not among them.

    Without the name: none. A search whose Ray dies then is ended by Ray itself, after a minute, and its tables are
    written by --resume or `tune-cure report`.
    """
    node = _find("ray._private.worker", "_global_node")
    started = getattr(node, "all_processes", {})
    return [info.process for name in VITAL_PROCESSES for info in started.get(name, [])]


def vital_paths() -> list[Path]:
    """Return the folder of the session of the Ray that this process uses, and what it needs in it to start workers.

    Without the name: none. If the folder is deleted, each trial fails as often as it is tried, and Ray waits for ever.
    """
    node = _find("ray._private.worker", "_global_node")
    names = ("_session_dir", "_logs_dir", "_raylet_socket_name", "_plasma_store_socket_name")
    return [Path(path) for name in names if isinstance(path := getattr(node, name, None), str)]


def forbid_automatic_start() -> None:
    """Keep Ray's functions from starting another Ray in this process where the one before has ended.

    Tune's loop, which may be left behind when Ray has died, calls such functions.

    Without the name: the environment variable alone, which works where it is set before Ray is imported.
    """
    os.environ[RECONNECT_VARIABLE] = "0"
    if _find("ray._private.auto_init_hook", "enable_auto_connect") is not None:
        module = importlib.import_module("ray._private.auto_init_hook")
        module.enable_auto_connect = False  # type: ignore[attr-defined]


def rename_process(title: str) -> None:
    """Give this process a title in `top` and in the dashboard's list of processes.

    Without the name: the package setproctitle does it where it is installed; else the process keeps its title.
    """
    rename = _find("ray._raylet", "setproctitle") or _find("setproctitle", "setproctitle")
    if rename is not None:
        rename(title)


def survive_memory_kills() -> None:
    """Let Tune's loop take a trial that Ray's memory monitor has killed for one whose worker died.

    Tune's loop knows two exceptions of a trial's task. For a worker that the monitor kills Ray raises a third one,
    OutOfMemoryError, which would end the whole search with a traceback.

    Without the name: it does, and --resume continues the search.
    """
    manager = _find("ray.air.execution._internal.actor_manager", "RayActorManager")
    handle = getattr(manager, "_actor_task_failed", None)
    if handle is None or hasattr(handle, "knows_memory_kills"):
        return

    def handle_memory_kill(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        handle(self, tracked_actor_task=tracked_actor_task, exception=exception)

    handle_memory_kill.knows_memory_kills = True  # type: ignore[attr-defined]
    manager._actor_task_failed = handle_memory_kill


def pause_pending(tune_controller: Any, trial: Trial) -> None:
    """Pause a trial that waits for a worker, so that it starts only when the scheduler chooses it.

    The documented `pause_trial` of Tune's controller ignores a trial that has no worker. Tune lets schedulers use the
    private name all the same.

    Without the name: the trial starts as soon as it can.
    """
    set_status = getattr(tune_controller, "_set_trial_status", None)
    if set_status is not None:
        set_status(trial, Trial.PAUSED)


def keep_last_checkpoint_only(trial: Trial) -> bool:
    """Let Tune keep the last checkpoint of a trial alone, and return whether it could be told so.

    In its place `CheckpointConfig(num_to_keep=1)` is documented, but makes Tune write the state of all trials to disk
    after each checkpoint. Fallback: the caller deletes the checkpoint before.
    """
    manager = getattr(getattr(trial, "run_metadata", None), "checkpoint_manager", None)
    config = getattr(manager, "checkpoint_config", None)
    if config is None:
        return False
    config.num_to_keep = 1
    return True


def forget_metric_averages(trial: Trial) -> None:
    """Drop the averages that Tune keeps of each metric of an ended trial, and nobody reads: 50 KB a trial.

    Fallback: they stay in memory.
    """
    for name in ("metric_analysis", "metric_n_steps"):
        averages = getattr(getattr(trial, "run_metadata", None), name, None)
        if isinstance(averages, dict):
            averages.clear()


def last_error(trial: Trial) -> Exception | str:
    """Return the exception that a trial failed with last, or the text of it where Tune has no exception.

    The documented `Trial.get_pickled_error` reads the run's folder, where Tune puts the file only later. Fallback: the
    text in the trial's documented `error_file`, empty if there is none.
    """
    error_file, pickled = trial.error_file, getattr(trial, "pickled_error_file", None)
    failures = Path(error_file).read_text(encoding="utf-8") if error_file else ""
    text = re.split(FAILURE, failures)[-1]
    if pickled and Path(pickled).exists():
        try:
            error = pickle.loads(Path(pickled).read_bytes())  # written by Tune, in this process
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError):
            return text  # an exception of a package that this process lacks, or that cannot be made anew
        if isinstance(error, Exception) and text.rstrip().endswith(str(error).rstrip()):  # no earlier failure's
            return error
    return text
