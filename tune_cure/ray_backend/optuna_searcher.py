"""The Optuna study of a search under Ray Tune: who proposes hyperparameters, and what it is told of the outcome."""

import logging
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from sqlalchemy.event import listen

from tune_cure.search import run_files, samplers, warm_start
from tune_cure.search.journal import OBJECTIVE, Event, Journal, end_reason
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.space.objectives import reached
from tune_cure.search.stopping import SearchStopper
from tune_cure.utils.files import FolderError, read_tensors

WARM_START = "warm_start"  # the origin, in the study, of trials of earlier searches
UNTRAINED_CONSTRAINT = (
    "untrained"  # the constraint by which a study of several objectives knows trials that ended early
)
_logger = logging.getLogger(__name__)
_STATES = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}  # every other end: pruned


def to_optuna_distribution(of: Distribution) -> BaseDistribution:
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


def suggest(trial: optuna.trial.Trial, key: str, of: Distribution) -> Any:
    """A value of a searched hyperparameter for `trial`."""
    match to_optuna_distribution(of):
        case CategoricalDistribution() as found:
            return trial.suggest_categorical(key, found.choices)
        case IntDistribution() as found:
            return trial.suggest_int(key, found.low, found.high, step=found.step)
        case FloatDistribution() as found:
            return trial.suggest_float(key, found.low, found.high, log=found.log, step=found.step)
    raise AssertionError(of)


