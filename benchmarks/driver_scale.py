"""What a trial costs the process that drives a search, as the search grows: CPU time and memory, by windows of trials.

    python benchmarks/driver_scale.py --trials 10000 --output benchmarks/results

All of a search is real (Ray Tune's controller, the Optuna study in SQLite, ASHA, the journal, the view, a checkpoint an
epoch) but its workers: trials run at once in this process, and what they take is not counted.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from ray import tune
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution import tune_controller

from tune_cure.cli.views import live_view
from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.ray_backend import cluster, session, tuner
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.ray_backend.resources import Machine
from tune_cure.search import results, run_files
from tune_cure.search.journal import OBJECTIVE, Event, Journal
from tune_cure.search.progress import SearchState
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec

WORKERS = 64
WINDOWS = 10
SPACE = """
name: scale
data: {dataset: digits, validation: 100}
model: small_cnn
training: {epochs: 9}
space:
  lambda: {loguniform: [0.001, 1]}
  h: {uniform: [0.2, 2.0]}
  lr_max: {loguniform: [0.02, 0.5]}
  epsilon: {uniform: [0.05, 0.25]}
asha: {grace_period: 1, reduction_factor: 3}
"""
PARTS: dict[str, list[tuple[type, str]]] = {
    "propose": [(OptunaSearcher, "suggest")],
    "tell": [(OptunaSearcher, "on_trial_result"), (OptunaSearcher, "on_trial_complete")],
    "asha": [(EarlyStopper, "add"), (EarlyStopper, "report"), (EarlyStopper, "complete")],
    "journal": [(TrialRecorder, "record")],
    "snapshot": [(tune_controller.TuneController, "checkpoint")],
}


class Clock:
    """CPU seconds by part of the driver; what is under way inside of another part is counted there, too."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys([*PARTS, "workers"], 0.0)
        for part, methods in PARTS.items():
            for owner, name in methods:
                setattr(owner, name, self.timed(part, getattr(owner, name)))

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time is counted."""

        def counted(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += time.process_time() - started

        return counted


class InstantTrial(tune.Trainable):  # type: ignore[misc]
    """A trial that trains nothing: its accuracies are a function of its hyperparameters and its epoch."""

    def setup(self, config: dict[str, Any], spec: SearchSpec, reused: bool, broadcast: None) -> None:
        """Takes a configuration."""
        self.epochs = spec.max_epochs
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes another configuration."""
        config, self.epoch = new_config, 0
        off = (math.log10(config["lambda"]) + 1) ** 2 + (config["h"] - 1) ** 2 + (math.log10(config["lr_max"]) + 1) ** 2
        self.limit, self.noise = 0.6 / (1 + off), random.Random(config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        self.epoch += 1
        accuracy = self.limit * (1 - 0.5**self.epoch) + self.noise.uniform(0, 0.02)
        done = self.epoch == self.epochs
        return {
            **dict.fromkeys(EPOCH_METRICS, accuracy),
            "epoch": self.epoch,
            "catastrophic_overfitting": False,
            "skipped_steps": 0,
            OBJECTIVE: accuracy,
            "ended": "completed" if done else "",
            "done": done,
            "training_iteration": self.epoch,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes a small file."""
        (Path(checkpoint_dir) / run_files.CHECKPOINT).write_bytes(bytes(1000))

    def load_checkpoint(self, checkpoint: str) -> None:
        """No trial of this benchmark is interrupted."""
        raise NotImplementedError


class InstantActors:
    """In the place of Ray Tune's actor manager: actors are objects, calls are made in random order, one an event."""

    def __init__(self, resource_manager: Any) -> None:
        self.waiting: list[tuple[TrackedActor, Any, dict[str, Any]]] = []  # to be started
        self.tasks: dict[TrackedActor, tuple[Callable[[], Any], Callable[..., None] | None]] = {}
        self.trials: dict[TrackedActor, InstantTrial] = {}
        self.order = random.Random(0)
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, None]] = {}

    def add_actor(self, cls: Any, kwargs: dict[str, Any], resource_request: Any, **on: Any) -> TrackedActor:
        """Takes an actor that starts with an event to come."""
        actor = TrackedActor(self.order.getrandbits(64), **on)
        self.waiting.append((actor, cls.__ray_metadata__.modified_class, kwargs))
        return actor

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """Ends an actor at once."""
        self.waiting = [entry for entry in self.waiting if entry[0] != tracked_actor]
        self.tasks.pop(tracked_actor, None)
        self.trials.pop(tracked_actor, None)
        live = self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)
        return live is not None

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[..., None] | None = None,
        on_error: Any = None,
        _return_future: bool = False,
    ) -> object:
        """Takes a call that is made with an event to come."""
        if method_name != "stop":
            call = partial(getattr(self.trials[tracked_actor], method_name), *(args or ()), **(kwargs or {}))
            self.tasks[tracked_actor] = (call, on_result)
        return object()

    def next(self, timeout: float | None = None) -> bool:
        """One event."""
        live = self._live_actors_to_ray_actors_resources
        if self.waiting and len(live) < WORKERS:
            actor, kind, arguments = self.waiting.pop(0)
            self.trials[actor] = trial = CLOCK.timed("workers", kind)(**arguments)
            metrics = SimpleNamespace(remote=trial.get_auto_filled_metrics)  # all that Tune calls by itself
            live[actor] = (SimpleNamespace(get_auto_filled_metrics=metrics), None)
            actor._on_start(actor)
            return True
        if not self.tasks:
            return False
        actor = self.order.choice(list(self.tasks))
        call, on_result = self.tasks.pop(actor)
        result = CLOCK.timed("workers", call)()
        if on_result:
            on_result(actor, result)
        return True

    num_live_actors = property(lambda self: len(self._live_actors_to_ray_actors_resources))
    num_pending_actors = property(lambda self: len(self.waiting))
    num_total_actors = property(lambda self: self.num_live_actors + self.num_pending_actors)
    num_actor_tasks = property(lambda self: len(self.tasks))

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether it lives."""
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """None does."""
        return False

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Forgets a call."""
        self.tasks.pop(tracked_actor, None)

    def get_live_actors_resources(self) -> dict[str, float]:
        """What they take."""
        return {"CPU": self.num_live_actors}

    def cleanup(self) -> None:
        """Nothing runs that could be killed."""


