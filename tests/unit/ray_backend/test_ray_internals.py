"""Each use of Ray beyond its documented interface: a test fails by its name when Ray changes what it relies on."""

import inspect
import traceback
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from ray import cloudpickle
from ray._common.usage import usage_lib
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train._internal.storage import StorageContext
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from tune_cure.ray_backend import ray_internals
from tune_cure.ray_backend.worker_errors import describe, failure_reason

DEATH = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: CureTrainable\n\tpid: 446\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
)
MEMORY = (
    "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 7) was "
    "6.50GB used / 23.54GB limit (0.276160)\nOOM kill reason: Memory usage 6915710976B exceeded threshold of "
    "6875211264B (27.2% of 25276510208B limit)\nRefer to the documentation on how to address the out of memory issue"
)
DIED = "the worker process died: it was killed, ran out of memory or crashed"


def failed_trial(folder: Path, *errors: Exception | str) -> SimpleNamespace:
    """A trial that failed with these errors one after another, as Tune's `Trial.handle_error` leaves it."""
    trial = SimpleNamespace(error_file=str(folder / "error.txt"), pickled_error_file=None)
    with (folder / "error.txt").open("w") as file:
        for number, error in enumerate(errors, start=1):
            file.write(f"Failure # {number} (occurred at 2026-01-01_00-00-00)\n{error}\n")
            if isinstance(error, Exception):
                trial.pickled_error_file = str(folder / "error.pkl")
                (folder / "error.pkl").write_bytes(cloudpickle.dumps(error))
    return trial


def test_tune_is_told_to_keep_the_last_checkpoint_by_the_manager_of_a_trial() -> None:
    trial = Trial("unknown", stub=True)
    assert trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep is None
    assert ray_internals.keep_last_checkpoint_only(trial)
    assert trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep == 1


def test_the_averages_of_a_trial_lie_in_two_dictionaries_of_its_metadata() -> None:
    trial = Trial("unknown", stub=True)
    trial.update_last_result({"training_iteration": 1, "objective": 0.5})
    assert trial.run_metadata.metric_analysis["objective"]
    assert trial.run_metadata.metric_n_steps["objective"]
    ray_internals.forget_metric_averages(trial)
    assert not trial.run_metadata.metric_analysis
    assert not trial.run_metadata.metric_n_steps


def test_without_tunes_metadata_all_checkpoints_and_averages_are_kept() -> None:
    trial = SimpleNamespace()
    assert not ray_internals.keep_last_checkpoint_only(trial)
    ray_internals.forget_metric_averages(trial)


def test_the_pickled_error_file_has_the_exception_that_tune_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StorageContext(str(tmp_path), experiment_dir_name="trials", trial_dir_name="trial_00000")
    trial = Trial("unknown", stub=True, storage=storage)
    monkeypatch.setattr(Trial, "local_path", str(tmp_path))  # with Ray running: a folder of its session
    trial.handle_error(RayActorError(error_msg=DEATH))
    assert trial.get_pickled_error() is None  # so the documented way does not serve
    error = ray_internals.last_error(trial)
    assert isinstance(error, RayActorError)
    assert not error.actor_init_failed
    assert failure_reason(trial).startswith(DIED)


def test_a_worker_that_died_is_known_by_its_exception_and_its_log_by_its_process(tmp_path: Path) -> None:
    reason = failure_reason(failed_trial(tmp_path, RayActorError(error_msg=DEATH)))
    assert reason == f"{DIED}; worker-*-446.err in Ray's logs may say which"
    assert failure_reason(failed_trial(tmp_path, RayActorError(error_msg=DEATH.replace("\tpid: 446\n", "")))) == DIED


def test_a_worker_that_died_is_known_by_the_text_alone_where_there_is_no_exception(tmp_path: Path) -> None:
    assert failure_reason(failed_trial(tmp_path, DEATH)).startswith(DIED)


CUDA_ERROR = """CUDA error: out of memory
CUDA kernel errors might be asynchronously reported at some other API call
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."""
LAYERS = 'Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: "bias". '


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no such\nlearning rate", "RuntimeError: no such"),
        (CUDA_ERROR, "RuntimeError: CUDA error: out of memory"),
        (LAYERS, f'RuntimeError: {LAYERS.splitlines()[0]} Missing key(s) in state_dict: "bias".'),
        ("expected:\n  - a\n  - b", "RuntimeError: expected: - a"),
        ("\n  at line 7\n", "RuntimeError: at line 7"),
    ],
    ids=["two lines", "CUDA", "a heading and a list", "an indented list", "an empty first line"],
)
def test_an_exception_of_a_trial_is_its_first_line(tmp_path: Path, message: str, reason: str) -> None:
    try:
        raise ValueError("an earlier one")
    except ValueError:
        try:
            raise RuntimeError(message)
        except RuntimeError as error:
            task_error = RayTaskError("step", traceback.format_exc(), error)
    assert failure_reason(failed_trial(tmp_path, task_error)) == reason
    assert failure_reason(failed_trial(tmp_path, str(task_error))) == reason  # where Tune has the text alone


