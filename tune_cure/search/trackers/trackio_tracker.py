"""trackio tracker: a project for the search's name, in it a group for the search, in the group a run for each trial.

The store is trackio's own database on this machine (`$TRACKIO_DIR`); nothing is sent anywhere. It is written through
the class that trackio reads it with: `trackio.init` prints, asks the Hugging Face Hub who is logged in, and ends the
run before. Each line has a key of its own, so that what is sent twice is stored once.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trackio import Artifact
from trackio.sqlite_storage import SQLiteStorage

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.search.patience import is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers.tracking import ARTIFACTS, fresh_numbers_of, numbers_of, read_memory, write_memory

UNFINISHED = "unfinished"  # until the trial or the search ends


class TrackioTracker:
    """Sender of a search's events to trackio.

    Args:
        spec: The search.
        directory: Its folder.
        history: The events of trials so far.

    Raises:
        ValueError: trackio does not take the search's name as that of a project.
        sqlite3.Error: Its database cannot be written.
    """

    def __init__(self, spec: SearchSpec, directory: Path, history: Sequence[Event]) -> None:
        SQLiteStorage.validate_project_name(spec.name)
        self.project, self.directory = spec.name, directory
        memory = directory / run_files.TRACKIO_RUN
        self.id = read_memory(memory)["id"]
        write_memory(memory, id=self.id)
        self.group = f"{spec.name} {self.id}"
        self.configs: dict[int, dict[str, Any]] = {}
        last = {event["trial"]: event["epoch"] for event in history if event["event"] == "epoch"}
        for number in {event["trial"] for event in history}:
            name = self._name(number)
            if (SQLiteStorage.get_last_step(self.project, name, run_id=name) or 0) > last.get(number, 0):
                SQLiteStorage.delete_run(self.project, name, run_id=name)  # the trial has begun anew since
        for event in history:
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Store an event of a trial, unless it is there."""
        number, kind = event["trial"], event["event"]
        match kind:
            case "trial":
                settings = {**event["hyperparameters"], "trial": number, "origin": event["origin"]}
                self.configs[number] = self._config(event["time"]) | settings | {"status": UNFINISHED}
                self._store(number, kind, 0, event["time"])
            case "epoch":
                self._store(number, kind, event["epoch"], event["time"], numbers_of(event))
            case "leader":
                self._store(number, kind, event["epoch"], event["time"], fresh_numbers_of(event))
            case "retry":
                self.configs[number]["retries"] = event["attempt"]
            case "end":
                self.configs[number] |= {"status": event["status"], "reason": event["reason"]}
                self._store(number, kind, 0, event["time"])

    def finish(self) -> None:
        """Store the search's own run, with its files."""
        result, now, name = SearchResult(self.directory), time.time(), f"search {self.id}"
        config = self._config(now) | {"status": "completed" if is_search_over(result) else UNFINISHED}
        if best := result.best:
            config |= {"best_trial": best.trial, **best.hyperparameters}
        files = Artifact(name=f"search-{self.id}", type="search")
        for file in ARTIFACTS:
            if (self.directory / file).is_file():
                files.add_file(self.directory / file)
        self._write(name, f"{name} 0", 0, now, {}, config)
        SQLiteStorage.commit_artifact_version(
            project=self.project,
            name=files.name,
            type=files.type,
            description=None,
            manifest=files._build_manifest(self.project),
            metadata=None,
            aliases=None,
            run_name=name,
            run_id=name,
        )

    def _store(self, number: int, kind: str, step: int, at: float, numbers: Mapping[str, float] | None = None) -> None:
        """Store a line of a trial, and what is known of the trial by now."""
        name = self._name(number)
        self._write(name, f"{name} {kind} {step}", step, at, numbers or {}, self.configs[number])

    def _write(
        self, name: str, key: str, step: int, at: float, numbers: Mapping[str, float], config: Mapping[str, Any]
    ) -> None:
        SQLiteStorage.bulk_log(
            self.project,
            name,
            [dict(numbers)],
            steps=[step],
            timestamps=[datetime.fromtimestamp(at, UTC).isoformat()],
            config=dict(config),
            log_ids=[key],
            run_id=name,
        )

    def _name(self, number: int) -> str:
        """Return the name of a trial's run, which is its id, too."""
        return f"trial {number} of {self.id}"

    def _config(self, at: float) -> dict[str, Any]:
        """Return the fields of a run's configuration that trackio itself reads."""
        return {"_Username": None, "_Created": datetime.fromtimestamp(at, UTC).isoformat(), "_Group": self.group}
