"""Why a trial or a task of Ray failed, in one line for people: its exception, or how its worker process died."""

import itertools
import re

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

from tune_cure.ray_backend import ray_internals
from tune_cure.search.schedulers.memory_backoff import MEMORY_KILL

# Ray's OutOfMemoryError has no attributes: "… was 22.4GB used / 23.5GB limit (0.951234)".
MEMORY_USED = re.compile(r"used / \S+ limit \((\d*\.?\d+)\)")


def failure_reason(trial: Trial) -> str:
    """Return in one line why a trial failed last."""
    return describe(ray_internals.last_error(trial))


def describe(error: Exception | str) -> str:
    """Return in one line what an exception of Ray says, or the text of one."""
    message = str(error)
    if isinstance(error, OutOfMemoryError) or ray_internals.MEMORY_DEATH in message:
        used = MEMORY_USED.search(message)
        return f"{MEMORY_KILL}{100 * float(used[1]):.0f}% full" if used else f"{MEMORY_KILL}nearly full"
    lines = [line.rstrip() for line in message.splitlines() if line.strip()] or ["Ray gives no reason"]
    may_have_died = isinstance(error, str) or (isinstance(error, RayActorError) and not error.actor_init_failed)
    if not may_have_died or ray_internals.WORKER_DEATH not in lines[-1]:
        return _raised(lines)
    pid = ray_internals.WORKER_PID.search(message)
    log = f"; worker-*-{pid[1]}.err in Ray's logs may say which" if pid else ""
    return f"the worker process died: it was killed, ran out of memory or crashed{log}"


def _raised(lines: list[str]) -> str:
    """Return the exception in the lines of a traceback: the first line behind the last frame, else the last line.

    An exception may say more in further lines. In those of CUDA's errors the last ones are the same for all of them.
    """
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    behind = lines[frames[-1] :] if frames else []
    said = list(itertools.dropwhile(lambda line: line.startswith(" "), behind))  # source code comes first
    if not said:
        return lines[-1].strip()
    is_heading = said[0].endswith(":") and len(said) > 1  # of a list, as of the layers that a state dict lacks
    return f"{said[0]} {said[1].strip()}" if is_heading else said[0]
