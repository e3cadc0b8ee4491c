"""MLflow tracker: a run for the search, and below it a run for each trial.

The store is that of `$MLFLOW_TRACKING_URI`, or else a database in the run's folder: nothing leaves the machine unless
the user has named a server. The journal is the truth: what the store lacks of it, after a crash for example, is sent
when the search is resumed.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.search.patience import is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers.tracking import ARTIFACTS, fresh_numbers_of, numbers_of
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import replace_text

STATUSES = {"completed": "FINISHED", "stopped": "KILLED"}  # every other one is FAILED
UNFINISHED = "SCHEDULED"  # of what --resume continues
PARENT, TRIAL = "mlflow.parentRunId", "tune_cure.trial"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class MlflowTracker:
    """Sender of a search's events to MLflow.

    Args:
        spec: The search.
        directory: Its folder.
        history: The events of trials so far.

    Raises:
        TuneCureError: The store in the folder, which somebody may have sent, would write elsewhere.
        MlflowException: MLflow refuses something, or its server does not answer.
    """

    def __init__(self, spec: SearchSpec, directory: Path, history: Sequence[Event]) -> None:
        for name in ("mlflow", "alembic"):  # they tell of each table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        self.directory = directory
        self.own = (directory.absolute() / run_files.MLFLOW_ARTIFACTS).as_uri()
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.is_own = not uri
        self.client = MlflowClient(tracking_uri=uri or f"sqlite:///{directory.absolute() / run_files.MLFLOW_STORE}")
        self.experiment = self._find_experiment(spec.name)
        self.parent = self._find_parent() or self._begin_parent(spec)
        self.runs: dict[int, str] = {}
        self.epochs: dict[int, int] = {}  # the last epoch of each trial that the store has
        self.unfinished: set[int] = set()
        last = {event["trial"]: event["epoch"] for event in history if event["event"] == "epoch"}
        for run in self._find_trials():
            self._take_up(run, last)
        self.client.update_run(self.parent, status="RUNNING")
        for event in history:
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Send an event of a trial, unless the store has it."""
        number = event["trial"]
        match event["event"]:
            case "trial" if number not in self.runs:
                self._begin_trial(event)
            case "epoch" if event["epoch"] > self.epochs[number]:
                self._send_metrics(number, event, event["epoch"])
                self.epochs[number] = event["epoch"]
            case "retry":
                self.client.set_tag(self.runs[number], "retries", event["attempt"])
            case "leader":
                self._send_metrics(number, {"time": event["time"], **fresh_numbers_of(event)}, event["epoch"])
            case "end" if number in self.unfinished:
                self._end_trial(event)

    def finish(self) -> None:
        """Send the files of the search, and how it ended; trials that `--resume` continues are marked as scheduled."""
        for name in ARTIFACTS:
            if (self.directory / name).is_file():
                self.client.log_artifact(self.parent, str(self.directory / name))
        for number in self.unfinished:
            self.client.update_run(self.runs[number], status=UNFINISHED)
        result = SearchResult(self.directory)
        if best := result.best:
            self.client.set_tag(self.parent, "best_trial", best.trial)
        if is_search_over(result):
            self.client.set_terminated(self.parent, "FINISHED")
        else:
            self.client.update_run(self.parent, status=UNFINISHED)

    def _find_experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name, artifact_location=self.own if self.is_own else None))
        if self.is_own and found.artifact_location != self.own:
            raise TuneCureError(
                f"{run_files.MLFLOW_STORE} keeps its files in {found.artifact_location}, not in the run"
            )
        return str(found.experiment_id)

    def _find_parent(self) -> str | None:
        """Return the run of this search that an earlier session began; None if the store has none."""
        file = self.directory / run_files.MLFLOW_RUN
        run_id = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        if not _RUN_ID.fullmatch(run_id):
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException:  # of another store
            return None
        if self.is_own and not str(run.info.artifact_uri).startswith(f"{self.own}/"):
            raise _foreign(run.info.artifact_uri)
        return run_id

    def _begin_parent(self, spec: SearchSpec) -> str:
        run = self.client.create_run(
            self.experiment, run_name=spec.name, tags={"tune_cure.folder": str(self.directory)}
        )
        replace_text(self.directory / run_files.MLFLOW_RUN, f"{run.info.run_id}\n")
        return str(run.info.run_id)

    def _find_trials(self) -> Iterator[Run]:
        token = None
        while True:
            query = f"tags.`{PARENT}` = '{self.parent}'"
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _take_up(self, run: Run, last: dict[int, int]) -> None:
        """Go on with a trial's run, or forget it if the trial has begun anew since."""
        number, run_id, status = int(run.data.tags[TRIAL]), run.info.run_id, run.info.status
        epoch = int(run.data.metrics.get("epoch", 0))
        if epoch > last.get(number, 0):
            self.client.delete_run(run_id)
            return
        self.runs[number], self.epochs[number] = run_id, epoch
        if status in ("RUNNING", UNFINISHED):
            self.unfinished.add(number)
            self.client.update_run(run_id, status="RUNNING")

    def _begin_trial(self, event: Event) -> None:
        number = event["trial"]
        tags = {PARENT: self.parent, TRIAL: str(number), "origin": event["origin"]}
        start = _milliseconds(event)
        run = self.client.create_run(self.experiment, start_time=start, run_name=f"trial {number}", tags=tags)
        self.runs[number], self.epochs[number] = run.info.run_id, 0
        self.unfinished.add(number)
        params = [Param(key, str(value)) for key, value in event["hyperparameters"].items()]
        self.client.log_batch(run.info.run_id, params=params)

    def _send_metrics(self, number: int, event: Event, step: int) -> None:
        metrics = [Metric(name, value, _milliseconds(event), step) for name, value in numbers_of(event).items()]
        self.client.log_batch(self.runs[number], metrics=metrics)

    def _end_trial(self, event: Event) -> None:
        run_id = self.runs[event["trial"]]
        tags = [RunTag("status", event["status"]), RunTag("reason", event["reason"])]
        self.client.log_batch(run_id, tags=tags)
        status = STATUSES.get(event["status"], "FAILED")
        self.client.set_terminated(run_id, status, end_time=_milliseconds(event))
        self.unfinished.discard(event["trial"])


def _foreign(place: str) -> TuneCureError:
    return TuneCureError(f"{run_files.MLFLOW_STORE} keeps its files in {place}, not in the run's folder")


def _milliseconds(event: Event) -> int:
    return int(1000 * event["time"])