CLOCK = Clock()


class Windows:
    """A row for each tenth of a search's trials."""

    def __init__(self, trials: int) -> None:
        self.every = trials // WINDOWS
        self.ended = self.epochs = 0
        self.rows: list[dict[str, float]] = []
        self.before = self.now()

    def now(self) -> dict[str, float]:
        """What the process has taken so far."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"cpu": time.process_time(), "epochs": self.epochs, "rss_mb": pages * 4096 / 2**20, **CLOCK.seconds}

    def on_event(self, event: Event) -> None:
        """Counts, and closes a window."""
        self.epochs += event["event"] == "epoch"
        self.ended += event["event"] == "end"
        if event["event"] != "end" or self.ended % self.every:
            return
        now = self.now()
        spent = {part: now[part] - self.before[part] for part in now}
        driver = spent["cpu"] - spent["workers"]
        each = {f"{part}_ms": 1000 * spent[part] / self.every for part in PARTS}
        self.rows.append(
            {
                "trials": self.ended,
                "epochs_per_trial": spent["epochs"] / self.every,
                "driver_ms_per_trial": 1000 * driver / self.every,
                "driver_ms_per_epoch": 1000 * driver / spent["epochs"],
                **each,
                "rss_mb": now["rss_mb"],
                "kb_per_trial": 1024 * spent["rss_mb"] / self.every,
            }
        )
        print("  ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items()), flush=True)
        self.before = now


def measure(trials: int, sampler: str, view: Callable[[SearchState], Any]) -> pd.DataFrame:
    """Runs a search in a temporary folder and returns its windows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / run_files.SPEC).write_text(SPACE)
        spec = specs.load(folder / run_files.SPEC, [f"search.trials={trials}", f"search.sampler={sampler}"])
        windows, shown = Windows(trials), view(SearchState(spec))

        def on_event(event: Event) -> None:
            shown.on_event(event)
            windows.on_event(event)

        with shown:
            started = time.process_time()
            assert tuner.run(spec, folder, on_event=on_event)
            after = time.process_time()
            assert len(results.trials(folder)) == trials
            assert sum(event["event"] == "end" for event in Journal(folder).read()) == trials
        print(f"whole search {after - started:.1f} s, its table {time.process_time() - after:.1f} s")
    return pd.DataFrame(windows.rows)


class _Plain(live_view.PlainView, AbstractContextManager[Any]):
    """The view of logs and pipes, which prints to nowhere."""

    def __init__(self, state: SearchState) -> None:
        super().__init__(state, lambda line: None)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    session.start_ray()
    cluster.machines = lambda: [Machine(WORKERS, 0)]
    tune_controller.RayActorManager = InstantActors
    tuner.CureTrainable = InstantTrial  # type: ignore[misc, assignment]
    frame = measure(options.trials, options.sampler, _Plain)
    if options.output:
        frame.to_csv(options.output / f"driver_scale_{options.sampler}_{options.trials}.csv", index=False)


if __name__ == "__main__":
    main()
