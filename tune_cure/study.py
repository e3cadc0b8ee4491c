"""The Optuna study of a search under Ray Tune: who proposes hyperparameters, and what it is told of the outcome."""

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from sqlalchemy.event import listen

from tune_cure.journal import OBJECTIVE, Event, Journal
from tune_cure.samplers import SAMPLERS
from tune_cure.spec import Distribution, SearchSpec

FILE = "study.db"
_STATES = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}  # every other end: pruned


def distribution(of: Distribution) -> BaseDistribution:
    """The Optuna distribution of a searched hyperparameter."""
    match of.kind:
        case "choice":
            return CategoricalDistribution(of.values)
        case "int":
            low, high = of.values
            return IntDistribution(low, high, step=int(of.step or 1))
        case kind:
            low, high = of.values
            return FloatDistribution(low, high, log=kind == "loguniform", step=of.step)


def _storage(path: Path) -> RDBStorage:
    """The study's database, which waits for the disk at no step: a killed process loses nothing by that."""
    storage = RDBStorage(f"sqlite:///{path}")

    def do_not_wait(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    listen(storage.engine, "connect", do_not_wait)
    storage.engine.dispose()  # the connections from before
    return storage


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over the study in the run's folder, told the truth about trials that did not run to their end.

    OptunaSearch reports a trial that the scheduler stopped as complete with its latest value, which would let a lucky
    start outrank a finished trial. Here such a trial is pruned at its last epoch, as is one that diverged or overfitted
    catastrophically. A trial keeps its number in the study over interruptions of the search.

    Args:
        spec: What to search.
        journal: Where the proposals are recorded.
        history: The journal so far; empty for a new search.
        folder: The run's, or the URI, that checkpoints are relative to.
    """

    def __init__(self, spec: SearchSpec, journal: Journal, history: list[Event], folder: Path | str) -> None:
        self.journal, self.folder = journal, folder
        self.trials = spec.search.trials
        self.unfinished: list[dict[str, Any]] = []
        self.reported: dict[int, int] = {}  # trial -> the last epoch that the study has of it
        storage = _storage(journal.path.parent / FILE)
        proposed = {event["trial"] for event in history if event["event"] == "trial"}
        super().__init__(
            {key: distribution(of) for key, of in spec.space.items()},
            metric=OBJECTIVE,
            mode=spec.search.mode,
            # A sampler that starts again must not repeat the draws that the study has already.
            sampler=SAMPLERS[spec.search.sampler](spec.search.seed + len(proposed)),
            study_name=spec.name,
            storage=storage,
        )
        if not self._ot_study.get_trials(deepcopy=False):
            for start in spec.start_from:
                self._ot_study.enqueue_trial(start, user_attrs={"origin": "start_from"})
        self._reconcile(history)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration: first of the trials that an interruption left unfinished, then of the study."""
        if self.unfinished:
            config = self.unfinished.pop(0)
            stored = self._ot_study.get_trials(deepcopy=False)[config["trial"]]
            self._ot_trials[trial_id] = optuna.trial.Trial(self._ot_study, stored._trial_id)
            return config
        if len(self._proposed) >= self.trials:
            return str(Searcher.FINISHED)
        hyperparameters = super().suggest(trial_id)
        trial = self._ot_trials[trial_id]
        self._record(trial.number, trial.user_attrs.get("origin", "sampler"), hyperparameters)
        return {**hyperparameters, "trial": trial.number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how a trial ended."""
        if result and not error:
            self.on_trial_result(trial_id, result)
            self._tell(self._ot_trials[trial_id], result["ended"] or "stopped", result[OBJECTIVE])
        else:
            self._tell(self._ot_trials[trial_id], "failed", None)
        self._completed_trials.add(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records the objective of one epoch; a trial that has gone back to its checkpoint repeats none."""
        trial, epoch = self._ot_trials[trial_id], result["training_iteration"]
        if epoch > self.reported.get(trial.number, 0):
            trial.report(result[OBJECTIVE], epoch)
            self.reported[trial.number] = epoch

    def save_to_dir(self, checkpoint_dir: str, session_str: str) -> None:
        """Writes nothing: the journal and the study are on disk already, and Ray's snapshots are never read."""

    def _record(self, number: int, origin: str, hyperparameters: dict[str, Any]) -> None:
        self._proposed.add(number)
        self.journal.append("trial", number, origin=origin, hyperparameters=hyperparameters)

    def _tell(self, trial: optuna.trial.Trial, status: str, value: float | None) -> None:
        state = _STATES.get(status, TrialState.PRUNED)
        self._ot_study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    def _reconcile(self, history: list[Event]) -> None:
        """Brings journal and study into line after an interruption, and finds the trials to continue.

        The study hears of proposals and ends a moment before the journal: what the journal lacks is added to it.
        """
        self._proposed = {event["trial"] for event in history if event["event"] == "trial"}
        ended = {event["trial"] for event in history if event["event"] == "end"}
        last = {event["trial"]: event for event in history if event["event"] == "epoch"}
        checkpoints = {event["trial"]: event["path"] for event in history if event["event"] == "checkpoint"}
        for stored in self._ot_study.get_trials(deepcopy=False):
            number = stored.number
            if stored.state == TrialState.WAITING:
                continue
            if number not in self._proposed:
                self._record(number, stored.user_attrs.get("origin", "sampler"), stored.params)
            if stored.state == TrialState.RUNNING:
                self.reported[number] = max(stored.intermediate_values, default=0)
                config = {**stored.params, "trial": number}
                if number in checkpoints:
                    config["checkpoint"] = self._absolute(checkpoints[number])
                self.unfinished.append(config)
            elif number not in ended:
                status = "failed" if stored.state == TrialState.FAIL else last[number]["ended"]
                self.journal.append("end", number, status=status, reason="")

    def _absolute(self, path: str) -> str:
        if isinstance(self.folder, Path):
            return str((self.folder / path).resolve())
        base, mark, query = self.folder.partition("?")  # s3://bucket/run?region=…
        return f"{base}/{path}{mark}{query}"