def test_an_exception_in_the_creation_of_an_actor_is_its_last_line(tmp_path: Path) -> None:
    message = f"raised in its creation task\n{DEATH}\nRuntimeError: memory"
    in_setup = RayActorError(error_msg=message, actor_init_failed=True)
    assert failure_reason(failed_trial(tmp_path, in_setup)) == "RuntimeError: memory"


def test_the_exception_of_an_earlier_failure_is_not_taken_for_the_last_one(tmp_path: Path) -> None:
    trial = failed_trial(tmp_path, RayActorError(error_msg=DEATH), "TuneError: the trial could not be created")
    assert failure_reason(trial) == "TuneError: the trial could not be created"


@pytest.mark.parametrize("content", [b"", b"torn", b"cno_such_package\nName\n."])
def test_a_pickle_that_cannot_be_read_leaves_the_text(tmp_path: Path, content: bytes) -> None:
    trial = failed_trial(tmp_path, RayActorError(error_msg="Traceback\nRuntimeError: a"))
    Path(trial.pickled_error_file).write_bytes(content)
    assert failure_reason(trial) == "RuntimeError: a"


def test_a_trial_that_the_memory_monitor_killed_says_how_full_the_memory_was(tmp_path: Path) -> None:
    reason = "killed by Ray: the machine's memory was 28% full"
    assert describe(OutOfMemoryError(MEMORY)) == reason
    assert failure_reason(failed_trial(tmp_path, RayActorError(error_msg=MEMORY))) == reason
    assert failure_reason(failed_trial(tmp_path, "RuntimeError: a", MEMORY)) == reason  # while its worker started
    assert failure_reason(failed_trial(tmp_path, MEMORY, "RuntimeError: a")) == "RuntimeError: a"
    assert describe(OutOfMemoryError("other words")) == "killed by Ray: the machine's memory was nearly full"


def test_tunes_loop_takes_a_memory_kill_for_the_death_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayActorManager, "_actor_task_failed", RayActorManager._actor_task_failed)
    ray_internals.survive_memory_kills()
    errors: list[Exception] = []
    actor = TrackedActor(7)
    task = TrackedActorTask(actor, on_error=lambda actor, error: errors.append(error))
    manager = RayActorManager(SimpleNamespace())
    monkeypatch.setattr(manager, "_cleanup_actor", lambda tracked_actor: None)
    manager._actor_task_failed(tracked_actor_task=task, exception=OutOfMemoryError(MEMORY))
    assert [type(error) for error in errors] == [RayActorError]
    assert describe(errors[0]) == "killed by Ray: the machine's memory was 28% full"


def test_where_tune_has_lost_the_names_memory_kills_end_the_search_and_no_trial_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(RayActorManager, "_actor_task_failed")
    ray_internals.survive_memory_kills()
    assert not hasattr(RayActorManager, "_actor_task_failed")
    ray_internals.pause_pending(SimpleNamespace(), SimpleNamespace(status=Trial.PENDING))


def test_tune_lets_schedulers_set_the_status_of_a_trial() -> None:
    source = inspect.getsource(TuneController._wrapped)
    assert '"_set_trial_status"' in source
    assert list(inspect.signature(TuneController._set_trial_status).parameters) == ["self", "trial", "status"]


def test_a_trial_without_an_error_file_has_no_reason(tmp_path: Path) -> None:
    assert failure_reason(SimpleNamespace(error_file=None)) == "Ray gives no reason"


def test_the_docs_name_each_address_that_rays_dashboard_asks_whether_it_is_in_a_cloud(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def get(url: str, **_: object) -> None:
        asked.append(url)
        raise requests.exceptions.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    assert usage_lib.get_cloud_from_metadata_requests() == "unknown"
    page = Path("docs/watching.md").read_text(encoding="utf-8")
    assert len(asked) == 3
    for url in asked:
        host = urlsplit(url).netloc
        assert (url.partition("?")[0] if host[0].isdigit() else host) in page
