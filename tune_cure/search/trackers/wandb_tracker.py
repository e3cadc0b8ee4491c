"""Weights & Biases tracker: a group for the search, in it a run for each trial and one for the search itself.

Runs are written into `wandb/` beside the search's folder (`$WANDB_DIR`), offline, unless `$WANDB_MODE` says otherwise:
nothing leaves the machine before `wandb sync`. They are not in the search's folder, since W&B puts links to its logs
into them, and a folder with links that lead out of it is not read. W&B's offline mode cannot continue a run, so the
next session writes anew, and whole, each run that a session left unfinished. The search's folder notes which are whole.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported

import wandb

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.search.patience import is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers.tracking import ARTIFACTS, fresh_numbers_of, numbers_of, read_memory, write_memory

OFFLINE = "offline"
SUCCESSES = ("completed", "stopped")  # how trials end whose run is not marked as failed


class WandbTracker:
    """Sender of a search's events to W&B.

    Args:
        spec: The search.
        directory: Its folder.
        history: The events of trials so far.

    Raises:
        wandb.Error: W&B refuses something.
    """

    def __init__(self, spec: SearchSpec, directory: Path, history: Sequence[Event]) -> None:
        logging.getLogger("wandb").propagate = False  # it tells of each step of its own
        self.spec, self.directory = spec, directory
        self.mode = os.environ.get("WANDB_MODE") or OFFLINE
        self.store = Path(os.environ.get("WANDB_DIR") or directory.absolute().parent)
        self.memory = directory / run_files.WANDB_RUNS
        memory = read_memory(self.memory)
        self.id: str = memory["id"]
        self.whole = {number for number in memory.get("whole", []) if self._is_there(number)}
        self._remember()
        self.leaders: dict[str, dict[str, float]] = {}
        self.runs: dict[int, Any] = {}
        self.epochs: dict[int, int] = {}  # the last epoch of each trial that was sent
        for event in history:
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Send an event of a trial, unless its run is whole."""
        number = event["trial"]
        if event["event"] == "leader":
            self.leaders[f"trial {number}"] = fresh_numbers_of(event)
        if number in self.whole:
            return
        match event["event"]:
            case "trial":
                self._begin_trial(event)
            case "epoch" if event["epoch"] > self.epochs[number]:
                self.runs[number].log({**numbers_of(event), "time": event["time"]}, step=event["epoch"])
                self.epochs[number] = event["epoch"]
            case "retry":
                self.runs[number].summary["retries"] = event["attempt"]
            case "end":
                run = self.runs.pop(number)
                run.summary.update({"status": event["status"], "reason": event["reason"]})
                run.finish(exit_code=0 if event["status"] in SUCCESSES else 1)
                self.whole.add(number)
                self._remember()

    def finish(self) -> None:
        """Send the search's own run, with its files; runs of trials that `--resume` continues end as preempted."""
        for run in self.runs.values():
            run.summary["status"] = "unfinished"
            _preempt(run)
        result = SearchResult(self.directory)
        run = self._begin("search", self.spec.name, self.spec.model_dump(mode="json", by_alias=True))
        files = wandb.Artifact(f"search-{self.id}", type="search")
        for name in ARTIFACTS:
            if (self.directory / name).is_file():
                files.add_file(str(self.directory / name), policy="immutable", skip_cache=True)
        run.log_artifact(files)
        if best := result.best:
            run.summary.update({"best_trial": best.trial, **best.hyperparameters})
        if self.leaders:
            run.summary["leaders"] = self.leaders
        if is_search_over(result):
            run.finish(exit_code=0)
        else:
            _preempt(run)

    def _remember(self) -> None:
        write_memory(self.memory, id=self.id, whole=sorted(self.whole))

    def _is_there(self, number: int) -> bool:
        """Return True unless the offline run of a trial was deleted."""
        return self.mode != OFFLINE or bool(self._find_folders(f"{self.id}-{number}"))

    def _find_folders(self, run_id: str) -> list[Path]:
        """Return the folders of an offline run, one for each session that wrote it."""
        return [
            folder
            for folder in (self.store / "wandb").glob(f"offline-run-*-{run_id}")
            if folder.is_dir() and not folder.is_symlink()
        ]

    def _begin_trial(self, event: Event) -> None:
        number = event["trial"]
        config = {**event["hyperparameters"], "trial": number, "origin": event["origin"]}
        self.runs[number], self.epochs[number] = self._begin(str(number), f"trial {number}", config), 0

    def _begin(self, part: str, name: str, config: dict[str, Any]) -> Any:
        """Return a new run in the place of those that earlier sessions began with this id."""
        run_id = f"{self.id}-{part}"
        for folder in self._find_folders(run_id):
            shutil.rmtree(folder)
        return wandb.init(
            id=run_id,
            name=name,
            project=self.spec.name,
            group=f"{self.spec.name} {self.id}",
            job_type="search" if part == "search" else "trial",
            config=config,
            dir=self.store,
            mode=self.mode,
            resume=None if self.mode == OFFLINE else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )


def _preempt(run: Any) -> None:
    """End a run that will go on later."""
    run.mark_preempting()
    run.finish(exit_code=1)
