"""Everything that this package uses of Ray beyond its documented interface, with what happens where Ray lacks it.

tests/unit/ray_backend/test_ray_internals.py names each use, and fails when Ray changes it.
"""

import pickle
import re
from pathlib import Path

from ray.tune.experiment import Trial

# The message of ray.exceptions.ActorDiedError is the only place that says how an actor died, and in which process.
WORKER_DEATH = "worker process has died"
WORKER_PID = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)


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
    text = Path(error_file).read_text(encoding="utf-8") if error_file else ""
    if pickled and Path(pickled).exists():
        try:
            error = pickle.loads(Path(pickled).read_bytes())  # written by Tune, in this process
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError):
            return text  # an exception of a package that this process lacks, or that cannot be made anew
        if isinstance(error, Exception) and text.rstrip().endswith(str(error).rstrip()):  # no earlier failure's
            return error
    return text