def _storage(path: Path) -> RDBStorage:
    """The study's database, which waits for the disk at no step: what a power cut takes is rebuilt from the journal."""
    storage = RDBStorage(warm_start.sqlite_url(path))

    def do_not_wait(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    listen(storage.engine, "connect", do_not_wait)
    storage.engine.dispose()  # the connections from before
    return storage


class OptunaSearcher(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over the study in the run's folder, told the truth about trials that did not run to their end.

    OptunaSearch reports a trial that the scheduler stopped as complete with its latest value, which would let a lucky
    start outrank a finished trial. Here such a trial is pruned at its last epoch, as is one that diverged or overfitted
    catastrophically. A trial keeps its number in the study over interruptions of the search.

    Args:
        spec: What to search.
        journal: Where the proposals are recorded.
        history: The journal so far; empty for a new search.
        endings: Says when no more are to be proposed.
        storage: Where the study is kept; by default study.db beside the journal.
        store: The URI that checkpoints are relative to, if they are not in the run's folder.
    """

    def __init__(
        self,
        spec: SearchSpec,
        journal: Journal,
        history: list[Event],
        endings: SearchStopper,
        storage: BaseStorage | None = None,
        store: str | None = None,
    ) -> None:
        self.journal = journal
        self.endings = endings
        self.store = store
        self.spec = spec
        self.metrics, self.constraints = spec.search.metrics, spec.search.parsed_constraints
        self.several = len(self.metrics) > 1
        self.unfinished: list[dict[str, Any]] = []
        proposed = [event for event in history if event["event"] == "trial"]
        self._proposed = {event["trial"] for event in proposed}
        self.reported: dict[int, int] = {}  # trial of the study -> the last epoch that it has of it
        # Trials that are known from elsewhere come first in the study and have no numbers in this search.
        known = warm_start.read_prior_trials(spec)[0] if spec.search.warm_start else []
        self.known = len(known)
        drawn = self.known + len(proposed)  # an earlier search with the same seed has drawn the same before
        super().__init__(
            {key: to_optuna_distribution(of) for key, of in spec.space.items()},
            metric=self.metrics if self.several else OBJECTIVE,
            mode=[spec.search.mode] * len(self.metrics) if self.several else spec.search.mode,
            sampler=samplers.make(spec.search.sampler, spec.search.seed, drawn),
            study_name=spec.name,
            storage=storage or self._new_storage(),
        )
        for trial in known:
            self._learn(trial)
        self._rebuild(history)
        begun = sum(event["origin"] == "start_from" for event in proposed)
        for start in spec.start_from[begun:]:
            self._ot_study.enqueue_trial(start, user_attrs={"origin": "start_from"})

    def _new_storage(self) -> BaseStorage:
        """An empty database: one that an interruption left behind may be ahead of the journal, or damaged."""
        folder = self.journal.path.parent
        for leftover in folder.glob(f"{run_files.STUDY}*"):  # with SQLite's own journal
            leftover.unlink()
        return _storage(folder / run_files.STUDY)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration: first of the trials that an interruption left unfinished, then of the study."""
        if self.unfinished:
            config = self.unfinished.pop(0)
            stored = self._ot_study.get_trials(deepcopy=False)[self.known + config["trial"]]
            self._ot_trials[trial_id] = optuna.trial.Trial(self._ot_study, stored._trial_id)
            return config
        if len(self._proposed) >= self.spec.search.trials or self.endings.exhausted:
            return str(Searcher.FINISHED)
        trial = self._ot_trials[trial_id] = self._ot_study.ask()
        # One by one: which of the later ones make a difference depends on the values of the first.
        hyperparameters = self.spec.propose(lambda key: suggest(trial, key, self.spec.space[key]))
        number = trial.number - self.known
        self._record(number, trial.user_attrs.get("origin", "sampler"), hyperparameters)
        return {**hyperparameters, "trial": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how a trial ended."""
        if result and not error:
            self.on_trial_result(trial_id, result)
            self._tell(self._ot_trials[trial_id], result["ended"] or "stopped", result)
        else:
            self._tell(self._ot_trials[trial_id], "failed", {})
        self._completed_trials.add(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records the objective of one epoch; a trial that has gone back to its checkpoint repeats none."""
        if self.several:  # a study of several objectives takes no values but the last
            return
        trial, epoch = self._ot_trials[trial_id], result["training_iteration"]
        if epoch > self.reported.get(trial.number, 0):
            trial.report(result[OBJECTIVE], epoch)
            self.reported[trial.number] = epoch

    def save_to_dir(self, checkpoint_dir: str, session_str: str) -> None:
        """Writes nothing: the journal and the study are on disk already, and Ray's snapshots are never read."""

    def _record(self, number: int, origin: str, hyperparameters: dict[str, Any]) -> None:
        self._proposed.add(number)
        self.journal.append("trial", number, origin=origin, hyperparameters=hyperparameters)

    def _tell(self, trial: optuna.trial.Trial, status: str, result: dict[str, Any]) -> None:
        state, values = self._outcome(status, result)
        if state != TrialState.FAIL:
            for name, violation in self._violations(status, result).items():
                trial.set_constraint(name, violation)
        self._ot_study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)

    def _outcome(self, status: str, result: dict[str, Any]) -> tuple[TrialState, list[Any]]:
        """How a trial counts in the study, and with which values."""
        state = _STATES.get(status, TrialState.PRUNED)
        values = [result.get(name) for name in (self.metrics if self.several else [OBJECTIVE])]
        if self.several and state == TrialState.PRUNED:  # a study of several objectives has no pruned trials
            state = TrialState.COMPLETE
        if state == TrialState.COMPLETE and None in values:
            state = TrialState.FAIL
        return state, values

    def _violations(self, status: str, result: dict[str, Any]) -> dict[str, float]:
        violations = {str(constraint): constraint.violation(result) for constraint in self.constraints}
        if self.several:
            # What ranks a trial behind all those that ran to their end, and the earlier it ended the further.
            lacking = 0 if status == "completed" else self.spec.max_epochs + 1 - result["training_iteration"]
            violations[UNTRAINED_CONSTRAINT] = lacking / self.spec.max_epochs
        return violations

    def _learn(self, known: warm_start.PriorTrial) -> None:
        """Adds a trial of an earlier search to the study."""
        objective = known.metrics[self.metrics[0]]
        result = {**known.metrics, OBJECTIVE: objective, "training_iteration": known.epochs}
        self._add(known.hyperparameters, WARM_START, known.status, result, {known.epochs: objective})

    def _add(
        self,
        hyperparameters: dict[str, Any],
        origin: str,
        status: str,
        result: dict[str, Any],
        objectives: dict[int, float],
    ) -> None:
        """Adds a trial that has ended, or with an empty status one that has not, as if the study had seen it live."""
        state, values = self._outcome(status, result) if status else (TrialState.RUNNING, [])
        has_values = state in (TrialState.COMPLETE, TrialState.PRUNED) and None not in values
        trial = optuna.trial.create_trial(
            state=state,
            values=values if has_values else None,
            params=hyperparameters,
            distributions={key: to_optuna_distribution(self.spec.space[key]) for key in hyperparameters},
            intermediate_values={} if self.several else objectives,
            user_attrs={"origin": origin},
        )
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            for name, violation in self._violations(status, result).items():
                trial.set_constraint(name, violation)
        self._ot_study.add_trial(trial)

    def _rebuild(self, history: list[Event]) -> None:
        """Makes the study anew from the journal, and finds the trials to continue.

        A trial that had ended but for the journal's line is ended now; `history`, too, gets that line.
        """
        by_trial: dict[int, list[Event]] = {}
        for event in history:
            by_trial.setdefault(event["trial"], []).append(event)
        for number, events in sorted(by_trial.items()):
            curve = {event["epoch"]: event for event in events if event["event"] == "epoch"}
            last = curve[max(curve)] if curve else {}
            end = next((event for event in events if event["event"] == "end"), None)
            if end is None and last.get("ended"):
                reason = end_reason(last["ended"], max(curve))
                end = self.journal.append("end", number, status=last["ended"], reason=reason)
                history.append(end)
                self.endings.take(end)
            status = end["status"] if end else ""
            judged = [event for event in curve.values() if event["pgd_accuracy"] is not None]
            best = max(judged, key=lambda event: event["pgd_accuracy"], default={})
            result = {**reached(last, best), OBJECTIVE: last.get(OBJECTIVE), "training_iteration": last.get("epoch")}
            objectives = {epoch: event[OBJECTIVE] for epoch, event in curve.items()}
            hyperparameters = events[0]["hyperparameters"]
            self._add(hyperparameters, events[0]["origin"], status, result, objectives)
            if not status:
                self.reported[self.known + number] = max(objectives, default=0)
                self.unfinished.append({**hyperparameters, "trial": number, **self._checkpoint(events)})

    def _checkpoint(self, events: list[Event]) -> dict[str, str]:
        """The newest checkpoint of a trial that can be read; nothing if there is none, and the trial starts anew."""
        for event in reversed(events):
            if event["event"] == "checkpoint":
                file = self.journal.checkpoint_file(event["path"])
                if self.store:  # which never shows half of a file
                    base, mark, query = self.store.partition("?")  # s3://bucket/run?region=…
                    return {"checkpoint": f"{base}/{event['path']}{mark}{query}"}
                if not file.exists():  # an older one, whose place a newer has taken
                    continue
                try:
                    read_tensors(file, torch.device("cpu"))
                except FolderError as error:
                    _logger.warning("trial %d cannot go on from its last epoch: %s", event["trial"], error)
                else:
                    return {"checkpoint": str(file.parent)}
        return {}
