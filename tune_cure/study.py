"""The Optuna study of a search under Ray Tune: who proposes hyperparameters, and what it is told of the outcome."""

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tune_cure import samplers, warm_start
from tune_cure.journal import OBJECTIVE, Event, Journal
from tune_cure.spec import Distribution, SearchSpec

FILE = "study.db"
KNOWN = "warm_start"  # the origin, in the study, of trials of earlier searches
UNTRAINED = "untrained"  # the constraint by which a study of several objectives knows trials that ended early
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


def _is_known(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.user_attrs.get("origin") == KNOWN


def suggest(trial: optuna.trial.Trial, key: str, of: Distribution) -> Any:
    """A value of a searched hyperparameter for `trial`."""
    match distribution(of):
        case CategoricalDistribution() as found:
            return trial.suggest_categorical(key, found.choices)
        case IntDistribution() as found:
            return trial.suggest_int(key, found.low, found.high, step=found.step)
        case FloatDistribution() as found:
            return trial.suggest_float(key, found.low, found.high, log=found.log, step=found.step)
    raise AssertionError(of)


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over the study in the run's folder, told the truth about trials that did not run to their end.

    OptunaSearch reports a trial that the scheduler stopped as complete with its latest value, which would let a lucky
    start outrank a finished trial. Here such a trial is pruned at its last epoch, as is one that diverged or overfitted
    catastrophically. A trial keeps its number in the study over interruptions of the search.

    Args:
        spec: What to search.
        journal: Where the proposals are recorded.
        history: The journal so far; empty for a new search.
        storage: Where the study is kept; by default study.db beside the journal.
    """

    def __init__(
        self, spec: SearchSpec, journal: Journal, history: list[Event], storage: BaseStorage | None = None
    ) -> None:
        self.journal = journal
        self.spec = spec
        self.metrics, self.constraints = spec.search.metrics, spec.search.parsed_constraints
        self.several = len(self.metrics) > 1
        self.unfinished: list[dict[str, Any]] = []
        proposed = {event["trial"] for event in history if event["event"] == "trial"}
        super().__init__(
            {key: distribution(of) for key, of in spec.space.items()},
            metric=self.metrics if self.several else OBJECTIVE,
            mode=[spec.search.mode] * len(self.metrics) if self.several else spec.search.mode,
            sampler=samplers.make(spec.search.sampler, spec.search.seed, len(proposed)),
            study_name=spec.name,
            storage=storage or optuna.storages.RDBStorage(f"sqlite:///{journal.path.parent / FILE}"),
        )
        if not self._ot_study.get_trials(deepcopy=False):
            if spec.search.warm_start:
                for known in warm_start.read(spec)[0]:
                    self._learn(known)
            for start in spec.start_from:
                self._ot_study.enqueue_trial(start, user_attrs={"origin": "start_from"})
        # Trials that are known from elsewhere come first in the study and have no numbers in this search.
        self.known = sum(map(_is_known, self._ot_study.get_trials(deepcopy=False)))
        self._reconcile(history)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration: first of the trials that an interruption left unfinished, then of the study."""
        if self.unfinished:
            config = self.unfinished.pop(0)
            stored = self._ot_study.get_trials(deepcopy=False)[self.known + config["trial"]]
            self._ot_trials[trial_id] = optuna.trial.Trial(self._ot_study, stored._trial_id)
            return config
        if len(self._proposed) >= self.spec.search.trials:
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
        """Records the objective of one epoch, unless an interrupted run recorded it before."""
        if self.several:  # a study of several objectives takes no values but the last
            return
        trial = self._ot_trials[trial_id]
        stored = self._ot_study.get_trials(deepcopy=False)[trial.number]
        if result["training_iteration"] not in stored.intermediate_values:
            trial.report(result[OBJECTIVE], result["training_iteration"])

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
            state = TrialState.COMPLETE if None not in values else TrialState.FAIL
        return state, values

    def _violations(self, status: str, result: dict[str, Any]) -> dict[str, float]:
        violations = {str(constraint): constraint.violation(result) for constraint in self.constraints}
        if self.several:
            # What ranks a trial behind all those that ran to their end, and the earlier it ended the further.
            lacking = 0 if status == "completed" else self.spec.max_epochs + 1 - result["training_iteration"]
            violations[UNTRAINED] = lacking / self.spec.max_epochs
        return violations

    def _learn(self, known: warm_start.Known) -> None:
        """Adds a trial of an earlier search to the study."""
        objective = known.metrics[self.metrics[0]]
        result = {**known.metrics, OBJECTIVE: objective, "training_iteration": known.epochs}
        state, values = self._outcome(known.status, result)
        trial = optuna.trial.create_trial(
            state=state,
            values=values,
            params=known.hyperparameters,
            distributions={key: distribution(self.spec.space[key]) for key in known.hyperparameters},
            intermediate_values={} if self.several else {known.epochs: objective},
            user_attrs={"origin": KNOWN},
        )
        for name, violation in self._violations(known.status, result).items():
            trial.set_constraint(name, violation)
        self._ot_study.add_trial(trial)

    def _reconcile(self, history: list[Event]) -> None:
        """Brings journal and study into line after an interruption, and finds the trials to continue.

        The study hears of proposals and ends a moment before the journal: what the journal lacks is added to it.
        """
        self._proposed = {event["trial"] for event in history if event["event"] == "trial"}
        ended = {event["trial"] for event in history if event["event"] == "end"}
        last = {event["trial"]: event for event in history if event["event"] == "epoch"}
        checkpoints = {event["trial"]: event["path"] for event in history if event["event"] == "checkpoint"}
        for stored in self._ot_study.get_trials(deepcopy=False):
            number = stored.number - self.known
            if stored.state == TrialState.WAITING or _is_known(stored):
                continue
            if number not in self._proposed:
                self._record(number, stored.user_attrs.get("origin", "sampler"), stored.params)
            if stored.state == TrialState.RUNNING:
                config = {**stored.params, "trial": number}
                if number in checkpoints:
                    config["checkpoint"] = str(self._absolute(checkpoints[number]))
                self.unfinished.append(config)
            elif number not in ended:
                status = "failed" if stored.state == TrialState.FAIL else last[number]["ended"]
                self.journal.append("end", number, status=status, reason="")

    def _absolute(self, path: str) -> Path:
        return (self.journal.path.parent / path).resolve()
